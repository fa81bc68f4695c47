//! [`Blocks`]: the nodes' memory, and which of it is free.
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use super::lookup::Lookup;
use super::node::{Draft, LONGEST, Map};
use crate::prefix::Prefix;

/// One more than the longest block's length, in words.
const CLASSES: usize = LONGEST + 1;

/// No block: the end of a list of free ones.
const NONE: u32 = u32::MAX;

/// What must not be used again while a reader may still look at it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Retired {
    Block {
        start: u32,
        class: u16,
    },
    Slot(u32),
    /// What stood here went with the memory that it was in.
    Nothing,
}

/// The memory of a table's nodes.
#[derive(Debug)]
pub(super) struct Blocks<P: Prefix> {
    pub(super) lookup: Arc<Lookup<P>>,
    /// Where the words that were never used begin.
    end: usize,
    /// For each class, that is length, the first free block; its first word says which is the next. As far as one was ever free.
    free: Vec<u32>,
    free_words: usize,
    /// Room for those who change nodes, kept so that they need not allocate.
    pub(super) scratch: Vec<u32>,
    draft: Draft,
    /// Where other threads read: what was taken out of use, in that order.
    retired: Option<VecDeque<Retired>>,
    /// How much had been retired when the first of those was.
    reclaimed: u64,
}

impl<P: Prefix> Blocks<P> {
    /// The words of `lookup` before `end` are in use.
    pub(super) fn new(lookup: Lookup<P>, end: usize) -> Self {
        Self {
            lookup: Arc::new(lookup),
            end,
            free: Vec::new(),
            free_words: 0,
            scratch: Vec::new(),
            draft: Draft::default(),
            retired: None,
            reclaimed: 0,
        }
    }

    /// A copy that nobody else reads.
    pub(super) fn copy(&self) -> Self {
        Self {
            lookup: Arc::new(self.lookup.copy(0)),
            end: self.end,
            free: self.free.clone(),
            free_words: self.free_words,
            scratch: Vec::new(),
            draft: Draft::default(),
            retired: None,
            reclaimed: 0,
        }
    }

    /// Takes other memory, in which words before `end` are in use.
    pub(super) fn replace(&mut self, lookup: Lookup<P>, end: usize) {
        let mut fresh = Self::new(lookup, end);
        fresh.reclaimed = self.reclaimed;
        fresh.retired = self.retired.take().map(|mut retired| {
            for one in &mut retired {
                if matches!(one, Retired::Block { .. }) {
                    *one = Retired::Nothing;
                }
            }
            retired
        });
        *self = fresh;
    }

    /// Whether the memory is nearly used up while a good part of it is free, in pieces.
    pub(super) fn is_scattered(&self) -> bool {
        let room = self.lookup.capacity() - self.end;
        room < LONGEST && self.free_words > 1024 && self.free_words * 4 > self.end
    }

    /// A new node with these runs. Slots from `base` on take the least room.
    pub(super) fn node(&mut self, map: &Map, runs: &[u32], base: u32) -> u32 {
        let mut draft = mem::take(&mut self.draft);
        let words = draft.words(map, runs, base);
        let start = self.allocate(words.count());
        let mut at = start..;
        let node = words.write(start, |word| {
            if let Some(at) = at.next() {
                self.lookup.set_word(at, word);
            }
        });
        self.draft = draft;
        node
    }

    /// Takes the node out of use, which nothing leads to any more.
    pub(super) fn retire(&mut self, node: u32) {
        let block = self.lookup.nodes().block(node);
        let (start, class) = (as_word(block.start), block.len());
        match &mut self.retired {
            Some(retired) => retired.push_back(Retired::Block {
                start,
                class: u16::try_from(class).expect("at most CLASSES"),
            }),
            None => self.put(start, class),
        }
    }

    /// Whether the slot must wait before it is used again; then it is kept here.
    pub(super) fn retire_slot(&mut self, slot: u32) -> bool {
        self.retired
            .as_mut()
            .map(|retired| retired.push_back(Retired::Slot(slot)))
            .is_some()
    }

    /// Whether what is taken out of use waits before it is used again.
    pub(super) const fn is_shared(&self) -> bool {
        self.retired.is_some()
    }

    /// From now on, what is taken out of use waits for [`reclaim`](Self::reclaim).
    pub(super) fn keep_retired(&mut self) {
        self.retired.get_or_insert_default();
    }

    /// How much was ever retired.
    pub(super) fn retired(&self) -> u64 {
        self.reclaimed + self.retired.as_ref().map_or(0, VecDeque::len) as u64
    }

    /// Frees what had been retired when [`retired`](Self::retired) was `mark`; gives the slots to `slots`.
    pub(super) fn reclaim(&mut self, mark: u64, mut slots: impl FnMut(u32)) {
        while self.reclaimed < mark {
            let Some(one) = self.retired.as_mut().and_then(VecDeque::pop_front) else {
                return;
            };
            self.reclaimed += 1;
            match one {
                Retired::Block { start, class } => self.put(start, usize::from(class)),
                Retired::Slot(slot) => slots(slot),
                Retired::Nothing => {}
            }
        }
    }

    fn put(&mut self, start: u32, class: usize) {
        if self.free.len() <= class {
            self.free.resize(class + 1, NONE);
        }
        self.lookup.set_word(start as usize, self.free[class]);
        self.free[class] = start;
        self.free_words += class;
    }

    /// The first word of a block of `class` words.
    fn allocate(&mut self, class: usize) -> usize {
        if let Some(start) = self.pop(class) {
            return start;
        }
        if self.end + class > self.lookup.capacity() {
            // A part of the smallest larger block that is free.
            if let Some((larger, start)) =
                (class + 1..CLASSES).find_map(|larger| self.pop(larger).map(|start| (larger, start)))
            {
                self.put(as_word(start + class), larger - class);
                return start;
            }
            self.grow();
        }
        let start = self.end;
        self.end += class;
        start
    }

    fn pop(&mut self, class: usize) -> Option<usize> {
        let start = *self.free.get(class).filter(|&&start| start != NONE)?;
        self.free[class] = self.lookup.word(start as usize);
        self.free_words -= class;
        Some(start as usize)
    }

    /// Moves to more memory, where everything keeps its place. Readers of the old one find there what was true until now.
    fn grow(&mut self) {
        let capacity = self.lookup.capacity();
        let more = (capacity / 8).max(CLASSES);
        self.lookup = Arc::new(self.lookup.copy(capacity + more));
    }

    /// Words in free blocks, and all words.
    #[cfg(test)]
    pub(super) fn free_and_all(&self) -> (usize, usize) {
        (self.free_words, self.end)
    }
}

fn as_word(start: usize) -> u32 {
    u32::try_from(start).expect("a node's words are at places of at most 30 bits")
}

//! How a change of one prefix changes the nodes: the part of each node's runs that lies in the prefix is painted anew.
//!
//! An insertion paints what finds a shorter prefix or none with the new slot; a removal paints the removed slot with that of
//! the prefix above. Where a node keeps its runs and has room for their words, these are stored in place, one by one. Where not,
//! a new node takes over the runs before and behind, and the word that led to the old one then leads to it. So each address
//! finds the old slot until one store, and the new one from then on.
use alloc::vec::Vec;
use core::mem;
use core::sync::atomic::Ordering;

use super::blocks::Blocks;
use super::entries::Entries;
use super::lookup::{BitsOf, NO_SLOT};
use super::node::{Map, NODE};
use crate::address::{Address, Bits};
use crate::prefix::Prefix;

/// What a change does to the words of its prefix.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Insert,
    Remove,
}

/// One change.
pub(super) struct Painter<'a, P: Prefix, T> {
    blocks: &'a mut Blocks<P>,
    entries: &'a mut Entries<P, T>,
    change: Change,
    /// The slot that comes or goes, and the one that covers it.
    slot: u32,
    above: u32,
    bits: BitsOf<P>,
    len: u8,
    /// Runs of the nodes that are being painted, the outer ones' first.
    painted: Vec<u32>,
}

impl<'a, P: Prefix, T> Painter<'a, P, T> {
    pub(super) fn new(
        blocks: &'a mut Blocks<P>,
        entries: &'a mut Entries<P, T>,
        change: Change,
        (prefix, slot): (P, u32),
    ) -> Self {
        let above = entries.parent(slot);
        let painted = mem::take(&mut blocks.scratch);
        Self {
            blocks,
            entries,
            change,
            slot,
            above,
            bits: prefix.address().bits(),
            len: prefix.len(),
            painted,
        }
    }

    /// Changes every word of the prefix, which lies in the lookup's window or holds every address.
    pub(super) fn run(mut self) {
        let shape = *self.blocks.lookup.shape();
        if self.len == 0 {
            let outside = self.blocks.lookup.outside().load(Ordering::Relaxed);
            let painted = self.all(outside);
            self.blocks.lookup.outside().store(painted, Ordering::Release);
        }
        let (first, count) = if self.len == 0 {
            (0, 1 << shape.root_bits())
        } else if self.len <= shape.depth {
            (shape.root_index(self.bits), 1 << (shape.depth - self.len))
        } else {
            (shape.root_index(self.bits), 1)
        };
        let mut last = None;
        for index in first..first + count {
            let word = self.blocks.lookup.root()[index].load(Ordering::Relaxed);
            let painted = match last {
                Some((before, painted)) if before == word => painted,
                _ if self.len <= shape.depth => self.all(word),
                _ => self.part(word, shape.depth),
            };
            // Only slots come twice.
            last = Some((word, painted));
            if painted != word {
                self.blocks.lookup.root()[index].store(painted, Ordering::Release);
                if word & NODE != 0 {
                    self.blocks.retire(word);
                }
            }
        }
        self.blocks.scratch = self.painted;
    }

    /// What becomes of `word`, all of whose addresses lie in the prefix.
    fn all(&mut self, word: u32) -> u32 {
        if word & NODE == 0 {
            self.slot(word)
        } else {
            self.splice(word, 0, 255, None)
        }
    }

    /// What becomes of `word`, whose addresses share their first `depth` bits with the prefix, which is longer.
    fn part(&mut self, word: u32, depth: u8) -> u32 {
        let index = usize::from(self.bits.byte(depth / 8));
        let end = depth + 8;
        if self.len <= end {
            self.splice(word, index, index + (1 << (end - self.len)) - 1, None)
        } else {
            self.splice(word, index, index, Some(end))
        }
    }

    /// What becomes of the node `word`, or of a slot where a node is needed, when its places from `lo` to `hi` are painted: all
    /// of their addresses, or those that lie in the prefix below `depth`. The caller retires the node if another comes of it.
    fn splice(&mut self, word: u32, lo: usize, hi: usize, depth: Option<u8>) -> u32 {
        let is_node = word & NODE != 0;
        let old = if is_node {
            self.blocks.lookup.nodes().map(word)
        } else {
            Map::ONE
        };
        let value = |blocks: &Blocks<P>, run: usize| match is_node {
            true => blocks.lookup.nodes().run(word, run),
            false => word,
        };
        let mark = self.painted.len();
        let keep_before = old.before(lo);
        let mut map = old;
        map.clear(lo, (hi + 1).min(255));
        let mut last = keep_before.checked_sub(1).map(|run| value(self.blocks, run));
        // A run that is kept only up to `lo` is counted: its value stays.
        let mut run = old.before(lo + 1) - 1;
        let mut replaced = Vec::new();
        let mut at = lo;
        let unpainted = loop {
            let before = value(self.blocks, run);
            let painted = match depth {
                Some(depth) => self.part(before, depth),
                None => self.all(before),
            };
            if painted != before && before & NODE != 0 {
                replaced.push(before);
            }
            self.push(&mut map, at, painted, &mut last);
            match old.next(at + 1).filter(|&next| next <= hi) {
                Some(next) => (at, run) = (next, run + 1),
                None => break before,
            }
        };
        if hi < 255 {
            let next = if old.has(hi + 1) {
                run += 1;
                value(self.blocks, run)
            } else {
                unpainted
            };
            self.push(&mut map, hi + 1, next, &mut last);
        }
        let middle = mark..self.painted.len();
        let result = if is_node && map == old && self.store(word, keep_before, &self.painted[middle.clone()])
        {
            word
        } else {
            self.painted
                .extend((0..keep_before).map(|run| value(self.blocks, run)));
            self.painted.extend_from_within(middle.clone());
            let behind = map.count() - keep_before - middle.len();
            self.painted
                .extend((run + 1..run + 1 + behind).map(|run| value(self.blocks, run)));
            match self.painted[middle.end..] {
                [one] => one,
                ref runs => {
                    let base = is_node.then(|| self.blocks.lookup.nodes().base(word));
                    self.blocks.node(&map, runs, base.unwrap_or(self.slot))
                }
            }
        };
        self.painted.truncate(mark);
        for node in replaced {
            self.blocks.retire(node);
        }
        result
    }

    /// Stores what has changed of the node's runs from `first` on in place; false if that can't be done for all.
    fn store(&self, node: u32, first: usize, runs: &[u32]) -> bool {
        let nodes = self.blocks.lookup.nodes();
        (first..)
            .zip(runs)
            .all(|(run, &word)| nodes.run(node, run) == word || nodes.set_run(node, run, word))
    }

    fn push(&mut self, map: &mut Map, at: usize, word: u32, last: &mut Option<u32>) {
        if *last != Some(word) {
            map.set(at);
            self.painted.push(word);
            *last = Some(word);
        }
    }

    /// What addresses find that found `word`. What lies below the prefix learns what covers it now.
    fn slot(&mut self, word: u32) -> u32 {
        match self.change {
            Change::Insert => {
                if word == self.slot || self.entries.prefix_len(word).is_none_or(|len| len < self.len) {
                    return self.slot;
                }
                self.adopt(word, self.above, self.slot);
                word
            }
            Change::Remove => {
                if word == self.slot {
                    return self.above;
                }
                self.adopt(word, self.slot, self.above);
                word
            }
        }
    }

    /// What lies directly below `from` on the way up from `slot` comes to lie below `to`.
    fn adopt(&mut self, mut slot: u32, from: u32, to: u32) {
        while slot != NO_SLOT {
            let parent = self.entries.parent(slot);
            if parent == from {
                self.entries.set_parent(slot, to);
                return;
            }
            if parent == to {
                return;
            }
            slot = parent;
        }
    }
}

//! Nodes, as words: how the runs of 256 places are written down.
//!
//! | words | what |
//! |---|---|
//! | 0 to 192 | the words of runs that no offset stands for, the first one last: byte 255 stands for it, 254 for the next |
//! | 8 | the [`Map`] of where runs start |
//! | 1 | in its first byte ([`FARS`]): how many words come before the map; in the others: how many runs start before the second, third, fourth quarter |
//! | 1 | the base: the slot that offsets are counted from |
//! | a fourth of the number of runs | each run's byte, the first in the lowest place |
//!
//! Slots that lie in the prefixes' order, as a table that was loaded in order has them, are bytes this way. Where that would take
//! more room, each run has a word of its own instead of the byte, and the word that leads to the node says so: [`WIDE`].
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};

use super::lookup::NO_SLOT;

/// A word with this bit is the place of a node's map; one without it is a slot.
pub(super) const NODE: u32 = 0x8000_0000;

/// With [`NODE`]: each of the node's runs has a word.
pub(super) const WIDE: u32 = 0x4000_0000;

/// What else such a word holds.
pub(super) const PLACE: u32 = !(NODE | WIDE);

/// Words from the map to the runs.
pub(super) const HEADER: usize = 10;

/// Which of them has the numbers of runs before a quarter, and the part of it that says how many words lie before the map.
pub(super) const RANKS: usize = 8;
pub(super) const FARS: u32 = 0xff;

/// Which of them has the base.
pub(super) const BASE: usize = 9;

/// The words of the longest node: one of 256 runs that has a word for each.
pub(super) const LONGEST: usize = HEADER + 256;

/// The words that all nodes are made of.
#[derive(Clone, Copy)]
pub(super) struct Nodes<'a>(pub(super) &'a [AtomicU32]);

impl<'a> Nodes<'a> {
    /// The word of the run that holds `index`.
    #[inline(always)]
    pub(super) fn below(self, node: u32, index: u8) -> u32 {
        let parts = self.parts(node);
        self.word(node, parts, run_of(parts.0, index))
    }

    /// The number of the run that holds `index`.
    #[inline(always)]
    pub(super) fn run_of(self, node: u32, index: u8) -> usize {
        run_of(self.parts(node).0, index)
    }

    /// The word of the node's run of this number.
    #[inline(always)]
    pub(super) fn run(self, node: u32, run: usize) -> u32 {
        self.word(node, self.parts(node), run)
    }

    #[inline(always)]
    fn word(self, node: u32, (header, runs): Parts<'_>, run: usize) -> u32 {
        if node & WIDE != 0 {
            return runs[run].load(Ordering::Acquire);
        }
        let byte = runs[run / 4].load(Ordering::Acquire) >> (8 * (run % 4)) & 0xff;
        if byte + (header[RANKS].load(Ordering::Relaxed) & FARS) <= 0xff {
            header[BASE].load(Ordering::Relaxed).wrapping_add(byte)
        } else {
            self.far(node, byte).load(Ordering::Acquire)
        }
    }

    /// Stores the run's word where it is, if that can be done at one stroke. Only the thread that changes the table may.
    pub(super) fn set_run(self, node: u32, run: usize, word: u32) -> bool {
        let (header, runs) = self.parts(node);
        if node & WIDE != 0 {
            runs[run].store(word, Ordering::Release);
            return true;
        }
        let (cell, shift) = (&runs[run / 4], 8 * (run % 4));
        let bytes = cell.load(Ordering::Relaxed);
        let fars = header[RANKS].load(Ordering::Relaxed) & FARS;
        let byte = bytes >> shift & 0xff;
        // What leads to a node is one run's alone; a slot may be that of others as well.
        let far = (byte + fars > 0xff).then(|| self.far(node, byte));
        if let Some(far) = far.filter(|far| far.load(Ordering::Relaxed) & NODE != 0) {
            far.store(word, Ordering::Release);
            return true;
        }
        let offset = word.wrapping_sub(header[BASE].load(Ordering::Relaxed));
        let byte = if is_slot(word) && offset <= 0xff - fars {
            Some(offset)
        } else {
            (0x100 - fars..0x100).find(|&byte| self.far(node, byte).load(Ordering::Relaxed) == word)
        };
        if let Some(byte) = byte {
            cell.store(bytes & !(0xff << shift) | byte << shift, Ordering::Release);
        }
        byte.is_some()
    }

    /// The node's map.
    pub(super) fn map(self, node: u32) -> Map {
        let (header, _) = self.parts(node);
        Map(core::array::from_fn(|at| header[at].load(Ordering::Relaxed)))
    }

    /// The slot that the node's offsets are counted from.
    pub(super) fn base(self, node: u32) -> u32 {
        self.parts(node).0[BASE].load(Ordering::Relaxed)
    }

    /// Which words are the node's.
    pub(super) fn block(self, node: u32) -> Range<usize> {
        let place = (node & PLACE) as usize;
        let count = self.map(node).count();
        let fars = self.parts(node).0[RANKS].load(Ordering::Relaxed) & FARS;
        let runs = if node & WIDE == 0 {
            count.div_ceil(4)
        } else {
            count
        };
        place - fars as usize..place + HEADER + runs
    }

    #[inline(always)]
    fn parts(self, node: u32) -> Parts<'a> {
        self.0[(node & PLACE) as usize..]
            .split_first_chunk()
            .expect("what leads to a node leads to a whole one")
    }

    /// What the byte stands for that is no offset.
    #[inline(always)]
    fn far(self, node: u32, byte: u32) -> &'a AtomicU32 {
        &self.0[(node & PLACE) as usize + byte as usize - 256]
    }
}

/// A node's words from its map to its base, and all words behind these.
type Parts<'a> = (&'a [AtomicU32; HEADER], &'a [AtomicU32]);

/// The number of the run that holds `index`.
#[inline(always)]
fn run_of(header: &[AtomicU32; HEADER], index: u8) -> usize {
    let (quarter, bit) = (usize::from(index >> 6), u32::from(index & 63));
    let part = |at: usize| u64::from(header[2 * quarter + at].load(Ordering::Relaxed));
    let map = part(1) << 32 | part(0);
    // At most 192 before the last quarter; none before the first, whose byte is another's.
    let before = (header[RANKS].load(Ordering::Relaxed) & !FARS) >> (8 * quarter) & 0xff;
    (before + (map << (63 - bit)).count_ones()) as usize - 1
}

/// Whether it can be written as an offset.
const fn is_slot(word: u32) -> bool {
    word & NODE == 0 && word != NO_SLOT
}

/// A node before it has a place.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// What comes before the map, the nearest first.
    fars: Vec<u32>,
    bytes: Vec<u8>,
}

impl Draft {
    /// The words of a node with these runs. Slots from `base` on take the least room.
    pub(super) fn words<'a>(&'a mut self, map: &Map, runs: &'a [u32], base: u32) -> Words<'a> {
        let mut offsets = self.squeeze(runs, base, 256);
        if let Some(limit) = offsets.and_then(|offsets| self.limit(&offsets)) {
            offsets = self.squeeze(runs, base, limit);
        }
        let (fars, runs) = match offsets {
            Some(_) => (&self.fars[..], Runs::Bytes(&self.bytes)),
            None => (&[][..], Runs::Words(runs)),
        };
        Words {
            map: *map,
            base,
            fars,
            runs,
        }
    }

    /// Before which offset the bytes have to end, where not all of `offsets` are left free by what comes before the map. Each that
    /// gives way is one word more there.
    fn limit(&self, offsets: &Map) -> Option<usize> {
        let (mut limit, mut fars) = (256, self.fars.len());
        for _ in 0..offsets.count() {
            let highest = offsets.last(limit - 1);
            if highest + fars < 256 {
                break;
            }
            (limit, fars) = (highest, fars + 1);
        }
        (limit < 256).then_some(limit)
    }

    /// Writes the runs as bytes: slots from `base` on that lie less than `limit` behind it as offsets, all else as words before the
    /// map. Which offsets there are; nothing if a word for each run would take less room.
    fn squeeze(&mut self, runs: &[u32], base: u32, limit: usize) -> Option<Map> {
        let spare = runs.len() - runs.len().div_ceil(4);
        self.fars.clear();
        self.bytes.clear();
        let mut offsets = Map::EMPTY;
        for &word in runs {
            let offset = word.wrapping_sub(base) as usize;
            let byte = if is_slot(word) && offset < limit {
                offsets.set(offset);
                offset
            } else {
                let known = self.fars.iter().position(|&far| far == word);
                let at = known.unwrap_or_else(|| {
                    self.fars.push(word);
                    self.fars.len() - 1
                });
                255_usize.checked_sub(at).filter(|_| at < spare)?
            };
            self.bytes.push(byte as u8);
        }
        Some(offsets)
    }
}

/// A node's words, in order.
#[derive(Debug)]
pub(super) struct Words<'a> {
    map: Map,
    base: u32,
    fars: &'a [u32],
    runs: Runs<'a>,
}

#[derive(Debug)]
enum Runs<'a> {
    Bytes(&'a [u8]),
    Words(&'a [u32]),
}

impl Words<'_> {
    pub(super) fn count(&self) -> usize {
        self.fars.len()
            + HEADER
            + match self.runs {
                Runs::Bytes(bytes) => bytes.len().div_ceil(4),
                Runs::Words(words) => words.len(),
            }
    }

    /// Gives `sink` each. What leads to the node, whose first word is at `start`.
    ///
    /// # Panics
    /// If there are 2^30 words.
    pub(super) fn write(&self, start: usize, mut sink: impl FnMut(u32)) -> u32 {
        self.fars.iter().rev().copied().for_each(&mut sink);
        self.map.0.into_iter().for_each(&mut sink);
        sink(self.map.ranks() | self.fars.len() as u32);
        sink(self.base);
        let wide = match self.runs {
            Runs::Bytes(bytes) => {
                for part in bytes.chunks(4) {
                    let mut word = [0; 4];
                    word[..part.len()].copy_from_slice(part);
                    sink(u32::from_le_bytes(word));
                }
                0
            }
            Runs::Words(words) => {
                words.iter().copied().for_each(&mut sink);
                WIDE
            }
        };
        let place = u32::try_from(start + self.fars.len())
            .ok()
            .filter(|place| place & !PLACE == 0)
            .expect("the nodes take less than 4 GiB");
        place | NODE | wide
    }
}

/// Where a node's runs start: a bit for each of its 256 places. The first is always set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Map(pub(super) [u32; 8]);

impl Map {
    /// One run.
    pub(super) const ONE: Self = Self([1, 0, 0, 0, 0, 0, 0, 0]);
    pub(super) const EMPTY: Self = Self([0; 8]);

    pub(super) const fn has(&self, at: usize) -> bool {
        self.0[at / 32] >> (at % 32) & 1 == 1
    }

    pub(super) const fn set(&mut self, at: usize) {
        self.0[at / 32] |= 1 << (at % 32);
    }

    /// Takes the starts from `from` to `to`, both included, away.
    pub(super) fn clear(&mut self, from: usize, to: usize) {
        for (word, part) in self.0.iter_mut().enumerate() {
            let (first, last) = (word * 32, word * 32 + 31);
            if from <= last && first <= to {
                let low = u32::MAX << from.saturating_sub(first);
                let high = u32::MAX >> (last - to.min(last));
                *part &= !(low & high);
            }
        }
    }

    /// How many runs start before `at`, at most 256.
    pub(super) fn before(&self, at: usize) -> usize {
        let whole: u32 = self.0[..at / 32].iter().map(|part| part.count_ones()).sum();
        let part = self
            .0
            .get(at / 32)
            .map_or(0, |part| part & ((1 << (at % 32)) - 1));
        (whole + part.count_ones()) as usize
    }

    /// How many runs there are.
    pub(super) fn count(&self) -> usize {
        self.0.iter().map(|part| part.count_ones()).sum::<u32>() as usize
    }

    /// The first start from `at` on.
    pub(super) fn next(&self, at: usize) -> Option<usize> {
        let mut word = at / 32;
        let mut part = self.0.get(word)? & (u32::MAX << (at % 32));
        while part == 0 {
            word += 1;
            part = *self.0.get(word)?;
        }
        Some(word * 32 + part.trailing_zeros() as usize)
    }

    /// The last start up to `at`, which is below 256.
    pub(super) fn last(&self, at: usize) -> usize {
        let mut word = at / 32;
        let mut part = self.0[word] & (u32::MAX >> (31 - at % 32));
        while part == 0 {
            word -= 1;
            part = self.0[word];
        }
        word * 32 + 31 - part.leading_zeros() as usize
    }

    /// How many runs start before the second, third and fourth quarter, in bytes from the second on.
    fn ranks(&self) -> u32 {
        let mut ranks = 0;
        let mut before = 0;
        for (quarter, parts) in self.0.chunks(2).enumerate() {
            ranks |= before << (8 * quarter);
            before += parts.iter().map(|part| part.count_ones()).sum::<u32>();
        }
        ranks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// The words of a node that begins at the first, and what leads to it.
    fn written(map: &Map, runs: &[u32], base: u32) -> (Vec<AtomicU32>, u32) {
        let mut draft = Draft::default();
        let words = draft.words(map, runs, base);
        let mut memory = Vec::new();
        let node = words.write(0, |word| memory.push(AtomicU32::new(word)));
        assert_eq!((memory.len(), words.count()), (words.count(), memory.len()));
        (memory, node)
    }

    fn map_of(starts: impl IntoIterator<Item = usize>) -> Map {
        let mut map = Map::EMPTY;
        starts.into_iter().for_each(|start| map.set(start));
        map
    }

    /// Slots near each other, some of them often, some far away, and what leads to nodes.
    fn words() -> impl Strategy<Value = Vec<u32>> {
        let word = prop_oneof![
            6 => 1000_u32..1300,
            2 => Just(7),
            1 => Just(NO_SLOT),
            1 => 0_u32..NO_SLOT,
            1 => (0_u32..1 << 20).prop_map(|place| place | NODE),
        ];
        proptest::collection::vec(word, 1..=256)
    }

    fn read(nodes: Nodes<'_>, node: u32, map: &Map) -> Vec<u32> {
        (0..=255)
            .map(|index| {
                let run = nodes.run_of(node, index);
                assert_eq!(run, map.before(usize::from(index) + 1) - 1);
                assert_eq!(nodes.below(node, index), nodes.run(node, run));
                nodes.run(node, run)
            })
            .collect()
    }

    fn expected(map: &Map, runs: &[u32]) -> Vec<u32> {
        (1..=256).map(|end| runs[map.before(end) - 1]).collect()
    }

    proptest! {
        #[test]
        fn a_node_holds_its_runs(runs in words(), base in 900_u32..1400, stride in 1_usize..8) {
            let starts = (0..runs.len()).map(|run| (run * stride).min(256 - runs.len() + run));
            let map = map_of(starts);
            let (memory, node) = written(&map, &runs, base);
            let nodes = Nodes(&memory);
            prop_assert_eq!(read(nodes, node, &map), expected(&map, &runs));
            prop_assert_eq!(nodes.map(node), map);
            prop_assert_eq!(nodes.block(node), 0..memory.len());
            prop_assert!(memory.len() <= LONGEST);
        }

        #[test]
        fn a_run_that_is_stored_in_place_changes_no_other(
            mut runs in words(), at in any::<prop::sample::Index>(), word in words(),
        ) {
            // What leads to a node is one run's alone.
            let mut seen = Vec::new();
            runs.retain(|word| word & NODE == 0 || !seen.contains(word) && { seen.push(*word); true });
            runs.push(1);
            let map = map_of(0..runs.len().min(256));
            runs.truncate(256);
            let (memory, node) = written(&map, &runs, 1000);
            let at = at.index(runs.len());
            if Nodes(&memory).set_run(node, at, word[0]) {
                runs[at] = word[0];
            }
            prop_assert_eq!(read(Nodes(&memory), node, &map), expected(&map, &runs));
        }
    }

    #[test]
    fn slots_in_order_take_a_byte_each() {
        let runs: Vec<u32> = (1000..1256).collect();
        let map = map_of(0..256);
        let (memory, node) = written(&map, &runs, 1000);
        assert_eq!((memory.len(), node & WIDE), (HEADER + 64, 0));
        let covered: Vec<u32> = (0..200)
            .map(|at| if at % 2 == 0 { 5 } else { 1000 + at })
            .collect();
        let (memory, node) = written(&map_of(0..200), &covered, 1000);
        assert_eq!((memory.len(), node & WIDE), (1 + HEADER + 50, 0));
    }

    #[test]
    fn slots_in_disorder_take_a_word_each() {
        let runs: Vec<u32> = (0..256).map(|at| at * 5000).collect();
        let (memory, node) = written(&map_of(0..256), &runs, 0);
        assert_eq!((memory.len(), node & WIDE), (LONGEST, WIDE));
    }

    #[test]
    fn a_slot_that_others_have_as_well_is_stored_in_place() {
        let (memory, node) = written(&map_of(0..5), &[9, 1000, 9, 1001, 9], 1000);
        let nodes = Nodes(&memory);
        assert!(nodes.set_run(node, 1, 9) && nodes.set_run(node, 2, 1250));
        assert!(
            !nodes.set_run(node, 3, 5000),
            "there is no place for another far slot"
        );
        assert_eq!(
            [0, 1, 2, 3, 4].map(|run| nodes.run(node, run)),
            [9, 9, 1250, 1001, 9]
        );
    }
}

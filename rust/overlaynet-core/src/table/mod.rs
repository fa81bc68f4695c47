//! The longest-prefix-match table, [`PrefixTable`], and the slow oracle that tests hold it against, [`list::ListTable`].
//!
//! # What a lookup reads
//! A lookup asks for the slot of the longest prefix that holds an address, and slots are what the nodes hold for *every* address:
//! the answer of a shorter prefix is pushed down to wherever no longer one is, so that no lookup goes back up.
//!
//! - The **window** is the longest prefix that covers all others but /0. Addresses outside it are answered by one comparison.
//! - The **root** is an array of words for the bits behind the window's, up to a multiple of 8 that the number of prefixes pays for: an
//!   overlay's ten thousand /24 of 10.0.0.0/8 are resolved by it alone, the IPv4 Internet's first 16 bits, IPv6's first 24.
//! - A word is a slot, or leads to a **node** for the next 8 bits: a map of 256 bits that says where runs of equal words start,
//!   for each quarter of it the number of runs before (a byte each), and the runs. The run of an address is found by counting the
//!   bits of the map up to its place: three accesses in one or two cache lines, and nothing in a node costs a prefix more than its
//!   runs. A run takes a byte where its slot lies close behind the node's others, as those of a table that was loaded in order do
//!   (`node`).
//!
//! Beside that, and touched by updates and by those who want the prefix or the value: the entries by slot, each with the slot of the
//! prefix directly above it. There is no second tree: exact match, what covers a prefix and what it covers, and the order of all are
//! read from the same nodes and the way up from an entry.
//!
//! # What a change costs
//! A change paints the part of each node's runs that lies in its prefix (`paint`): for a /24 of the Internet that is one node, which
//! is written anew where its runs change in number. A prefix above many others costs a visit of each node below it, since the answers
//! are pushed down, and a prefix outside the window, or so many that a larger root pays, costs building the nodes anew. Memory of
//! nodes is reused by size; when much of it lies in pieces too small, the nodes are built anew too.
//!
//! # Who may read meanwhile
//! All that lookups read is [`Lookup`], made of `AtomicU32`: one thread may change the table while others look up, and each finds
//! for an address what was true before a change or what is true after it. [`PrefixTable::share`] says what that asks of the caller.
//!
//! # Why this and not another
//! Measured by `benches/rust` in one run: 1,000,000 IPv4 and 200,000 IPv6 prefixes shaped like the Internet's, one of two cores of a
//! virtual machine whose share of the caches holds neither table, all compiled for its processor. Nanoseconds for a random address in
//! a random prefix, in batches here (the slot; with the value) and one by one there:
//!
//! | structure | IPv4 | IPv6 | 10,000 /24 | bytes an IPv4 prefix |
//! |---|---|---|---|---|
//! | this | 34; 56 | 62; 75 | 2.1; 2.8 | 5.2 |
//! | prefix-trie 0.10 | 179 | 332 | 11 | 17 |
//! | poptrie (Asai, Ohara, 2015), crate poptrie 0.2 | 219 | 350 | 13 | |
//! | tree bitmap (Eatherton, Varghese, Dittia, 2004), crate treebitmap | 386 | 514 | 38 | |
//! | gaissmai/bart (allotment tables of 8 bits, path compression), crate ts_bart 0.6 | 319 | 441 | 22 | |
//!
//! DIR-24-8 (Gupta, Lin, McKeown, "Routing lookups in hardware at memory access speeds", 1998) was faster on IPv4 in prototypes of both,
//! by a third, at fourteen times the memory, and has no IPv6; the window and the root's growth take what is best of it, one access where
//! prefixes are many and close together, and pay for it only there. Poptrie's nodes of 6 bits with leaves by rank are the nearest
//! relative: 8 bits with runs need fewer steps and leave one run where neighbours agree. Bits of rank beside the map spare the counting
//! of a whole map.
//!
//! What bounds a lookup in a large table is how many lines of memory it reads: root, map, value, and what the slot stands for. So nodes
//! are packed one behind the other: begun at a line each, they read no faster and took a sixth more. Huge pages, which
//! [`PrefixTable::memory`] lets a caller ask for, spare the walks of the page tables. IPv6's three or four nodes are read by 32
//! addresses at a time, which takes half as long as one address after the other; IPv4's one node gains nothing by that.
pub mod list;

mod blocks;
mod build;
mod entries;
mod iter;
mod lookup;
mod node;
mod paint;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::{fmt, mem};

use crate::address::{Address, Packed};
use crate::prefix::Prefix;
use blocks::Blocks;
use build::build;
use entries::Entries;
pub use iter::Iter;
use iter::Slots;
pub use lookup::{Lookup, NO_SLOT};
use paint::{Change, Painter};

/// A map from prefixes to values that also answers which is the longest prefix that holds an address.
///
/// Each entry has a slot: a number below [`NO_SLOT`] that stays the same as long as the entry is in the table, and may be
/// another entry's afterwards.
pub struct PrefixTable<P: Prefix, T> {
    blocks: Blocks<P>,
    entries: Entries<P, T>,
    /// How many entries there were when the nodes were last built as a whole, and how many want a larger root.
    built_at: usize,
    outgrown_at: usize,
}

impl<P: Prefix, T> PrefixTable<P, T> {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        let entries = Entries::new();
        let built = build(&entries, &[]);
        Self {
            blocks: Blocks::new(built.lookup, built.end),
            entries,
            built_at: 0,
            outgrown_at: built.outgrown_at,
        }
    }

    /// How many prefixes the table holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the table holds no prefix.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value that `prefix` had before, if any; it now has `value`, and the slot that it had.
    ///
    /// # Panics
    /// If there are 2^31 prefixes, or their nodes take 4 GiB.
    pub fn insert(&mut self, prefix: P, value: T) -> Option<T> {
        let above = self.up_from(prefix).next().unwrap_or(NO_SLOT);
        if self.entries.prefix_len(above) == Some(prefix.len()) {
            return Some(mem::replace(self.entries.value_mut(above)?, value));
        }
        let slot = self.entries.add(prefix, value, above);
        let fits = prefix.len() == 0 || {
            let shape = self.blocks.lookup.shape();
            prefix.len() >= shape.skip && shape.holds(prefix.address().bits())
        };
        if fits && self.len() < self.outgrown_at && !self.blocks.is_scattered() {
            Painter::new(
                &mut self.blocks,
                &mut self.entries,
                Change::Insert,
                (prefix, slot),
            )
            .run();
        } else {
            self.build_with(&[slot]);
        }
        None
    }

    /// The same for entries that come in the order of their prefixes; of equal ones the last one's value stays. Many are built into
    /// the table as a whole. `told` hears the slot of each.
    ///
    /// # Panics
    /// If they are not in order, there are 2^31 prefixes, or their nodes take 4 GiB.
    pub fn extend_in_order<I>(&mut self, entries: I, mut told: impl FnMut(u32))
    where
        I: IntoIterator<Item = (P, T), IntoIter: ExactSizeIterator>,
    {
        let entries = entries.into_iter();
        if self.is_empty() {
            self.entries.reserve(entries.len());
        }
        let one_by_one = entries.len() <= self.len() / 16;
        let built = !self.is_empty();
        let mut new: Vec<u32> = Vec::with_capacity(if one_by_one { 0 } else { entries.len() });
        let mut last: Option<(P, u32)> = None;
        for (prefix, value) in entries {
            let known = match last {
                Some((before, slot)) if before == prefix => Some(slot),
                Some((before, _)) if before > prefix => panic!("entries come in the order of their prefixes"),
                _ if built => self.slot(&prefix),
                _ => None,
            };
            let slot = if let Some(slot) = known {
                drop(self.entries.value_mut(slot).map(|old| mem::replace(old, value)));
                slot
            } else if one_by_one {
                let slot = self.next_slot();
                self.insert(prefix, value);
                slot
            } else {
                let slot = self.entries.add(prefix, value, NO_SLOT);
                new.push(slot);
                slot
            };
            last = Some((prefix, slot));
            told(slot);
        }
        if !new.is_empty() {
            self.build_with(&new);
        }
    }

    /// The value of exactly `prefix`, which is no longer in the table.
    pub fn remove(&mut self, prefix: &P) -> Option<T> {
        let slot = self.slot(prefix)?;
        Painter::new(
            &mut self.blocks,
            &mut self.entries,
            Change::Remove,
            (*prefix, slot),
        )
        .run();
        let value = self.entries.take(slot);
        if !self.blocks.retire_slot(slot) {
            self.entries.give_back(slot);
        }
        if self.len() < self.built_at / 4 || self.blocks.is_scattered() {
            self.build_with(&[]);
        }
        value
    }

    /// Removes every prefix.
    pub fn clear(&mut self) {
        if self.blocks.is_shared() {
            let slots: Vec<u32> = self.all_slots().collect();
            for slot in slots {
                drop(self.entries.take(slot));
                self.blocks.retire_slot(slot);
            }
        } else {
            self.entries = Entries::new();
        }
        self.build_from(&[]);
    }

    /// The value of exactly `prefix`.
    #[must_use]
    pub fn get(&self, prefix: &P) -> Option<&T> {
        self.entries.get(self.slot(prefix)?).map(|(_, value)| value)
    }

    /// The value of exactly `prefix`, to be changed in place.
    #[must_use]
    pub fn get_mut(&mut self, prefix: &P) -> Option<&mut T> {
        self.entries.value_mut(self.slot(prefix)?)
    }

    /// The slot of exactly `prefix`.
    #[must_use]
    pub fn slot(&self, prefix: &P) -> Option<u32> {
        let slot = self.up_from(*prefix).next()?;
        (self.entries.prefix_len(slot) == Some(prefix.len())).then_some(slot)
    }

    /// The prefix at `slot`, and its value.
    #[inline]
    #[must_use]
    pub fn entry(&self, slot: u32) -> Option<(P, &T)> {
        self.entries.get(slot)
    }

    /// The longest prefix that holds `address`, and its value. Allocates nothing.
    #[inline]
    #[must_use]
    pub fn lookup(&self, address: P::Address) -> Option<(P, &T)> {
        self.entries.get(self.blocks.lookup.find(address.bits()))
    }

    /// The slot of the longest prefix that holds `address`.
    #[inline]
    #[must_use]
    pub fn lookup_slot(&self, address: impl Packed<P::Address>) -> Option<u32> {
        Some(self.blocks.lookup.slot(address)).filter(|&slot| slot != NO_SLOT)
    }

    /// The slot of the longest prefix that holds each address, or [`NO_SLOT`], into the same place of `slots`; the shorter of the
    /// two says how many.
    pub fn lookup_slots<A: Packed<P::Address>>(&self, addresses: &[A], slots: &mut [u32]) {
        self.blocks.lookup.slots(addresses, slots);
    }

    /// The prefixes that cover `prefix` (itself, if it is in the table, comes last), the shortest first.
    pub fn covering(&self, prefix: P) -> impl Iterator<Item = (P, &T)> + '_ {
        let slots: Vec<u32> = self.up_from(prefix).collect();
        slots.into_iter().rev().filter_map(|slot| self.entry(slot))
    }

    /// The prefixes that `prefix` covers (itself, if it is in the table, comes first), in order.
    pub fn covered(&self, prefix: P) -> impl DoubleEndedIterator<Item = (P, &T)> + '_ {
        Slots::within(self, prefix).filter_map(|slot| self.entry(slot))
    }

    /// Whether an address lies both in `prefix` and in a prefix of the table.
    #[must_use]
    pub fn overlaps(&self, prefix: P) -> bool {
        self.up_from(prefix).next().is_some() || self.covered(prefix).next().is_some()
    }

    /// All entries, ordered by address, then by length.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, P, T> {
        Iter::new(self)
    }

    /// How many bytes the table takes, without what values own elsewhere.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.blocks.lookup.bytes() + self.entries.bytes()
    }

    /// Where the table lies, without what values own elsewhere, for advice to the system about its memory: what lookups read first.
    #[must_use]
    pub fn memory(&self) -> [Range<*const u8>; 3] {
        let [root, nodes] = self.blocks.lookup.memory();
        [root, nodes, self.entries.memory()]
    }

    /// What lookups read, alone.
    #[must_use]
    pub fn as_lookup(&self) -> &Lookup<P> {
        &self.blocks.lookup
    }

    /// What lookups read, for other threads to read while this one changes the table. They find for each address what it found
    /// before a change or what it finds after it, as long as whoever calls this follows three rules:
    ///
    /// - A change may come to need other memory: readers that shall see it are given what this returns after it.
    /// - What a change takes out of use stays as it is until [`reclaim`](Self::reclaim) is told that nobody looks at it.
    /// - Slots are values of their own to readers: what they stand for is kept where readers may read it.
    pub fn share(&mut self) -> Arc<Lookup<P>> {
        self.blocks.keep_retired();
        Arc::clone(&self.blocks.lookup)
    }

    /// The slot that the next new prefix gets.
    #[must_use]
    pub fn next_slot(&self) -> u32 {
        self.entries.next_slot()
    }

    /// How much was taken out of use since the table was first shared: a mark for [`reclaim`](Self::reclaim).
    #[must_use]
    pub fn retired(&self) -> u64 {
        self.blocks.retired()
    }

    /// Uses again what had been taken out of use when [`retired`](Self::retired) was `mark`: no lookup that began before then is
    /// still going on.
    pub fn reclaim(&mut self, mark: u64) {
        let entries = &mut self.entries;
        self.blocks.reclaim(mark, |slot| entries.give_back(slot));
    }

    /// The slots of what covers `prefix`, itself included, the longest first.
    fn up_from(&self, prefix: P) -> impl Iterator<Item = u32> + '_ {
        let slot = self.blocks.lookup.find(prefix.address().bits());
        self.entries.chain(slot, prefix.len())
    }

    /// The slots of all prefixes that the nodes know, in order.
    fn all_slots(&self) -> impl Iterator<Item = u32> + '_ {
        Slots::within(self, P::ALL)
    }

    /// Builds the nodes anew, for the prefixes that they know and those at the slots `new`, which come in order.
    fn build_with(&mut self, new: &[u32]) {
        let mut slots = Vec::with_capacity(self.len());
        let mut new = new.iter().copied().peekable();
        for slot in self.all_slots() {
            while let Some(before) = new.next_if(|&new| self.entries.prefix(new) < self.entries.prefix(slot))
            {
                slots.push(before);
            }
            slots.push(slot);
        }
        slots.extend(new);
        self.build_from(&slots);
    }

    /// Builds the nodes anew, for the prefixes at `slots`, which come in order.
    fn build_from(&mut self, slots: &[u32]) {
        self.entries.relate(slots.iter().copied());
        let built = build(&self.entries, slots);
        self.outgrown_at = built.outgrown_at;
        self.built_at = slots.len();
        self.blocks.replace(built.lookup, built.end);
    }
}

impl<P: Prefix, T> Default for PrefixTable<P, T> {
    fn default() -> Self {
        Self::new()
    }
}

/// The copy is nobody else's to read, whether or not this table is shared.
impl<P: Prefix, T: Clone> Clone for PrefixTable<P, T> {
    fn clone(&self) -> Self {
        Self {
            blocks: self.blocks.copy(),
            entries: self.entries.clone(),
            built_at: self.built_at,
            outgrown_at: self.outgrown_at,
        }
    }
}

impl<P: Prefix, T: fmt::Debug> fmt::Debug for PrefixTable<P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a, P: Prefix, T> IntoIterator for &'a PrefixTable<P, T> {
    type Item = (P, &'a T);
    type IntoIter = Iter<'a, P, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Builds the table as a whole; of equal prefixes, the last one's value stays. Entries that come in order need no sorting.
impl<P: Prefix, T> FromIterator<(P, T)> for PrefixTable<P, T> {
    fn from_iter<I: IntoIterator<Item = (P, T)>>(entries: I) -> Self {
        let mut table = Self::new();
        table.extend(entries);
        table
    }
}

/// Like an insertion of each, but many are built into the table as a whole.
impl<P: Prefix, T> Extend<(P, T)> for PrefixTable<P, T> {
    fn extend<I: IntoIterator<Item = (P, T)>>(&mut self, entries: I) {
        let mut new: Vec<(P, T)> = entries.into_iter().collect();
        if !new.is_sorted_by(|a, b| a.0 <= b.0) {
            // The sort is stable, so the last of equal prefixes is the one that was given last.
            new.sort_by_key(|entry| entry.0);
        }
        self.extend_in_order(new, |_| ());
    }
}

#[cfg(test)]
mod tests;

//! Entries in order, from both ends, out of the nodes themselves.
//!
//! Addresses that find the same slot lie in runs. A prefix that begins at an address covers what that address finds, or is it;
//! so at the start of each run, the prefixes that begin there are those on the way up from the run's slot that have its address.
use alloc::vec::Vec;
use core::iter::FusedIterator;

use super::PrefixTable;
use super::lookup::{BitsOf, NO_SLOT};
use crate::address::{Address, Bits};
use crate::prefix::Prefix;

/// Slots of the prefixes in a range of addresses, in order.
pub(super) struct Slots<'a, P: Prefix, T> {
    table: &'a PrefixTable<P, T>,
    /// Prefixes shorter than this are left out.
    least: u8,
    /// The addresses whose prefixes are still to come; None after the last.
    range: Option<(BitsOf<P>, BitsOf<P>)>,
    /// Slots that come before the range, the next one last.
    lower: Vec<u32>,
    /// The slot that comes behind the range, and those above it that begin at the same address.
    upper: u32,
}

impl<'a, P: Prefix, T> Slots<'a, P, T> {
    /// The prefixes that `prefix` covers.
    pub(super) fn within(table: &'a PrefixTable<P, T>, prefix: P) -> Self {
        Self {
            table,
            least: prefix.len(),
            range: Some((prefix.address().bits(), prefix.last_address().bits())),
            lower: Vec::new(),
            upper: NO_SLOT,
        }
    }

    /// The slots from `slot` up that begin at `at` and are not too short.
    fn starting(&self, slot: u32, at: BitsOf<P>) -> impl Iterator<Item = u32> + use<'a, P, T> {
        let (table, least) = (self.table, self.least);
        table
            .entries
            .chain(slot, P::BITS)
            .take_while(move |&slot| table.entries.begins(slot, at, least))
    }
}

impl<P: Prefix, T> Iterator for Slots<'_, P, T> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        loop {
            if let Some(slot) = self.lower.pop() {
                return Some(slot);
            }
            let Some((first, last)) = self.range else {
                // What the other end has begun is left.
                self.lower = core::iter::from_fn(|| self.next_back()).collect();
                return self.lower.pop();
            };
            let (slot, end) = self.table.blocks.lookup.upwards(first, last);
            self.range = end.after().filter(|&next| next <= last).map(|next| (next, last));
            self.lower.extend(self.starting(slot, first));
        }
    }
}

impl<P: Prefix, T> DoubleEndedIterator for Slots<'_, P, T> {
    fn next_back(&mut self) -> Option<u32> {
        loop {
            if self.upper != NO_SLOT {
                let slot = self.upper;
                let at = self.table.entries.prefix(slot)?.address().bits();
                let parent = self.table.entries.parent(slot);
                self.upper = self.starting(parent, at).next().unwrap_or(NO_SLOT);
                return Some(slot);
            }
            let Some((first, last)) = self.range else {
                // What the other end has begun is left, the last one first.
                if self.lower.is_empty() {
                    return None;
                }
                return Some(self.lower.remove(0));
            };
            let (slot, start) = self.table.blocks.lookup.downwards(last, first);
            self.range = start
                .before()
                .filter(|&next| next >= first)
                .map(|next| (first, next));
            if start >= first {
                self.upper = self.starting(slot, start).next().unwrap_or(NO_SLOT);
            }
        }
    }
}

/// All entries of a table, in order.
pub struct Iter<'a, P: Prefix, T> {
    slots: Slots<'a, P, T>,
    left: usize,
}

impl<'a, P: Prefix, T> Iter<'a, P, T> {
    pub(super) fn new(table: &'a PrefixTable<P, T>) -> Self {
        Self {
            slots: Slots::within(table, P::ALL),
            left: table.len(),
        }
    }

    fn entry(&mut self, slot: Option<u32>) -> Option<(P, &'a T)> {
        let entry = self.slots.table.entry(slot?)?;
        self.left -= 1;
        Some(entry)
    }
}

impl<'a, P: Prefix, T> Iterator for Iter<'a, P, T> {
    type Item = (P, &'a T);

    fn next(&mut self) -> Option<Self::Item> {
        let slot = self.slots.next();
        self.entry(slot)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<P: Prefix, T> DoubleEndedIterator for Iter<'_, P, T> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let slot = self.slots.next_back();
        self.entry(slot)
    }
}

impl<P: Prefix, T> ExactSizeIterator for Iter<'_, P, T> {}
impl<P: Prefix, T> FusedIterator for Iter<'_, P, T> {}

//! The entries of a table by slot, and which prefix directly covers which.
use alloc::vec::Vec;
use core::num::NonZeroU8;
use core::ops::Range;

use super::lookup::{BitsOf, NO_SLOT, range};
use crate::address::Address;
use crate::prefix::Prefix;

/// One prefix with its value. Its length is kept plus one, so that an empty slot takes no more room.
#[derive(Clone, Debug)]
struct Entry<A, T> {
    value: T,
    /// The slot of the longest prefix that covers this one and isn't it, or [`NO_SLOT`].
    parent: u32,
    address: A,
    len_plus_one: NonZeroU8,
}

/// Entries at numbers that stay the same while the entry is there.
#[derive(Clone, Debug)]
pub(super) struct Entries<P: Prefix, T> {
    slots: Vec<Option<Entry<P::Address, T>>>,
    free: Vec<u32>,
    len: usize,
}

impl<P: Prefix, T> Entries<P, T> {
    pub(super) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            len: 0,
        }
    }

    /// Makes room for as many prefixes, and no more.
    pub(super) fn reserve(&mut self, prefixes: usize) {
        self.slots.reserve_exact(prefixes);
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The slot that the next prefix gets.
    pub(super) fn next_slot(&self) -> u32 {
        let end = u32::try_from(self.slots.len())
            .ok()
            .filter(|&slot| slot < NO_SLOT);
        let next = self.free.last().copied().or(end);
        next.expect("2^31 prefixes need more memory than there is for their slots")
    }

    pub(super) fn add(&mut self, prefix: P, value: T, parent: u32) -> u32 {
        let slot = self.next_slot();
        let entry = Some(Entry {
            value,
            parent,
            address: prefix.address(),
            len_plus_one: NonZeroU8::MIN.saturating_add(prefix.len()),
        });
        match self.free.pop() {
            Some(_) => self.slots[slot as usize] = entry,
            None => self.slots.push(entry),
        }
        self.len += 1;
        slot
    }

    /// The value at `slot`, which stays reserved until it is [given back](Self::give_back).
    pub(super) fn take(&mut self, slot: u32) -> Option<T> {
        let entry = self.slots.get_mut(slot as usize)?.take()?;
        self.len -= 1;
        Some(entry.value)
    }

    pub(super) fn give_back(&mut self, slot: u32) {
        self.free.push(slot);
    }

    fn at(&self, slot: u32) -> Option<&Entry<P::Address, T>> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn get(&self, slot: u32) -> Option<(P, &T)> {
        self.at(slot).map(|entry| (entry.prefix(), &entry.value))
    }

    pub(super) fn value_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.slots
            .get_mut(slot as usize)?
            .as_mut()
            .map(|entry| &mut entry.value)
    }

    pub(super) fn prefix(&self, slot: u32) -> Option<P> {
        self.at(slot).map(Entry::prefix)
    }

    /// Whether the prefix at `slot` begins at this address and is at least `least` long.
    pub(super) fn begins(&self, slot: u32, at: BitsOf<P>, least: u8) -> bool {
        self.at(slot)
            .is_some_and(|entry| entry.address.bits() == at && entry.len() >= least)
    }

    /// The length of the prefix at `slot`.
    pub(super) fn prefix_len(&self, slot: u32) -> Option<u8> {
        self.at(slot).map(Entry::len)
    }

    pub(super) fn parent(&self, slot: u32) -> u32 {
        self.at(slot).map_or(NO_SLOT, |entry| entry.parent)
    }

    pub(super) fn set_parent(&mut self, slot: u32, parent: u32) {
        if let Some(Some(entry)) = self.slots.get_mut(slot as usize) {
            entry.parent = parent;
        }
    }

    /// `slot` and what covers it, the longest first, from the first on that is at most `len` long.
    pub(super) fn chain(&self, slot: u32, len: u8) -> impl Iterator<Item = u32> + '_ {
        let mut slot = slot;
        core::iter::from_fn(move || {
            let entry = self.at(slot)?;
            let this = slot;
            slot = entry.parent;
            Some((this, entry.len()))
        })
        .filter_map(move |(slot, of_this)| (of_this <= len).then_some(slot))
    }

    /// Says of each of the slots, which come in the order of their prefixes, which one covers it.
    pub(super) fn relate(&mut self, slots: impl Iterator<Item = u32>) {
        let mut above: Vec<(u32, P)> = Vec::new();
        for slot in slots {
            let Some(prefix) = self.prefix(slot) else { continue };
            while above.last().is_some_and(|(_, outer)| !outer.covers(&prefix)) {
                above.pop();
            }
            self.set_parent(slot, above.last().map_or(NO_SLOT, |&(outer, _)| outer));
            above.push((slot, prefix));
        }
    }

    /// Where they lie.
    pub(super) fn memory(&self) -> Range<*const u8> {
        range(&self.slots)
    }

    /// The room they take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Option<Entry<P::Address, T>>>()
            + self.free.capacity() * size_of::<u32>()
    }
}

impl<A: Address, T> Entry<A, T> {
    const fn len(&self) -> u8 {
        self.len_plus_one.get() - 1
    }

    fn prefix<P: Prefix<Address = A>>(&self) -> P {
        P::truncated(self.address, self.len())
    }
}

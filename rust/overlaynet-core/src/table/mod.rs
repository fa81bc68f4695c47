//! The longest-prefix-match table, [`PrefixTable`], and the slow oracle that tests hold it against, [`list::ListTable`].
//!
//! The table keeps its entries in one B-tree ordered by address, then length, and counts how many entries there are of each
//! length. A lookup cuts the address to each length that is in use, the longest first, and looks that prefix up: O(lengths in
//! use x log entries), without allocating. An overlay's table uses one length or two. Ordered iteration and the prefixes below
//! another are ranges of the tree.
pub mod list;

use alloc::collections::BTreeMap;

use crate::prefix::Prefix;

/// A map from prefixes to values that also answers which is the longest prefix that holds an address.
#[derive(Clone, Debug)]
pub struct PrefixTable<P, T> {
    entries: BTreeMap<P, T>,
    lengths: Lengths,
}

impl<P: Prefix, T> PrefixTable<P, T> {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            lengths: Lengths::NONE,
        }
    }

    /// How many prefixes the table holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the table holds no prefix.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value that `prefix` had before, if any; it now has `value`.
    pub fn insert(&mut self, prefix: P, value: T) -> Option<T> {
        let before = self.entries.insert(prefix, value);
        if before.is_none() {
            self.lengths.add(prefix.len());
        }
        before
    }

    /// The value of exactly `prefix`, which is no longer in the table.
    pub fn remove(&mut self, prefix: &P) -> Option<T> {
        let before = self.entries.remove(prefix);
        if before.is_some() {
            self.lengths.remove(prefix.len());
        }
        before
    }

    /// Removes every prefix.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.lengths = Lengths::NONE;
    }

    /// The value of exactly `prefix`.
    #[must_use]
    pub fn get(&self, prefix: &P) -> Option<&T> {
        self.entries.get(prefix)
    }

    /// The value of exactly `prefix`, to be changed in place.
    #[must_use]
    pub fn get_mut(&mut self, prefix: &P) -> Option<&mut T> {
        self.entries.get_mut(prefix)
    }

    /// The longest prefix that holds `address`, and its value. Allocates nothing.
    #[must_use]
    pub fn lookup(&self, address: P::Address) -> Option<(P, &T)> {
        self.lengths
            .descending(P::BITS)
            .find_map(|len| self.entry(P::truncated(address, len)))
    }

    /// The prefixes that cover `prefix` (itself, if it is in the table, comes last), the shortest first.
    pub fn covering(&self, prefix: P) -> impl Iterator<Item = (P, &T)> + '_ {
        self.lengths
            .ascending(prefix.len())
            .filter_map(move |len| self.entry(P::truncated(prefix.address(), len)))
    }

    /// The prefixes that `prefix` covers (itself, if it is in the table, comes first), in order.
    pub fn covered(&self, prefix: P) -> impl Iterator<Item = (P, &T)> + '_ {
        let last = P::truncated(prefix.last_address(), P::BITS);
        self.entries
            .range(prefix..=last)
            .map(|(&prefix, value)| (prefix, value))
    }

    /// Whether an address lies both in `prefix` and in a prefix of the table.
    #[must_use]
    pub fn overlaps(&self, prefix: P) -> bool {
        self.covered(prefix).next().is_some() || self.covering(prefix).next().is_some()
    }

    /// All entries, ordered by address, then by length.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (P, &T)> + ExactSizeIterator + '_ {
        self.entries.iter().map(|(&prefix, value)| (prefix, value))
    }

    fn entry(&self, prefix: P) -> Option<(P, &T)> {
        self.entries.get(&prefix).map(|value| (prefix, value))
    }
}

impl<P: Prefix, T> Default for PrefixTable<P, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Prefix, T> FromIterator<(P, T)> for PrefixTable<P, T> {
    fn from_iter<I: IntoIterator<Item = (P, T)>>(entries: I) -> Self {
        let mut table = Self::new();
        table.extend(entries);
        table
    }
}

impl<P: Prefix, T> Extend<(P, T)> for PrefixTable<P, T> {
    fn extend<I: IntoIterator<Item = (P, T)>>(&mut self, entries: I) {
        for (prefix, value) in entries {
            self.insert(prefix, value);
        }
    }
}

/// How many prefixes there are of each length, and which lengths those are.
#[derive(Clone, Debug)]
struct Lengths {
    counts: [usize; 129],
    /// Bit `len % 64` of word `len / 64` says whether `counts[len]` is not zero.
    in_use: [u64; 3],
}

impl Lengths {
    const NONE: Self = Self {
        counts: [0; 129],
        in_use: [0; 3],
    };

    fn add(&mut self, len: u8) {
        self.counts[usize::from(len)] += 1;
        self.in_use[usize::from(len / 64)] |= 1 << (len % 64);
    }

    fn remove(&mut self, len: u8) {
        let count = &mut self.counts[usize::from(len)];
        *count -= 1;
        if *count == 0 {
            self.in_use[usize::from(len / 64)] &= !(1 << (len % 64));
        }
    }

    /// The lengths in use from `most` down.
    fn descending(&self, most: u8) -> impl Iterator<Item = u8> + '_ {
        let mut words = self.up_to(most);
        core::iter::from_fn(move || {
            let word = words.iter().rposition(|&word| word != 0)?;
            let bit = 63 - words[word].leading_zeros();
            words[word] &= !(1 << bit);
            Some(length(word, bit))
        })
    }

    /// The lengths in use up to `most`.
    fn ascending(&self, most: u8) -> impl Iterator<Item = u8> + '_ {
        let mut words = self.up_to(most);
        core::iter::from_fn(move || {
            let word = words.iter().position(|&word| word != 0)?;
            let bit = words[word].trailing_zeros();
            words[word] &= !(1 << bit);
            Some(length(word, bit))
        })
    }

    fn up_to(&self, most: u8) -> [u64; 3] {
        let most = usize::from(most);
        core::array::from_fn(|word| match most / 64 {
            last if word < last => self.in_use[word],
            last if word == last => self.in_use[word] & (u64::MAX >> (63 - most % 64)),
            _ => 0,
        })
    }
}

#[allow(clippy::cast_possible_truncation, reason = "at most 128")]
fn length(word: usize, bit: u32) -> u8 {
    (word * 64) as u8 + bit as u8
}

#[cfg(test)]
mod tests;

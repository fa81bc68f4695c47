//! [`ListTable`]: a prefix table that is right because it is plain. The tests' oracle; every question reads the whole list.
use alloc::vec::Vec;

use crate::prefix::Prefix;

/// The interface of [`PrefixTable`](super::PrefixTable), in linear time.
#[derive(Clone, Debug, Default)]
pub struct ListTable<P, T> {
    entries: Vec<(P, T)>,
}

impl<P: Prefix, T> ListTable<P, T> {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
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
        let before = self.remove(&prefix);
        self.entries.push((prefix, value));
        self.entries.sort_by_key(|entry| entry.0);
        before
    }

    /// The value of exactly `prefix`, which is no longer in the table.
    pub fn remove(&mut self, prefix: &P) -> Option<T> {
        let position = self.entries.iter().position(|entry| entry.0 == *prefix)?;
        Some(self.entries.remove(position).1)
    }

    /// Removes every prefix.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The value of exactly `prefix`.
    #[must_use]
    pub fn get(&self, prefix: &P) -> Option<&T> {
        self.iter().find(|entry| entry.0 == *prefix).map(|entry| entry.1)
    }

    /// The longest prefix that holds `address`, and its value.
    #[must_use]
    pub fn lookup(&self, address: P::Address) -> Option<(P, &T)> {
        self.iter()
            .filter(|entry| entry.0.contains(address))
            .max_by_key(|entry| entry.0.len())
    }

    /// The prefixes that cover `prefix`, the shortest first.
    pub fn covering(&self, prefix: P) -> impl Iterator<Item = (P, &T)> + '_ {
        self.iter().filter(move |entry| entry.0.covers(&prefix))
    }

    /// The prefixes that `prefix` covers, in order.
    pub fn covered(&self, prefix: P) -> impl Iterator<Item = (P, &T)> + '_ {
        self.iter().filter(move |entry| prefix.covers(&entry.0))
    }

    /// Whether an address lies both in `prefix` and in a prefix of the table.
    #[must_use]
    pub fn overlaps(&self, prefix: P) -> bool {
        self.iter().any(|entry| entry.0.overlaps(&prefix))
    }

    /// All entries, ordered by address, then by length.
    pub fn iter(&self) -> impl Iterator<Item = (P, &T)> + '_ {
        self.entries.iter().map(|(prefix, value)| (*prefix, value))
    }
}

impl<P: Prefix, T> FromIterator<(P, T)> for ListTable<P, T> {
    fn from_iter<I: IntoIterator<Item = (P, T)>>(entries: I) -> Self {
        let mut table = Self::new();
        table.extend(entries);
        table
    }
}

impl<P: Prefix, T> Extend<(P, T)> for ListTable<P, T> {
    fn extend<I: IntoIterator<Item = (P, T)>>(&mut self, entries: I) {
        for (prefix, value) in entries {
            self.insert(prefix, value);
        }
    }
}

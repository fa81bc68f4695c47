//! The core's table of one family, and the Python objects that its slots stand for.
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use overlaynet_core::table::PrefixTable as Table;
use overlaynet_io::pages;
use pyo3::prelude::*;
use pyo3::sync::RwLockExt;
use pyo3::types::PyInt;
use pyo3::{PyTraverseError, PyVisit};

use crate::prefix::{self, Family, Key};

/// What stands in [`Entries::numbers`] for what is no small integer.
pub(super) const NO_NUMBER: u32 = u32::MAX;

/// What is stored: an int from 0 to 2^32 - 2 as a number, anything else as the object. So a lookup of small integers touches no
/// object, which in a large table would be one more line of memory that is in no cache.
pub(crate) struct Value {
    object: Option<Py<PyAny>>,
    number: u32,
}

impl Value {
    pub(super) fn of(object: Bound<'_, PyAny>) -> Self {
        let number = object.cast_exact::<PyInt>().ok();
        let number = number
            .and_then(|number| number.extract().ok())
            .unwrap_or(NO_NUMBER);
        Self {
            object: (number == NO_NUMBER).then(|| object.unbind()),
            number,
        }
    }

    /// The same of a number, if it is one of those.
    pub(super) fn of_number(number: u64) -> Option<Self> {
        let number = u32::try_from(number).ok().filter(|&number| number != NO_NUMBER)?;
        Some(Self { object: None, number })
    }
}

/// Prefixes and objects. Nothing here lets go of an object: what leaves the table is handed to the caller, who drops it after
/// the lock was released, since that may run any code.
pub(super) struct Entries<P: Family> {
    table: Table<P, ()>,
    /// By slot. Shorter than `numbers` as long as all behind are numbers.
    objects: Vec<Option<Py<PyAny>>>,
    numbers: Vec<u32>,
    /// Where what lookups read was when the system was last told of it.
    advised: usize,
}

impl<P: Family> Entries<P> {
    fn new() -> Self {
        Self {
            table: Table::new(),
            objects: Vec::new(),
            numbers: Vec::new(),
            advised: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) const fn table(&self) -> &Table<P, ()> {
        &self.table
    }

    /// The slots' numbers, or [`NO_NUMBER`].
    pub(super) fn numbers(&self) -> &[u32] {
        &self.numbers
    }

    /// The value at a slot that is in use.
    #[inline]
    fn value(&self, py: Python<'_>, slot: u32) -> Option<Py<PyAny>> {
        let at = slot as usize;
        match *self.numbers.get(at)? {
            NO_NUMBER => self.objects.get(at)?.as_ref().map(|object| object.clone_ref(py)),
            number => Some(PyInt::new(py, number).into_any().unbind()),
        }
    }

    #[inline]
    pub(super) fn find(&self, py: Python<'_>, key: &Key<P>) -> Option<Py<PyAny>> {
        let slot = match *key {
            Key::Address(address) => self.table.lookup_slot(address),
            Key::Prefix(ref prefix) => self.table.slot(prefix),
        };
        self.value(py, slot?)
    }

    pub(super) fn contains(&self, prefix: &P) -> bool {
        self.table.slot(prefix).is_some()
    }

    pub(super) fn lookup(&self, py: Python<'_>, address: P::Address) -> Option<(P, Py<PyAny>)> {
        self.entry(py, self.table.lookup_slot(address)?)
    }

    /// The prefix and the value at a slot.
    pub(super) fn entry(&self, py: Python<'_>, slot: u32) -> Option<(P, Py<PyAny>)> {
        Some((self.table.entry(slot)?.0, self.value(py, slot)?))
    }

    pub(super) fn covering(&self, py: Python<'_>, prefix: P) -> Vec<(P, Py<PyAny>)> {
        let entries = self.table.covering(prefix).map(|(prefix, ())| prefix);
        self.with_values(py, entries).collect()
    }

    pub(super) fn covered(&self, py: Python<'_>, prefix: P) -> Vec<(P, Py<PyAny>)> {
        let entries = self.table.covered(prefix).map(|(prefix, ())| prefix);
        self.with_values(py, entries).collect()
    }

    pub(super) fn overlaps(&self, prefix: P) -> bool {
        self.table.overlaps(prefix)
    }

    pub(super) fn iter(&self, py: Python<'_>) -> impl Iterator<Item = (P, Py<PyAny>)> {
        self.with_values(py, self.prefixes())
    }

    pub(super) fn prefixes(&self) -> impl Iterator<Item = P> {
        self.table.iter().map(|(prefix, ())| prefix)
    }

    fn with_values(
        &self,
        py: Python<'_>,
        prefixes: impl Iterator<Item = P>,
    ) -> impl Iterator<Item = (P, Py<PyAny>)> {
        prefixes.filter_map(move |prefix| Some((prefix, self.value(py, self.table.slot(&prefix)?)?)))
    }

    /// The object that `prefix` had before, if it had one.
    pub(super) fn insert(&mut self, prefix: P, value: Value) -> Option<Py<PyAny>> {
        let slot = self.table.slot(&prefix).unwrap_or_else(|| {
            let slot = self.table.next_slot();
            self.table.insert(prefix, ());
            slot
        });
        let replaced = self.put(slot, value);
        self.advise();
        replaced
    }

    /// The objects that were replaced. Of equal prefixes the last one stays.
    pub(super) fn extend(&mut self, mut entries: Vec<(P, Value)>) -> Vec<Py<PyAny>> {
        if !entries.is_sorted_by_key(|entry| entry.0) {
            // Stable; and what lies beside one another is found in the caches.
            entries.sort_by_key(|entry| entry.0);
        }
        let mut slots = Vec::with_capacity(entries.len());
        let prefixes = entries.iter().map(|&(prefix, _)| (prefix, ()));
        self.table.extend_in_order(prefixes, |slot| slots.push(slot));
        self.numbers
            .reserve(self.table.len().saturating_sub(self.numbers.len()));
        let values = entries.into_iter().map(|(_, value)| value);
        let replaced = slots
            .into_iter()
            .zip(values)
            .filter_map(|(slot, value)| self.put(slot, value));
        let replaced = replaced.collect();
        self.advise();
        replaced
    }

    fn put(&mut self, slot: u32, value: Value) -> Option<Py<PyAny>> {
        let at = slot as usize;
        if at >= self.numbers.len() {
            self.numbers.resize(at + 1, NO_NUMBER);
        }
        self.numbers[at] = value.number;
        if value.object.is_some() && at >= self.objects.len() {
            self.objects.resize_with(at + 1, || None);
        }
        core::mem::replace(self.objects.get_mut(at)?, value.object)
    }

    /// Has large tables on huge pages: whenever the table has moved to other memory, and so have its numbers, which grow with it.
    fn advise(&mut self) {
        let lookup = core::ptr::from_ref(self.table.as_lookup()).addr();
        if lookup != self.advised {
            self.advised = lookup;
            pages::advise_table(&self.table);
            let numbers = self.numbers.as_ptr_range();
            pages::advise(numbers.start.cast()..numbers.end.cast());
        }
    }

    pub(super) fn remove(&mut self, py: Python<'_>, prefix: &P) -> Option<Py<PyAny>> {
        let slot = self.table.slot(prefix)?;
        self.table.remove(prefix);
        let at = slot as usize;
        match core::mem::replace(self.numbers.get_mut(at)?, NO_NUMBER) {
            NO_NUMBER => self.objects.get_mut(at)?.take(),
            number => Some(PyInt::new(py, number).into_any().unbind()),
        }
    }

    /// The first entry, which is no longer in the table.
    pub(super) fn remove_first(&mut self, py: Python<'_>) -> Option<(P, Py<PyAny>)> {
        let prefix = self.table.iter().next()?.0;
        Some((prefix, self.remove(py, &prefix)?))
    }
}

/// Entries behind a lock.
pub(super) struct Locked<P: Family>(RwLock<Entries<P>>);

impl<P: Family> Locked<P> {
    pub(super) fn new() -> Self {
        Self(RwLock::new(Entries::new()))
    }

    /// For a caller that holds the interpreter, and lets go of it while it waits.
    #[inline]
    pub(super) fn read(&self, py: Python<'_>) -> RwLockReadGuard<'_, Entries<P>> {
        self.0
            .read_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// As above.
    #[inline]
    pub(super) fn write(&self, py: Python<'_>) -> RwLockWriteGuard<'_, Entries<P>> {
        self.0
            .write_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// For a caller that has let go of the interpreter.
    pub(super) fn read_detached(&self) -> RwLockReadGuard<'_, Entries<P>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    pub(super) fn find(&self, key: &Bound<'_, PyAny>, strict: bool) -> PyResult<Option<Py<PyAny>>> {
        let py = key.py();
        let key = prefix::key::<P>(key, strict)?;
        Ok(self.read(py).find(py, &key))
    }

    /// All entries, in order.
    pub(super) fn snapshot(&self, py: Python<'_>) -> Vec<(P, Py<PyAny>)> {
        self.read(py).iter(py).collect()
    }

    pub(super) fn extend(&self, py: Python<'_>, entries: Vec<(P, Value)>) {
        // The objects are neither counted nor dropped meanwhile.
        let replaced = py.detach(|| {
            let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
            table.extend(entries)
        });
        drop(replaced);
    }

    pub(super) fn clear(&self, py: Python<'_>) {
        let new = Entries::new();
        let old = core::mem::replace(&mut *self.write(py), new);
        drop(old);
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // A collection can start only where Python code runs, so that no writer is half way here; one that is detached may be,
        // and then the objects are merely kept for another round.
        let Ok(entries) = self.0.try_read() else {
            return Ok(());
        };
        entries
            .objects
            .iter()
            .flatten()
            .try_for_each(|object| visit.call(object))
    }
}

//! The core's table of one family, and the Python objects that its slots stand for.
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use overlaynet_core::table::PrefixTable as Table;
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
}

/// Prefixes and objects. Nothing here lets go of an object: what leaves the table is handed to the caller, who drops it after
/// the lock was released, since that may run any code.
pub(super) struct Entries<P: Family> {
    /// Each entry's value is its slot.
    table: Table<P, u32>,
    objects: Vec<Option<Py<PyAny>>>,
    numbers: Vec<u32>,
}

impl<P: Family> Entries<P> {
    fn new() -> Self {
        Self {
            table: Table::new(),
            objects: Vec::new(),
            numbers: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) const fn table(&self) -> &Table<P, u32> {
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
        self.with_values(py, self.table.covering(prefix)).collect()
    }

    pub(super) fn covered(&self, py: Python<'_>, prefix: P) -> Vec<(P, Py<PyAny>)> {
        self.with_values(py, self.table.covered(prefix)).collect()
    }

    pub(super) fn overlaps(&self, prefix: P) -> bool {
        self.table.overlaps(prefix)
    }

    pub(super) fn iter(&self, py: Python<'_>) -> impl Iterator<Item = (P, Py<PyAny>)> {
        self.with_values(py, self.table.iter())
    }

    pub(super) fn prefixes(&self) -> impl Iterator<Item = P> {
        self.table.iter().map(|(prefix, _)| prefix)
    }

    fn with_values<'a>(
        &'a self,
        py: Python<'_>,
        entries: impl Iterator<Item = (P, &'a u32)>,
    ) -> impl Iterator<Item = (P, Py<PyAny>)> {
        entries.filter_map(move |(prefix, &slot)| Some((prefix, self.value(py, slot)?)))
    }

    /// The object that `prefix` had before, if it had one.
    pub(super) fn insert(&mut self, prefix: P, value: Value) -> Option<Py<PyAny>> {
        let next = self.table.next_slot();
        let slot = match self.table.insert(prefix, next) {
            None => next,
            Some(slot) => {
                self.place(prefix, slot);
                slot
            }
        };
        self.put(slot, value)
    }

    /// The objects that were replaced. Of equal prefixes the last one stays.
    pub(super) fn extend(&mut self, mut entries: Vec<(P, Value)>) -> Vec<Py<PyAny>> {
        if !entries.is_sorted_by_key(|entry| entry.0) {
            // Stable; and what lies beside one another is found in the caches.
            entries.sort_by_key(|entry| entry.0);
        }
        self.table.extend(entries.iter().map(|&(prefix, _)| (prefix, 0)));
        let mut replaced = Vec::new();
        for (prefix, value) in entries {
            if let Some(slot) = self.table.slot(&prefix) {
                self.place(prefix, slot);
                replaced.extend(self.put(slot, value));
            }
        }
        replaced
    }

    fn place(&mut self, prefix: P, slot: u32) {
        if let Some(place) = self.table.get_mut(&prefix) {
            *place = slot;
        }
    }

    fn put(&mut self, slot: u32, value: Value) -> Option<Py<PyAny>> {
        let at = slot as usize;
        if at >= self.objects.len() {
            self.objects.resize_with(at + 1, || None);
            self.numbers.resize(at + 1, NO_NUMBER);
        }
        self.numbers[at] = value.number;
        core::mem::replace(&mut self.objects[at], value.object)
    }

    pub(super) fn remove(&mut self, py: Python<'_>, prefix: &P) -> Option<Py<PyAny>> {
        let slot = self.table.remove(prefix)?;
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

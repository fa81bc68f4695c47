//! `PrefixTable`: the core's table of Python objects.
//!
//! The lock is held only while the table itself is read or changed, never while Python code could run: keys are read before it
//! is taken, and values that leave the table are dropped after it is released.
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use overlaynet_core::prefix::{Ipv4Prefix, Ipv6Prefix, Prefix};
use overlaynet_core::table::PrefixTable as Table;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::prefix::{Family, address, prefix};

/// A map from IP prefixes of one family to objects, with longest-prefix match.
#[pyclass(frozen, module = "overlaynet._core")]
pub(crate) struct PrefixTable(Families);

enum Families {
    V4(Locked<Ipv4Prefix>),
    V6(Locked<Ipv6Prefix>),
}

struct Locked<P: Prefix>(RwLock<Table<P, Py<PyAny>>>);

type Entry = (String, Py<PyAny>);

/// The same expression over the table of either family.
macro_rules! of_family {
    ($table:expr, $locked:ident => $expression:expr) => {
        match &$table.0 {
            Families::V4($locked) => $expression,
            Families::V6($locked) => $expression,
        }
    };
}

impl<P: Family> Locked<P> {
    fn new() -> Self {
        Self(RwLock::new(Table::new()))
    }

    fn read(&self) -> RwLockReadGuard<'_, Table<P, Py<PyAny>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table<P, Py<PyAny>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, key: &Bound<'_, PyAny>, value: Py<PyAny>) -> PyResult<Option<Py<PyAny>>> {
        let key = prefix(key)?;
        Ok(self.write().insert(key, value))
    }

    fn remove(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        let key = prefix(key)?;
        Ok(self.write().remove(&key))
    }

    fn get(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        let prefix: P = prefix(key)?;
        Ok(self.read().get(&prefix).map(|value| value.clone_ref(key.py())))
    }

    fn contains(&self, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let prefix: P = prefix(key)?;
        Ok(self.read().get(&prefix).is_some())
    }

    fn lookup(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<Entry>> {
        let address = address::<P>(key)?;
        Ok(self.read().lookup(address).map(|found| entry(key.py(), found)))
    }

    fn covering(&self, key: &Bound<'_, PyAny>) -> PyResult<Vec<Entry>> {
        let prefix: P = prefix(key)?;
        Ok(self
            .read()
            .covering(prefix)
            .map(|found| entry(key.py(), found))
            .collect())
    }

    fn covered(&self, key: &Bound<'_, PyAny>) -> PyResult<Vec<Entry>> {
        let prefix: P = prefix(key)?;
        Ok(self
            .read()
            .covered(prefix)
            .map(|found| entry(key.py(), found))
            .collect())
    }

    fn overlaps(&self, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let prefix: P = prefix(key)?;
        Ok(self.read().overlaps(prefix))
    }

    fn items(&self, py: Python<'_>) -> Vec<Entry> {
        self.read().iter().map(|found| entry(py, found)).collect()
    }

    fn prefixes(&self) -> Vec<String> {
        self.read().iter().map(|found| found.0.to_string()).collect()
    }

    fn clear(&self) {
        let entries = core::mem::take(&mut *self.write());
        drop(entries);
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // A collection can start only where Python code runs, so the lock is free; if it ever were not, the objects would
        // merely be kept for another round.
        let Ok(table) = self.0.try_read() else {
            return Ok(());
        };
        table.iter().try_for_each(|(_, value)| visit.call(value))
    }
}

fn entry<P: Prefix>(py: Python<'_>, (prefix, value): (P, &Py<PyAny>)) -> Entry {
    (prefix.to_string(), value.clone_ref(py))
}

#[pymethods]
impl PrefixTable {
    #[new]
    #[pyo3(signature = (family, /))]
    fn new(family: u8) -> PyResult<Self> {
        match family {
            4 => Ok(Self(Families::V4(Locked::new()))),
            6 => Ok(Self(Families::V6(Locked::new()))),
            _ => Err(PyValueError::new_err(format!("family {family}: want 4 or 6"))),
        }
    }

    /// The IP version of the table's prefixes: 4 or 6.
    #[getter]
    const fn family(&self) -> u8 {
        match self.0 {
            Families::V4(_) => 4,
            Families::V6(_) => 6,
        }
    }

    fn __len__(&self) -> usize {
        of_family!(self, table => table.read().len())
    }

    fn __contains__(&self, prefix: &Bound<'_, PyAny>) -> PyResult<bool> {
        of_family!(self, table => table.contains(prefix))
    }

    /// The value that `prefix` had before, or None; it now has `value`.
    #[pyo3(signature = (prefix, value, /))]
    fn insert(&self, prefix: &Bound<'_, PyAny>, value: Py<PyAny>) -> PyResult<Option<Py<PyAny>>> {
        of_family!(self, table => table.insert(prefix, value))
    }

    /// The value of exactly `prefix`, which is no longer in the table; `default` if it was not.
    #[pyo3(signature = (prefix, default = None, /))]
    fn remove(&self, prefix: &Bound<'_, PyAny>, default: Option<Py<PyAny>>) -> PyResult<Option<Py<PyAny>>> {
        Ok(of_family!(self, table => table.remove(prefix))?.or(default))
    }

    /// The value of exactly `prefix`, or `default`.
    #[pyo3(signature = (prefix, default = None, /))]
    fn get(&self, prefix: &Bound<'_, PyAny>, default: Option<Py<PyAny>>) -> PyResult<Option<Py<PyAny>>> {
        Ok(of_family!(self, table => table.get(prefix))?.or(default))
    }

    /// The longest prefix that holds `address` and its value, or None.
    #[pyo3(signature = (address, /))]
    fn lookup(&self, address: &Bound<'_, PyAny>) -> PyResult<Option<Entry>> {
        of_family!(self, table => table.lookup(address))
    }

    /// The entries whose prefixes cover `prefix`, the shortest first.
    #[pyo3(signature = (prefix, /))]
    fn covering(&self, prefix: &Bound<'_, PyAny>) -> PyResult<Vec<Entry>> {
        of_family!(self, table => table.covering(prefix))
    }

    /// The entries whose prefixes `prefix` covers, in order.
    #[pyo3(signature = (prefix, /))]
    fn covered(&self, prefix: &Bound<'_, PyAny>) -> PyResult<Vec<Entry>> {
        of_family!(self, table => table.covered(prefix))
    }

    /// Whether an address lies both in `prefix` and in a prefix of the table.
    #[pyo3(signature = (prefix, /))]
    fn overlaps(&self, prefix: &Bound<'_, PyAny>) -> PyResult<bool> {
        of_family!(self, table => table.overlaps(prefix))
    }

    /// All prefixes, ordered by address, then by length.
    fn prefixes(&self) -> Vec<String> {
        of_family!(self, table => table.prefixes())
    }

    /// All entries, ordered by address, then by length.
    fn items(&self, py: Python<'_>) -> Vec<Entry> {
        of_family!(self, table => table.items(py))
    }

    /// Removes every prefix.
    fn clear(&self) {
        of_family!(self, table => table.clear());
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        of_family!(self, table => table.traverse(&visit))
    }

    fn __clear__(&self) {
        self.clear();
    }
}

//! The iterator over a table: what was in it when the iteration began.
use std::sync::atomic::{AtomicUsize, Ordering};

use overlaynet_core::prefix::{Ipv4Prefix, Ipv6Prefix};
use pyo3::prelude::*;
use pyo3::{IntoPyObjectExt, PyTraverseError, PyVisit};

use crate::prefix::network;

/// Prefixes of one family.
pub(super) enum Prefixes {
    V4(Vec<Ipv4Prefix>),
    V6(Vec<Ipv6Prefix>),
}

/// What an iteration gives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Keys,
    Values,
    Items,
}

/// Networks are made one by one, as they are asked for: making one takes fifty times as long as finding it.
#[pyclass(frozen, module = "overlaynet._core")]
pub(crate) struct TableIterator {
    what: What,
    prefixes: Prefixes,
    /// None for keys.
    objects: Vec<Py<PyAny>>,
    len: usize,
    reversed: bool,
    next: AtomicUsize,
}

impl TableIterator {
    pub(super) fn new(what: What, prefixes: Prefixes, objects: Vec<Py<PyAny>>, reversed: bool) -> Self {
        let len = match &prefixes {
            Prefixes::V4(prefixes) => prefixes.len(),
            Prefixes::V6(prefixes) => prefixes.len(),
        };
        Self {
            what,
            prefixes,
            objects,
            len,
            reversed,
            next: AtomicUsize::new(0),
        }
    }

    fn network<'py>(&self, py: Python<'py>, at: usize) -> PyResult<Bound<'py, PyAny>> {
        match &self.prefixes {
            Prefixes::V4(prefixes) => network(py, prefixes[at]),
            Prefixes::V6(prefixes) => network(py, prefixes[at]),
        }
    }
}

#[pymethods]
impl TableIterator {
    const fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    pub(super) fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        if at >= self.len {
            self.next.store(self.len, Ordering::Relaxed);
            return Ok(None);
        }
        let at = if self.reversed { self.len - 1 - at } else { at };
        let found = match self.what {
            What::Keys => self.network(py, at)?,
            What::Values => self.objects[at].bind(py).clone(),
            What::Items => (self.network(py, at)?, &self.objects[at]).into_bound_py_any(py)?,
        };
        Ok(Some(found))
    }

    fn __length_hint__(&self) -> usize {
        self.len.saturating_sub(self.next.load(Ordering::Relaxed))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.objects.iter().try_for_each(|object| visit.call(object))
    }
}

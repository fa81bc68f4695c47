//! What the table gives back: values with their networks, views, texts, and its state for a pickle.
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use super::PrefixTable;
use super::entries::Locked;
use super::families::Families;
use super::iter::{Prefixes, TableIterator, What};
use crate::prefix::{Family, network};

/// A network of `ipaddress`, and its value.
pub(super) type Entry<'py> = (Bound<'py, PyAny>, Py<PyAny>);

impl PrefixTable {
    pub(super) fn iterator(&self, py: Python<'_>, what: What, reversed: bool) -> TableIterator {
        let (prefixes, objects) = match self.families.get() {
            Some(Families::V4(table)) => {
                let (prefixes, objects) = parts(py, table, what);
                (Prefixes::V4(prefixes), objects)
            }
            Some(Families::V6(table)) => {
                let (prefixes, objects) = parts(py, table, what);
                (Prefixes::V6(prefixes), objects)
            }
            None => (Prefixes::V4(Vec::new()), Vec::new()),
        };
        TableIterator::new(what, prefixes, objects, reversed)
    }

    pub(super) fn keys_iterator<'py>(
        &self,
        py: Python<'py>,
        reversed: bool,
    ) -> PyResult<Bound<'py, TableIterator>> {
        Bound::new(py, self.iterator(py, What::Keys, reversed))
    }

    /// The view of that name in `overlaynet.prefixes`.
    pub(super) fn view<'py>(slf: &Bound<'py, Self>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        slf.py()
            .import(intern!(slf.py(), "overlaynet.prefixes"))?
            .getattr(name)?
            .call1((slf,))
    }
}

fn parts<P: Family>(py: Python<'_>, table: &Locked<P>, what: What) -> (Vec<P>, Vec<Py<PyAny>>) {
    let entries = table.read(py);
    match what {
        What::Keys => (entries.prefixes().collect(), Vec::new()),
        What::Values | What::Items => entries.iter(py).unzip(),
    }
}

pub(super) fn looked_up<'py, P: Family>(
    py: Python<'py>,
    table: &Locked<P>,
    address: P::Address,
) -> PyResult<Option<Entry<'py>>> {
    let found = table.read(py).lookup(py, address);
    entry(py, found)
}

pub(super) fn entry<P: Family>(py: Python<'_>, found: Option<(P, Py<PyAny>)>) -> PyResult<Option<Entry<'_>>> {
    found
        .map(|(prefix, object)| Ok((network(py, prefix)?, object)))
        .transpose()
}

pub(super) fn list<P: Family>(py: Python<'_>, entries: Vec<(P, Py<PyAny>)>) -> PyResult<Bound<'_, PyList>> {
    let list = PyList::empty(py);
    for (prefix, object) in entries {
        list.append((network(py, prefix)?, object))?;
    }
    Ok(list)
}

pub(super) fn shown<P: Family>(py: Python<'_>, entries: &[(P, Py<PyAny>)]) -> PyResult<Vec<String>> {
    let text = |(prefix, object): &(P, Py<PyAny>)| Ok(format!("'{prefix}': {}", object.bind(py).repr()?));
    entries.iter().map(text).collect()
}

/// Packed prefixes and a list of values.
pub(super) fn state<P: Family>(py: Python<'_>, entries: Vec<(P, Py<PyAny>)>) -> PyResult<Bound<'_, PyTuple>> {
    let mut packed = Vec::with_capacity(entries.len() * (P::BYTES + 1));
    let values = PyList::empty(py);
    for (prefix, object) in entries {
        P::pack(prefix.address(), &mut packed);
        packed.push(prefix.len());
        values.append(object)?;
    }
    (PyBytes::new(py, &packed), values).into_pyobject(py)
}

pub(super) fn no_family() -> PyErr {
    PyValueError::new_err(
        "packed addresses do not say of which family they are: the table must, by family= or a first prefix",
    )
}

//! Tables made of tables.
use std::sync::OnceLock;

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::PrefixTable;
use super::entries::{Entries, Value};
use super::families::Families;
use crate::prefix::Family;

/// Entries of a table that is to be made.
type Parts<P> = Vec<(P, Value)>;

/// What has what a table is made of.
pub(super) struct Mapping<'py>(pub(super) Bound<'py, PyAny>);

impl<'py> FromPyObject<'_, 'py> for Mapping<'py> {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if !value.is_exact_instance_of::<PrefixTable>() && !value.is_instance_of::<PyDict>() {
            let py = value.py();
            let abc = py.import(intern!(py, "collections.abc"))?;
            if !value.is_instance(&abc.getattr(intern!(py, "Mapping"))?)? {
                return Err(PyTypeError::new_err("want a mapping"));
            }
        }
        Ok(Self(value.to_owned()))
    }
}

impl PrefixTable {
    /// A table of the same entries.
    pub(super) fn copied(&self, py: Python<'_>) -> Self {
        let value = |object: Py<PyAny>| Value::of(object.into_bound(py));
        match self.families.get() {
            Some(Families::V4(table)) => {
                let entries = table.snapshot(py).into_iter();
                self.of_entries(
                    py,
                    entries.map(|(prefix, object)| (prefix, value(object))).collect(),
                )
            }
            Some(Families::V6(table)) => {
                let entries = table.snapshot(py).into_iter();
                self.of_entries(
                    py,
                    entries.map(|(prefix, object)| (prefix, value(object))).collect(),
                )
            }
            None => Self::open(self.strict),
        }
    }

    /// As few entries as give each address the same value.
    pub(super) fn aggregated(&self, py: Python<'_>) -> PyResult<Self> {
        Ok(match self.families.get() {
            Some(Families::V4(table)) => self.of_entries(py, aggregated(py, table.snapshot(py))?),
            Some(Families::V6(table)) => self.of_entries(py, aggregated(py, table.snapshot(py))?),
            None => Self::open(self.strict),
        })
    }

    /// A table of this one's entries whose prefixes are in `other`, or are not.
    pub(super) fn chosen(&self, py: Python<'_>, other: &Self, inside: bool) -> Self {
        match (self.families.get(), other.families.get()) {
            (Some(Families::V4(table)), Some(Families::V4(other))) => {
                let entries = table.snapshot(py);
                let chosen = chosen(py, entries, &other.read(py), inside);
                self.of_entries(py, chosen)
            }
            (Some(Families::V6(table)), Some(Families::V6(other))) => {
                let entries = table.snapshot(py);
                let chosen = chosen(py, entries, &other.read(py), inside);
                self.of_entries(py, chosen)
            }
            _ if inside => Self {
                families: OnceLock::new(),
                strict: self.strict,
            },
            _ => self.copied(py),
        }
    }
}

/// Its entries as a dict, which says whether they are equal to another's.
pub(super) fn dict_of<'py>(mapping: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    let py = mapping.py();
    let entries = PyDict::new(py);
    for pair in mapping.call_method0(intern!(py, "items"))?.try_iter()? {
        let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair?.extract()?;
        entries.set_item(key, value)?;
    }
    Ok(entries)
}

/// The entries of a table whose prefixes are in another, or are not.
fn chosen<P: Family>(
    py: Python<'_>,
    entries: Vec<(P, Py<PyAny>)>,
    other: &Entries<P>,
    inside: bool,
) -> Parts<P> {
    entries
        .into_iter()
        .filter(|(prefix, _)| other.contains(prefix) == inside)
        .map(|(prefix, object)| (prefix, Value::of(object.into_bound(py))))
        .collect()
}

/// Entries that give each address the same value as `entries`, which come in order: two halves of a prefix that have equal values
/// are one, and what is covered by a prefix of equal value is left out.
fn aggregated<P: Family>(py: Python<'_>, entries: Vec<(P, Py<PyAny>)>) -> PyResult<Parts<P>> {
    let same = |a: &Py<PyAny>, b: &Py<PyAny>| Ok::<_, PyErr>(a.is(b) || a.bind(py).eq(b)?);
    let mut of_length: Vec<Vec<(P, Py<PyAny>)>> = (0..=P::BITS).map(|_| Vec::new()).collect();
    for entry in entries {
        of_length[usize::from(entry.0.len())].push(entry);
    }
    let mut kept = Vec::new();
    let mut halves: Vec<(P, Py<PyAny>)> = Vec::new();
    for len in (0..=P::BITS).rev() {
        // What was made of two halves hides what was there. The sort is stable.
        halves.append(&mut of_length[usize::from(len)]);
        halves.sort_by_key(|entry| entry.0);
        halves.dedup_by_key(|entry| entry.0);
        let mut wholes = Vec::new();
        for entry in core::mem::take(&mut halves) {
            let before: Option<&(P, Py<PyAny>)> = kept.last();
            if len > 0
                && let Some((prefix, object)) = before
                && prefix.len() == len
                && P::truncated(prefix.address(), len - 1) == P::truncated(entry.0.address(), len - 1)
                && same(object, &entry.1)?
            {
                kept.pop();
                wholes.push((P::truncated(entry.0.address(), len - 1), entry.1));
            } else {
                kept.push(entry);
            }
        }
        halves = wholes;
    }
    kept.sort_by_key(|entry| entry.0);
    let mut above: Vec<(P, Py<PyAny>)> = Vec::new();
    let mut parts = Vec::new();
    for (prefix, object) in kept {
        while above.last().is_some_and(|(outer, _)| !outer.covers(&prefix)) {
            above.pop();
        }
        if let Some((_, outer)) = above.last()
            && same(outer, &object)?
        {
            continue;
        }
        above.push((prefix, object.clone_ref(py)));
        parts.push((prefix, Value::of(object.into_bound(py))));
    }
    Ok(parts)
}

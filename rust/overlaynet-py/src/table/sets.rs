//! Tables made of tables.
use pyo3::prelude::*;

use super::entries::{Entries, Value};
use crate::prefix::Family;

/// Entries of a table that is to be made.
pub(super) type Parts<P> = Vec<(P, Value)>;

/// The entries of a table whose prefixes are in another, or are not.
pub(super) fn chosen<P: Family>(
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
pub(super) fn aggregated<P: Family>(py: Python<'_>, entries: Vec<(P, Py<PyAny>)>) -> PyResult<Parts<P>> {
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

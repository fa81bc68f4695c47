//! `PrefixTable`: the core's table as a mapping of Python's.
//!
//! The class is the very one that users hold, since a call through a class of Python's would take longer than the lookup. Its
//! methods are those of `collections.abc.MutableMapping`, of which `overlaynet.prefixes` declares it to be one.
//!
//! The lock is held only while the table itself is read or changed, never while Python code could run: keys are read before it
//! is taken, and objects that leave the table are dropped after it is released.
mod answers;
mod batch;
mod entries;
mod families;
mod gather;
mod iter;
mod sets;

use std::sync::OnceLock;

use overlaynet_core::prefix::{Ipv4Prefix, Ipv6Prefix};
use pyo3::exceptions::{PyIndexError, PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use pyo3::{PyTraverseError, PyVisit, intern};

use crate::prefix::{self, Key};
use answers::{Entry, entry, list, looked_up, no_family, shown, state};
use batch::Answer;
use entries::Value;
use families::{Families, of_family};
use iter::{TableIterator, What};
use sets::Mapping;

/// A mapping from IP prefixes of one family to objects, with longest-prefix match.
#[pyclass(frozen, generic, mapping, weakref, module = "overlaynet.prefixes")]
pub(crate) struct PrefixTable {
    /// None while the family is open.
    families: OnceLock<Families>,
    strict: bool,
}

/// An argument that may be left out, and may be None.
enum OrElse {
    Missing,
    Given(Py<PyAny>),
}

impl<'py> FromPyObject<'_, 'py> for OrElse {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self::Given(value.to_owned().unbind()))
    }
}

#[pymethods]
impl PrefixTable {
    #[new]
    #[pyo3(signature = (entries = None, /, *, family = None, strict = true))]
    fn new(
        py: Python<'_>,
        entries: Option<&Bound<'_, PyAny>>,
        family: Option<u8>,
        strict: bool,
    ) -> PyResult<Self> {
        let table = Self::open(strict);
        match family {
            None => {}
            Some(family @ (4 | 6)) => drop(table.decided(family)),
            Some(family) => {
                return Err(PyValueError::new_err(format!("family {family}: want 4 or 6")));
            }
        }
        if let Some(entries) = entries {
            table.update(py, entries)?;
        }
        Ok(table)
    }

    #[getter]
    fn family(&self) -> Option<u8> {
        self.families.get().map(|families| match families {
            Families::V4(_) => 4,
            Families::V6(_) => 6,
        })
    }

    #[getter]
    const fn strict(&self) -> bool {
        self.strict
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        of_family!(self, table => table.read(py).len(), else 0)
    }

    fn __getitem__(&self, key: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        match self.find(key)? {
            Some(value) => Ok(value),
            None => Err(PyKeyError::new_err(key.clone().unbind())),
        }
    }

    fn __setitem__(&self, key: &Bound<'_, PyAny>, value: Bound<'_, PyAny>) -> PyResult<()> {
        self.insert(key, value)
    }

    fn __delitem__(&self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        match self.remove(key)? {
            Some(_) => Ok(()),
            None => Err(PyKeyError::new_err(key.clone().unbind())),
        }
    }

    fn __contains__(&self, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = key.py();
        let version = match prefix::version_of(key) {
            Ok(version) => version,
            // Nothing else is ever a key.
            Err(_) => return Ok(false),
        };
        if self.family().is_some_and(|family| family != version) {
            return Self::open(self.strict).__contains__(key);
        }
        match self.families.get() {
            Some(Families::V4(table)) => Ok(table.read(py).contains(&prefix::prefix(key, self.strict)?)),
            Some(Families::V6(table)) => Ok(table.read(py).contains(&prefix::prefix(key, self.strict)?)),
            None if version == 4 => prefix::prefix::<Ipv4Prefix>(key, self.strict).map(|_| false),
            None => prefix::prefix::<Ipv6Prefix>(key, self.strict).map(|_| false),
        }
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, TableIterator>> {
        self.keys_iterator(py, false)
    }

    fn __reversed__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, TableIterator>> {
        self.keys_iterator(py, true)
    }

    fn keys<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::view(slf, "_Keys")
    }

    fn values<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::view(slf, "_Values")
    }

    fn items<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::view(slf, "_Items")
    }

    #[pyo3(signature = (key, default = None, /))]
    fn get(&self, key: &Bound<'_, PyAny>, default: Option<Py<PyAny>>) -> PyResult<Option<Py<PyAny>>> {
        Ok(self.find(key)?.or(default))
    }

    #[pyo3(signature = (prefix, default = OrElse::Missing, /), text_signature = "(self, prefix, default=None, /)")]
    fn pop(&self, prefix: &Bound<'_, PyAny>, default: OrElse) -> PyResult<Py<PyAny>> {
        match (self.remove(prefix)?, default) {
            (Some(value), _) | (None, OrElse::Given(value)) => Ok(value),
            (None, OrElse::Missing) => Err(PyKeyError::new_err(prefix.clone().unbind())),
        }
    }

    fn popitem<'py>(&self, py: Python<'py>) -> PyResult<Entry<'py>> {
        let found = match self.families.get() {
            Some(Families::V4(table)) => entry(py, table.write(py).remove_first(py))?,
            Some(Families::V6(table)) => entry(py, table.write(py).remove_first(py))?,
            None => None,
        };
        found.ok_or_else(|| PyKeyError::new_err("popitem(): the table is empty"))
    }

    #[pyo3(signature = (prefix, default = None, /))]
    fn setdefault(&self, prefix: &Bound<'_, PyAny>, default: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        let py = prefix.py();
        let default = default.unwrap_or_else(|| py.None());
        loop {
            let found = of_family!(self, table => {
                let key = prefix::prefix(prefix, self.strict)?;
                let mut entries = table.write(py);
                let found = entries.find(py, &Key::Prefix(key));
                if found.is_none() {
                    entries.insert(key, Value::of(default.bind(py).clone()));
                }
                Some(found.unwrap_or_else(|| default.clone_ref(py)))
            }, else None);
            if let Some(found) = found {
                return Ok(found);
            }
            let version = prefix::version_of(prefix)?;
            if version == 4 {
                prefix::prefix::<Ipv4Prefix>(prefix, self.strict)?;
            } else {
                prefix::prefix::<Ipv6Prefix>(prefix, self.strict)?;
            }
            self.decided(version);
        }
    }

    #[pyo3(signature = (entries, /))]
    fn update(&self, py: Python<'_>, entries: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut gathered = self.gathered();
        gathered.entries(entries)?;
        self.take_in(py, gathered)
    }

    #[pyo3(signature = (prefixes, values, /))]
    fn load(&self, py: Python<'_>, prefixes: &Bound<'_, PyAny>, values: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut gathered = self.gathered();
        gathered.columns(prefixes, values)?;
        self.take_in(py, gathered)
    }

    fn clear(&self, py: Python<'_>) {
        of_family!(self, table => table.clear(py), else ());
    }

    #[pyo3(signature = (address, /))]
    fn lookup<'py>(&self, address: &Bound<'py, PyAny>) -> PyResult<Option<Entry<'py>>> {
        let py = address.py();
        match self.families.get() {
            Some(Families::V4(table)) => looked_up(py, table, prefix::address::<Ipv4Prefix>(address)?),
            Some(Families::V6(table)) => looked_up(py, table, prefix::address::<Ipv6Prefix>(address)?),
            None if prefix::version_of(address)? == 4 => prefix::address::<Ipv4Prefix>(address).map(|_| None),
            None => prefix::address::<Ipv6Prefix>(address).map(|_| None),
        }
    }

    #[pyo3(signature = (addresses, /, *, missing = -1, stride = None))]
    fn lookup_many<'py>(
        &self,
        addresses: &Bound<'py, PyAny>,
        missing: i64,
        stride: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        of_family!(self, table => table.lookup_many(addresses, stride, Answer::Number(missing)), else Err(no_family()))
    }

    #[pyo3(signature = (addresses, /, *, stride = None))]
    fn lookup_slots<'py>(
        &self,
        addresses: &Bound<'py, PyAny>,
        stride: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        of_family!(self, table => table.lookup_many(addresses, stride, Answer::Slot), else Err(no_family()))
    }

    #[pyo3(signature = (slot, /))]
    fn entry<'py>(&self, py: Python<'py>, slot: u32) -> PyResult<Entry<'py>> {
        let found = of_family!(self, table => {
            let found = table.read(py).entry(py, slot);
            entry(py, found)?
        }, else None);
        found.ok_or_else(|| PyIndexError::new_err(format!("slot {slot}: there is no entry")))
    }

    #[pyo3(signature = (prefix, /))]
    fn covering<'py>(&self, prefix: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let py = prefix.py();
        of_family!(self, table => {
            let prefix = prefix::key(prefix, self.strict)?.or_host();
            let entries = table.read(py).covering(py, prefix);
            list(py, entries)
        }, else self.check(prefix).map(|()| PyList::empty(py)))
    }

    #[pyo3(signature = (prefix, /))]
    fn covered<'py>(&self, prefix: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let py = prefix.py();
        of_family!(self, table => {
            let prefix = prefix::key(prefix, self.strict)?.or_host();
            let entries = table.read(py).covered(py, prefix);
            list(py, entries)
        }, else self.check(prefix).map(|()| PyList::empty(py)))
    }

    #[pyo3(signature = (prefix, /))]
    fn overlaps(&self, prefix: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = prefix.py();
        of_family!(self, table => {
            let prefix = prefix::key(prefix, self.strict)?.or_host();
            Ok(table.read(py).overlaps(prefix))
        }, else self.check(prefix).map(|()| false))
    }

    #[pyo3(name = "aggregate")]
    fn py_aggregate(&self, py: Python<'_>) -> PyResult<Self> {
        self.aggregated(py)
    }

    #[pyo3(name = "copy")]
    fn py_copy(&self, py: Python<'_>) -> Self {
        self.copied(py)
    }

    fn __copy__(&self, py: Python<'_>) -> Self {
        self.copied(py)
    }

    // An operand that is not of the type asked for makes the answer NotImplemented.

    fn __or__(&self, other: Mapping<'_>) -> PyResult<Self> {
        let union = self.copied(other.0.py());
        union.update(other.0.py(), &other.0)?;
        Ok(union)
    }

    fn __ror__(slf: &Bound<'_, Self>, other: Mapping<'_>) -> PyResult<Self> {
        let union = Self::open(slf.get().strict);
        union.update(slf.py(), &other.0)?;
        union.update(slf.py(), slf)?;
        Ok(union)
    }

    fn __ior__(&self, other: Mapping<'_>) -> PyResult<()> {
        self.update(other.0.py(), &other.0)
    }

    fn __and__(&self, py: Python<'_>, other: &Bound<'_, Self>) -> Self {
        self.chosen(py, other.get(), true)
    }

    fn __sub__(&self, py: Python<'_>, other: &Bound<'_, Self>) -> Self {
        self.chosen(py, other.get(), false)
    }

    fn __eq__(slf: &Bound<'_, Self>, other: Mapping<'_>) -> PyResult<bool> {
        Ok(slf.is(&other.0) || sets::dict_of(slf)?.eq(sets::dict_of(&other.0)?)?)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        /// So many entries are shown.
        const SHOWN: usize = 8;
        let shown = of_family!(self, table => shown(py, &table.read(py).iter(py).take(SHOWN).collect::<Vec<_>>())?, else Vec::new());
        let more = match self.__len__(py).saturating_sub(shown.len()) {
            0 => String::new(),
            more => format!(", ... {more} more"),
        };
        let family = match self.family() {
            Some(family) if shown.is_empty() => format!(", family={family}"),
            _ => String::new(),
        };
        let strict = if self.strict { "" } else { ", strict=False" };
        Ok(format!(
            "PrefixTable({{{}{more}}}{family}{strict})",
            shown.join(", ")
        ))
    }

    /// The class and how it is made, and the state that is then given to `__setstate__`: so a table may hold itself.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let py = slf.py();
        let table = slf.get();
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "family"), table.family())?;
        keywords.set_item(intern!(py, "strict"), table.strict)?;
        let state = of_family!(table, table => state(py, table.snapshot(py))?, else PyTuple::empty(py));
        let make = py
            .import(intern!(py, "copyreg"))?
            .getattr(intern!(py, "__newobj_ex__"))?;
        let arguments = (slf.get_type(), PyTuple::empty(py), keywords);
        (make, arguments, state).into_pyobject(py)
    }

    #[pyo3(signature = (state, /))]
    fn __setstate__(&self, state: &Bound<'_, PyTuple>) -> PyResult<()> {
        if state.is_empty() {
            return Ok(());
        }
        self.load(state.py(), &state.get_item(0)?, &state.get_item(1)?)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        of_family!(self, table => table.traverse(&visit), else Ok(()))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.clear(py);
    }
}

/// The values or the entries of `table`, for its views.
#[pyfunction]
#[pyo3(signature = (table, what, /, *, backwards = false))]
pub(crate) fn iterate(
    py: Python<'_>,
    table: &PrefixTable,
    what: &str,
    backwards: bool,
) -> PyResult<TableIterator> {
    let what = match what {
        "values" => What::Values,
        "items" => What::Items,
        _ => return Err(PyValueError::new_err(format!("{what:?}: want values or items"))),
    };
    Ok(table.iterator(py, what, backwards))
}

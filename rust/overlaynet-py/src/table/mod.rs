//! `PrefixTable`: the core's table as a mapping of Python's.
//!
//! The class is the very one that users hold, since a call through a class of Python's would take longer than the lookup. Its
//! methods are those of `collections.abc.MutableMapping`, of which `overlaynet.prefixes` declares it to be one.
//!
//! The lock is held only while the table itself is read or changed, never while Python code could run: keys are read before it
//! is taken, and objects that leave the table are dropped after it is released.
mod batch;
mod entries;
mod gather;
mod iter;
mod sets;

use std::sync::OnceLock;

use overlaynet_core::prefix::{Ipv4Prefix, Ipv6Prefix};
use pyo3::exceptions::{PyIndexError, PyKeyError, PyNotImplementedError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use pyo3::{IntoPyObjectExt, PyTraverseError, PyVisit, intern};

use crate::prefix::{self, Family, Key};
use batch::Answer;
use entries::{Locked, Value};
use gather::Gathered;
use iter::{Prefixes, TableIterator, What};

/// A mapping from IP prefixes of one family to objects, with longest-prefix match.
#[pyclass(frozen, generic, mapping, weakref, module = "overlaynet.prefixes")]
pub(crate) struct PrefixTable {
    /// None while the family is open.
    families: OnceLock<Families>,
    strict: bool,
}

enum Families {
    V4(Locked<Ipv4Prefix>),
    V6(Locked<Ipv6Prefix>),
}

/// The same expression over the table of either family, or another while there is none.
macro_rules! of_family {
    ($table:expr, $locked:ident => $expression:expr, else $missing:expr) => {
        match $table.families.get() {
            Some(Families::V4($locked)) => $expression,
            Some(Families::V6($locked)) => $expression,
            None => $missing,
        }
    };
}

type Entry<'py> = (Bound<'py, PyAny>, Py<PyAny>);

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

impl PrefixTable {
    const fn open(strict: bool) -> Self {
        Self {
            families: OnceLock::new(),
            strict,
        }
    }

    /// The table's entries; None while the family is open.
    fn families(&self) -> Option<&Families> {
        self.families.get()
    }

    fn decided(&self, family: u8) -> &Families {
        self.families.get_or_init(|| match family {
            4 => Families::V4(Locked::new()),
            _ => Families::V6(Locked::new()),
        })
    }

    /// PrefixError or TypeError unless `key` is one of either family.
    fn check(&self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        if prefix::version_of(key)? == 4 {
            prefix::key::<Ipv4Prefix>(key, self.strict).map(drop)
        } else {
            prefix::key::<Ipv6Prefix>(key, self.strict).map(drop)
        }
    }

    #[inline]
    fn find(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        of_family!(self, table => table.find(key, self.strict), else self.check(key).map(|()| None))
    }

    fn insert(&self, key: &Bound<'_, PyAny>, value: Bound<'_, PyAny>) -> PyResult<()> {
        let py = key.py();
        if self.families.get().is_none() {
            // A key that is refused leaves the family open.
            let family = prefix::version_of(key)?;
            if family == 4 {
                prefix::prefix::<Ipv4Prefix>(key, self.strict)?;
            } else {
                prefix::prefix::<Ipv6Prefix>(key, self.strict)?;
            }
            self.decided(family);
        }
        let replaced = of_family!(self, table => {
            let key = prefix::prefix(key, self.strict)?;
            table.write(py).insert(key, Value::of(value))
        }, else None);
        drop(replaced);
        Ok(())
    }

    fn remove(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        let py = key.py();
        of_family!(self, table => {
            let key = prefix::prefix(key, self.strict)?;
            Ok(table.write(py).remove(py, &key))
        }, else self.check(key).map(|()| None))
    }

    fn gathered(&self) -> Gathered {
        Gathered::new(self.family(), self.strict)
    }

    fn take_in(&self, py: Python<'_>, gathered: Gathered) -> PyResult<()> {
        let Some(family) = gathered.family else {
            return Ok(());
        };
        match self.decided(family) {
            Families::V4(table) if family == 4 => table.extend(py, gathered.v4),
            Families::V6(table) if family == 6 => table.extend(py, gathered.v6),
            // Another thread was the first to say which family.
            _ => {
                return Err(PyValueError::new_err(format!(
                    "IPv{family} prefixes: another thread has made this a table of IPv{}",
                    10 - family
                )));
            }
        }
        Ok(())
    }

    fn of_entries<P: Family>(&self, py: Python<'_>, entries: Vec<(P, Value)>) -> Self
    where
        Families: From<Locked<P>>,
    {
        let table = Locked::new();
        table.extend(py, entries);
        Self {
            families: OnceLock::from(Families::from(table)),
            strict: self.strict,
        }
    }

    /// A table of this one's entries whose prefixes are in `other`, or are not.
    fn chosen(&self, py: Python<'_>, other: &Self, inside: bool) -> Self {
        match (self.families.get(), other.families.get()) {
            (Some(Families::V4(table)), Some(Families::V4(other))) => {
                let entries = table.snapshot(py);
                let chosen = sets::chosen(py, entries, &other.read(py), inside);
                self.of_entries(py, chosen)
            }
            (Some(Families::V6(table)), Some(Families::V6(other))) => {
                let entries = table.snapshot(py);
                let chosen = sets::chosen(py, entries, &other.read(py), inside);
                self.of_entries(py, chosen)
            }
            _ if inside => Self {
                families: OnceLock::new(),
                strict: self.strict,
            },
            _ => self.copy(py),
        }
    }

    fn iterator(&self, py: Python<'_>, what: What, reversed: bool) -> TableIterator {
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

    fn keys_iterator<'py>(&self, py: Python<'py>, reversed: bool) -> PyResult<Bound<'py, TableIterator>> {
        Bound::new(py, self.iterator(py, What::Keys, reversed))
    }

    /// The view of that name in `overlaynet.prefixes`.
    fn view<'py>(slf: &Bound<'py, Self>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        slf.py()
            .import(intern!(slf.py(), "overlaynet.prefixes"))?
            .getattr(name)?
            .call1((slf,))
    }
}

impl From<Locked<Ipv4Prefix>> for Families {
    fn from(table: Locked<Ipv4Prefix>) -> Self {
        Self::V4(table)
    }
}

impl From<Locked<Ipv6Prefix>> for Families {
    fn from(table: Locked<Ipv6Prefix>) -> Self {
        Self::V6(table)
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

    fn aggregate(&self, py: Python<'_>) -> PyResult<Self> {
        Ok(match self.families.get() {
            Some(Families::V4(table)) => self.of_entries(py, sets::aggregated(py, table.snapshot(py))?),
            Some(Families::V6(table)) => self.of_entries(py, sets::aggregated(py, table.snapshot(py))?),
            None => Self::open(self.strict),
        })
    }

    fn copy(&self, py: Python<'_>) -> Self {
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

    fn __copy__(&self, py: Python<'_>) -> Self {
        self.copy(py)
    }

    fn __or__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = other.py();
        if !is_mapping(other)? {
            return Ok(py.NotImplemented().into_bound(py));
        }
        let union = self.copy(py);
        union.update(py, other)?;
        union.into_bound_py_any(py)
    }

    fn __ror__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = other.py();
        if !is_mapping(other)? {
            return Ok(py.NotImplemented().into_bound(py));
        }
        let union = Self::open(slf.get().strict);
        union.update(py, other)?;
        union.update(py, slf.as_any())?;
        union.into_bound_py_any(py)
    }

    fn __ior__(&self, other: &Bound<'_, PyAny>) -> PyResult<()> {
        if !is_mapping(other)? {
            return Err(PyNotImplementedError::new_err("|=: want a mapping"));
        }
        self.update(other.py(), other)
    }

    fn __and__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = other.py();
        match other.cast_exact::<Self>() {
            Ok(other) => self.chosen(py, other.get(), true).into_bound_py_any(py),
            Err(_) => Ok(py.NotImplemented().into_bound(py)),
        }
    }

    fn __sub__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = other.py();
        match other.cast_exact::<Self>() {
            Ok(other) => self.chosen(py, other.get(), false).into_bound_py_any(py),
            Err(_) => Ok(py.NotImplemented().into_bound(py)),
        }
    }

    fn __eq__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        if slf.is(other) {
            return true.into_bound_py_any(py);
        }
        if !is_mapping(other)? {
            return Ok(py.NotImplemented().into_bound(py));
        }
        let lists = |table: &Bound<'py, PyAny>| {
            let entries = PyDict::new(py);
            for pair in table.call_method0(intern!(py, "items"))?.try_iter()? {
                let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair?.extract()?;
                entries.set_item(key, value)?;
            }
            Ok::<_, PyErr>(entries)
        };
        lists(slf.as_any())?.eq(lists(other)?)?.into_bound_py_any(py)
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

fn parts<P: Family>(py: Python<'_>, table: &Locked<P>, what: What) -> (Vec<P>, Vec<Py<PyAny>>) {
    let entries = table.read(py);
    match what {
        What::Keys => (entries.prefixes().collect(), Vec::new()),
        What::Values | What::Items => entries.iter(py).unzip(),
    }
}

fn looked_up<'py, P: Family>(
    py: Python<'py>,
    table: &Locked<P>,
    address: P::Address,
) -> PyResult<Option<Entry<'py>>> {
    let found = table.read(py).lookup(py, address);
    entry(py, found)
}

fn entry<P: Family>(py: Python<'_>, found: Option<(P, Py<PyAny>)>) -> PyResult<Option<Entry<'_>>> {
    found
        .map(|(prefix, object)| Ok((prefix::network(py, prefix)?, object)))
        .transpose()
}

fn list<P: Family>(py: Python<'_>, entries: Vec<(P, Py<PyAny>)>) -> PyResult<Bound<'_, PyList>> {
    let list = PyList::empty(py);
    for (prefix, object) in entries {
        list.append((prefix::network(py, prefix)?, object))?;
    }
    Ok(list)
}

fn shown<P: Family>(py: Python<'_>, entries: &[(P, Py<PyAny>)]) -> PyResult<Vec<String>> {
    let text = |(prefix, object): &(P, Py<PyAny>)| Ok(format!("'{prefix}': {}", object.bind(py).repr()?));
    entries.iter().map(text).collect()
}

/// Packed prefixes and a list of values.
fn state<P: Family>(py: Python<'_>, entries: Vec<(P, Py<PyAny>)>) -> PyResult<Bound<'_, PyTuple>> {
    let mut packed = Vec::with_capacity(entries.len() * (P::BYTES + 1));
    let values = PyList::empty(py);
    for (prefix, object) in entries {
        P::pack(prefix.address(), &mut packed);
        packed.push(prefix.len());
        values.append(object)?;
    }
    (PyBytes::new(py, &packed), values).into_pyobject(py)
}

/// Whether it has what a table is made of.
fn is_mapping(other: &Bound<'_, PyAny>) -> PyResult<bool> {
    if other.is_exact_instance_of::<PrefixTable>() || other.is_instance_of::<PyDict>() {
        return Ok(true);
    }
    let mapping = other
        .py()
        .import(intern!(other.py(), "collections.abc"))?
        .getattr(intern!(other.py(), "Mapping"))?;
    other.is_instance(&mapping)
}

fn no_family() -> PyErr {
    PyValueError::new_err(
        "packed addresses do not say of which family they are: the table must, by family= or a first prefix",
    )
}

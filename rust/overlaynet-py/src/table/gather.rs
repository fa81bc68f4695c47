//! Entries for a table out of Python values, all of them read before one is inserted.
use overlaynet_core::prefix::{Ipv4Prefix, Ipv6Prefix};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBytes, PyDict, PyInt, PyIterator, PyList, PyMemoryView, PyRange, PyRangeMethods, PyString, PyTuple,
    list::BoundListIterator,
};

use super::entries::Value;
use super::{Families, PrefixTable};
use crate::buffer::{self, Content};
use crate::prefix::{self, Family};

/// How many items are read between two looks at signals.
const ITEMS_AT_A_TIME: usize = 1 << 16;

/// Entries of one family, which is that of the first unless the table has one.
pub(super) struct Gathered {
    pub(super) family: Option<u8>,
    pub(super) v4: Vec<(Ipv4Prefix, Value)>,
    pub(super) v6: Vec<(Ipv6Prefix, Value)>,
    strict: bool,
    read: usize,
}

impl Gathered {
    pub(super) const fn new(family: Option<u8>, strict: bool) -> Self {
        Self {
            family,
            v4: Vec::new(),
            v6: Vec::new(),
            strict,
            read: 0,
        }
    }

    fn push(&mut self, key: &Bound<'_, PyAny>, object: Bound<'_, PyAny>) -> PyResult<()> {
        self.count(key.py())?;
        let family = match self.family {
            Some(family) => family,
            None => prefix::version_of(key)?,
        };
        let value = Value::of(object);
        if family == 4 {
            self.v4.push((prefix::prefix(key, self.strict)?, value));
        } else {
            self.v6.push((prefix::prefix(key, self.strict)?, value));
        }
        self.family = Some(family);
        Ok(())
    }

    fn count(&mut self, py: Python<'_>) -> PyResult<()> {
        self.read += 1;
        if self.read.is_multiple_of(ITEMS_AT_A_TIME) {
            py.check_signals()?;
        }
        Ok(())
    }

    /// Entries as a table's constructor takes them: a table, a mapping, or pairs.
    pub(super) fn entries(&mut self, entries: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = entries.py();
        if let Ok(table) = entries.cast_exact::<PrefixTable>() {
            return self.table(py, table.get());
        }
        if let Ok(entries) = entries.cast_exact::<PyDict>() {
            self.reserve(entries.len());
            return entries.iter().try_for_each(|(key, value)| self.push(&key, value));
        }
        let pairs = match entries.getattr_opt(intern!(py, "items"))? {
            Some(items) => items.call0()?,
            None => entries.clone(),
        };
        for pair in pairs.try_iter()? {
            let pair = pair?;
            let (key, value) = match pair.cast_exact::<PyTuple>() {
                Ok(pair) if pair.len() == 2 => (pair.get_item(0)?, pair.get_item(1)?),
                _ => two_of(&pair)?,
            };
            self.push(&key, value)?;
        }
        Ok(())
    }

    fn table(&mut self, py: Python<'_>, table: &PrefixTable) -> PyResult<()> {
        let value = |object: Py<PyAny>| Value::of(object.into_bound(py));
        let family = table.family();
        if let (Some(wanted), Some(family)) = (self.family, family)
            && wanted != family
            && table.__len__(py) > 0
        {
            // The error is that of its first prefix.
            let first = table.keys_iterator(py, false)?.get().__next__(py)?;
            return first.map_or(Ok(()), |first| self.push(&first, py.None().into_bound(py)));
        }
        match table.families() {
            None => return Ok(()),
            Some(Families::V4(locked)) => {
                let entries = locked.snapshot(py).into_iter();
                self.v4
                    .extend(entries.map(|(prefix, object)| (prefix, value(object))));
            }
            Some(Families::V6(locked)) => {
                let entries = locked.snapshot(py).into_iter();
                self.v6
                    .extend(entries.map(|(prefix, object)| (prefix, value(object))));
            }
        }
        self.family = self.family.or(family);
        Ok(())
    }

    /// Keys, or rows of packed prefixes one behind the other, and a value for each.
    pub(super) fn columns(&mut self, prefixes: &Bound<'_, PyAny>, values: &Bound<'_, PyAny>) -> PyResult<()> {
        let values = Values::of(values)?;
        if prefixes.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err(
                "prefixes: want many of them, or packed ones; not one str",
            ));
        }
        if let Some(bytes) = packed_rows(prefixes)? {
            return match self.family {
                None => Err(PyValueError::new_err(
                    "packed prefixes do not say of which family they are: the table must, by family=",
                )),
                Some(4) => self.rows(prefixes.py(), &bytes, values, |gathered| &mut gathered.v4),
                Some(_) => self.rows(prefixes.py(), &bytes, values, |gathered| &mut gathered.v6),
            };
        }
        let mut keys = Items::of(prefixes)?.peekable();
        let family = match (self.family, keys.peek()) {
            (Some(family), _) => family,
            (None, Some(Ok(first))) => prefix::version_of(first)?,
            (None, _) => 4,
        };
        if family == 4 {
            self.keys(keys, values, |gathered| &mut gathered.v4)?;
        } else {
            self.keys(keys, values, |gathered| &mut gathered.v6)?;
        }
        if self.v4.len() + self.v6.len() > 0 {
            self.family = Some(family);
        }
        Ok(())
    }

    fn keys<'py, P: Family>(
        &mut self,
        mut keys: impl Iterator<Item = PyResult<Bound<'py, PyAny>>>,
        mut values: Values<'py>,
        part: fn(&mut Self) -> &mut Vec<(P, Value)>,
    ) -> PyResult<()> {
        part(self).reserve(keys.size_hint().0);
        let mut missing = 0;
        while let Some(key) = keys.next().transpose()? {
            self.count(key.py())?;
            let Some(value) = values.next().transpose()? else {
                missing = 1 + keys.count();
                break;
            };
            let prefix = prefix::prefix::<P>(&key, self.strict)?;
            part(self).push((prefix, value));
        }
        self.all_have_values(missing, values.count())
    }

    fn rows<P: Family>(
        &mut self,
        py: Python<'_>,
        bytes: &[u8],
        mut values: Values<'_>,
        part: fn(&mut Self) -> &mut Vec<(P, Value)>,
    ) -> PyResult<()> {
        let row_bytes = P::BYTES + 1;
        if !bytes.len().is_multiple_of(row_bytes) {
            return Err(PyValueError::new_err(format!(
                "packed prefixes: {} bytes: want {row_bytes} for each: an {} address and a byte with the length",
                bytes.len(),
                P::name()
            )));
        }
        part(self).reserve(bytes.len() / row_bytes);
        for (row, value) in bytes.chunks_exact(row_bytes).zip(values.by_ref()) {
            self.count(py)?;
            let prefix = prefix::of_row(py, row, self.strict)?;
            part(self).push((prefix, value?));
        }
        let missing = bytes.len() / row_bytes - part(self).len();
        self.all_have_values(missing, values.count())
    }

    fn all_have_values(&self, missing: usize, left: usize) -> PyResult<()> {
        let have = self.v4.len() + self.v6.len();
        if missing + left > 0 {
            let (prefixes, values) = (have + missing, have + left);
            return Err(PyValueError::new_err(format!(
                "{prefixes} prefixes and {values} values"
            )));
        }
        Ok(())
    }

    fn reserve(&mut self, entries: usize) {
        match self.family {
            Some(4) => self.v4.reserve(entries),
            Some(_) => self.v6.reserve(entries),
            None => {}
        }
    }
}

/// The prefix and the value of what is no tuple of two.
fn two_of<'py>(pair: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let mut items = Vec::with_capacity(2);
    if !pair.is_instance_of::<PyString>() {
        let found = pair.try_iter().map_err(|_| not_a_pair(pair))?;
        for item in found.take(3) {
            items.push(item?);
        }
    }
    match <[_; 2]>::try_from(items) {
        Ok([prefix, value]) => Ok((prefix, value)),
        Err(_) => Err(not_a_pair(pair)),
    }
}

/// The items of a list, which is read in place, or of anything that can be iterated over.
enum Items<'py> {
    List(BoundListIterator<'py>),
    Any(Bound<'py, PyIterator>),
}

impl<'py> Items<'py> {
    fn of(items: &Bound<'py, PyAny>) -> PyResult<Self> {
        Ok(match items.cast_exact::<PyList>() {
            Ok(list) => Self::List(list.iter()),
            Err(_) => Self::Any(items.try_iter()?),
        })
    }
}

impl<'py> Iterator for Items<'py> {
    type Item = PyResult<Bound<'py, PyAny>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::List(items) => items.next().map(Ok),
            Self::Any(items) => items.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::List(items) => items.size_hint(),
            Self::Any(_) => (0, None),
        }
    }
}

/// Values one by one. Those of a range and of an array of unsigned numbers never become objects.
enum Values<'py> {
    Range {
        next: isize,
        step: isize,
        left: usize,
        py: Python<'py>,
    },
    Numbers {
        bytes: Content,
        item_bytes: usize,
        at: usize,
        py: Python<'py>,
    },
    Items(Items<'py>),
}

impl<'py> Values<'py> {
    fn of(values: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = values.py();
        if let Ok(range) = values.cast_exact::<PyRange>()
            && let (Ok(next), Ok(step), Ok(left)) = (range.start(), range.step(), range.len())
        {
            return Ok(Self::Range { next, step, left, py });
        }
        if values.is_exact_instance_of::<PyList>() || values.is_instance_of::<PyBytes>() {
            return Ok(Self::Items(Items::of(values)?));
        }
        let Ok(view) = PyMemoryView::from(values) else {
            return Ok(Self::Items(Items::of(values)?));
        };
        let buffer = PyUntypedBuffer::get(&view)?;
        if let b"B" | b"H" | b"I" | b"L" | b"Q" = buffer.format().to_bytes()
            && buffer.dimensions() == 1
        {
            let (item_bytes, at) = (buffer.item_size(), 0);
            let bytes = buffer::content(&view)?;
            return Ok(Self::Numbers {
                bytes,
                item_bytes,
                at,
                py,
            });
        }
        // As plain numbers, not as the array's own kind of them.
        let list = view.call_method0(intern!(py, "tolist"))?;
        Ok(Self::Items(Items::of(&list)?))
    }
}

impl Iterator for Values<'_> {
    type Item = PyResult<Value>;

    #[inline]
    fn next(&mut self) -> Option<PyResult<Value>> {
        match self {
            Self::Range { next, step, left, py } => {
                *left = left.checked_sub(1)?;
                let number = *next;
                *next = number.wrapping_add(*step);
                let small = u64::try_from(number).ok().and_then(Value::of_number);
                Some(Ok(
                    small.unwrap_or_else(|| Value::of(PyInt::new(*py, number).into_any()))
                ))
            }
            Self::Numbers {
                bytes,
                item_bytes,
                at,
                py,
            } => {
                let item = bytes.get(*at..*at + *item_bytes)?;
                *at += *item_bytes;
                let number = match *item {
                    [a] => a.into(),
                    [a, b] => u16::from_ne_bytes([a, b]).into(),
                    [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
                    _ => u64::from_ne_bytes(item.try_into().ok()?),
                };
                let small = Value::of_number(number);
                Some(Ok(
                    small.unwrap_or_else(|| Value::of(PyInt::new(*py, number).into_any()))
                ))
            }
            Self::Items(items) => items.next().map(|item| item.map(Value::of)),
        }
    }
}

/// The content of `prefixes`, if it is a buffer.
fn packed_rows(prefixes: &Bound<'_, PyAny>) -> PyResult<Option<Content>> {
    if prefixes.is_exact_instance_of::<PyList>() || prefixes.is_exact_instance_of::<PyTuple>() {
        return Ok(None);
    }
    match buffer::content(prefixes) {
        Ok(content) => Ok(Some(content)),
        Err(why) if why.is_instance_of::<PyTypeError>(prefixes.py()) => Ok(None),
        Err(why) => Err(why),
    }
}

fn not_a_pair(value: &Bound<'_, PyAny>) -> PyErr {
    let found = value
        .repr()
        .map_or_else(|_| "?".to_owned(), |text| text.to_string());
    PyTypeError::new_err(format!(
        "entries: want pairs of a prefix and a value, not {found:.80}"
    ))
}

//! The table of one family or the other, or of none yet, and how keys and entries get to it.
use std::sync::OnceLock;

use overlaynet_core::prefix::{Ipv4Prefix, Ipv6Prefix};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::PrefixTable;
use super::entries::{Locked, Value};
use super::gather::Gathered;
use crate::prefix::{self, Family};

/// The entries.
pub(super) enum Families {
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

pub(super) use of_family;

impl PrefixTable {
    pub(super) const fn open(strict: bool) -> Self {
        Self {
            families: OnceLock::new(),
            strict,
        }
    }

    /// The table's entries; None while the family is open.
    pub(super) fn families(&self) -> Option<&Families> {
        self.families.get()
    }

    pub(super) fn decided(&self, family: u8) -> &Families {
        self.families.get_or_init(|| match family {
            4 => Families::V4(Locked::new()),
            _ => Families::V6(Locked::new()),
        })
    }

    /// PrefixError or TypeError unless `key` is one of either family.
    pub(super) fn check(&self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        if prefix::version_of(key)? == 4 {
            prefix::key::<Ipv4Prefix>(key, self.strict).map(drop)
        } else {
            prefix::key::<Ipv6Prefix>(key, self.strict).map(drop)
        }
    }

    #[inline]
    pub(super) fn find(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        of_family!(self, table => table.find(key, self.strict), else self.check(key).map(|()| None))
    }

    pub(super) fn insert(&self, key: &Bound<'_, PyAny>, value: Bound<'_, PyAny>) -> PyResult<()> {
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

    pub(super) fn remove(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        let py = key.py();
        of_family!(self, table => {
            let key = prefix::prefix(key, self.strict)?;
            Ok(table.write(py).remove(py, &key))
        }, else self.check(key).map(|()| None))
    }

    pub(super) fn gathered(&self) -> Gathered {
        Gathered::new(self.family(), self.strict)
    }

    pub(super) fn take_in(&self, py: Python<'_>, gathered: Gathered) -> PyResult<()> {
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

    pub(super) fn of_entries<P: Family>(&self, py: Python<'_>, entries: Vec<(P, Value)>) -> Self
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

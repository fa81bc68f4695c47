//! Prefixes and addresses out of Python values.
//!
//! A prefix is a text or one of `ipaddress`'s networks; an address is a text, one of `ipaddress`'s addresses, or packed bytes.
use core::fmt::Display;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use overlaynet_core::prefix::{Ipv4Prefix, Ipv6Prefix, Prefix, PrefixError};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::error;

/// What the binding needs of a family, besides what the core does.
pub(crate) trait Family:
    Prefix<Address: FromStr + Display + PackedAddress> + FromStr<Err = PrefixError>
{
    /// The family's name in error texts.
    const NAME: &'static str;

    /// The prefix of `len` bits at `address`.
    fn checked(address: Self::Address, len: u8) -> Result<Self, PrefixError>;
}

/// An address out of its bytes in network order.
pub(crate) trait PackedAddress: Sized {
    /// The address; `None` if it has another number of bytes.
    fn from_packed(bytes: &[u8]) -> Option<Self>;
}

impl Family for Ipv4Prefix {
    const NAME: &'static str = "IPv4";

    fn checked(address: Ipv4Addr, len: u8) -> Result<Self, PrefixError> {
        Self::new(address, len)
    }
}

impl Family for Ipv6Prefix {
    const NAME: &'static str = "IPv6";

    fn checked(address: Ipv6Addr, len: u8) -> Result<Self, PrefixError> {
        Self::new(address, len)
    }
}

impl PackedAddress for Ipv4Addr {
    fn from_packed(bytes: &[u8]) -> Option<Self> {
        <[u8; 4]>::try_from(bytes).ok().map(Self::from)
    }
}

impl PackedAddress for Ipv6Addr {
    fn from_packed(bytes: &[u8]) -> Option<Self> {
        <[u8; 16]>::try_from(bytes).ok().map(Self::from)
    }
}

/// The prefix in `value`; PrefixError if it is not one of the family, TypeError if it is nothing like a prefix.
pub(crate) fn prefix<P: Family>(value: &Bound<'_, PyAny>) -> PyResult<P> {
    if let Ok(text) = value.cast::<PyString>() {
        return text.to_str()?.parse().map_err(|why| error::prefix(value, why));
    }
    let py = value.py();
    let Some(network) = value.getattr_opt(pyo3::intern!(py, "network_address"))? else {
        return Err(wrong_type("a prefix", "str, IPv4Network or IPv6Network", value));
    };
    let address = packed::<P>(value, &network)?;
    let len: u8 = value.getattr(pyo3::intern!(py, "prefixlen"))?.extract()?;
    P::checked(address, len).map_err(|why| error::prefix(value, why))
}

/// The address in `value`; PrefixError if it is not one of the family, TypeError if it is nothing like an address.
pub(crate) fn address<P: Family>(value: &Bound<'_, PyAny>) -> PyResult<P::Address> {
    if let Ok(text) = value.cast::<PyString>() {
        return text.to_str()?.parse().map_err(|_| wrong_family::<P>(value));
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return P::Address::from_packed(bytes.as_bytes()).ok_or_else(|| wrong_family::<P>(value));
    }
    packed::<P>(value, value)
}

fn packed<P: Family>(value: &Bound<'_, PyAny>, address: &Bound<'_, PyAny>) -> PyResult<P::Address> {
    let Some(bytes) = address.getattr_opt(pyo3::intern!(value.py(), "packed"))? else {
        return Err(wrong_type(
            "an address",
            "str, bytes, IPv4Address or IPv6Address",
            value,
        ));
    };
    P::Address::from_packed(bytes.cast::<PyBytes>()?.as_bytes()).ok_or_else(|| wrong_family::<P>(value))
}

fn wrong_family<P: Family>(value: &Bound<'_, PyAny>) -> PyErr {
    error::not_a_prefix(value, &format!("not an {} address", P::NAME))
}

fn wrong_type(what: &str, types: &str, value: &Bound<'_, PyAny>) -> PyErr {
    let found = value
        .get_type()
        .name()
        .map_or_else(|_| "?".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("{what} is {types}, not {found}"))
}

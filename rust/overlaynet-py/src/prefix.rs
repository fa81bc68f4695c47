//! Prefixes and addresses out of Python values, and networks of `ipaddress` out of prefixes.
//!
//! A prefix is a text, one of `ipaddress`'s networks, or its packed address and a byte with its length. An address is a text, one
//! of `ipaddress`'s addresses, packed bytes, or a number. The kind is told by the exact type first: of all lookups of one address
//! only a tenth is the lookup, the rest is finding out what was meant.
use core::fmt::Display;
use core::net::{Ipv4Addr, Ipv6Addr};

use overlaynet_core::address::{Address, Packed};
use overlaynet_core::prefix::{Ipv4Prefix, Ipv6Prefix, Prefix};
use overlaynet_core::text;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyInt, PyString, PyType};

use crate::error;

/// What a key of a table says.
pub(crate) enum Key<P: Prefix> {
    /// Exactly this prefix.
    Prefix(P),
    /// The longest prefix that holds this address.
    Address(P::Address),
}

impl<P: Prefix> Key<P> {
    /// The prefix; of an address the one that holds nothing else.
    pub(crate) fn or_host(self) -> P {
        match self {
            Self::Prefix(prefix) => prefix,
            Self::Address(address) => P::truncated(address, P::BITS),
        }
    }
}

/// Classes of `ipaddress`.
pub(crate) struct Classes {
    address: PyOnceLock<Py<PyType>>,
    network: PyOnceLock<Py<PyType>>,
}

impl Classes {
    const fn new() -> Self {
        Self {
            address: PyOnceLock::new(),
            network: PyOnceLock::new(),
        }
    }
}

/// What the binding needs of a family, besides what the core does.
pub(crate) trait Family:
    Prefix<Address: Address<Bits: Send + Sync> + Packed<<Self as Prefix>::Address> + Display + Send + Sync>
    + Send
    + Sync
    + 'static
{
    /// The IP version.
    const VERSION: u8;
    /// How many bytes an address has.
    const BYTES: usize;
    /// The family's classes.
    const ADDRESS_CLASS: &'static str;
    /// As above.
    const NETWORK_CLASS: &'static str;
    /// A prefix, to show what one looks like.
    const EXAMPLE: &'static str;

    /// An address in a buffer.
    type Raw: Packed<Self::Address>;

    /// The family's classes, once they were used.
    fn classes() -> &'static Classes;

    /// The addresses that `bytes` are.
    fn raw(bytes: &[u8]) -> &[Self::Raw];

    /// The address in the first bytes of `bytes`, of which there are enough.
    fn from_packed(bytes: &[u8]) -> Self::Address;

    /// Appends the bytes of `address`.
    fn pack(address: Self::Address, into: &mut Vec<u8>);

    /// The address at the start of `text`, and what is behind it, which begins with a slash or is empty.
    fn from_text(text: &str) -> Option<(Self::Address, &str)>;

    /// The address with this number.
    fn from_number(number: &Bound<'_, PyInt>) -> Option<Self::Address>;

    /// What `IPv4Address` has in itself; `None`: ask for its bytes.
    fn from_object(object: &Bound<'_, PyAny>) -> Option<Self::Address>;

    /// What a network's class makes an address of.
    fn to_object(address: Self::Address, py: Python<'_>) -> PyResult<Bound<'_, PyAny>>;

    /// The name in error texts.
    fn name() -> String {
        format!("IPv{}", Self::VERSION)
    }
}

impl Family for Ipv4Prefix {
    const VERSION: u8 = 4;
    const BYTES: usize = 4;
    const ADDRESS_CLASS: &'static str = "IPv4Address";
    const NETWORK_CLASS: &'static str = "IPv4Network";
    const EXAMPLE: &'static str = "10.1.0.0/16";

    type Raw = [u8; 4];

    fn raw(bytes: &[u8]) -> &[[u8; 4]] {
        bytes.as_chunks().0
    }

    fn classes() -> &'static Classes {
        static CLASSES: Classes = Classes::new();
        &CLASSES
    }

    #[inline(always)]
    fn from_packed(bytes: &[u8]) -> Ipv4Addr {
        Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])
    }

    fn pack(address: Ipv4Addr, into: &mut Vec<u8>) {
        into.extend_from_slice(&address.octets());
    }

    #[inline]
    fn from_text(text: &str) -> Option<(Ipv4Addr, &str)> {
        let (bits, rest) = text::ipv4(text.as_bytes())?;
        // What was read was ASCII, so that this is a boundary.
        let rest = text.get(text.len() - rest.len()..)?;
        Some((Ipv4Addr::from_bits(bits), rest))
    }

    #[inline]
    fn from_number(number: &Bound<'_, PyInt>) -> Option<Ipv4Addr> {
        number.extract().ok().map(Ipv4Addr::from_bits)
    }

    #[inline]
    fn from_object(object: &Bound<'_, PyAny>) -> Option<Ipv4Addr> {
        // `ipaddress` has it there since it is in the standard library. `packed`, which says the same, takes three times as long.
        let number = object.getattr(intern!(object.py(), "_ip")).ok()?;
        Self::from_number(number.cast_exact::<PyInt>().ok()?)
    }

    fn to_object(address: Ipv4Addr, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        Ok(address.to_bits().into_pyobject(py)?.into_any())
    }
}

impl Family for Ipv6Prefix {
    const VERSION: u8 = 6;
    const BYTES: usize = 16;
    const ADDRESS_CLASS: &'static str = "IPv6Address";
    const NETWORK_CLASS: &'static str = "IPv6Network";
    const EXAMPLE: &'static str = "fd00:1::/64";

    type Raw = [u8; 16];

    fn raw(bytes: &[u8]) -> &[[u8; 16]] {
        bytes.as_chunks().0
    }

    fn classes() -> &'static Classes {
        static CLASSES: Classes = Classes::new();
        &CLASSES
    }

    #[inline(always)]
    fn from_packed(bytes: &[u8]) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets.copy_from_slice(&bytes[..16]);
        Ipv6Addr::from(octets)
    }

    fn pack(address: Ipv6Addr, into: &mut Vec<u8>) {
        into.extend_from_slice(&address.octets());
    }

    fn from_text(text: &str) -> Option<(Ipv6Addr, &str)> {
        let (address, rest) = text.split_at(text.find('/').unwrap_or(text.len()));
        Some((address.parse().ok()?, rest))
    }

    fn from_number(number: &Bound<'_, PyInt>) -> Option<Ipv6Addr> {
        number.extract().ok().map(Ipv6Addr::from_bits)
    }

    fn from_object(_: &Bound<'_, PyAny>) -> Option<Ipv6Addr> {
        None
    }

    fn to_object(address: Ipv6Addr, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        Ok(PyBytes::new(py, &address.octets()).into_any())
    }
}

/// Why a value is no key.
#[derive(Clone, Copy)]
enum Fault {
    Syntax,
    Length,
    HostBits,
    Number,
}

/// What `value` says; with `strict` host bits are an error, else they are cleared. PrefixError if it is nothing of the family,
/// TypeError if it is nothing like a prefix or an address.
#[inline]
pub(crate) fn key<P: Family>(value: &Bound<'_, PyAny>, strict: bool) -> PyResult<Key<P>> {
    let found = if let Ok(text) = value.cast_exact::<PyString>() {
        of_text(text, strict)
    } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        of_bytes(bytes.as_bytes(), strict)
    } else if let Ok(number) = value.cast_exact::<PyInt>() {
        of_number(number)
    } else if is_exactly(value, &P::classes().address, P::ADDRESS_CLASS)?
        && let Some(address) = P::from_object(value)
    {
        return Ok(Key::Address(address));
    } else {
        return of_object(value, strict);
    };
    found.map_err(|fault| refused::<P>(value, fault))
}

/// The prefix in `value`, as [`key`] says; an address is a PrefixError.
#[inline]
pub(crate) fn prefix<P: Family>(value: &Bound<'_, PyAny>, strict: bool) -> PyResult<P> {
    match key::<P>(value, strict)? {
        Key::Prefix(prefix) => Ok(prefix),
        Key::Address(address) => Err(error::not_a_prefix(
            value,
            &format!("an address: as a prefix it is {address}/{}", P::BITS),
        )),
    }
}

/// The address in `value`, as [`key`] says; a prefix is a PrefixError.
#[inline]
pub(crate) fn address<P: Family>(value: &Bound<'_, PyAny>) -> PyResult<P::Address> {
    match key::<P>(value, false) {
        Ok(Key::Address(address)) => Ok(address),
        Ok(Key::Prefix(_)) => Err(not_an_address::<P>(value)),
        Err(why) if why.is_instance_of::<PyTypeError>(value.py()) => Err(why),
        Err(_) => Err(not_an_address::<P>(value)),
    }
}

/// The IP version of what `value` says, as far as that can be told without reading it.
pub(crate) fn version_of(value: &Bound<'_, PyAny>) -> PyResult<u8> {
    let is_six = if let Ok(text) = value.cast::<PyString>() {
        text.to_str().is_ok_and(|text| text.contains(':'))
    } else if let Ok(bytes) = value.cast::<PyBytes>() {
        matches!(bytes.as_bytes().len(), 16 | 17)
    } else if let Ok(number) = value.cast::<PyInt>() {
        number.extract::<u32>().is_err()
    } else {
        match value.getattr_opt(intern!(value.py(), "version"))? {
            Some(version) => version.eq(6)?,
            None => return Err(wrong_type(value)),
        }
    };
    Ok(if is_six { 6 } else { 4 })
}

/// The network of `ipaddress` that `prefix` is.
pub(crate) fn network<P: Family>(py: Python<'_>, prefix: P) -> PyResult<Bound<'_, PyAny>> {
    let class = P::classes().network.import(py, "ipaddress", P::NETWORK_CLASS)?;
    class.call1(((P::to_object(prefix.address(), py)?, prefix.len()),))
}

/// The prefix of `len` bits at `address`.
#[inline]
fn whole<P: Family>(address: P::Address, len: u8, strict: bool) -> Result<P, Fault> {
    if len > P::BITS {
        return Err(Fault::Length);
    }
    let prefix = P::truncated(address, len);
    if strict && prefix.address() != address {
        return Err(Fault::HostBits);
    }
    Ok(prefix)
}

#[inline]
fn of_text<P: Family>(text: &Bound<'_, PyString>, strict: bool) -> Result<Key<P>, Fault> {
    // A text that is not Unicode is no address either.
    let text = text.to_str().map_err(|_| Fault::Syntax)?;
    let (address, rest) = P::from_text(text).ok_or(Fault::Syntax)?;
    match rest.as_bytes() {
        [] => Ok(Key::Address(address)),
        [b'/', len @ ..] => whole(address, length(len)?, strict).map(Key::Prefix),
        _ => Err(Fault::Syntax),
    }
}

/// A decimal length without sign or leading zeros.
#[inline]
fn length(digits: &[u8]) -> Result<u8, Fault> {
    match *digits {
        [] => Err(Fault::Syntax),
        [b'0', _, ..] => Err(Fault::Syntax),
        _ if !digits.iter().all(u8::is_ascii_digit) => Err(Fault::Syntax),
        [a] => Ok(a - b'0'),
        [a, b] => Ok((a - b'0') * 10 + (b - b'0')),
        [b'1', a, b] => Ok(100 + (a - b'0') * 10 + (b - b'0')),
        _ => Err(Fault::Length),
    }
}

#[inline]
fn of_bytes<P: Family>(bytes: &[u8], strict: bool) -> Result<Key<P>, Fault> {
    if bytes.len() == P::BYTES {
        return Ok(Key::Address(P::from_packed(bytes)));
    }
    packed(bytes, strict).map(Key::Prefix)
}

fn packed<P: Family>(bytes: &[u8], strict: bool) -> Result<P, Fault> {
    match bytes.split_at_checked(P::BYTES) {
        Some((address, &[len])) => whole(P::from_packed(address), len, strict),
        _ => Err(Fault::Syntax),
    }
}

/// The prefix in a row of packed prefixes; PrefixError names the row.
#[inline]
pub(crate) fn of_row<P: Family>(py: Python<'_>, row: &[u8], strict: bool) -> PyResult<P> {
    packed(row, strict).map_err(|fault| refused::<P>(PyBytes::new(py, row).as_any(), fault))
}

#[inline]
fn of_number<P: Family>(number: &Bound<'_, PyInt>) -> Result<Key<P>, Fault> {
    P::from_number(number).map(Key::Address).ok_or(Fault::Number)
}

/// What is left: objects of `ipaddress` and the like, and subclasses of the plain types.
#[cold]
fn of_object<P: Family>(value: &Bound<'_, PyAny>, strict: bool) -> PyResult<Key<P>> {
    let py = value.py();
    let found = if let Some(network) = value.getattr_opt(intern!(py, "network_address"))? {
        let len: u8 = value.getattr(intern!(py, "prefixlen"))?.extract()?;
        packed_of::<P>(&network)?.map(|address| whole(address, len, strict).map(Key::Prefix))
    } else if let Some(address) = packed_of::<P>(value)? {
        Some(Ok(Key::Address(address)))
    } else if value.hasattr(intern!(py, "packed"))? {
        None
    } else if let Ok(text) = value.cast::<PyString>() {
        Some(of_text(text, strict))
    } else if let Ok(bytes) = value.cast::<PyBytes>() {
        Some(of_bytes(bytes.as_bytes(), strict))
    } else if let (Ok(number), false) = (value.cast::<PyInt>(), value.is_instance_of::<PyBool>()) {
        Some(of_number(number))
    } else {
        return Err(wrong_type(value));
    };
    found
        .unwrap_or(Err(Fault::Syntax))
        .map_err(|fault| refused::<P>(value, fault))
}

/// The address that `object` has packed, if it is one of the family.
fn packed_of<P: Family>(object: &Bound<'_, PyAny>) -> PyResult<Option<P::Address>> {
    let Some(bytes) = object.getattr_opt(intern!(object.py(), "packed"))? else {
        return Ok(None);
    };
    let bytes = bytes.cast::<PyBytes>()?.as_bytes();
    Ok((bytes.len() == P::BYTES).then(|| P::from_packed(bytes)))
}

#[inline]
fn is_exactly(value: &Bound<'_, PyAny>, class: &PyOnceLock<Py<PyType>>, name: &str) -> PyResult<bool> {
    let class = class.import(value.py(), "ipaddress", name)?;
    Ok(value.get_type_ptr() == class.as_type_ptr())
}

fn not_an_address<P: Family>(value: &Bound<'_, PyAny>) -> PyErr {
    error::not_a_prefix(value, &format!("not an {} address", P::name()))
}

#[cold]
fn refused<P: Family>(value: &Bound<'_, PyAny>, fault: Fault) -> PyErr {
    let name = P::name();
    let why = match fault {
        Fault::Syntax if is_of_the_other_family::<P>(value) => {
            format!("IPv{}, where {name} is wanted", 10 - P::VERSION)
        }
        Fault::Syntax => format!("neither an {name} prefix such as {} nor an address", P::EXAMPLE),
        Fault::Length => format!("the length is more than the {} bits of an address", P::BITS),
        Fault::HostBits => match key::<P>(value, false) {
            Ok(Key::Prefix(prefix)) => {
                format!("host bits are set: want {prefix}, or a table with strict=False, which clears them")
            }
            _ => "host bits are set".to_owned(),
        },
        Fault::Number => format!("no number of an {name} address: want 0 to 2**{} - 1", P::BITS),
    };
    error::not_a_prefix(value, &why)
}

fn is_of_the_other_family<P: Family>(value: &Bound<'_, PyAny>) -> bool {
    if P::VERSION == 4 {
        is_key::<Ipv6Prefix>(value)
    } else {
        is_key::<Ipv4Prefix>(value)
    }
}

/// Whether `value` is a prefix or an address of the family.
fn is_key<P: Family>(value: &Bound<'_, PyAny>) -> bool {
    if let Ok(text) = value.cast::<PyString>() {
        of_text::<P>(text, false).is_ok()
    } else if let Ok(bytes) = value.cast::<PyBytes>() {
        of_bytes::<P>(bytes.as_bytes(), false).is_ok()
    } else {
        version_of(value).is_ok_and(|version| version == P::VERSION)
    }
}

#[cold]
fn wrong_type(value: &Bound<'_, PyAny>) -> PyErr {
    let found = value
        .get_type()
        .name()
        .map_or_else(|_| "?".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!(
        "a prefix or an address is str, bytes, or of ipaddress, or an address an int; not {found}"
    ))
}

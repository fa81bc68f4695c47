//! Netlink messages as Python tuples, both ways. Addresses are packed bytes, absent ones None, absent numbers 0.
use std::net::IpAddr;

use overlaynet_core::netlink::answer::Answer;
use overlaynet_core::netlink::neighbour::Neighbour;
use overlaynet_core::netlink::next_hop::NextHop;
use overlaynet_core::netlink::route::Route;
use overlaynet_core::netlink::{
    ACK, DUMP_INTERRUPTED, Header, Message, Messages, REQUEST, emit_dump, neighbour, next_hop, route,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::buffer;

/// A message of one of the three kinds that are told apart here.
enum Topic {
    Route(Route),
    Neighbour(Neighbour),
    NextHop(NextHop),
}

/// One buffer with a message for each of `requests`, numbered upwards from `sequence`; the last asks for an acknowledgement.
#[pyfunction]
#[pyo3(signature = (requests, sequence, /))]
pub(crate) fn netlink_pack<'py>(
    requests: &Bound<'py, PyList>,
    sequence: u32,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut packed = Vec::with_capacity(requests.len() * 96);
    let last = requests.len().wrapping_sub(1);
    for (index, request) in requests.iter().enumerate() {
        let (kind, flags, fields): (u16, u16, Bound<'py, PyTuple>) = request.extract()?;
        let acknowledge = if index == last { ACK } else { 0 };
        let header = Header {
            kind,
            flags: flags | REQUEST | acknowledge,
            sequence: sequence.wrapping_add(u32::try_from(index).unwrap_or(u32::MAX)),
            port: 0,
        };
        match Topic::read(kind, &fields)? {
            Topic::Route(value) => value.emit(&mut packed, header),
            Topic::Neighbour(value) => value.emit(&mut packed, header),
            Topic::NextHop(value) => value.emit(&mut packed, header),
        }
    }
    Ok(PyBytes::new(requests.py(), &packed))
}

/// The request for a table: `kind` is that of the request, `body` the structure's fields and the attributes that filter.
#[pyfunction]
#[pyo3(signature = (kind, sequence, body, /))]
pub(crate) fn netlink_dump<'py>(
    py: Python<'py>,
    kind: u16,
    sequence: u32,
    body: &[u8],
) -> Bound<'py, PyBytes> {
    let mut packed = Vec::new();
    emit_dump(&mut packed, kind, sequence, body);
    PyBytes::new(py, &packed)
}

type Rows<'py> = (Vec<Bound<'py, PyTuple>>, bool, Option<(u32, String)>);

/// From a part of a dump: what was found, whether a change disturbed it, and, if this is its end, errno and words.
#[pyfunction]
#[pyo3(signature = (part, sequence, /))]
pub(crate) fn netlink_dumped<'py>(part: &Bound<'py, PyAny>, sequence: u32) -> PyResult<Rows<'py>> {
    let py = part.py();
    let part = buffer::content(part)?;
    let (topics, interrupted, end) = py.detach(|| {
        let mut topics = Vec::new();
        let (mut interrupted, mut end) = (false, None);
        for message in Messages::new(&part).filter(|message| message.header.sequence == sequence) {
            interrupted |= message.header.flags & DUMP_INTERRUPTED != 0;
            if let Some(answer) = Answer::parse(&message) {
                end = Some((answer.errno, words(&answer)));
            } else if let Some(topic) = Topic::parse(&message) {
                topics.push(topic);
            }
        }
        (topics, interrupted, end)
    });
    let rows = topics
        .iter()
        .map(|topic| topic.row(py))
        .collect::<PyResult<_>>()?;
    Ok((rows, interrupted, end))
}

/// The errors and acknowledgements in `part`: the request's number, errno (0 for none) and the kernel's words.
#[pyfunction]
#[pyo3(signature = (part, /))]
pub(crate) fn netlink_answers(part: &Bound<'_, PyAny>) -> PyResult<Vec<(u32, u32, String)>> {
    let part = buffer::content(part)?;
    let answers = Messages::new(&part).filter_map(|message| {
        let answer = Answer::parse(&message)?;
        Some((answer.sequence, answer.errno, words(&answer)))
    });
    Ok(answers.collect())
}

/// The events in `part` that no socket of `own` caused: kind, port, and fields, or for other kinds the bytes of the body.
#[pyfunction]
#[pyo3(signature = (part, own, /))]
pub(crate) fn netlink_events<'py>(
    part: &Bound<'py, PyAny>,
    own: Vec<u32>,
) -> PyResult<Vec<(u16, u32, Bound<'py, PyAny>)>> {
    let py = part.py();
    let part = buffer::content(part)?;
    let mut events = Vec::new();
    for message in Messages::new(&part) {
        let Header { kind, port, .. } = message.header;
        let told = match Topic::parse(&message) {
            Some(_) if own.contains(&port) => continue,
            Some(topic) => topic.row(py)?.into_any(),
            None => PyBytes::new(py, message.body).into_any(),
        };
        events.push((kind, port, told));
    }
    Ok(events)
}

fn words(answer: &Answer<'_>) -> String {
    String::from_utf8_lossy(answer.words).into_owned()
}

impl Topic {
    fn parse(message: &Message<'_>) -> Option<Self> {
        match message.header.kind {
            route::NEW | route::DELETED => Route::parse(message.body).map(Self::Route),
            neighbour::NEW | neighbour::DELETED => Neighbour::parse(message.body).map(Self::Neighbour),
            next_hop::NEW | next_hop::DELETED => NextHop::parse(message.body).map(Self::NextHop),
            _ => None,
        }
    }

    /// The value that the tuple `fields` tells, in the order of `row`.
    fn read(kind: u16, fields: &Bound<'_, PyTuple>) -> PyResult<Self> {
        match kind {
            route::NEW | route::DELETED => {
                type Fields<'a> = (
                    Bytes<'a>,
                    u8,
                    u32,
                    u8,
                    u8,
                    u8,
                    u32,
                    u32,
                    Bytes<'a>,
                    u32,
                    Bytes<'a>,
                    u32,
                );
                let (
                    destination,
                    length,
                    table,
                    protocol,
                    scope,
                    action,
                    flags,
                    link,
                    gateway,
                    metric,
                    source,
                    next_hop,
                ): Fields<'_> = fields.extract()?;
                Ok(Self::Route(Route {
                    destination: address(&destination)?
                        .ok_or_else(|| PyValueError::new_err("destination is missing"))?,
                    length,
                    table,
                    protocol,
                    scope,
                    action,
                    flags,
                    link,
                    gateway: address(&gateway)?,
                    metric,
                    source: address(&source)?,
                    next_hop,
                    other: false,
                }))
            }
            neighbour::NEW | neighbour::DELETED => {
                type Fields<'a> = (u8, u32, u16, u8, Bytes<'a>, Bytes<'a>);
                let (family, link, state, flags, destination, mac): Fields<'_> = fields.extract()?;
                Ok(Self::Neighbour(Neighbour {
                    family,
                    link,
                    state,
                    flags,
                    destination: address(&destination)?,
                    mac: mac.as_ref().map(link_address).transpose()?,
                }))
            }
            next_hop::NEW | next_hop::DELETED => {
                type Fields<'a> = (u32, u8, u8, u32, u32, Bytes<'a>);
                let (id, family, protocol, flags, link, gateway): Fields<'_> = fields.extract()?;
                Ok(Self::NextHop(NextHop {
                    id,
                    family,
                    protocol,
                    flags,
                    link,
                    gateway: address(&gateway)?,
                    other: false,
                }))
            }
            _ => Err(PyValueError::new_err(format!(
                "kind {kind}: want 24, 25, 28, 29, 104 or 105"
            ))),
        }
    }

    fn row<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let packed = |address: Option<IpAddr>| {
            address.map(|address| match address {
                IpAddr::V4(address) => PyBytes::new(py, &address.octets()),
                IpAddr::V6(address) => PyBytes::new(py, &address.octets()),
            })
        };
        match *self {
            Self::Route(route) => {
                let Route {
                    destination,
                    length,
                    table,
                    protocol,
                    scope,
                    action,
                    flags,
                    link,
                    gateway,
                    metric,
                    source,
                    next_hop,
                    other,
                } = route;
                // A tuple of 13 is one more than the conversion from Rust's knows.
                let fields: [Bound<'py, PyAny>; 13] = [
                    packed(Some(destination)).into_pyobject(py)?,
                    length.into_pyobject(py)?.into_any(),
                    table.into_pyobject(py)?.into_any(),
                    protocol.into_pyobject(py)?.into_any(),
                    scope.into_pyobject(py)?.into_any(),
                    action.into_pyobject(py)?.into_any(),
                    flags.into_pyobject(py)?.into_any(),
                    link.into_pyobject(py)?.into_any(),
                    packed(gateway).into_pyobject(py)?,
                    metric.into_pyobject(py)?.into_any(),
                    packed(source).into_pyobject(py)?,
                    next_hop.into_pyobject(py)?.into_any(),
                    other.into_pyobject(py)?.to_owned().into_any(),
                ];
                PyTuple::new(py, fields)
            }
            Self::Neighbour(neighbour) => {
                let Neighbour {
                    family,
                    link,
                    state,
                    flags,
                    destination,
                    mac,
                } = neighbour;
                let mac = mac.map(|octets| PyBytes::new(py, &octets));
                (family, link, state, flags, packed(destination), mac).into_pyobject(py)
            }
            Self::NextHop(next_hop) => {
                let NextHop {
                    id,
                    family,
                    protocol,
                    flags,
                    link,
                    gateway,
                    other,
                } = next_hop;
                (id, family, protocol, flags, link, packed(gateway), other).into_pyobject(py)
            }
        }
    }
}

type Bytes<'a> = Option<Bound<'a, PyBytes>>;

fn address(packed: &Bytes<'_>) -> PyResult<Option<IpAddr>> {
    let Some(packed) = packed else {
        return Ok(None);
    };
    let bytes = packed.as_bytes();
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ok(Some(octets.into()));
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(octets) => Ok(Some(octets.into())),
        Err(_) => Err(PyValueError::new_err(format!(
            "address of {} bytes: want 4 or 16",
            bytes.len()
        ))),
    }
}

fn link_address(packed: &Bound<'_, PyBytes>) -> PyResult<[u8; 6]> {
    let bytes = packed.as_bytes();
    bytes
        .try_into()
        .map_err(|_| PyValueError::new_err(format!("MAC address of {} bytes: want 6", bytes.len())))
}

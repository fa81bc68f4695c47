//! Codecs one packet at a time: headers as tuples, which `overlaynet.packet` names.
use overlaynet_core::wire::ethernet::{self, MacAddress};
use overlaynet_core::wire::ipv4::{self, Options};
use overlaynet_core::wire::pretty::Pretty;
use overlaynet_core::wire::stack::{self, Found, Header, Next, Walk};
use overlaynet_core::wire::tcp::Flags;
use overlaynet_core::wire::vxlan::{self, Vni};
use overlaynet_core::wire::{icmp, icmpv6, ipv6, tcp, udp};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::{buffer, error};

/// The headers of the packet in `buffer`, the outermost first, and where its payload lies.
#[pyfunction]
#[pyo3(signature = (buffer, /, first = "ethernet", *, tunnels = true))]
pub(crate) fn decode<'py>(
    buffer: &Bound<'py, PyAny>,
    first: &str,
    tunnels: bool,
) -> PyResult<(Bound<'py, PyList>, usize, usize)> {
    let py = buffer.py();
    let bytes = buffer::content(buffer)?;
    let mut walk = Walk::new(&bytes, next(first)?, tunnels);
    let headers = PyList::empty(py);
    for found in walk.by_ref() {
        headers.append(tuple(py, &found.map_err(error::decode)?)?)?;
    }
    let payload = walk.payload();
    Ok((headers, payload.start, payload.end))
}

/// The packet of `headers` around `payload`, with all lengths and checksums filled in.
#[pyfunction]
#[pyo3(signature = (headers, payload, /))]
pub(crate) fn encode<'py>(
    headers: &Bound<'py, PyAny>,
    payload: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    let owned = Headers::read(headers)?;
    let payload = buffer::content(payload)?;
    let packet = stack::encode(&owned.borrow(), &payload).map_err(error::encode)?;
    Ok(PyBytes::new(headers.py(), &packet))
}

/// The packet in `buffer` as text, one line a header; a fault is the last line.
#[pyfunction]
#[pyo3(signature = (buffer, /, first = "ethernet"))]
pub(crate) fn pretty(buffer: &Bound<'_, PyAny>, first: &str) -> PyResult<String> {
    let bytes = buffer::content(buffer)?;
    Ok(Pretty::new(&bytes, next(first)?).to_string())
}

/// The header with which a packet starts, by name.
pub(crate) fn next(name: &str) -> PyResult<Next> {
    match name {
        "ethernet" => Ok(Next::Ethernet),
        "ip" => Ok(Next::Ip),
        "ipv4" => Ok(Next::Ipv4),
        "ipv6" => Ok(Next::Ipv6),
        "udp" => Ok(Next::Udp),
        "tcp" => Ok(Next::Tcp),
        "icmp" => Ok(Next::Icmp),
        "icmpv6" => Ok(Next::Icmpv6),
        "vxlan" => Ok(Next::Vxlan),
        _ => Err(PyValueError::new_err(format!(
            "first {name:?}: want ethernet, ip, ipv4, ipv6, udp, tcp, icmp, icmpv6 or vxlan"
        ))),
    }
}

/// `(layer, offset, length, checksum, fields)` of one header.
fn tuple<'py>(py: Python<'py>, found: &Found<'_>) -> PyResult<Bound<'py, PyTuple>> {
    let bytes = |bytes: &[u8]| PyBytes::new(py, bytes);
    let fields = match found.header {
        Header::Ethernet(repr) => {
            (bytes(&repr.destination.0), bytes(&repr.source.0), repr.ether_type).into_pyobject(py)?
        }
        Header::Ipv4(repr) => (
            bytes(&repr.source.octets()),
            bytes(&repr.destination.octets()),
            repr.protocol,
            repr.ttl,
            repr.tos,
            repr.identification,
            repr.dont_fragment,
            repr.more_fragments,
            repr.fragment_offset,
            bytes(repr.options.as_bytes()),
        )
            .into_pyobject(py)?,
        Header::Ipv6(repr, extensions) => (
            bytes(&repr.source.octets()),
            bytes(&repr.destination.octets()),
            repr.next_header,
            repr.hop_limit,
            repr.traffic_class,
            repr.flow_label,
            bytes(extensions),
        )
            .into_pyobject(py)?,
        Header::Udp(repr, checksum) => {
            (repr.source_port, repr.destination_port, checksum).into_pyobject(py)?
        }
        Header::Tcp(repr) => (
            repr.source_port,
            repr.destination_port,
            repr.sequence,
            repr.acknowledgement,
            repr.flags.0,
            repr.window,
            repr.urgent,
            bytes(repr.options.as_bytes()),
        )
            .into_pyobject(py)?,
        Header::Icmp(icmp::Repr { kind, code, rest, .. })
        | Header::Icmpv6(icmpv6::Repr { kind, code, rest, .. }) => {
            (kind, code, bytes(&rest)).into_pyobject(py)?
        }
        Header::Vxlan(repr) => (repr.vni.number(),).into_pyobject(py)?,
    };
    let header = &found.header;
    (
        header.layer().name(),
        found.offset,
        header.len(),
        found.checksum.text(),
        fields,
    )
        .into_pyobject(py)
}

/// Headers out of `(layer, fields)` tuples, with the extension headers that IPv6 headers borrow.
pub(crate) struct Headers(Vec<(Header<'static>, Option<PyBackedBytes>)>);

impl Headers {
    pub(crate) fn read(headers: &Bound<'_, PyAny>) -> PyResult<Self> {
        headers
            .try_iter()?
            .map(|header| read(&header?))
            .collect::<PyResult<_>>()
            .map(Self)
    }

    pub(crate) fn borrow(&self) -> Vec<Header<'_>> {
        self.0
            .iter()
            .map(|(header, extensions)| match (*header, extensions) {
                (Header::Ipv6(repr, _), Some(extensions)) => Header::Ipv6(repr, extensions),
                (header, _) => header,
            })
            .collect()
    }
}

fn read(header: &Bound<'_, PyAny>) -> PyResult<(Header<'static>, Option<PyBackedBytes>)> {
    let (name, fields): (String, Bound<'_, PyTuple>) = header.extract()?;
    let mut extension_headers = None;
    let header = match name.as_str() {
        "ethernet" => {
            let (destination, source, ether_type) = fields.extract()?;
            let (destination, source) = (MacAddress(destination), MacAddress(source));
            Header::Ethernet(ethernet::Repr {
                destination,
                source,
                ether_type,
            })
        }
        "ipv4" => Header::Ipv4(read_ipv4(&fields)?),
        "ipv6" => {
            type Fields = ([u8; 16], [u8; 16], u8, u8, u8, u32, PyBackedBytes);
            let (source, destination, next_header, hop_limit, traffic_class, flow_label, extensions): Fields =
                fields.extract()?;
            within("flow_label", flow_label, 0xf_ffff)?;
            let (source, destination) = (source.into(), destination.into());
            let addresses = ipv6::Repr::new(source, destination, next_header, 0);
            extension_headers = Some(extensions);
            Header::Ipv6(
                ipv6::Repr {
                    hop_limit,
                    traffic_class,
                    flow_label,
                    ..addresses
                },
                &[],
            )
        }
        "udp" => {
            let (source_port, destination_port, checksum) = fields.extract()?;
            Header::Udp(
                udp::Repr {
                    source_port,
                    destination_port,
                    payload_len: 0,
                },
                checksum,
            )
        }
        "tcp" => Header::Tcp(read_tcp(&fields)?),
        "icmp" => {
            let (kind, code, rest) = fields.extract()?;
            Header::Icmp(icmp::Repr {
                kind,
                code,
                rest,
                payload_len: 0,
            })
        }
        "icmpv6" => {
            let (kind, code, rest) = fields.extract()?;
            Header::Icmpv6(icmpv6::Repr {
                kind,
                code,
                rest,
                payload_len: 0,
            })
        }
        "vxlan" => {
            let (vni,): (u32,) = fields.extract()?;
            within("vni", vni, Vni::MAX.number())?;
            Header::Vxlan(vxlan::Repr {
                vni: Vni::new(vni).unwrap_or(Vni::MAX),
            })
        }
        _ => return Err(PyValueError::new_err(format!("layer {name:?} is not known"))),
    };
    Ok((header, extension_headers))
}

fn read_ipv4(fields: &Bound<'_, PyTuple>) -> PyResult<ipv4::Repr> {
    type Fields = ([u8; 4], [u8; 4], u8, u8, u8, u16, bool, bool, u16, PyBackedBytes);
    let (
        source,
        destination,
        protocol,
        ttl,
        tos,
        identification,
        dont_fragment,
        more_fragments,
        fragment_offset,
        options,
    ): Fields = fields.extract()?;
    within("fragment_offset", fragment_offset.into(), 0x1fff)?;
    Ok(ipv4::Repr {
        ttl,
        tos,
        identification,
        dont_fragment,
        more_fragments,
        fragment_offset,
        options: read_options(&options)?,
        ..ipv4::Repr::new(source.into(), destination.into(), protocol, 0)
    })
}

fn read_tcp(fields: &Bound<'_, PyTuple>) -> PyResult<tcp::Repr> {
    type Fields = (u16, u16, u32, u32, u8, u16, u16, PyBackedBytes);
    let (source_port, destination_port, sequence, acknowledgement, flags, window, urgent, options): Fields =
        fields.extract()?;
    Ok(tcp::Repr {
        source_port,
        destination_port,
        sequence,
        acknowledgement,
        flags: Flags(flags),
        window,
        urgent,
        options: read_options(&options)?,
        payload_len: 0,
    })
}

fn read_options(options: &[u8]) -> PyResult<Options> {
    Options::new(options).ok_or_else(|| {
        PyValueError::new_err(format!(
            "options: {} bytes: want a multiple of 4, at most 40",
            options.len()
        ))
    })
}

fn within(field: &str, value: u32, most: u32) -> PyResult<()> {
    if value > most {
        return Err(PyValueError::new_err(format!("{field} {value}: at most {most}")));
    }
    Ok(())
}

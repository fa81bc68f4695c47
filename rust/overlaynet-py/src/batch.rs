//! Codecs over many packets in one call, detached from the interpreter while they work.
use overlaynet_core::wire::Reason;
use overlaynet_core::wire::stack::{self, Header, Next, Verdict, Walk};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};

use crate::wire::{Headers, next};
use crate::{buffer, error};

/// Columns about the packets in `frames`: name, then `memoryview` format and native-endian values, one a packet.
#[pyfunction]
#[pyo3(signature = (frames, /, first = "ethernet", *, tunnels = true))]
pub(crate) fn decode_many<'py>(
    frames: &Bound<'py, PyAny>,
    first: &str,
    tunnels: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let py = frames.py();
    let first = next(first)?;
    let frames = frames
        .try_iter()?
        .map(|frame| buffer::content(&frame?))
        .collect::<PyResult<Vec<_>>>()?;
    let columns = py.detach(|| columns(frames.iter().map(|frame| &**frame), first, tunnels));
    columns.into_dict(py)
}

/// The same as `decode_many`, for packets in one buffer, in slots of `stride` bytes each.
#[pyfunction]
#[pyo3(signature = (buffer, stride, /, first = "ethernet", *, tunnels = true))]
pub(crate) fn decode_array<'py>(
    buffer: &Bound<'py, PyAny>,
    stride: usize,
    first: &str,
    tunnels: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let py = buffer.py();
    let first = next(first)?;
    let bytes = buffer::content(buffer)?;
    if stride == 0 || !bytes.len().is_multiple_of(stride) {
        let text = format!(
            "stride {stride}: want a divisor of the buffer's {} bytes",
            bytes.len()
        );
        return Err(PyValueError::new_err(text));
    }
    let columns = py.detach(|| columns(bytes.chunks_exact(stride), first, tunnels));
    columns.into_dict(py)
}

/// One packet for each of `payloads`, all with the same headers; lengths and checksums are each packet's own.
#[pyfunction]
#[pyo3(signature = (headers, payloads, /))]
pub(crate) fn encode_many<'py>(
    headers: &Bound<'py, PyAny>,
    payloads: &Bound<'py, PyAny>,
) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let py = headers.py();
    let headers = Headers::read(headers)?;
    let payloads: Vec<PyBackedBytes> = payloads
        .try_iter()?
        .map(|payload| buffer::content(&payload?))
        .collect::<PyResult<_>>()?;
    let packets = py
        .detach(|| {
            let headers = headers.borrow();
            payloads
                .iter()
                .map(|payload| stack::encode(&headers, payload))
                .collect::<Result<Vec<_>, _>>()
        })
        .map_err(error::encode)?;
    Ok(packets.iter().map(|packet| PyBytes::new(py, packet)).collect())
}

macro_rules! columns {
    ($($name:ident: $type:ty = $format:literal),* $(,)?) => {
        /// What `decode_many` tells of each packet: `Row`'s fields, each a column.
        #[derive(Default)]
        struct Columns { $($name: Vec<u8>),* }

        struct Row { $($name: $type),* }

        impl Columns {
            fn push(&mut self, row: &Row) {
                $(self.$name.extend_from_slice(&row.$name.to_ne_bytes());)*
            }

            fn into_dict(self, py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
                let dict = PyDict::new(py);
                $(dict.set_item(stringify!($name), ($format, PyBytes::new(py, &self.$name)))?;)*
                Ok(dict)
            }
        }
    };
}

columns! {
    fault: u8 = "B",
    layers: u8 = "B",
    wrong_checksums: u8 = "B",
    vni: i32 = "i",
    version: u8 = "B",
    protocol: u8 = "B",
    source: Packed = "16s",
    destination: Packed = "16s",
    source_port: u16 = "H",
    destination_port: u16 = "H",
    payload_offset: u32 = "I",
    payload_length: u32 = "I",
}

/// An address in 16 bytes; an IPv4 address takes the first four.
#[derive(Clone, Copy, Default)]
struct Packed([u8; 16]);

impl Packed {
    fn of(octets: &[u8]) -> Self {
        let mut packed = Self::default();
        packed.0[..octets.len()].copy_from_slice(octets);
        packed
    }

    const fn to_ne_bytes(self) -> [u8; 16] {
        self.0
    }
}

fn columns<'a>(frames: impl Iterator<Item = &'a [u8]>, first: Next, tunnels: bool) -> Columns {
    let mut columns = Columns::default();
    for frame in frames {
        columns.push(&row(frame, first, tunnels));
    }
    columns
}

/// The innermost IP header's fields; an outer one's are overwritten on the way in.
fn row(frame: &[u8], first: Next, tunnels: bool) -> Row {
    let mut row = Row {
        fault: 0,
        layers: 0,
        wrong_checksums: 0,
        vni: -1,
        version: 0,
        protocol: 0,
        source: Packed::default(),
        destination: Packed::default(),
        source_port: 0,
        destination_port: 0,
        payload_offset: 0,
        payload_length: 0,
    };
    let mut walk = Walk::new(frame, first, tunnels);
    for found in walk.by_ref() {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                row.fault = fault(error.reason);
                break;
            }
        };
        row.layers = row.layers.saturating_add(1);
        if found.checksum == Verdict::Wrong {
            row.wrong_checksums = row.wrong_checksums.saturating_add(1);
        }
        let ports = match found.header {
            Header::Ipv4(repr) => {
                (row.version, row.protocol) = (4, repr.protocol);
                row.source = Packed::of(&repr.source.octets());
                row.destination = Packed::of(&repr.destination.octets());
                (0, 0)
            }
            Header::Ipv6(repr, _) => {
                (row.version, row.protocol) = (6, repr.next_header);
                row.source = Packed::of(&repr.source.octets());
                row.destination = Packed::of(&repr.destination.octets());
                (0, 0)
            }
            Header::Udp(repr, _) => (repr.source_port, repr.destination_port),
            Header::Tcp(repr) => (repr.source_port, repr.destination_port),
            Header::Vxlan(repr) => {
                row.vni = i32::try_from(repr.vni.number()).unwrap_or(-1);
                continue;
            }
            Header::Ethernet(_) | Header::Icmp(_) | Header::Icmpv6(_) => continue,
        };
        (row.source_port, row.destination_port) = ports;
    }
    let payload = walk.payload();
    row.payload_offset = u32::try_from(payload.start).unwrap_or(u32::MAX);
    row.payload_length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    row
}

/// The number of a reason in the column `fault`; 0 is none.
const fn fault(reason: Reason) -> u8 {
    match reason {
        Reason::Truncated => 1,
        Reason::BadVersion => 2,
        Reason::BadLength => 3,
        Reason::BadFlags => 4,
        _ => 255,
    }
}

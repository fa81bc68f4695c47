//! `overlaynet._core.decode_many`: what many packets hold, as columns, found detached from the interpreter.
use overlaynet_core::wire::scan::{Next, Part, Scan};
use overlaynet_core::wire::stack::Verdict;
use overlaynet_core::wire::{Layer, Reason, ipv4, ipv6, vxlan};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyMemoryView};

use crate::packet::next;
use crate::tunnel::{WORTH_DETACHING_BYTES, check_stride};
use crate::{buffer, error};

/// Columns about the packets in `frames`: a `memoryview` of native-endian values each, one a packet.
#[pyfunction]
#[pyo3(signature = (frames, /, first = "ethernet", *, stride = None, lengths = None, tunnels = true))]
pub(crate) fn decode_many<'py>(
    frames: &Bound<'py, PyAny>,
    first: &str,
    stride: Option<usize>,
    lengths: Option<&Bound<'py, PyAny>>,
    tunnels: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let py = frames.py();
    let first = next(first)?;
    let columns = match (stride, lengths) {
        (None, None) => {
            let frames = frames
                .try_iter()?
                .map(|frame| buffer::content(&frame?))
                .collect::<PyResult<Vec<_>>>()?;
            py.detach(|| Columns::of(frames.iter().map(|frame| &**frame), first, tunnels))
        }
        (Some(stride), None) => {
            let bytes = buffer::content(frames)?;
            check_stride(stride, bytes.len())?;
            let columns = || Columns::of(bytes.chunks_exact(stride), first, tunnels);
            if bytes.len() < WORTH_DETACHING_BYTES {
                columns()
            } else {
                py.detach(columns)
            }
        }
        (None, Some(lengths)) => {
            let bytes = buffer::content(frames)?;
            let lengths: Vec<usize> = lengths.extract()?;
            let parts = split(&bytes, &lengths)?;
            py.detach(|| Columns::of(parts.iter().copied(), first, tunnels))
        }
        (Some(_), Some(_)) => {
            return Err(PyValueError::new_err("stride, lengths: only one of them"));
        }
    };
    columns.into_dict(py)
}

/// The packets that lie one behind the other in `bytes`, with these lengths.
pub(crate) fn split<'a>(bytes: &'a [u8], lengths: &[usize]) -> PyResult<Vec<&'a [u8]>> {
    let mut rest = bytes;
    let parts = lengths.iter().map(|&len| {
        let (part, behind) = rest.split_at_checked(len)?;
        rest = behind;
        Some(part)
    });
    parts.collect::<Option<_>>().ok_or_else(|| {
        let sum: usize = lengths.iter().copied().fold(0, usize::saturating_add);
        error::value(&format!(
            "lengths: {sum} bytes in all: the buffer has {}",
            bytes.len()
        ))
    })
}

macro_rules! columns {
    ($($name:ident: $type:ty = $format:literal),* $(,)?) => {
        /// What `decode_many` tells of each packet: `Row`'s fields, each a column.
        struct Columns { $($name: Vec<u8>),* }

        #[derive(Default)]
        struct Row { $($name: $type),* }

        impl Columns {
            fn with_room(packets: usize) -> Self {
                Self { $($name: Vec::with_capacity(packets * size_of::<$type>())),* }
            }

            #[inline(always)]
            fn push(&mut self, row: &Row) {
                $(self.$name.extend_from_slice(&row.$name.to_ne_bytes());)*
            }

            fn into_dict(self, py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
                let dict = PyDict::new(py);
                $(
                    let values = PyMemoryView::from(&PyBytes::new(py, &self.$name))?;
                    let values = values.call_method1(intern!(py, "cast"), (intern!(py, $format),))?;
                    dict.set_item(intern!(py, stringify!($name)), values)?;
                )*
                Ok(dict)
            }
        }
    };
}

columns! {
    fault: u8 = "B",
    layers: u8 = "B",
    wrong_checksums: u8 = "B",
    vni: Vni = "i",
    version: u8 = "B",
    protocol: u8 = "B",
    source: Packed = "B",
    destination: Packed = "B",
    source_port: u16 = "H",
    destination_port: u16 = "H",
    payload_offset: u32 = "I",
    payload_length: u32 = "I",
}

/// A network identifier; -1 is none.
#[derive(Clone, Copy)]
struct Vni(i32);

impl Default for Vni {
    fn default() -> Self {
        Self(-1)
    }
}

impl Vni {
    const fn to_ne_bytes(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }
}

/// An address in 16 bytes; an IPv4 address takes the first four.
#[derive(Clone, Copy, Default)]
struct Packed([u8; 16]);

impl Packed {
    const fn v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    const fn to_ne_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl Columns {
    fn of<'a>(frames: impl Iterator<Item = &'a [u8]>, first: Next, tunnels: bool) -> Self {
        let mut columns = Self::with_room(frames.size_hint().0);
        for frame in frames {
            columns.push(&Row::of(frame, first, tunnels));
        }
        columns
    }
}

impl Row {
    /// The innermost IP header's fields; an outer one's are overwritten on the way in.
    #[inline(always)]
    fn of(frame: &[u8], first: Next, tunnels: bool) -> Self {
        let mut row = Self::default();
        let mut scan = Scan::new(frame, first, tunnels);
        let mut around = None;
        for part in scan.by_ref() {
            match part {
                Ok(part) => {
                    row.layers = row.layers.saturating_add(1);
                    if part.checksum(around.as_ref()) == Verdict::Wrong {
                        row.wrong_checksums = row.wrong_checksums.saturating_add(1);
                    }
                    row.read(&part);
                    around = Some(part);
                }
                Err(error) => row.fault = fault(error.reason),
            }
        }
        row.payload_offset = u32::try_from(scan.offset()).unwrap_or(u32::MAX);
        row.payload_length = u32::try_from(scan.payload().len()).unwrap_or(u32::MAX);
        row
    }

    /// What `part` adds. A part that was found passes the checks again.
    #[inline(always)]
    fn read(&mut self, part: &Part<'_>) {
        match part.layer {
            Layer::Ipv4 => {
                let Ok(packet) = ipv4::Packet::new_checked(part.bytes) else {
                    return;
                };
                (self.version, self.protocol) = (4, packet.protocol());
                self.source = Packed::v4(packet.source().octets());
                self.destination = Packed::v4(packet.destination().octets());
                (self.source_port, self.destination_port) = (0, 0);
            }
            Layer::Ipv6 => {
                let Ok(packet) = ipv6::Packet::new_checked(part.bytes) else {
                    return;
                };
                (self.version, self.protocol) = (6, packet.next_header());
                self.source = Packed(packet.source().octets());
                self.destination = Packed(packet.destination().octets());
                (self.source_port, self.destination_port) = (0, 0);
            }
            // Both begin with the ports.
            Layer::Udp | Layer::Tcp => {
                if let [a, b, c, d, ..] = *part.bytes {
                    self.source_port = u16::from_be_bytes([a, b]);
                    self.destination_port = u16::from_be_bytes([c, d]);
                }
            }
            Layer::Vxlan => {
                let vni = vxlan::Packet::new_checked(part.bytes)
                    .ok()
                    .map(|packet| packet.vni());
                self.vni = vni
                    .and_then(|vni| i32::try_from(vni.number()).ok())
                    .map(Vni)
                    .unwrap_or_default();
            }
            _ => {}
        }
    }
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

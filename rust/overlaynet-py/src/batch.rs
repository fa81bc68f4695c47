//! `overlaynet._core.decode_many`: what many packets hold, as columns, found detached from the interpreter.
use overlaynet_core::wire::Reason;
use overlaynet_core::wire::scan::Next;
use overlaynet_core::wire::summary::Summary;
use pyo3::exceptions::PyKeyError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyIterator, PyMemoryView, PySlice, PyString, PyTuple};

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
) -> PyResult<Columns> {
    let py = frames.py();
    let first = next(first)?;
    match (stride, lengths) {
        (None, None) => {
            let frames = frames
                .try_iter()?
                .map(|frame| buffer::content(&frame?))
                .collect::<PyResult<Vec<_>>>()?;
            let bytes = frames.iter().map(|frame| frame.len()).sum();
            columns(py, frames.iter().map(|frame| &**frame), bytes, first, tunnels)
        }
        (Some(stride), None) => {
            let bytes = buffer::content(frames)?;
            check_stride(stride, bytes.len())?;
            columns(py, bytes.chunks_exact(stride), bytes.len(), first, tunnels)
        }
        (None, Some(lengths)) => {
            let bytes = buffer::content(frames)?;
            let lengths: Vec<usize> = lengths.extract()?;
            let parts = split(&bytes, &lengths)?;
            columns(py, parts.iter().copied(), bytes.len(), first, tunnels)
        }
        (Some(_), Some(_)) => Err(error::value("stride, lengths: only one of them")),
    }
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
    ($rows:ident, $summary:ident: $($name:ident: $type:ty = $format:literal, $value:expr;)*) => {
        /// How many bytes the columns take for each packet.
        const ROW_BYTES: usize = 0 $(+ size_of::<$type>())*;

        /// Writes one row for each of `frames` into `room`, which is one column after the other.
        #[inline(always)]
        fn fill<'a>(room: &mut [u8], $rows: usize, frames: impl Iterator<Item = &'a [u8]>, first: Next, tunnels: bool) {
            let rest = room;
            $(let ($name, rest) = rest.split_at_mut($rows * size_of::<$type>());)*
            let _ = rest;
            // Equally long slices, so that one comparison bounds them all.
            $(let $name = &mut $name.as_chunks_mut::<{ size_of::<$type>() }>().0[..$rows];)*
            let mut frames = frames;
            for row in 0..$rows {
                let Some(frame) = frames.next() else { return };
                let $summary = Summary::of(frame, first, tunnels);
                $($name[row] = <$type>::to_ne_bytes($value);)*
            }
        }

        /// The columns' names.
        const NAMES: [&str; [$(stringify!($name)),*].len()] = [$(stringify!($name)),*];

        /// Where a column lies if there are so many rows: start, end, and the format of its items.
        fn column(name: &str, $rows: usize) -> Option<(usize, usize, &'static str)> {
            let mut end = 0;
            $(
                let start = end;
                end += $rows * size_of::<$type>();
                if name == stringify!($name) {
                    return Some((start, end, $format));
                }
            )*
            let _ = end;
            None
        }
    };
}

// The widest first, so that each is aligned.
columns! {
    rows, summary:
    source: Packed = "B", Packed(summary.source);
    destination: Packed = "B", Packed(summary.destination);
    vni: i32 = "i", summary.vni.map_or(-1, |vni| vni.number().cast_signed());
    payload_offset: u32 = "I", u32::try_from(summary.payload_offset).unwrap_or(u32::MAX);
    payload_length: u32 = "I", u32::try_from(summary.payload_length).unwrap_or(u32::MAX);
    source_port: u16 = "H", summary.source_port;
    destination_port: u16 = "H", summary.destination_port;
    fault: u8 = "B", summary.fault.map_or(0, number_of);
    layers: u8 = "B", summary.layers;
    wrong_checksums: u8 = "B", summary.wrong_checksums;
    version: u8 = "B", summary.version;
    protocol: u8 = "B", summary.protocol;
}

/// An address in 16 bytes; an IPv4 address takes the first four.
#[derive(Clone, Copy)]
struct Packed([u8; 16]);

impl Packed {
    const fn to_ne_bytes(self) -> [u8; 16] {
        self.0
    }
}

/// The columns about `rows` frames, which are `bytes` bytes in all.
fn columns<'a>(
    py: Python<'_>,
    frames: impl ExactSizeIterator<Item = &'a [u8]> + Send,
    bytes: usize,
    first: Next,
    tunnels: bool,
) -> PyResult<Columns> {
    let rows = frames.len();
    let table = PyBytes::new_with(py, rows * ROW_BYTES, |room| {
        if bytes < WORTH_DETACHING_BYTES {
            fill(room, rows, frames, first, tunnels);
        } else {
            py.detach(|| fill(room, rows, frames, first, tunnels));
        }
        Ok(())
    })?;
    Ok(Columns {
        table: table.unbind(),
        rows,
    })
}

/// The columns, of which each becomes a `memoryview` when it is asked for.
#[pyclass(frozen, mapping, module = "overlaynet._core")]
pub(crate) struct Columns {
    table: Py<PyBytes>,
    rows: usize,
}

#[pymethods]
impl Columns {
    fn __getitem__<'py>(&self, py: Python<'py>, name: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let found = name
            .extract::<&str>()
            .ok()
            .and_then(|text| column(text, self.rows));
        let Some((start, end, format)) = found else {
            return Err(PyKeyError::new_err(name.clone().unbind()));
        };
        let slice = PySlice::new(py, start.cast_signed(), end.cast_signed(), 1);
        let part = PyMemoryView::from(self.table.bind(py))?.get_item(slice)?;
        part.call_method1(intern!(py, "cast"), (format,))
    }

    fn __contains__(&self, name: &Bound<'_, PyAny>) -> bool {
        name.extract::<&str>().is_ok_and(|name| NAMES.contains(&name))
    }

    #[allow(clippy::unused_self, reason = "it is a method of the mapping")]
    const fn __len__(&self) -> usize {
        NAMES.len()
    }

    #[allow(clippy::unused_self, reason = "it is a method of the mapping")]
    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        PyTuple::new(py, NAMES)?.try_iter()
    }

    #[allow(clippy::unused_self, reason = "it is a method of the mapping")]
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, NAMES)
    }

    fn items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let items = NAMES.map(|name| Ok((name, self.__getitem__(py, PyString::new(py, name).as_any())?)));
        PyTuple::new(py, items.into_iter().collect::<PyResult<Vec<_>>>()?)
    }

    fn __repr__(&self) -> String {
        format!("<Columns {}, {} rows>", NAMES.join(", "), self.rows)
    }
}

/// The number of a reason in the column `fault`; 0 is none.
const fn number_of(reason: Reason) -> u8 {
    match reason {
        Reason::Truncated => 1,
        Reason::BadVersion => 2,
        Reason::BadLength => 3,
        Reason::BadFlags => 4,
        _ => 255,
    }
}

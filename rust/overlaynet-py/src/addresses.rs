//! Addresses in a Python buffer: packed one behind the other, or as an array of numbers.
use std::marker::PhantomData;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::buffer::{self, Kept};
use crate::prefix::Family;

/// So many are copied at a time, where they are not read in place.
const COPIED: usize = 1 << 10;

/// The addresses in a buffer, which is held until this is dropped.
pub(crate) struct Addresses<P: Family> {
    kept: Kept,
    len: usize,
    stride: usize,
    /// Whether they are numbers in this machine's byte order, which is not the network's.
    swapped: bool,
    family: PhantomData<P>,
}

impl<P: Family> Addresses<P> {
    /// The addresses in `object`, each at the start of `stride` bytes, which are an address's if it is not given. TypeError if
    /// it is no buffer of bytes or of unsigned numbers, ValueError if it does not hold a whole number of them.
    pub(crate) fn of(object: &Bound<'_, PyAny>, stride: Option<usize>) -> PyResult<Self> {
        let kept = buffer::kept(object)?;
        let swapped = match kept.buffer() {
            Some(buffer) => swapped::<P>(buffer)?,
            None => false,
        };
        let stride = stride.unwrap_or(P::BYTES);
        let bytes = kept.len();
        if stride < P::BYTES || !bytes.is_multiple_of(stride) {
            return Err(PyValueError::new_err(format!(
                "addresses: {bytes} bytes in slots of {stride}: want whole slots of {} at least",
                P::BYTES
            )));
        }
        Ok(Self {
            len: bytes / stride,
            kept,
            stride,
            swapped,
            family: PhantomData,
        })
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Reads them one part after the other, from the one at `start` on.
    pub(crate) fn reader(&self, start: usize) -> Reader<'_, P> {
        let in_place = self.stride == P::BYTES && !self.swapped;
        Reader {
            addresses: self,
            fixed: self.kept.fixed().filter(|_| in_place),
            copy: Vec::new(),
            next: start,
        }
    }
}

/// A place among addresses.
pub(crate) struct Reader<'a, P: Family> {
    addresses: &'a Addresses<P>,
    /// All of them, where they can be read in place.
    fixed: Option<&'a [u8]>,
    copy: Vec<u8>,
    next: usize,
}

impl<P: Family> Reader<'_, P> {
    /// The next `count` addresses, at most [`COPIED`], of which there are enough.
    pub(crate) fn next(&mut self, count: usize) -> &[P::Raw] {
        debug_assert!(count <= COPIED);
        let Addresses { stride, swapped, .. } = *self.addresses;
        let start = self.next;
        self.next += count;
        if let Some(bytes) = self.fixed {
            return P::raw(&bytes[start * stride..self.next * stride]);
        }
        self.copy.resize(COPIED * P::BYTES, 0);
        let copy = &mut self.copy[..count * P::BYTES];
        if stride == P::BYTES {
            self.addresses.kept.copy(start * stride, copy);
        } else {
            for (at, address) in copy.chunks_exact_mut(P::BYTES).enumerate() {
                self.addresses.kept.copy((start + at) * stride, address);
            }
        }
        if swapped {
            copy.chunks_exact_mut(P::BYTES).for_each(<[u8]>::reverse);
        }
        P::raw(copy)
    }
}

/// Whether the items of `buffer` are addresses as numbers in the other byte order than the network's.
fn swapped<P: Family>(buffer: &PyUntypedBuffer) -> PyResult<bool> {
    let format = buffer.format().to_bytes();
    let (order, kind) = match format {
        [order @ (b'@' | b'=' | b'<' | b'>' | b'!'), kind @ ..] => (*order, kind),
        kind => (b'@', kind),
    };
    let is_packed = buffer.item_size() == 1 || matches!(kind, [.., b's' | b'x']);
    let is_number = buffer.item_size() == P::BYTES && matches!(kind, b"I" | b"L");
    if !is_packed && !is_number {
        return Err(PyTypeError::new_err(format!(
            "addresses: items of format {:?}: want bytes in network order{}",
            String::from_utf8_lossy(format),
            if P::VERSION == 4 {
                ", or unsigned numbers of 4 bytes"
            } else {
                ""
            },
        )));
    }
    let big = match order {
        b'<' => false,
        b'>' | b'!' => true,
        _ => cfg!(target_endian = "big"),
    };
    Ok(is_number && !big)
}

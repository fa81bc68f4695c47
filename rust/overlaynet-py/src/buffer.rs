//! Python buffers as bytes that stay the same while Rust reads them.
//!
//! A `bytes` object cannot change, so it is read in place, and so is a contiguous `memoryview` of one. Any other buffer
//! (`bytearray`, `array`, `mmap`, of any format and strides) may be written by another thread at any time; its content is copied
//! first, as a whole ([`content`]) or part by part ([`kept`]).
use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use pyo3::buffer::PyUntypedBuffer;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyMemoryView};

/// Bytes that cannot change: a part of a `bytes` object.
pub(crate) struct Content {
    bytes: PyBackedBytes,
    part: Range<usize>,
}

impl Content {
    fn whole(bytes: PyBackedBytes) -> Self {
        let part = 0..bytes.len();
        Self { bytes, part }
    }

    /// The `bytes` object that they are a part of.
    pub(crate) fn owner<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match (&self.bytes).into_pyobject(py) {
            Ok(owner) => owner.into_any(),
            Err(never) => match never {},
        }
    }

    /// Where in it they start.
    pub(crate) const fn start(&self) -> usize {
        self.part.start
    }
}

impl Deref for Content {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[self.part.clone()]
    }
}

/// The content of `object`; TypeError if it is no buffer.
#[inline]
pub(crate) fn content(object: &Bound<'_, PyAny>) -> PyResult<Content> {
    match object.cast_exact::<PyBytes>() {
        Ok(bytes) => Ok(Content::whole(bytes.clone().into())),
        Err(_) => viewed(object),
    }
}

fn viewed(object: &Bound<'_, PyAny>) -> PyResult<Content> {
    let view = PyMemoryView::from(object)?;
    if let Some(content) = part_of_bytes(&view)? {
        return Ok(content);
    }
    copied(&view)
}

fn copied(view: &Bound<'_, PyMemoryView>) -> PyResult<Content> {
    let copy = view.call_method0(intern!(view.py(), "tobytes"))?;
    Ok(Content::whole(copy.cast_into::<PyBytes>()?.into()))
}

/// The content of a contiguous view of a `bytes` object.
fn part_of_bytes(view: &Bound<'_, PyMemoryView>) -> PyResult<Option<Content>> {
    let Ok(bytes) = view
        .getattr(intern!(view.py(), "obj"))?
        .cast_into_exact::<PyBytes>()
    else {
        return Ok(None);
    };
    let buffer = PyUntypedBuffer::get(view)?;
    if !buffer.is_c_contiguous() {
        return Ok(None);
    }
    // A view of a part starts somewhere inside.
    let start = (buffer.buf_ptr() as usize).wrapping_sub(bytes.as_bytes().as_ptr() as usize);
    let part = start..start.saturating_add(buffer.len_bytes());
    let is_inside = bytes.as_bytes().get(part.clone()).is_some();
    Ok(is_inside.then(|| Content {
        bytes: bytes.into(),
        part,
    }))
}

/// A buffer that is held, and read without copying the whole of it.
pub(crate) enum Kept {
    /// Bytes that cannot change.
    Fixed(Content, Option<PyUntypedBuffer>),
    /// Contiguous memory that other threads may write.
    Shared(PyUntypedBuffer),
}

/// The buffer of `object`; TypeError if it has none.
pub(crate) fn kept(object: &Bound<'_, PyAny>) -> PyResult<Kept> {
    if let Ok(bytes) = object.cast_exact::<PyBytes>() {
        return Ok(Kept::Fixed(Content::whole(bytes.clone().into()), None));
    }
    let view = PyMemoryView::from(object)?;
    let buffer = PyUntypedBuffer::get(&view)?;
    if let Some(content) = part_of_bytes(&view)? {
        return Ok(Kept::Fixed(content, Some(buffer)));
    }
    if buffer.is_c_contiguous() {
        return Ok(Kept::Shared(buffer));
    }
    Ok(Kept::Fixed(copied(&view)?, Some(buffer)))
}

impl Kept {
    /// The buffer as Python describes it; None: plain bytes.
    pub(crate) const fn buffer(&self) -> Option<&PyUntypedBuffer> {
        match self {
            Self::Fixed(_, buffer) => buffer.as_ref(),
            Self::Shared(buffer) => Some(buffer),
        }
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Fixed(content, _) => content.len(),
            Self::Shared(buffer) => buffer.len_bytes(),
        }
    }

    /// All of it, if it cannot change.
    pub(crate) fn fixed(&self) -> Option<&[u8]> {
        match self {
            Self::Fixed(content, _) => Some(content),
            Self::Shared(_) => None,
        }
    }

    /// Copies the part that starts at byte `start` and is as long as `into`. What another thread writes meanwhile is there or
    /// not, byte by byte.
    #[inline]
    pub(crate) fn copy(&self, start: usize, into: &mut [u8]) {
        match self {
            Self::Fixed(content, _) => into.copy_from_slice(&content[start..start + into.len()]),
            Self::Shared(buffer) => {
                let end = start.checked_add(into.len());
                assert!(
                    end.is_some_and(|end| end <= buffer.len_bytes()),
                    "the part lies in the buffer"
                );
                // SAFETY: the memory is contiguous, is held as long as the buffer is, and so many bytes of it are there.
                unsafe { copy_shared(buffer.buf_ptr().cast_const().cast::<u8>().add(start), into) };
            }
        }
    }
}

/// Copies memory that others may write meanwhile, each word of it read once and atomically, so that what they do is no data race
/// on this side.
///
/// # Safety
/// As many bytes as `into` has can be read at `from`.
unsafe fn copy_shared(from: *const u8, into: &mut [u8]) {
    let byte = |at: usize| {
        // SAFETY: `at` is below the number of bytes that can be read; a byte is aligned.
        unsafe { AtomicU8::from_ptr(from.add(at).cast_mut()) }.load(Ordering::Relaxed)
    };
    let len = into.len();
    let head = from.align_offset(size_of::<u64>()).min(len);
    let (first, rest) = into.split_at_mut(head);
    let (words, last) = rest.as_chunks_mut::<8>();
    for (at, place) in first.iter_mut().enumerate() {
        *place = byte(at);
    }
    for (at, place) in words.iter_mut().enumerate() {
        // SAFETY: the word is aligned, and lies inside of what can be read.
        let word = unsafe { AtomicU64::from_ptr(from.add(head + 8 * at).cast_mut().cast()) };
        *place = word.load(Ordering::Relaxed).to_ne_bytes();
    }
    let behind = len - last.len();
    for (at, place) in last.iter_mut().enumerate() {
        *place = byte(behind + at);
    }
}

//! Python buffers as bytes that stay the same while Rust reads them.
//!
//! A `bytes` object cannot change, so it is read in place, and so is a contiguous `memoryview` of one. Any other buffer
//! (`bytearray`, `array`, `mmap`, of any format and strides) may be written by another thread at any time; its content is copied
//! first.
use std::ops::{Deref, Range};

use pyo3::buffer::PyBuffer;
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
    if let Ok(bytes) = view
        .getattr(intern!(object.py(), "obj"))?
        .cast_into_exact::<PyBytes>()
    {
        let buffer = PyBuffer::<u8>::get(&view);
        if let Ok(buffer) = buffer
            && buffer.is_c_contiguous()
        {
            // A view of a part starts somewhere inside.
            let start = (buffer.buf_ptr() as usize).wrapping_sub(bytes.as_bytes().as_ptr() as usize);
            let part = start..start.saturating_add(buffer.len_bytes());
            if bytes.as_bytes().get(part.clone()).is_some() {
                let bytes = bytes.into();
                return Ok(Content { bytes, part });
            }
        }
    }
    let copy = view.call_method0(intern!(object.py(), "tobytes"))?;
    Ok(Content::whole(copy.cast_into::<PyBytes>()?.into()))
}

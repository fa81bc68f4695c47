//! Python buffers as bytes that stay the same while Rust reads them.
//!
//! A `bytes` object cannot change, so it is read in place. Any other buffer (`bytearray`, `memoryview`, `array`, `mmap`, of any
//! format and strides) may be written by another thread at any time; its content is copied first.
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyMemoryView};

/// The content of `object`; TypeError if it is no buffer.
pub(crate) fn content(object: &Bound<'_, PyAny>) -> PyResult<PyBackedBytes> {
    match object.cast_exact::<PyBytes>() {
        Ok(bytes) => Ok(bytes.clone().into()),
        Err(_) => {
            let view = PyMemoryView::from(object)?;
            Ok(view.call_method0("tobytes")?.cast_into::<PyBytes>()?.into())
        }
    }
}

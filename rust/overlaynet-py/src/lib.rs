//! The Python module `overlaynet._core`: conversions between Python values and the Rust crates, and nothing else.
use pyo3::prelude::*;

/// The compiled core of overlaynet.
#[pymodule]
mod _core {}

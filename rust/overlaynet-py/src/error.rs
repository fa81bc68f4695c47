//! The one place where errors of the Rust crates become exceptions of `overlaynet.errors`.
use overlaynet_core::wire::{self, stack};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

mod python {
    pyo3::import_exception!(overlaynet.errors, DataplaneError);
    pyo3::import_exception!(overlaynet.errors, DecodeError);
    pyo3::import_exception!(overlaynet.errors, PrefixError);
}

/// `DecodeError(layer, offset, need, have, why)`.
pub(crate) fn decode(error: wire::DecodeError) -> PyErr {
    let wire::DecodeError {
        layer,
        offset,
        need,
        have,
        reason,
    } = error;
    python::DecodeError::new_err((layer.name(), offset, need, have, reason.text()))
}

/// `PrefixError(value, why)`.
pub(crate) fn not_a_prefix(value: &Bound<'_, PyAny>, why: &str) -> PyErr {
    python::PrefixError::new_err((value.clone().unbind(), why.to_owned()))
}

/// `ValueError`, with the core's text.
pub(crate) fn encode(error: stack::EncodeError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// `DataplaneError(action, why)`.
pub(crate) fn dataplane(action: &str, why: &str) -> PyErr {
    python::DataplaneError::new_err((action.to_owned(), why.to_owned()))
}

/// `ValueError`.
pub(crate) fn value(text: &str) -> PyErr {
    PyValueError::new_err(text.to_owned())
}

//! `overlaynet._core.encode`, `encode_many` and `Tunnel`: layers written around payloads.
use overlaynet_core::wire::stack;
use overlaynet_core::wire::template::Template;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::{buffer, error, layers};

/// Work on fewer bytes than this takes less time than to let go of the interpreter and to take it again.
pub(crate) const WORTH_DETACHING_BYTES: usize = 1 << 16;

/// The packet of `layers` around `payload`, with all lengths and checksums filled in.
#[pyfunction]
#[pyo3(signature = (*layers, payload = None))]
pub(crate) fn encode<'py>(
    layers: &Bound<'py, PyTuple>,
    payload: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let payload = payload.map(buffer::content).transpose()?;
    let items: Vec<_> = layers.iter().collect();
    let headers = layers::headers(&items)?;
    let packet = stack::encode(&headers, payload.as_deref().unwrap_or_default()).map_err(error::encode)?;
    Ok(PyBytes::new(layers.py(), &packet))
}

/// One packet for each of `payloads`, all with the same layers.
#[pyfunction]
#[pyo3(signature = (*layers, payloads, stride = None))]
pub(crate) fn encode_many<'py>(
    layers: &Bound<'py, PyTuple>,
    payloads: &Bound<'py, PyAny>,
    stride: Option<usize>,
) -> PyResult<Bound<'py, PyAny>> {
    wrap_many(&template(layers)?, payloads, stride)
}

fn template(layers: &Bound<'_, PyTuple>) -> PyResult<Template> {
    let items: Vec<_> = layers.iter().collect();
    Template::new(&layers::headers(&items)?).map_err(error::encode)
}

/// Layers that are written once, and put around payloads.
#[pyclass(frozen, module = "overlaynet._core")]
pub(crate) struct Tunnel {
    template: Template,
    layers: Py<PyTuple>,
}

#[pymethods]
impl Tunnel {
    #[new]
    #[pyo3(signature = (*layers))]
    fn new(layers: &Bound<'_, PyTuple>) -> PyResult<Self> {
        Ok(Self {
            template: template(layers)?,
            layers: layers.clone().unbind(),
        })
    }

    #[getter]
    fn layers<'py>(&self, py: Python<'py>) -> &Bound<'py, PyTuple> {
        self.layers.bind(py)
    }

    #[getter]
    fn overhead(&self) -> usize {
        self.template.len()
    }

    #[pyo3(signature = (payload, /))]
    fn wrap<'py>(&self, payload: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        wrap(&self.template, payload)
    }

    #[pyo3(signature = (payloads, /, *, stride = None))]
    fn wrap_many<'py>(
        &self,
        payloads: &Bound<'py, PyAny>,
        stride: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        wrap_many(&self.template, payloads, stride)
    }

    fn __getnewargs__<'py>(&self, py: Python<'py>) -> &Bound<'py, PyTuple> {
        self.layers.bind(py)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let layers = self.layers.bind(py).iter();
        let texts = layers.map(|layer| Ok(layer.repr()?.to_string()));
        Ok(format!(
            "Tunnel({})",
            texts.collect::<PyResult<Vec<_>>>()?.join(", ")
        ))
    }
}

#[inline]
fn wrap<'py>(template: &Template, payload: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let payload_bytes = buffer::content(payload)?;
    template.fits(payload_bytes.len()).map_err(error::encode)?;
    PyBytes::new_with(payload.py(), template.len() + payload_bytes.len(), |packet| {
        template.emit(packet, &payload_bytes);
        Ok(())
    })
}

fn wrap_many<'py>(
    template: &Template,
    payloads: &Bound<'py, PyAny>,
    stride: Option<usize>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = payloads.py();
    let Some(stride) = stride else {
        let packets = PyList::empty(py);
        for payload in payloads.try_iter()? {
            packets.append(wrap(template, &payload?)?)?;
        }
        return Ok(packets.into_any());
    };
    let bytes = buffer::content(payloads)?;
    check_stride(stride, bytes.len())?;
    template.fits(stride).map_err(error::encode)?;
    let len = template.len() + stride;
    let packets = PyBytes::new_with(py, bytes.len() / stride * len, |packets| {
        let mut fill = || template.emit_all(packets, &bytes, stride);
        if bytes.len() < WORTH_DETACHING_BYTES {
            fill();
        } else {
            py.detach(fill);
        }
        Ok(())
    })?;
    Ok(packets.into_any())
}

/// ValueError unless slots of `stride` bytes fill a buffer of `len` bytes.
pub(crate) fn check_stride(stride: usize, len: usize) -> PyResult<()> {
    if stride == 0 || !len.is_multiple_of(stride) {
        let text = format!("stride {stride}: want a divisor of the buffer's {len} bytes");
        return Err(PyValueError::new_err(text));
    }
    Ok(())
}

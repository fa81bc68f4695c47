//! `overlaynet._core.decode` and `Packet`: a packet whose headers were found, and are read when they are asked for.
use overlaynet_core::wire::Layer;
use overlaynet_core::wire::pretty::Pretty;
use overlaynet_core::wire::scan::{Next, Part, Scan, Visitor};
use overlaynet_core::wire::stack::{Verdict, Walk};
use overlaynet_core::wire::vxlan::{self, Vni};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyMemoryView, PySlice, PyString, PyTuple, PyType};

use crate::buffer::{self, Content};
use crate::error;
use crate::layers::{self, Arp, Ethernet, Icmp, Icmpv6, Ipv4, Ipv6, Tcp, Udp, Vlan, Vxlan};

/// The packet in `buffer`, with its headers found down to the innermost payload.
#[pyfunction]
#[pyo3(
    signature = (buffer, /, first = First(Next::Ethernet), *, tunnels = true, strict = true),
    text_signature = "(buffer, /, first='ethernet', *, tunnels=True, strict=True)"
)]
pub(crate) fn decode(
    buffer: &Bound<'_, PyAny>,
    first: First,
    tunnels: bool,
    strict: bool,
) -> PyResult<Packet> {
    let bytes = buffer::content(buffer)?;
    let First(first) = first;
    let mut scan = Scan::new(&bytes, first, tunnels);
    let mut outline = Outline::default();
    let ended = scan.visit(&mut outline);
    if strict {
        ended.map_err(error::decode)?;
    }
    let start = scan.offset();
    let end = start + scan.payload().len();
    Ok(Packet {
        first,
        tunnels,
        outline,
        start,
        end,
        bytes,
    })
}

/// What is kept of the headers: so little that finding it costs next to nothing.
#[derive(Default)]
struct Outline {
    layers: usize,
    vni: Option<Vni>,
}

impl<'a> Visitor<'a> for Outline {
    #[inline(always)]
    fn part(&mut self, part: Part<'a>) {
        self.layers += 1;
        if part.layer == Layer::Vxlan {
            self.vni = vxlan::Packet::new_checked(part.bytes)
                .ok()
                .map(|packet| packet.vni());
        }
    }
}

/// The packet in `buffer` as text, one line a header; a fault is the last line.
#[pyfunction]
#[pyo3(signature = (buffer, /, first = "ethernet", *, tunnels = true))]
pub(crate) fn pretty(buffer: &Bound<'_, PyAny>, first: &str, tunnels: bool) -> PyResult<String> {
    let bytes = buffer::content(buffer)?;
    Ok(Pretty::of(Walk::new(&bytes, next(first)?, tunnels)).to_string())
}

/// The header with which a packet starts, as an argument: a literal in a program is the interned string itself.
pub(crate) struct First(Next);

impl<'a, 'py> FromPyObject<'a, 'py> for First {
    type Error = PyErr;

    #[inline]
    fn extract(name: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let py = name.py();
        if name.is(intern!(py, "ip")) {
            Ok(Self(Next::Ip))
        } else if name.is(intern!(py, "ethernet")) {
            Ok(Self(Next::Ethernet))
        } else {
            next(name.cast::<PyString>()?.to_str()?).map(Self)
        }
    }
}

/// The header with which a packet starts, by name.
pub(crate) fn next(name: &str) -> PyResult<Next> {
    match name {
        "ethernet" => Ok(Next::Ethernet),
        "vlan" => Ok(Next::Vlan),
        "arp" => Ok(Next::Arp),
        "ip" => Ok(Next::Ip),
        "ipv4" => Ok(Next::Ipv4),
        "ipv6" => Ok(Next::Ipv6),
        "udp" => Ok(Next::Udp),
        "tcp" => Ok(Next::Tcp),
        "icmp" => Ok(Next::Icmp),
        "icmpv6" => Ok(Next::Icmpv6),
        "vxlan" => Ok(Next::Vxlan),
        _ => Err(PyValueError::new_err(format!(
            "first {name:?}: want ethernet, vlan, arp, ip, ipv4, ipv6, udp, tcp, icmp, icmpv6 or vxlan"
        ))),
    }
}

/// The bytes cannot change, so that scanning them again finds the same: no place but the payload's is kept.
#[pyclass(frozen, module = "overlaynet._core")]
pub(crate) struct Packet {
    bytes: Content,
    start: usize,
    end: usize,
    outline: Outline,
    first: Next,
    tunnels: bool,
}

impl Packet {
    #[inline]
    fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        // A fault is the last item.
        Scan::new(&self.bytes, self.first, self.tunnels).flatten()
    }
}

#[pymethods]
impl Packet {
    #[getter]
    fn layers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let layers = self.parts().map(|part| value(py, &part));
        PyTuple::new(py, layers.collect::<PyResult<Vec<_>>>()?)
    }

    #[getter]
    fn names<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.parts().map(|part| part.layer.name()).collect::<Vec<_>>())
    }

    #[getter]
    fn offsets<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.parts().map(|part| part.offset).collect::<Vec<_>>())
    }

    #[getter]
    fn checksums<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let verdicts = self.parts().map(|part| verdict_text(py, part.checksum()));
        PyTuple::new(py, verdicts.collect::<Vec<_>>())
    }

    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let view = PyMemoryView::from(&self.bytes.owner(py))?;
        let base = self.bytes.start();
        let bound = |offset: usize| isize::try_from(base + offset).unwrap_or(isize::MAX);
        view.get_item(PySlice::new(py, bound(self.start), bound(self.end), 1))
    }

    #[getter]
    const fn payload_offset(&self) -> usize {
        self.start
    }

    #[getter]
    fn vni(&self) -> Option<u32> {
        self.outline.vni.map(Vni::number)
    }

    #[getter]
    fn fault(&self) -> Option<PyErr> {
        let mut scan = Scan::new(&self.bytes, self.first, self.tunnels);
        scan.find_map(Result::err).map(error::decode)
    }

    #[pyo3(signature = (kind, /))]
    fn outermost<'py>(&self, kind: &Bound<'py, PyType>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let layer = layer_of(kind)?;
        let found = self.parts().find(|part| part.layer == layer);
        found.map(|part| value(kind.py(), &part)).transpose()
    }

    #[pyo3(signature = (kind, /))]
    fn innermost<'py>(&self, kind: &Bound<'py, PyType>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let layer = layer_of(kind)?;
        let found = self.parts().filter(|part| part.layer == layer).last();
        found.map(|part| value(kind.py(), &part)).transpose()
    }

    const fn __len__(&self) -> usize {
        self.outline.layers
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: isize) -> PyResult<Bound<'py, PyAny>> {
        let at = if index < 0 {
            self.outline.layers.checked_add_signed(index)
        } else {
            usize::try_from(index).ok()
        };
        match at.and_then(|at| self.parts().nth(at)) {
            Some(part) => value(py, &part),
            None => {
                let text = format!("layer {index}: the packet has {}", self.outline.layers);
                Err(pyo3::exceptions::PyIndexError::new_err(text))
            }
        }
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast_exact::<Self>().is_ok_and(|other| {
            let other = other.get();
            *self.bytes == *other.bytes && (self.first, self.tunnels) == (other.first, other.tunnels)
        })
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        (&*self.bytes).into_pyobject(py)?.hash()
    }

    fn __repr__(&self) -> String {
        let names: Vec<_> = self.parts().map(|part| part.layer.name()).collect();
        format!(
            "<Packet {}, payload {} bytes>",
            names.join("/"),
            self.end - self.start
        )
    }
}

fn value<'py>(py: Python<'py>, part: &Part<'_>) -> PyResult<Bound<'py, PyAny>> {
    layers::value(py, part.header().map_err(error::decode)?)
}

fn verdict_text(py: Python<'_>, verdict: Verdict) -> &Bound<'_, PyString> {
    match verdict {
        Verdict::Absent => intern!(py, "absent"),
        Verdict::Right => intern!(py, "right"),
        Verdict::Wrong => intern!(py, "wrong"),
        Verdict::Unknown => intern!(py, "unknown"),
    }
}

fn layer_of(kind: &Bound<'_, PyType>) -> PyResult<Layer> {
    let py = kind.py();
    let layer = match () {
        () if kind.is(py.get_type::<Ipv4>()) => Layer::Ipv4,
        () if kind.is(py.get_type::<Ipv6>()) => Layer::Ipv6,
        () if kind.is(py.get_type::<Udp>()) => Layer::Udp,
        () if kind.is(py.get_type::<Tcp>()) => Layer::Tcp,
        () if kind.is(py.get_type::<Ethernet>()) => Layer::Ethernet,
        () if kind.is(py.get_type::<Vxlan>()) => Layer::Vxlan,
        () if kind.is(py.get_type::<Icmp>()) => Layer::Icmp,
        () if kind.is(py.get_type::<Icmpv6>()) => Layer::Icmpv6,
        () if kind.is(py.get_type::<Vlan>()) => Layer::Vlan,
        () if kind.is(py.get_type::<Arp>()) => Layer::Arp,
        () => {
            return Err(PyTypeError::new_err(format!(
                "{} is no kind of layer",
                kind.name()?
            )));
        }
    };
    Ok(layer)
}

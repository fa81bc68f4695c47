//! `overlaynet._core.flood`, `count`, `reflect` and `probe`: datagrams for measurements.
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use overlaynet_io::traffic;
use pyo3::prelude::*;

use crate::error;

/// Addresses and spans as Python gives them.
type Endpoint = (String, u16);

fn endpoint((host, port): Endpoint) -> PyResult<SocketAddr> {
    let address = host
        .parse()
        .map_err(|_| error::dataplane("measure", &format!("{host:?}: not an IP address")))?;
    Ok(SocketAddr::new(address, port))
}

fn span(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| error::dataplane("measure", &format!("{seconds}: not a span of time")))
}

fn failed(why: &std::io::Error) -> PyErr {
    error::dataplane("measure", &why.to_string())
}

/// How many datagrams the system took.
#[pyfunction]
#[pyo3(signature = (*, to, payload, seconds, most))]
pub(crate) fn flood(py: Python<'_>, to: Endpoint, payload: usize, seconds: f64, most: u64) -> PyResult<u64> {
    let (to, span) = (endpoint(to)?, span(seconds)?);
    py.detach(|| traffic::flood(to, payload, span, most))
        .map_err(|why| failed(&why))
}

/// What arrived: datagrams, the largest number and one, those out of order, seconds.
#[pyfunction]
#[pyo3(signature = (*, bind, patience, quiet))]
pub(crate) fn count(
    py: Python<'_>,
    bind: Endpoint,
    patience: f64,
    quiet: f64,
) -> PyResult<(u64, u64, u64, f64)> {
    let (bind, patience, quiet) = (endpoint(bind)?, span(patience)?, span(quiet)?);
    let counted = py
        .detach(|| traffic::count(&UdpSocket::bind(bind)?, patience, quiet))
        .map_err(|why| failed(&why))?;
    Ok((
        counted.received,
        counted.sent,
        counted.disordered,
        counted.span.as_secs_f64(),
    ))
}

/// How many datagrams were sent back.
#[pyfunction]
#[pyo3(signature = (*, bind, quiet))]
pub(crate) fn reflect(py: Python<'_>, bind: Endpoint, quiet: f64) -> PyResult<u64> {
    let (bind, quiet) = (endpoint(bind)?, span(quiet)?);
    py.detach(|| traffic::reflect(&UdpSocket::bind(bind)?, quiet))
        .map_err(|why| failed(&why))
}

/// Round-trip times in seconds.
#[pyfunction]
#[pyo3(signature = (*, to, payload, interval, probes, patience))]
pub(crate) fn probe(
    py: Python<'_>,
    to: Endpoint,
    payload: usize,
    interval: f64,
    probes: u32,
    patience: f64,
) -> PyResult<Vec<f64>> {
    let (to, interval, patience) = (endpoint(to)?, span(interval)?, span(patience)?);
    let times = py
        .detach(|| traffic::probe(to, payload, interval, probes, patience))
        .map_err(|why| failed(&why))?;
    Ok(times.iter().map(Duration::as_secs_f64).collect())
}

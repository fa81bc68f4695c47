//! `overlaynet._core.Tun`: packets in batches out of and into a TUN device.
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use overlaynet_io::offload::Offloads;
use overlaynet_io::port::PACKET_BYTES;
use overlaynet_io::tun;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView, PyTuple};

use crate::batch::split;
use crate::{buffer, error};

/// An existing TUN device, one packet a system call, never waiting.
#[pyclass(frozen, module = "overlaynet._core")]
pub(crate) struct Tun {
    device: Mutex<Option<tun::Tun>>,
    name: String,
}

impl Tun {
    fn locked(&self) -> MutexGuard<'_, Option<tun::Tun>> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, action: &str, why: &str) -> PyErr {
        error::dataplane(action, &format!("TUN device {}: {why}", self.name))
    }

    /// The place of the first packet that the device did not take, and why.
    fn write<'a>(&self, packets: impl Iterator<Item = &'a [u8]>) -> Result<(), (usize, io::Error)> {
        let device = self.locked();
        let device = device.as_ref().ok_or_else(|| (0, closed()))?;
        for (at, packet) in packets.enumerate() {
            device.write_packet(packet).map_err(|why| (at, why))?;
        }
        Ok(())
    }
}

#[pymethods]
impl Tun {
    #[new]
    #[pyo3(signature = (name, /))]
    fn new(py: Python<'_>, name: String) -> PyResult<Self> {
        let device = py
            .detach(|| tun::Tun::open(&name, &Offloads::new(&[])))
            .map_err(|why| error::dataplane("open", &format!("TUN device {name}: {why}")))?;
        Ok(Self {
            device: Mutex::new(Some(device)),
            name,
        })
    }

    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    fn fileno(&self) -> PyResult<i32> {
        match self.locked().as_ref() {
            Some(device) => Ok(device.as_fd().as_raw_fd()),
            None => Err(self.failed("fileno", &closed().to_string())),
        }
    }

    #[pyo3(signature = (buffer, /))]
    fn read_many<'py>(&self, buffer: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = buffer.py();
        let room = PyBuffer::<u8>::get(buffer)?;
        let (Some(all), false) = (room.as_slice_ptr(), room.readonly()) else {
            return Err(PyValueError::new_err("buffer: want a writable, contiguous one"));
        };
        if all.len() < PACKET_BYTES {
            let len = all.len();
            return Err(PyValueError::new_err(format!(
                "buffer: {len} bytes: want {PACKET_BYTES} at least"
            )));
        }
        let room = Room(all);
        let lengths = py.detach(|| {
            let device = self.locked();
            let device = device.as_ref().ok_or_else(closed)?;
            room.fill(device)
        });
        let lengths = lengths.map_err(|why| self.failed("read", &why.to_string()))?;
        let bytes: Vec<u8> = lengths.iter().flat_map(|len| len.to_ne_bytes()).collect();
        let view = PyMemoryView::from(&PyBytes::new(py, &bytes))?;
        view.call_method1(intern!(py, "cast"), (intern!(py, "I"),))
    }

    #[pyo3(signature = (packets, /, lengths = None))]
    fn write_many(&self, packets: &Bound<'_, PyAny>, lengths: Option<Vec<usize>>) -> PyResult<()> {
        let py = packets.py();
        let written = match lengths {
            Some(lengths) => {
                let bytes = buffer::content(packets)?;
                let parts = split(&bytes, &lengths)?;
                py.detach(|| self.write(parts.iter().copied()))
            }
            None => {
                let packets = packets
                    .try_iter()?
                    .map(|packet| buffer::content(&packet?))
                    .collect::<PyResult<Vec<_>>>()?;
                py.detach(|| self.write(packets.iter().map(|packet| &**packet)))
            }
        };
        written.map_err(|(at, why)| self.failed("write", &format!("packet {at}: {why}")))
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.locked().take()));
    }

    const fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        self.close(py);
    }
}

fn closed() -> io::Error {
    io::Error::other("it was closed")
}

/// Memory of a Python buffer that is held and writable.
struct Room(NonNull<[u8]>);

// SAFETY: only the kernel writes through the address, in read(2), as it does for Python's own `readinto`.
unsafe impl Send for Room {}
// SAFETY: as above.
unsafe impl Sync for Room {}

impl Room {
    /// Reads packets one behind the other while there is room for one of any length; their lengths.
    fn fill(&self, device: &tun::Tun) -> io::Result<Vec<u32>> {
        let (mut used, mut lengths) = (0, Vec::new());
        while self.0.len() - used >= PACKET_BYTES {
            // SAFETY: `used` is at most the length of the memory.
            let start = unsafe { self.0.cast::<u8>().add(used) };
            let room = NonNull::slice_from_raw_parts(start, PACKET_BYTES);
            // SAFETY: at least so many bytes are left of memory that the caller holds and that is writable.
            let Some(len) = (unsafe { device.read_packet(room) })? else {
                break;
            };
            used += len;
            lengths.push(u32::try_from(len).unwrap_or(u32::MAX));
        }
        Ok(lengths)
    }
}

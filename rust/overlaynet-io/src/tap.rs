//! A TAP device into which whole tunnelled super-packets are written, for the host to forward and whoever comes last to cut
//! (`TUN_F_UDP_TUNNEL_GSO`, Linux 6.17). A TUN device does not take them (drivers/net/tun.c).
//!
//! The device is made elsewhere. A frame is taken by the network stack within the system call, so that frames keep the order in
//! which they are written, also beside datagrams that the same thread sends through a socket.
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use overlaynet_core::offload::TUNNEL_HEADER_BYTES;
use overlaynet_core::wire::ethernet::MacAddress;

use crate::tun::{TUN_F_CSUM, TUN_F_TSO_ECN, TUN_F_TSO4, TUN_F_TSO6, attach};

// include/uapi/linux/if_tun.h
const TUN_F_UDP_TUNNEL_GSO: libc::c_ulong = 0x80;
const TUN_F_UDP_TUNNEL_GSO_CSUM: libc::c_ulong = 0x100;

/// Pieces of one frame: the outer headers, and what the engine has in one piece.
const PIECES: usize = 4;

/// A handle on an existing TAP device.
#[derive(Debug)]
pub struct Tap {
    file: File,
}

/// Why a device cannot be used.
#[derive(Debug)]
pub enum Unusable {
    /// The kernel does not have tunnel segmentation.
    Missing(io::Error),
    /// The device is not there, is of another kind or taken, or `/dev/net/tun` cannot be opened.
    Device(io::Error),
}

impl Tap {
    /// Attaches to the device called `name`.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn open(name: &str) -> Result<Self, Unusable> {
        let file = attach(name, libc::IFF_TAP, Some(TUNNEL_HEADER_BYTES)).map_err(Unusable::Device)?;
        let segmented = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
        let flags = segmented | TUN_F_UDP_TUNNEL_GSO | TUN_F_UDP_TUNNEL_GSO_CSUM;
        // SAFETY: TUNSETOFFLOAD takes its flags by value.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, flags) } < 0 {
            return Err(Unusable::Missing(io::Error::last_os_error()));
        }
        Ok(Self { file })
    }

    /// The device's link-layer address now.
    ///
    /// # Errors
    /// The device is gone.
    pub fn mac(&self) -> io::Result<MacAddress> {
        // SAFETY: `ifreq` is plain data for which all zeros is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // SAFETY: SIOCGIFHWADDR writes one `ifreq`, which lives across the call; the file is open.
        if unsafe { libc::ioctl(self.file.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: SIOCGIFHWADDR writes this member.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        let mut octets = [0; 6];
        for (to, from) in octets.iter_mut().zip(address.sa_data) {
            *to = from.cast_unsigned();
        }
        Ok(MacAddress(octets))
    }

    /// Writes one frame: `header` and all that stands before the encapsulation, and the pieces behind it.
    ///
    /// # Errors
    /// The device is gone (EBADFD) or down (EIO), or the kernel does not take the frame.
    pub fn write<'a>(&self, header: &[u8], pieces: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
        let empty = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        let vector = |bytes: &[u8]| libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let mut vectors = [empty; PIECES];
        vectors[0] = vector(header);
        let mut count = 1;
        for piece in pieces {
            let Some(slot) = vectors.get_mut(count) else {
                return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
            };
            *slot = vector(piece);
            count += 1;
        }
        loop {
            // SAFETY: the vectors point to borrowed buffers, which live across the call and which the kernel only reads.
            let written =
                unsafe { libc::writev(self.file.as_raw_fd(), vectors.as_ptr(), count as libc::c_int) };
            if written >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

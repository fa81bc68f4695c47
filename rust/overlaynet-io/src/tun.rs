//! A TUN device, opened without the packet information header (Documentation/networking/tuntap.rst).
//!
//! Devices are made elsewhere (they are kernel state like any other); here one is only attached to, so that closing it leaves it
//! and its routes in place.
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::ptr::NonNull;

use overlaynet_core::offload::{VNET_HEADER_BYTES, VnetHeader};

use crate::offload::{Offload, Offloads};
use crate::port::{Batch, Buffers, HEADROOM_BYTES, Message, PacketPort, Sent};

// include/uapi/linux/if_tun.h
pub(crate) const TUN_F_CSUM: libc::c_ulong = 0x01;
pub(crate) const TUN_F_TSO4: libc::c_ulong = 0x02;
pub(crate) const TUN_F_TSO6: libc::c_ulong = 0x04;
pub(crate) const TUN_F_TSO_ECN: libc::c_ulong = 0x08;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;

/// The most pieces of one write(2) (`UIO_MAXIOV`), the header among them.
pub const PIECES: usize = 1024;

/// Attaches to the existing device called `name`, of the kind `kind` (`IFF_TUN`, `IFF_TAP`), with a virtio header of so many bytes
/// before each packet or none.
///
/// # Errors
/// `/dev/net/tun` cannot be opened; a name longer than 15 bytes; there is no such device (ENODEV), or it is of another kind
/// (EINVAL) or taken (EBUSY).
pub(crate) fn attach(name: &str, kind: libc::c_int, header: Option<usize>) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    // SAFETY: `ifreq` is plain data for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: the name ends in a zero byte, as it is shorter than its field. TUNSETIFF would make a device that is not there.
    if unsafe { libc::if_nametoindex(request.ifr_name.as_ptr()) } == 0 {
        return Err(io::Error::last_os_error());
    }
    let headed = if header.is_some() { libc::IFF_VNET_HDR } else { 0 };
    request.ifr_ifru.ifru_flags = (kind | libc::IFF_NO_PI | headed) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives across the call; the file is open.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if let Some(bytes) = header {
        let bytes = bytes as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads one `int`, which lives across the call.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const bytes) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(file)
}

/// A handle on an existing TUN device.
#[derive(Debug)]
pub struct Tun {
    file: File,
    name: String,
    has_header: bool,
    vectors: Box<[libc::iovec]>,
}

// SAFETY: the raw pointers in `vectors` are set from borrowed buffers right before each system call and are not used after it, so
// the value may move to another thread between calls.
unsafe impl Send for Tun {}

impl Tun {
    /// Attaches to the device called `name`, with as much of what `offloads` wants as the kernel has.
    ///
    /// # Errors
    /// `/dev/net/tun` cannot be opened; a name longer than 15 bytes; there is no such device (ENODEV), or it is of another kind
    /// (EINVAL) or taken (EBUSY).
    pub fn open(name: &str, offloads: &Offloads) -> io::Result<Self> {
        let has_header = offloads.has(Offload::Tso) || offloads.has(Offload::Uso);
        let file = attach(name, libc::IFF_TUN, has_header.then_some(VNET_HEADER_BYTES))?;
        let empty = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        let tun = Self {
            file,
            name: name.to_owned(),
            has_header,
            vectors: vec![empty; PIECES].into_boxed_slice(),
        };
        tun.set_offloads(offloads)?;
        Ok(tun)
    }

    /// Tells the kernel which packets may come in one piece. Offloads belong to the device, not to this file: a former user may have
    /// left others on.
    fn set_offloads(&self, offloads: &Offloads) -> io::Result<()> {
        let segmented = |offload, flags| {
            if offloads.has(offload) {
                flags | TUN_F_CSUM
            } else {
                0
            }
        };
        let tso = segmented(Offload::Tso, TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN);
        let uso = segmented(Offload::Uso, TUN_F_USO4 | TUN_F_USO6);
        // A kernel that does not know one of the flags takes none.
        if let Err(error) = self.set_offload_flags(tso | uso) {
            if uso != 0 {
                offloads.miss(Offload::Uso, error.raw_os_error().unwrap_or(libc::EINVAL));
            }
            if let Err(error) = self.set_offload_flags(tso) {
                offloads.miss(Offload::Tso, error.raw_os_error().unwrap_or(libc::EINVAL));
                self.set_offload_flags(0)?;
            }
        }
        Ok(())
    }

    fn set_offload_flags(&self, flags: libc::c_ulong) -> io::Result<()> {
        // SAFETY: TUNSETOFFLOAD takes its flags by value.
        if unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD, flags) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// The error that ends the port, with the device's name.
    fn ended(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("TUN device {}: {error}", self.name))
    }

    fn write(&mut self, buffers: &Buffers<'_>, message: &Message) -> io::Result<()> {
        let header = message.vnet.emit();
        let mut count = 0;
        if self.has_header {
            self.vectors[0] = vector(&header);
            count = 1;
        }
        for piece in buffers.pieces_of(message) {
            let Some(slot) = self.vectors.get_mut(count) else {
                return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
            };
            *slot = vector(piece);
            count += 1;
        }
        // SAFETY: the vectors point to the header and to borrowed buffers, which live across the call and which the kernel only reads.
        let written =
            unsafe { libc::writev(self.file.as_raw_fd(), self.vectors.as_ptr(), count as libc::c_int) };
        if written < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

fn vector(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}

/// One packet at a time, for users other than the engine. Only for devices that were opened without offloads.
impl Tun {
    /// Reads the next packet into `room`, which should have [`PACKET_BYTES`](crate::port::PACKET_BYTES): the rest of a longer
    /// packet is lost. `None`: no packet waits, or the device is down.
    ///
    /// # Errors
    /// The device is gone.
    ///
    /// # Safety
    /// `room` must be writable memory during the call. Others may read and write it meanwhile, as only the kernel touches it.
    pub unsafe fn read_packet(&self, room: NonNull<[u8]>) -> io::Result<Option<usize>> {
        loop {
            // SAFETY: the caller says that `room` is writable for its whole length.
            let len = unsafe { libc::read(self.file.as_raw_fd(), room.as_ptr().cast(), room.len()) };
            if let Ok(len) = usize::try_from(len) {
                return Ok(Some(len));
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN | libc::EIO) => return Ok(None),
                _ => return Err(self.ended(&error)),
            }
        }
    }

    /// Writes one packet.
    ///
    /// # Errors
    /// The device is down (EIO) or gone (EBADFD), or the packet is no IP packet (EINVAL).
    pub fn write_packet(&self, packet: &[u8]) -> io::Result<()> {
        (&self.file).write(packet).map(|_| ())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl PacketPort for Tun {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
        let header = if self.has_header { VNET_HEADER_BYTES } else { 0 };
        let start = HEADROOM_BYTES - header;
        while let Some(room) = batch.room() {
            match self.file.read(&mut room[start..]) {
                Ok(len) => {
                    let vnet = match room[start..].first_chunk() {
                        Some(bytes) if self.has_header => VnetHeader::parse(*bytes),
                        _ => Some(VnetHeader::default()),
                    };
                    batch.push(len.saturating_sub(header), None, vnet);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The device is down: it may come up again.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => break,
                Err(error) => return Err(self.ended(&error)),
            }
        }
        Ok(())
    }

    fn send(&mut self, buffers: Buffers<'_>, messages: &[Message]) -> io::Result<Sent> {
        for (at, message) in messages.iter().enumerate() {
            match self.write(&buffers, message) {
                Ok(()) => {}
                // EBADFD: the device was deleted (tun_get_user in drivers/net/tun.c).
                Err(error) if error.raw_os_error() == Some(libc::EBADFD) => return Err(self.ended(&error)),
                Err(error) => {
                    return Ok(Sent {
                        messages: at,
                        refused: Some(error.raw_os_error().unwrap_or(libc::EIO)),
                    });
                }
            }
        }
        Ok(Sent {
            messages: messages.len(),
            refused: None,
        })
    }
}

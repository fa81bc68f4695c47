//! A TUN device that exists already, opened by name (Documentation/networking/tuntap.rst, drivers/net/tun.c).
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::port::{Batch, PacketPort};

/// One queue of a TUN device, without packet information header and without offloads.
#[derive(Debug)]
pub struct Tun {
    file: File,
    name: String,
}

impl Tun {
    /// Attaches to the device called `name`.
    ///
    /// # Errors
    /// `/dev/net/tun` cannot be opened; a name longer than 15 bytes; there is no such device (ENODEV), or it is of another kind
    /// (EINVAL) or taken (EBUSY).
    pub fn open(name: &str) -> io::Result<Self> {
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
        let flags = libc::IFF_TUN | libc::IFF_NO_PI;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives across the call; the file is open.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // Offloads belong to the device, not to this file: a former user may have left them on.
        // SAFETY: TUNSETOFFLOAD takes its flags by value.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, 0 as libc::c_ulong) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            file,
            name: name.to_owned(),
        })
    }

    /// The error that ends the port, with the device's name.
    fn ended(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("TUN device {}: {error}", self.name))
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl PacketPort for Tun {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
        while let Some(room) = batch.room() {
            match self.file.read(room) {
                Ok(len) => batch.push(len, None),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The device is down: it may come up again.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => break,
                Err(error) => return Err(self.ended(&error)),
            }
        }
        Ok(())
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<bool> {
        match self.file.write(packet) {
            Ok(_) => Ok(true),
            // EBADFD: the device was deleted (tun_get_user in drivers/net/tun.c).
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => Err(self.ended(&error)),
            Err(_) => Ok(false),
        }
    }

    fn send_batch(&mut self, batch: &Batch, refused: &mut dyn FnMut(usize)) -> io::Result<()> {
        for at in 0..batch.len() {
            if batch.slot(at).endpoint.is_some() && !self.send(batch.packet(at))? {
                refused(at);
            }
        }
        Ok(())
    }
}

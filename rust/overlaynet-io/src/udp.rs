//! A UDP socket that receives and sends datagrams in batches (recvmmsg(2), sendmmsg(2)).
//!
//! The outer path MTU is the kernel's business (`IP_PMTUDISC_WANT`, the default): datagrams carry DF while they fit, and are
//! fragmented here when a router has reported a smaller path, so that no packet of a peer behind one is lost in silence.
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::port::{BATCH_PACKETS, Batch, PACKET_BYTES, PacketPort};

/// The socket buffers asked for, in bytes: some milliseconds of traffic at 10 Gbit/s.
pub const SOCKET_BUFFER_BYTES: libc::c_int = 8 << 20;

/// A bound socket with room for one batch of message headers.
pub struct Udp {
    socket: UdpSocket,
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    names: Box<[libc::sockaddr_storage]>,
    places: [usize; BATCH_PACKETS],
}

// SAFETY: the raw pointers in `headers` and `vectors` are set from `&mut self` and a batch right before each system call and are
// not used after it, so the value may move to another thread between calls.
unsafe impl Send for Udp {}

impl Udp {
    /// A socket bound to `address`.
    ///
    /// # Errors
    /// The address is not this host's, or the port is taken.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        for (forced, usual) in [
            (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
            (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
        ] {
            // Without CAP_NET_ADMIN the usual option gives what the system's limit allows; a small buffer is no failure.
            if !set_option(&socket, forced, SOCKET_BUFFER_BYTES) {
                set_option(&socket, usual, SOCKET_BUFFER_BYTES);
            }
        }
        // SAFETY: these C structs are plain data for which all zeros is a value.
        let (header, vector, name) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        Ok(Self {
            socket,
            headers: vec![header; BATCH_PACKETS].into_boxed_slice(),
            vectors: vec![vector; BATCH_PACKETS].into_boxed_slice(),
            names: vec![name; BATCH_PACKETS].into_boxed_slice(),
            places: [0; BATCH_PACKETS],
        })
    }

    /// Points the header at `at` to `len` bytes at `bytes`, and to its name.
    fn point(&mut self, at: usize, bytes: *mut u8, len: usize, name_len: libc::socklen_t) {
        self.vectors[at] = libc::iovec {
            iov_base: bytes.cast(),
            iov_len: len,
        };
        let header = &mut self.headers[at];
        header.msg_len = 0;
        header.msg_hdr.msg_name = (&raw mut self.names[at]).cast();
        header.msg_hdr.msg_namelen = name_len;
        header.msg_hdr.msg_iov = &raw mut self.vectors[at];
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = std::ptr::null_mut();
        header.msg_hdr.msg_controllen = 0;
        header.msg_hdr.msg_flags = 0;
    }
}

fn set_option(socket: &UdpSocket, option: libc::c_int, value: libc::c_int) -> bool {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`, which lives across the call.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            len,
        ) == 0
    }
}

impl AsFd for Udp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl PacketPort for Udp {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
        let name_len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        for (at, room) in batch.rooms().chunks_exact_mut(PACKET_BYTES).enumerate() {
            self.point(at, room.as_mut_ptr(), room.len(), name_len);
        }
        let count = BATCH_PACKETS as libc::c_uint;
        // SAFETY: each header points to a name of ours and to an exclusive part of the batch's buffer; both live across the call.
        let received = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let Ok(received) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EBADF | libc::ENOTSOCK) => Err(error),
                // Nothing there, or an ICMP error about an earlier datagram.
                _ => Ok(()),
            };
        };
        for at in 0..received {
            let len = self.headers[at].msg_len as usize;
            batch.push(len, address_of(&self.names[at]));
        }
        Ok(())
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<bool> {
        let _ = packet;
        Ok(false)
    }

    fn send_batch(&mut self, batch: &Batch, refused: &mut dyn FnMut(usize)) -> io::Result<()> {
        let mut count = 0;
        for at in 0..batch.len() {
            let Some(endpoint) = batch.slot(at).endpoint else {
                continue;
            };
            let name_len = write_address(&mut self.names[count], endpoint);
            let packet = batch.packet(at);
            self.point(count, packet.as_ptr().cast_mut(), packet.len(), name_len);
            self.places[count] = at;
            count += 1;
        }
        let mut sent = 0;
        while sent < count {
            // SAFETY: the headers point to names of ours and to packets of the batch, which the kernel only reads; both live across
            // the call.
            let result = unsafe {
                libc::sendmmsg(
                    self.socket.as_raw_fd(),
                    self.headers[sent..].as_mut_ptr(),
                    (count - sent) as libc::c_uint,
                    libc::MSG_DONTWAIT,
                )
            };
            match usize::try_from(result) {
                Ok(taken) => sent += taken,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    match error.raw_os_error() {
                        Some(libc::EBADF | libc::ENOTSOCK) => return Err(error),
                        Some(libc::EINTR) => {}
                        // This datagram is refused (a full queue, an unreachable peer); the next one may not be.
                        _ => {
                            refused(self.places[sent]);
                            sent += 1;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// The address in a name that the kernel wrote, IPv4 in its own form.
fn address_of(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let address = match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the storage, which is large and aligned enough, holds a `sockaddr_in`.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from_bits(u32::from_be(name.sin_addr.s_addr));
            SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(name.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for a `sockaddr_in6`.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            SocketAddr::V6(SocketAddrV6::new(
                ip,
                u16::from_be(name.sin6_port),
                0,
                name.sin6_scope_id,
            ))
        }
        _ => return None,
    };
    Some(address)
}

/// The length of the name that now holds `address`.
fn write_address(name: &mut libc::sockaddr_storage, address: SocketAddr) -> libc::socklen_t {
    match address {
        SocketAddr::V4(address) => {
            let value = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: address.ip().to_bits().to_be(),
                },
                sin_zero: [0; 8],
            };
            write_name(name, value)
        }
        SocketAddr::V6(address) => {
            let value = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: address.ip().octets(),
                },
                sin6_scope_id: address.scope_id(),
            };
            write_name(name, value)
        }
    }
}

fn write_name<T>(name: &mut libc::sockaddr_storage, value: T) -> libc::socklen_t {
    const { assert!(size_of::<T>() <= size_of::<libc::sockaddr_storage>()) };
    // SAFETY: the storage is large enough (asserted) and aligned for every socket address.
    unsafe {
        (&raw mut *name)
            .cast::<MaybeUninit<T>>()
            .write(MaybeUninit::new(value))
    };
    size_of::<T>() as libc::socklen_t
}

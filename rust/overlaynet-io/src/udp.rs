//! A UDP socket that receives and sends datagrams in batches (recvmmsg(2), sendmmsg(2)).
//!
//! The outer path MTU is the kernel's business (`IP_PMTUDISC_WANT`, the default): datagrams carry DF while they fit, and are
//! fragmented here when a router has reported a smaller path, so that no packet of a peer behind one is lost in silence.
mod control;
mod name;
mod sockets;

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use self::control::{CONTROL_WORDS, read_segment, write_segment};
use self::name::{address_of, write_address};
pub use self::sockets::SOCKET_BUFFER_BYTES;
use self::sockets::{Sockets, route_mtu};
use crate::offload::{Offload, Offloads};
use crate::outbox::{MESSAGES, PIECES};
use crate::port::{Batch, Buffers, HEADROOM_BYTES, Message, PACKET_BYTES, PacketPort, Sent, Slot};
use crate::shortcut::Source;

/// Datagrams, or runs of datagrams, that one system call receives. A run fills 64 KiB, and all of them the second-level cache.
pub const RECEIVED: usize = 16;

/// The distance of their places in the batch, in bytes: not a power of two, so that their beginnings do not share cache lines.
const STRIDE: usize = HEADROOM_BYTES + PACKET_BYTES + 192;

/// Bound sockets, of IPv4, IPv6 or both, with room for the message headers of one batch.
pub struct Udp {
    v4: Option<Sockets>,
    v6: Option<Sockets>,
    /// Which of two sockets is read first, in turn.
    v6_first: bool,
    offloads: Arc<Offloads>,
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    names: Box<[libc::sockaddr_storage]>,
    controls: Box<[[u64; CONTROL_WORDS]]>,
}

// SAFETY: the raw pointers in `headers` and `vectors` are set from borrowed buffers right before each system call and are not used
// after it, so the value may move to another thread between calls.
unsafe impl Send for Udp {}

impl Udp {
    /// Sockets that listen at `addresses`, at most one of each family, with as much of what `offloads` wants as the kernel has. Of
    /// `lanes` source ports each flow has one; with none all datagrams leave from the port that listens.
    ///
    /// # Errors
    /// An address is not this host's, a port is taken, or there are two addresses of one family.
    pub fn bind(addresses: &[SocketAddr], lanes: usize, offloads: &Arc<Offloads>) -> io::Result<Self> {
        let (mut v4, mut v6) = (None, None);
        for address in addresses {
            let place = if address.is_ipv4() { &mut v4 } else { &mut v6 };
            if place.is_some() {
                return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
            }
            let sockets = Sockets::bind(*address, lanes, offloads);
            *place =
                Some(sockets.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?);
        }
        // SAFETY: these C structs are plain data for which all zeros is a value.
        let (header, vector, name) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        Ok(Self {
            v4,
            v6,
            v6_first: false,
            offloads: Arc::clone(offloads),
            headers: vec![header; MESSAGES].into_boxed_slice(),
            vectors: vec![vector; PIECES].into_boxed_slice(),
            names: vec![name; MESSAGES].into_boxed_slice(),
            controls: vec![[0; CONTROL_WORDS]; MESSAGES].into_boxed_slice(),
        })
    }

    /// The sockets to wait for.
    pub fn listening(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.v4, &self.v6]
            .into_iter()
            .flatten()
            .map(|sockets| sockets.listening.as_fd())
    }

    /// The socket from which datagrams of `lane` to `endpoint` leave.
    fn sender(&self, endpoint: Option<SocketAddr>, lane: usize) -> Option<libc::c_int> {
        let sockets = if endpoint?.is_ipv4() { &self.v4 } else { &self.v6 };
        Some(sockets.as_ref()?.sender(lane).as_raw_fd())
    }

    /// Where datagrams of `lane` to `endpoint` come from.
    #[must_use]
    pub fn source(&self, endpoint: SocketAddr, lane: usize) -> Option<Source> {
        let sockets = if endpoint.is_ipv4() { &self.v4 } else { &self.v6 };
        let sources = &sockets.as_ref()?.sources;
        Some(sources[lane % sources.len()])
    }

    /// Sends a single datagram, of which nobody minds whether it leaves.
    pub fn send_one(&self, datagram: &[u8], endpoint: SocketAddr, lane: usize) {
        let sockets = if endpoint.is_ipv4() { &self.v4 } else { &self.v6 };
        if let Some(sockets) = sockets {
            let _ = sockets.sender(lane).send_to(datagram, endpoint);
        }
    }

    /// A batch in which everything that one call receives has its place.
    #[must_use]
    pub fn batch() -> Batch {
        Batch::new(RECEIVED, RECEIVED * STRIDE)
    }

    /// Points the header at `at` to `count` vectors from `first` on, and to its name and control message.
    fn point(
        &mut self,
        at: usize,
        first: usize,
        count: usize,
        name_len: libc::socklen_t,
        control_len: usize,
    ) {
        let header = &mut self.headers[at];
        header.msg_len = 0;
        header.msg_hdr.msg_name = (&raw mut self.names[at]).cast();
        header.msg_hdr.msg_namelen = name_len;
        header.msg_hdr.msg_iov = &raw mut self.vectors[first];
        header.msg_hdr.msg_iovlen = count as _;
        header.msg_hdr.msg_control = if control_len == 0 {
            std::ptr::null_mut()
        } else {
            (&raw mut self.controls[at]).cast()
        };
        header.msg_hdr.msg_controllen = control_len as _;
        header.msg_hdr.msg_flags = 0;
    }

    /// Points headers to as many messages as there is room for; how many.
    fn prepare(&mut self, buffers: &Buffers<'_>, messages: &[Message]) -> usize {
        let mut used = 0;
        for (at, message) in messages.iter().enumerate() {
            let first = used;
            if at == self.headers.len() || first + message.pieces.len() > self.vectors.len() {
                return at;
            }
            for piece in buffers.pieces_of(message) {
                self.vectors[used] = libc::iovec {
                    iov_base: piece.as_ptr().cast_mut().cast(),
                    iov_len: piece.len(),
                };
                used += 1;
            }
            let name_len = match message.endpoint {
                Some(endpoint) => write_address(&mut self.names[at], endpoint),
                None => 0,
            };
            let mut control_len = 0;
            if message.packets > 1 {
                control_len = write_segment(&mut self.controls[at], message.segment);
            }
            self.point(at, first, used - first, name_len, control_len);
        }
        messages.len()
    }

    /// Receives what a socket has into the places of the batch from its length on.
    fn receive_from(&mut self, socket: libc::c_int, batch: &mut Batch) -> io::Result<()> {
        let name_len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        let control_len = size_of::<[u64; CONTROL_WORDS]>();
        let most = if self.offloads.has(Offload::Batch) {
            RECEIVED
        } else {
            1
        };
        let first = batch.len();
        let mut count = 0;
        for place in batch.bytes_mut().chunks_exact_mut(STRIDE).skip(first).take(most) {
            let room = &mut place[HEADROOM_BYTES..HEADROOM_BYTES + PACKET_BYTES];
            self.vectors[count] = libc::iovec {
                iov_base: room.as_mut_ptr().cast(),
                iov_len: room.len(),
            };
            self.point(count, count, 1, name_len, control_len);
            count += 1;
        }
        // SAFETY: each header points to a name and a control buffer of ours and to an exclusive part of the batch's buffer; all live
        // across the call.
        let received = unsafe {
            libc::recvmmsg(
                socket,
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
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
            batch.put(Slot {
                start: (first + at) * STRIDE + HEADROOM_BYTES,
                len: self.headers[at].msg_len as usize,
                segment: read_segment(&self.headers[at].msg_hdr),
                sender: address_of(&self.names[at]),
                vnet: None,
            });
        }
        Ok(())
    }
}

impl PacketPort for Udp {
    fn path_payload(&mut self, endpoint: SocketAddr) -> Option<usize> {
        const UDP_HEADER_BYTES: usize = 8;
        let ip_header_bytes = if endpoint.is_ipv4() { 20 } else { 40 };
        route_mtu(endpoint)
            .ok()?
            .checked_sub(ip_header_bytes + UDP_HEADER_BYTES)
    }

    fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
        let descriptor = |sockets: &Sockets| sockets.listening.as_raw_fd();
        let (v4, v6) = (self.v4.as_ref().map(descriptor), self.v6.as_ref().map(descriptor));
        // In turn, so that a flood on one does not silence the other.
        self.v6_first = !self.v6_first;
        let sockets = if self.v6_first { [v6, v4] } else { [v4, v6] };
        for socket in sockets.into_iter().flatten() {
            if batch.len() < batch.capacity() {
                self.receive_from(socket, batch)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, buffers: Buffers<'_>, messages: &[Message]) -> io::Result<Sent> {
        let mut sent = 0;
        while sent < messages.len() {
            let Message { endpoint, lane, .. } = messages[sent];
            let Some(socket) = self.sender(endpoint, lane) else {
                return Ok(Sent {
                    messages: sent,
                    refused: Some(libc::EAFNOSUPPORT),
                });
            };
            let is_together =
                |message: &&Message| message.lane == lane && is_same_family(message.endpoint, endpoint);
            let most = if self.offloads.has(Offload::Batch) {
                messages[sent..].iter().take_while(is_together).count()
            } else {
                1
            };
            let count = self.prepare(&buffers, &messages[sent..sent + most]);
            // SAFETY: the headers point to names and control messages of ours and to borrowed buffers, which the kernel only reads;
            // all live across the call.
            let result = unsafe {
                libc::sendmmsg(
                    socket,
                    self.headers.as_mut_ptr(),
                    count as libc::c_uint,
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
                        refused => {
                            return Ok(Sent {
                                messages: sent,
                                refused: Some(refused.unwrap_or(libc::EIO)),
                            });
                        }
                    }
                }
            }
        }
        Ok(Sent {
            messages: sent,
            refused: None,
        })
    }
}

fn is_same_family(one: Option<SocketAddr>, other: Option<SocketAddr>) -> bool {
    one.map(|address| address.is_ipv4()) == other.map(|address| address.is_ipv4())
}

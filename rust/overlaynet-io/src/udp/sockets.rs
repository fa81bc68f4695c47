//! The sockets of one family, and what the system is asked through sockets.
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use crate::offload::{Offload, Offloads};
use crate::shortcut::Source;

/// The socket buffers asked for, in bytes: some milliseconds of traffic at 10 Gbit/s.
pub const SOCKET_BUFFER_BYTES: libc::c_int = 8 << 20;

/// The sockets of one family: the one that listens, and those that only send, if flows are spread over several source ports.
pub(super) struct Sockets {
    pub(super) listening: UdpSocket,
    lanes: Vec<UdpSocket>,
    /// Where datagrams come from, at the place of their lane.
    pub(super) sources: Vec<Source>,
}

impl Sockets {
    pub(super) fn bind(address: SocketAddr, lanes: usize, offloads: &Offloads) -> io::Result<Self> {
        let listening = bind(address)?;
        // Zero segments nothing, but only a kernel that has the option takes it.
        for (offload, option, value) in [
            (Offload::Gso, libc::UDP_SEGMENT, 0),
            (Offload::Gro, libc::UDP_GRO, 1),
        ] {
            if offloads.has(offload)
                && let Err(error) = set_option(&listening, libc::SOL_UDP, option, value)
            {
                offloads.miss(offload, error.raw_os_error().unwrap_or(libc::ENOPROTOOPT));
            }
        }
        let mut sockets = Self {
            listening,
            lanes: Vec::with_capacity(lanes),
            sources: Vec::with_capacity(lanes.max(1)),
        };
        for _ in 0..lanes {
            let socket = bind(SocketAddr::new(address.ip(), 0))?;
            // Nobody has reason to send to it: the kernel's least is enough for who does.
            let _ = set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 0);
            sockets.sources.push(source_of(&socket)?);
            sockets.lanes.push(socket);
        }
        if lanes == 0 {
            sockets.sources.push(source_of(&sockets.listening)?);
        }
        Ok(sockets)
    }

    pub(super) fn sender(&self, lane: usize) -> &UdpSocket {
        match self.lanes.len() {
            0 => &self.listening,
            count => &self.lanes[lane % count],
        }
    }
}

/// Where datagrams of the socket come from, and with which TTL or hop limit.
fn source_of(socket: &UdpSocket) -> io::Result<Source> {
    let address = socket.local_addr()?;
    let (level, option) = if address.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_TTL)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS)
    };
    let ttl = u8::try_from(option_of(socket, level, option)?).unwrap_or(u8::MAX);
    Ok(Source { address, ttl })
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    for (forced, usual) in [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    ] {
        // Without CAP_NET_ADMIN the usual option gives what the system's limit allows; a small buffer is no failure.
        if set_option(&socket, libc::SOL_SOCKET, forced, SOCKET_BUFFER_BYTES).is_err() {
            let _ = set_option(&socket, libc::SOL_SOCKET, usual, SOCKET_BUFFER_BYTES);
        }
    }
    Ok(socket)
}

fn set_option(
    socket: &UdpSocket,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`, which lives across the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), len) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The MTU of the route to `endpoint`, learned path MTUs included (ip(7), ipv6(7)).
pub(super) fn route_mtu(endpoint: SocketAddr) -> io::Result<usize> {
    let (any, level, option): (SocketAddr, _, _) = if endpoint.is_ipv4() {
        ((Ipv4Addr::UNSPECIFIED, 0).into(), libc::IPPROTO_IP, libc::IP_MTU)
    } else {
        (
            (Ipv6Addr::UNSPECIFIED, 0).into(),
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU,
        )
    };
    // Only a connected socket can be asked.
    let probe = UdpSocket::bind(any)?;
    probe.connect(endpoint)?;
    let value = option_of(&probe, level, option)?;
    usize::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn option_of(socket: &UdpSocket, level: libc::c_int, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`; both live across the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value)
}

//! Datagrams for measurements: a flood, its count, and round-trip times; each in one thread over one socket, many a system call.
//!
//! Every datagram begins with a number in network order, so that the receiver knows what is missing. Datagrams shorter than
//! [`LEAST_BYTES`] cannot carry it.
use std::io;
use std::mem;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

/// The shortest datagram, in bytes: its number.
pub const LEAST_BYTES: usize = 8;

/// Datagrams in one system call.
const BATCH: usize = 64;

/// The longest datagram that a count or a reflector takes whole, in bytes.
const ROOM: usize = 2048;

/// The receive buffer of a count, in bytes: a burst must not be lost in the last socket.
const RECEIVE_BUFFER_BYTES: libc::c_int = 16 << 20;

/// What a count saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Datagrams that arrived.
    pub received: u64,
    /// The largest number among them and one more: how many were sent, if the last ones arrived.
    pub sent: u64,
    /// Datagrams that came after one with a larger number.
    pub disordered: u64,
    /// The time from the first to the last of them.
    pub span: Duration,
}

/// Room for one batch of datagrams.
struct Room {
    bytes: Box<[u8]>,
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

impl Room {
    fn new(len: usize) -> Self {
        // SAFETY: these C structs are plain data for which all zeros is a value.
        let (vector, header) = unsafe { (mem::zeroed(), mem::zeroed()) };
        Self {
            bytes: vec![0; BATCH * len].into_boxed_slice(),
            vectors: vec![vector; BATCH].into_boxed_slice(),
            headers: vec![header; BATCH].into_boxed_slice(),
        }
    }

    /// Points every header at its part of the bytes.
    fn point(&mut self) {
        let len = self.bytes.len() / BATCH;
        for (at, part) in self.bytes.chunks_exact_mut(len).enumerate() {
            self.vectors[at] = libc::iovec {
                iov_base: part.as_mut_ptr().cast(),
                iov_len: part.len(),
            };
            self.headers[at].msg_hdr.msg_iov = &raw mut self.vectors[at];
            self.headers[at].msg_hdr.msg_iovlen = 1;
        }
    }
}

/// Sends datagrams of `bytes` to `to` as fast as the system takes them, for `span` or until there are `most`; how many it took.
///
/// # Errors
/// There is no socket, or no way to `to`.
pub fn flood(to: SocketAddr, bytes: usize, span: Duration, most: u64) -> io::Result<u64> {
    let socket = connected(to)?;
    let mut room = Room::new(bytes.max(LEAST_BYTES));
    let end = Instant::now() + span;
    let mut sent = 0_u64;
    while sent < most && Instant::now() < end {
        let len = room.bytes.len() / BATCH;
        for (number, part) in (sent..).zip(room.bytes.chunks_exact_mut(len)) {
            part[..LEAST_BYTES].copy_from_slice(&number.to_be_bytes());
        }
        room.point();
        let count = (most - sent).min(BATCH as u64);
        // SAFETY: the headers point to vectors, and these to bytes, of `room`, which lives across the call.
        let taken = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                room.headers.as_mut_ptr(),
                count as libc::c_uint,
                0,
            )
        };
        match u64::try_from(taken) {
            Ok(taken) => sent += taken,
            Err(_) => {
                let error = io::Error::last_os_error();
                // ECONNREFUSED tells of an earlier datagram, which nobody waited for.
                if !matches!(
                    error.raw_os_error(),
                    Some(libc::ECONNREFUSED | libc::ENOBUFS | libc::EINTR)
                ) {
                    return Err(error);
                }
            }
        }
    }
    Ok(sent)
}

/// Counts the datagrams that arrive at `socket`, until none came for `quiet` after the first, or none at all for `patience`.
///
/// # Errors
/// The socket cannot be used.
pub fn count(socket: &UdpSocket, patience: Duration, quiet: Duration) -> io::Result<Counted> {
    set_receive_buffer(socket);
    let mut room = Room::new(ROOM);
    let mut counted = Counted::default();
    let mut first = None;
    socket.set_read_timeout(Some(patience))?;
    loop {
        room.point();
        // SAFETY: the headers point to vectors, and these to bytes, of `room`, which lives across the call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                room.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        let Ok(received) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(counted),
                io::ErrorKind::Interrupted => continue,
                _ => return Err(error),
            }
        };
        let now = Instant::now();
        let begun = *first.get_or_insert(now);
        if counted.received == 0 {
            socket.set_read_timeout(Some(quiet))?;
        }
        counted.span = now - begun;
        for part in room.bytes.chunks_exact(ROOM).take(received) {
            let number = part.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            counted.received += 1;
            if number < counted.sent {
                counted.disordered += 1;
            }
            counted.sent = counted.sent.max(number + 1);
        }
    }
}

/// Sends every datagram that arrives at `socket` back to where it came from, until none came for `quiet`.
///
/// # Errors
/// The socket cannot be used.
pub fn reflect(socket: &UdpSocket, quiet: Duration) -> io::Result<u64> {
    socket.set_read_timeout(Some(quiet))?;
    let mut bytes = [0; ROOM];
    let mut reflected = 0;
    loop {
        match socket.recv_from(&mut bytes) {
            Ok((len, from)) => {
                // What cannot be sent back is lost, and the other side sees that.
                let _ = socket.send_to(&bytes[..len], from);
                reflected += 1;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(reflected),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends `probes` datagrams of `bytes` to a reflector at `to`, one every `interval`, each after the answer to the one before; the
/// round-trip times of those that were answered within `patience`.
///
/// # Errors
/// There is no socket, or no way to `to`.
pub fn probe(
    to: SocketAddr,
    bytes: usize,
    interval: Duration,
    probes: u32,
    patience: Duration,
) -> io::Result<Vec<Duration>> {
    let socket = connected(to)?;
    socket.set_read_timeout(Some(patience))?;
    let mut sent = vec![0; bytes.max(LEAST_BYTES)];
    let mut answer = [0; ROOM];
    let mut times = Vec::with_capacity(probes as usize);
    let begun = Instant::now();
    for number in 0..probes {
        // Slept through, not spun: a spinning sender would keep the processor out of its idle states for all.
        thread::sleep((begun + interval * number).saturating_duration_since(Instant::now()));
        sent[..LEAST_BYTES].copy_from_slice(&u64::from(number).to_be_bytes());
        let left = Instant::now();
        let mut answered = socket.send(&sent).is_ok();
        while answered {
            match socket.recv(&mut answer) {
                // An answer that comes too late is not taken for that to a later probe.
                Ok(_) if answer[..LEAST_BYTES] == sent[..LEAST_BYTES] => {
                    times.push(left.elapsed());
                    break;
                }
                Ok(_) => answered = left.elapsed() < patience,
                Err(_) => answered = false,
            }
        }
    }
    Ok(times)
}

fn connected(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    Ok(socket)
}

fn set_receive_buffer(socket: &UdpSocket) {
    let value = RECEIVE_BUFFER_BYTES;
    let len = size_of_val(&value) as libc::socklen_t;
    for option in [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF] {
        // SAFETY: the kernel reads `len` bytes of `value`, which lives across the call.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const value).cast(),
                len,
            )
        };
        if result == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[test]
    fn a_flood_is_counted_and_what_is_missing_shows() {
        let (socket, address) = bound();
        // The flood may be over before the count begins.
        set_receive_buffer(&socket);
        let counter =
            thread::spawn(move || count(&socket, Duration::from_secs(20), Duration::from_secs(1)).unwrap());
        let sent = flood(address, 64, Duration::from_secs(20), 1000).unwrap();
        let counted = counter.join().unwrap();
        assert_eq!(
            (sent, counted.received, counted.sent, counted.disordered),
            (1000, 1000, 1000, 0)
        );
    }

    #[test]
    fn every_probe_is_answered_and_nobody_answers_nobody() {
        let (socket, address) = bound();
        let reflector = thread::spawn(move || reflect(&socket, Duration::from_millis(500)).unwrap());
        let patience = Duration::from_secs(20);
        let times = probe(address, 64, Duration::from_millis(1), 50, patience).unwrap();
        assert_eq!(times.len(), 50);
        assert_eq!(reflector.join().unwrap(), 50);
        let times = probe(
            address,
            64,
            Duration::from_millis(1),
            5,
            Duration::from_millis(10),
        )
        .unwrap();
        assert!(times.is_empty());
    }
}

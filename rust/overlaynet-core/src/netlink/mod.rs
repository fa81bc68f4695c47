//! Netlink messages of the kinds that come by the ten thousand: routes, next hops, neighbours and FDB entries, and the kernel's
//! answers.
//!
//! A value (`Route`, `NextHop`, `Neighbour`) has `emit`, which appends a request to a buffer, and `parse`, which reads the body of
//! a message and keeps what overlaynet compares. Parsing what was emitted gives the same value. Nothing here is believed: a length
//! that leads out of the buffer ends the walk, an attribute of a size that its kind cannot have is passed over.
//!
//! Numbers are in the machine's byte order (include/uapi/linux/netlink.h), addresses in the network's.
pub mod answer;
pub mod neighbour;
pub mod next_hop;
pub mod route;

use alloc::vec::Vec;
use core::net::IpAddr;

/// The length of a message's header, in bytes.
pub const HEADER_LEN: usize = 16;

/// `NLM_F_REQUEST`: every message to the kernel.
pub const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`: an answer even if all is well.
pub const ACK: u16 = 0x4;
/// `NLM_F_DUMP_INTR`: the table changed while it was read.
pub const DUMP_INTERRUPTED: u16 = 0x10;

/// The address family `AF_INET`.
pub const AF_INET: u8 = 2;
/// The address family `AF_BRIDGE`, of FDB entries.
pub const AF_BRIDGE: u8 = 7;
/// The address family `AF_INET6`.
pub const AF_INET6: u8 = 10;

/// What stands before each message (`struct nlmsghdr`), without the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The kind of message.
    pub kind: u16,
    /// What is asked for, or how the answer is to be read.
    pub flags: u16,
    /// The request's number, which its answers carry.
    pub sequence: u32,
    /// The address of the socket whose request it is, or that caused an event.
    pub port: u32,
}

/// A message in a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its header.
    pub header: Header,
    /// What follows the header.
    pub body: &'a [u8],
}

/// The messages in a buffer; ends before the first that is not whole.
#[derive(Clone, Debug)]
pub struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    /// The messages in `buffer`.
    #[must_use]
    pub const fn new(buffer: &'a [u8]) -> Self {
        Self(buffer)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let rest = self.0;
        let length = usize::try_from(number(rest, 0)?).ok()?;
        if length < HEADER_LEN || length > rest.len() {
            return None;
        }
        let header = Header {
            kind: short(rest, 4)?,
            flags: short(rest, 6)?,
            sequence: number(rest, 8)?,
            port: number(rest, 12)?,
        };
        self.0 = rest.get(aligned(length)..).unwrap_or_default();
        Some(Message {
            header,
            body: &rest[HEADER_LEN..length],
        })
    }
}

/// The attributes (`struct rtattr`) from an offset of a message's body on: kind without flags, and value.
#[derive(Clone, Debug)]
pub struct Attributes<'a>(&'a [u8]);

const KIND: u16 = 0x3fff;
const ATTRIBUTE_LEN: usize = 4;

impl<'a> Attributes<'a> {
    /// The attributes in `body` from `offset` on.
    #[must_use]
    pub fn new(body: &'a [u8], offset: usize) -> Self {
        Self(body.get(offset..).unwrap_or_default())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0;
        let length = usize::from(short(rest, 0)?);
        let kind = short(rest, 2)? & KIND;
        if length < ATTRIBUTE_LEN || length > rest.len() {
            return None;
        }
        self.0 = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, &rest[ATTRIBUTE_LEN..length]))
    }
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

fn short(bytes: &[u8], offset: usize) -> Option<u16> {
    let bytes = bytes.get(offset..offset.checked_add(2)?)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

fn number(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// An address, if `bytes` has the length of one.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The family of an address, as the kernel numbers it.
#[must_use]
pub const fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

/// A message that is being appended to a buffer. Its length is written at the end.
struct Request<'a> {
    buffer: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Request<'a> {
    fn begin(buffer: &'a mut Vec<u8>, header: Header, fixed: &[u8]) -> Self {
        let start = buffer.len();
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(&header.kind.to_ne_bytes());
        buffer.extend_from_slice(&header.flags.to_ne_bytes());
        buffer.extend_from_slice(&header.sequence.to_ne_bytes());
        buffer.extend_from_slice(&header.port.to_ne_bytes());
        buffer.extend_from_slice(fixed);
        Self { buffer, start }
    }

    fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(ATTRIBUTE_LEN + value.len()).unwrap_or(u16::MAX);
        self.buffer.extend_from_slice(&length.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(value);
        self.pad();
    }

    fn put_number(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    fn put_address(&mut self, kind: u16, value: IpAddr) {
        match value {
            IpAddr::V4(value) => self.put(kind, &value.octets()),
            IpAddr::V6(value) => self.put(kind, &value.octets()),
        }
    }

    fn pad(&mut self) {
        let length = self.buffer.len() - self.start;
        self.buffer.resize(self.start + aligned(length), 0);
    }

    fn end(self) {
        let length = u32::try_from(self.buffer.len() - self.start).unwrap_or(u32::MAX);
        self.buffer[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// Appends a request for everything of a table, `fixed` being the body: the structure's fields and attributes that filter.
pub fn emit_dump(buffer: &mut Vec<u8>, kind: u16, sequence: u32, fixed: &[u8]) {
    const DUMP: u16 = 0x300;
    let header = Header {
        kind,
        flags: REQUEST | DUMP,
        sequence,
        port: 0,
    };
    let mut request = Request::begin(buffer, header, fixed);
    request.pad();
    request.end();
}

#[cfg(test)]
mod tests;

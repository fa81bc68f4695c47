//! IPv4 headers (RFC 791).
use core::net::Ipv4Addr;

use super::checksum::{self, PseudoHeader};
use super::{DecodeError, Layer, Reason, array, be16, len16, require};

/// The length of a header without options, in bytes.
pub const HEADER_LEN: usize = 20;

/// The length of the longest header, in bytes.
pub const MAX_HEADER_LEN: usize = 60;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const RESERVED: u16 = 0x8000;
const OFFSET: u16 = 0x1fff;

/// A view of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<B: AsRef<[u8]>> {
    buffer: B,
}

impl<B: AsRef<[u8]>> Packet<B> {
    /// The view, if the whole packet is there; bytes behind its total length are padding.
    ///
    /// # Errors
    /// [`DecodeError`] with every [`Reason`] but a checksum's.
    pub fn new_checked(buffer: B) -> Result<Self, DecodeError> {
        let packet = Self::new_header_checked(buffer)?;
        require(Layer::Ipv4, packet.buffer.as_ref(), packet.total_len())?;
        Ok(packet)
    }

    /// The view, if the whole header is there. The payload may be cut short, as in the quotation of an ICMP error.
    ///
    /// # Errors
    /// As [`new_checked`](Self::new_checked).
    pub fn new_header_checked(buffer: B) -> Result<Self, DecodeError> {
        let bytes = buffer.as_ref();
        require(Layer::Ipv4, bytes, HEADER_LEN)?;
        let version = usize::from(bytes[0] >> 4);
        if version != 4 {
            return Err(DecodeError::bad(Layer::Ipv4, 0, 4, version, Reason::BadVersion));
        }
        let packet = Self { buffer };
        let header_len = packet.header_len();
        if header_len < HEADER_LEN {
            return Err(DecodeError::bad(
                Layer::Ipv4,
                0,
                HEADER_LEN,
                header_len,
                Reason::BadLength,
            ));
        }
        if packet.total_len() < header_len {
            return Err(DecodeError::bad(
                Layer::Ipv4,
                2,
                header_len,
                packet.total_len(),
                Reason::BadLength,
            ));
        }
        require(Layer::Ipv4, packet.buffer.as_ref(), header_len)?;
        Ok(packet)
    }

    fn bytes(&self) -> &[u8] {
        self.buffer.as_ref()
    }

    /// The length of the header with its options, in bytes.
    pub fn header_len(&self) -> usize {
        usize::from(self.bytes()[0] & 0x0f) * 4
    }

    /// The type-of-service byte: DSCP (RFC 2474) and ECN (RFC 3168).
    pub fn tos(&self) -> u8 {
        self.bytes()[1]
    }

    /// The length of the packet with its header, in bytes.
    pub fn total_len(&self) -> usize {
        usize::from(be16(self.bytes(), 2))
    }

    /// The number that the fragments of one packet share.
    pub fn identification(&self) -> u16 {
        be16(self.bytes(), 4)
    }

    fn fragmentation(&self) -> u16 {
        be16(self.bytes(), 6)
    }

    /// Whether routers must not fragment the packet.
    pub fn dont_fragment(&self) -> bool {
        self.fragmentation() & DONT_FRAGMENT != 0
    }

    /// Whether more fragments of the packet follow.
    pub fn more_fragments(&self) -> bool {
        self.fragmentation() & MORE_FRAGMENTS != 0
    }

    /// The reserved flag, which should be clear.
    pub fn reserved_flag(&self) -> bool {
        self.fragmentation() & RESERVED != 0
    }

    /// Where the fragment's payload starts in the packet's, in units of eight bytes.
    pub fn fragment_offset(&self) -> u16 {
        self.fragmentation() & OFFSET
    }

    /// Whether this is a part of a packet only.
    pub fn is_fragment(&self) -> bool {
        self.fragmentation() & (MORE_FRAGMENTS | OFFSET) != 0
    }

    /// How many more routers the packet may pass.
    pub fn ttl(&self) -> u8 {
        self.bytes()[8]
    }

    /// What the payload is ([`protocol`](super::protocol)).
    pub fn protocol(&self) -> u8 {
        self.bytes()[9]
    }

    /// The header's checksum, as it stands there.
    pub fn checksum(&self) -> u16 {
        be16(self.bytes(), 10)
    }

    /// Whether the header's checksum is right.
    pub fn checksum_ok(&self) -> bool {
        checksum::is_valid(self.header())
    }

    /// Where the packet comes from.
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::from(array::<4>(self.bytes(), 12))
    }

    /// Where the packet goes.
    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::from(array::<4>(self.bytes(), 16))
    }

    /// What a transport checksum covers besides the payload.
    pub fn pseudo_header(&self) -> PseudoHeader {
        PseudoHeader::V4 {
            source: self.source(),
            destination: self.destination(),
        }
    }

    /// The header with its options.
    pub fn header(&self) -> &[u8] {
        &self.bytes()[..self.header_len()]
    }

    /// The options, padding included: a multiple of four bytes.
    pub fn options(&self) -> &[u8] {
        &self.bytes()[HEADER_LEN..self.header_len()]
    }

    /// The payload; shorter than announced only if just the header was checked.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.bytes();
        &bytes[self.header_len()..self.total_len().min(bytes.len())]
    }

    /// The bytes that the view was made of.
    pub fn into_inner(self) -> B {
        self.buffer
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Packet<B> {
    /// Sets the time to live and updates the checksum for it; a checksum that was wrong stays wrong.
    pub fn set_ttl(&mut self, ttl: u8) {
        let old = be16(self.bytes(), 8);
        let checksum = self.checksum();
        let bytes = self.buffer.as_mut();
        bytes[8] = ttl;
        let new = be16(bytes, 8);
        bytes[10..12].copy_from_slice(&checksum::updated(checksum, old, new).to_be_bytes());
    }
}

/// The options of a header, padding included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    bytes: [u8; MAX_HEADER_LEN - HEADER_LEN],
    len: u8,
}

impl Options {
    /// No options.
    pub const NONE: Self = Self {
        bytes: [0; MAX_HEADER_LEN - HEADER_LEN],
        len: 0,
    };

    /// These options; `None` unless there are at most 40 bytes, a multiple of four.
    #[must_use]
    pub fn new(options: &[u8]) -> Option<Self> {
        if !options.len().is_multiple_of(4) {
            return None;
        }
        let mut bytes = Self::NONE.bytes;
        bytes.get_mut(..options.len())?.copy_from_slice(options);
        Some(Self {
            bytes,
            len: u8::try_from(options.len()).ok()?,
        })
    }

    /// The options' bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The header as a value. Total length and checksum are made when it is emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Where the packet comes from.
    pub source: Ipv4Addr,
    /// Where the packet goes.
    pub destination: Ipv4Addr,
    /// What the payload is ([`protocol`](super::protocol)).
    pub protocol: u8,
    /// How many more routers the packet may pass.
    pub ttl: u8,
    /// The type-of-service byte: DSCP and ECN.
    pub tos: u8,
    /// The number that the fragments of one packet share.
    pub identification: u16,
    /// Whether routers must not fragment the packet.
    pub dont_fragment: bool,
    /// Whether more fragments of the packet follow.
    pub more_fragments: bool,
    /// Where the fragment's payload starts, in units of eight bytes; 13 bits are used.
    pub fragment_offset: u16,
    /// The options.
    pub options: Options,
    /// The length of the payload, in bytes.
    pub payload_len: usize,
}

impl Repr {
    /// A whole packet with TTL 64, no options and don't-fragment clear.
    #[must_use]
    pub const fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload_len: usize) -> Self {
        Self {
            source,
            destination,
            protocol,
            ttl: 64,
            tos: 0,
            identification: 0,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            options: Options::NONE,
            payload_len,
        }
    }

    /// The value of a view's header; the reserved flag is dropped.
    pub fn parse<B: AsRef<[u8]>>(packet: &Packet<B>) -> Self {
        Self {
            source: packet.source(),
            destination: packet.destination(),
            protocol: packet.protocol(),
            ttl: packet.ttl(),
            tos: packet.tos(),
            identification: packet.identification(),
            dont_fragment: packet.dont_fragment(),
            more_fragments: packet.more_fragments(),
            fragment_offset: packet.fragment_offset(),
            options: Options::new(packet.options()).unwrap_or(Options::NONE),
            payload_len: packet.total_len() - packet.header_len(),
        }
    }

    /// What a transport checksum covers besides the payload.
    #[must_use]
    pub const fn pseudo_header(&self) -> PseudoHeader {
        PseudoHeader::V4 {
            source: self.source,
            destination: self.destination,
        }
    }

    /// How many bytes [`emit`](Self::emit) writes: the header's.
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN + self.options.len as usize
    }

    /// Writes the header with its checksum.
    ///
    /// # Panics
    /// If `buffer` is shorter than [`buffer_len`](Self::buffer_len), or the whole packet would be over 65535 bytes.
    pub fn emit(&self, buffer: &mut [u8]) {
        let header_len = self.buffer_len();
        let header = &mut buffer[..header_len];
        #[allow(clippy::cast_possible_truncation, reason = "at most 15")]
        let words = (header_len / 4) as u8;
        header[0] = 0x40 | words;
        header[1] = self.tos;
        header[2..4].copy_from_slice(&len16(header_len + self.payload_len).to_be_bytes());
        header[4..6].copy_from_slice(&self.identification.to_be_bytes());
        let fragmentation = self.fragment_offset & OFFSET
            | if self.dont_fragment { DONT_FRAGMENT } else { 0 }
            | if self.more_fragments { MORE_FRAGMENTS } else { 0 };
        header[6..8].copy_from_slice(&fragmentation.to_be_bytes());
        header[8] = self.ttl;
        header[9] = self.protocol;
        header[10..12].fill(0);
        header[12..16].copy_from_slice(&self.source.octets());
        header[16..20].copy_from_slice(&self.destination.octets());
        header[20..].copy_from_slice(self.options.as_bytes());
        let checksum = checksum::checksum(header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const BYTES: [u8; 24] = [
        0x45, 0x00, 0x00, 0x16, 0x12, 0x34, 0x40, 0x00, 0x40, 0x11, 0x11, 0x9d, 0x0a, 0x01, 0x01, 0x02, 0x0a,
        0x01, 0x02, 0x03, 0xaa, 0xbb, 0x00, 0x00,
    ];

    fn repr() -> Repr {
        Repr {
            identification: 0x1234,
            dont_fragment: true,
            ..Repr::new(Ipv4Addr::new(10, 1, 1, 2), Ipv4Addr::new(10, 1, 2, 3), 17, 2)
        }
    }

    #[test]
    fn known_bytes_both_ways() {
        let mut header = [0xff; HEADER_LEN];
        repr().emit(&mut header);
        assert_eq!(header, BYTES[..HEADER_LEN]);
        let packet = Packet::new_checked(&BYTES).unwrap();
        assert!(packet.checksum_ok());
        assert_eq!(packet.payload(), [0xaa, 0xbb], "the padding is no payload");
        assert_eq!(Repr::parse(&packet), repr());
    }

    #[test]
    fn every_fault_has_its_reason() {
        let fault = |at: usize, value: u8| {
            let mut bytes = BYTES;
            bytes[at] = value;
            let error = Packet::new_checked(&bytes[..]).unwrap_err();
            (error.reason, error.offset, error.need, error.have)
        };
        assert_eq!(fault(0, 0x65), (Reason::BadVersion, 0, 4, 6));
        assert_eq!(fault(0, 0x44), (Reason::BadLength, 0, 20, 16));
        assert_eq!(fault(3, 0x13), (Reason::BadLength, 2, 20, 19));
        assert_eq!(fault(3, 0x19), (Reason::Truncated, 0, 25, 24));
        assert_eq!(
            Packet::new_checked(&BYTES[..19]).unwrap_err().reason,
            Reason::Truncated
        );
        let mut quoted = BYTES;
        quoted[3] = 200;
        assert_eq!(Packet::new_header_checked(&quoted).unwrap().payload().len(), 4);
    }

    #[test]
    fn a_new_ttl_keeps_the_checksum_right() {
        let mut bytes = BYTES;
        for ttl in (0..=255).rev() {
            let mut packet = Packet::new_checked(&mut bytes[..]).unwrap();
            packet.set_ttl(ttl);
            assert_eq!(packet.ttl(), ttl);
            assert!(packet.checksum_ok());
        }
    }

    #[test]
    fn options_come_in_words_up_to_ten() {
        assert!(Options::new(&[1; 40]).is_some());
        assert!(Options::new(&[1; 44]).is_none());
        assert!(Options::new(&[1; 3]).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_survive(mut bytes: Vec<u8>, first in 0x40u8..0x50) {
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            if let Ok(packet) = Packet::new_checked(&bytes) {
                let repr = Repr::parse(&packet);
                let _ = (packet.payload(), packet.options(), packet.checksum_ok());
                let mut again = std::vec![0; repr.buffer_len()];
                repr.emit(&mut again);
                prop_assert_eq!(Repr::parse(&Packet::new_header_checked(&again).unwrap()), repr);
            }
        }

        #[test]
        fn every_value_survives_its_bytes(
            source: u32, destination: u32, protocol: u8, ttl: u8, tos: u8, identification: u16, dont_fragment: bool,
            more_fragments: bool, fragment_offset in 0u16..0x2000, words in 0usize..=10, payload_len in 0usize..=65475
        ) {
            let repr = Repr {
                source: Ipv4Addr::from_bits(source),
                destination: Ipv4Addr::from_bits(destination),
                protocol, ttl, tos, identification, dont_fragment, more_fragments, fragment_offset,
                options: Options::new(&[1; 40][..words * 4]).unwrap(),
                payload_len,
            };
            let mut bytes = std::vec![0xff; repr.buffer_len()];
            repr.emit(&mut bytes);
            let packet = Packet::new_header_checked(&bytes).unwrap();
            prop_assert!(packet.checksum_ok());
            prop_assert_eq!(Repr::parse(&packet), repr);
        }
    }
}

//! IPv6 headers and the walk over extension headers (RFC 8200).
use core::net::Ipv6Addr;

use super::checksum::PseudoHeader;
use super::{DecodeError, Layer, Reason, array, be16, be32, len16, require};

/// The length of the fixed header, in bytes.
pub const HEADER_LEN: usize = 40;

/// The numbers of the extension headers (IANA, "IPv6 Extension Header Types").
pub mod extension {
    /// Hop-by-Hop Options (RFC 8200 section 4.3).
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing (RFC 8200 section 4.4).
    pub const ROUTING: u8 = 43;
    /// Fragment (RFC 8200 section 4.5).
    pub const FRAGMENT: u8 = 44;
    /// Authentication (RFC 4302).
    pub const AUTHENTICATION: u8 = 51;
    /// No header and no payload follows (RFC 8200 section 4.7).
    pub const NO_NEXT_HEADER: u8 = 59;
    /// Destination Options (RFC 8200 section 4.6).
    pub const DESTINATION: u8 = 60;
    /// Mobility (RFC 6275).
    pub const MOBILITY: u8 = 135;
    /// Host Identity Protocol (RFC 7401).
    pub const HOST_IDENTITY: u8 = 139;
    /// Shim6 (RFC 5533).
    pub const SHIM6: u8 = 140;
}

/// A view of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<B: AsRef<[u8]>> {
    buffer: B,
}

impl<B: AsRef<[u8]>> Packet<B> {
    /// The view, if the whole packet is there; bytes behind its payload length are padding.
    ///
    /// # Errors
    /// [`DecodeError`] with [`Reason::Truncated`] or [`Reason::BadVersion`].
    pub fn new_checked(buffer: B) -> Result<Self, DecodeError> {
        let packet = Self::new_header_checked(buffer)?;
        require(Layer::Ipv6, packet.bytes(), HEADER_LEN + packet.payload_len())?;
        Ok(packet)
    }

    /// The view, if the fixed header is there. The payload may be cut short, as in the quotation of an ICMPv6 error.
    ///
    /// # Errors
    /// As [`new_checked`](Self::new_checked).
    pub fn new_header_checked(buffer: B) -> Result<Self, DecodeError> {
        let bytes = buffer.as_ref();
        require(Layer::Ipv6, bytes, HEADER_LEN)?;
        let version = usize::from(bytes[0] >> 4);
        if version != 6 {
            return Err(DecodeError::bad(Layer::Ipv6, 0, 6, version, Reason::BadVersion));
        }
        Ok(Self { buffer })
    }

    fn bytes(&self) -> &[u8] {
        self.buffer.as_ref()
    }

    /// The traffic class: DSCP (RFC 2474) and ECN (RFC 3168).
    pub fn traffic_class(&self) -> u8 {
        self.bytes()[0] << 4 | self.bytes()[1] >> 4
    }

    /// The flow label, 20 bits.
    pub fn flow_label(&self) -> u32 {
        be32(self.bytes(), 0) & 0x000f_ffff
    }

    /// The length of all that follows the fixed header, in bytes.
    pub fn payload_len(&self) -> usize {
        usize::from(be16(self.bytes(), 4))
    }

    /// The length of the packet with its header, in bytes.
    pub fn total_len(&self) -> usize {
        HEADER_LEN + self.payload_len()
    }

    /// What directly follows the fixed header: an extension header or a transport.
    pub fn next_header(&self) -> u8 {
        self.bytes()[6]
    }

    /// How many more routers the packet may pass.
    pub fn hop_limit(&self) -> u8 {
        self.bytes()[7]
    }

    /// Where the packet comes from.
    pub fn source(&self) -> Ipv6Addr {
        Ipv6Addr::from(array::<16>(self.bytes(), 8))
    }

    /// Where the packet goes next; its final destination unless a routing header says otherwise.
    pub fn destination(&self) -> Ipv6Addr {
        Ipv6Addr::from(array::<16>(self.bytes(), 24))
    }

    /// What a transport checksum covers besides the payload.
    pub fn pseudo_header(&self) -> PseudoHeader {
        PseudoHeader::V6 {
            source: self.source(),
            destination: self.destination(),
        }
    }

    /// All that follows the fixed header; shorter than announced only if just the header was checked.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.bytes();
        &bytes[HEADER_LEN..self.total_len().min(bytes.len())]
    }

    /// The extension headers, in order.
    pub fn extensions(&self) -> Extensions<'_> {
        Extensions {
            payload: self.payload(),
            offset: 0,
            next: self.next_header(),
        }
    }

    /// What comes after the extension headers.
    ///
    /// # Errors
    /// [`Reason::Truncated`] if an extension header is cut off.
    pub fn upper_layer(&self) -> Result<UpperLayer, DecodeError> {
        let mut extensions = self.extensions();
        let mut fragment = None;
        while let Some(header) = extensions.next().transpose()? {
            if header.kind == extension::FRAGMENT {
                let word = be16(header.bytes, 2);
                fragment = Some(Fragment {
                    offset: word >> 3,
                    more: word & 1 != 0,
                    identification: be32(header.bytes, 4),
                });
                if word >> 3 != 0 {
                    // What follows is the middle of a packet, whatever the header says it would have been.
                    break;
                }
            }
        }
        Ok(UpperLayer {
            protocol: extensions.next,
            offset: HEADER_LEN + extensions.offset,
            fragment,
        })
    }

    /// The bytes that the view was made of.
    pub fn into_inner(self) -> B {
        self.buffer
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Packet<B> {
    /// Sets the hop limit.
    pub fn set_hop_limit(&mut self, hop_limit: u8) {
        self.buffer.as_mut()[7] = hop_limit;
    }
}

/// What comes after the extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperLayer {
    /// What it is; [`extension::NO_NEXT_HEADER`] if there is nothing.
    pub protocol: u8,
    /// Where it starts, in bytes from the start of the packet.
    pub offset: usize,
    /// The fragment header, if there is one.
    pub fragment: Option<Fragment>,
}

/// The contents of a fragment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where the fragment starts, in units of eight bytes.
    pub offset: u16,
    /// Whether more fragments follow.
    pub more: bool,
    /// The number that the fragments of one packet share.
    pub identification: u32,
}

/// One extension header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// Its number ([`extension`]).
    pub kind: u8,
    /// Where it starts, in bytes from the start of the packet.
    pub offset: usize,
    /// Its bytes, of which the first is the number of the next header.
    pub bytes: &'a [u8],
}

/// The walk over extension headers. It ends before the first header that is none, and after a fault.
#[derive(Clone, Debug)]
pub struct Extensions<'a> {
    payload: &'a [u8],
    offset: usize,
    next: u8,
}

impl<'a> Iterator for Extensions<'a> {
    type Item = Result<Extension<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.payload[self.offset..];
        let second = rest.get(1).map_or(0, |&byte| usize::from(byte));
        let len = match self.next {
            extension::HOP_BY_HOP
            | extension::ROUTING
            | extension::DESTINATION
            | extension::MOBILITY
            | extension::HOST_IDENTITY
            | extension::SHIM6 => second * 8 + 8,
            extension::FRAGMENT => 8,
            // RFC 4302 section 2.2 counts words of four bytes, minus two; less than the fixed part cannot be.
            extension::AUTHENTICATION => (second * 4 + 8).max(12),
            _ => return None,
        };
        let kind = self.next;
        let offset = HEADER_LEN + self.offset;
        let Some(bytes) = rest.get(..len) else {
            self.next = extension::NO_NEXT_HEADER;
            return Some(Err(
                DecodeError::truncated(Layer::Ipv6, len, rest.len()).within(offset)
            ));
        };
        self.next = bytes[0];
        self.offset += len;
        Some(Ok(Extension { kind, offset, bytes }))
    }
}

/// The fixed header as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Where the packet comes from.
    pub source: Ipv6Addr,
    /// Where the packet goes.
    pub destination: Ipv6Addr,
    /// What directly follows the fixed header.
    pub next_header: u8,
    /// How many more routers the packet may pass.
    pub hop_limit: u8,
    /// The traffic class.
    pub traffic_class: u8,
    /// The flow label; 20 bits are used.
    pub flow_label: u32,
    /// The length of all that follows the fixed header, in bytes.
    pub payload_len: usize,
}

impl Repr {
    /// A packet with hop limit 64, traffic class 0 and flow label 0.
    #[must_use]
    pub const fn new(source: Ipv6Addr, destination: Ipv6Addr, next_header: u8, payload_len: usize) -> Self {
        Self {
            source,
            destination,
            next_header,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
            payload_len,
        }
    }

    /// The value of a view's fixed header.
    pub fn parse<B: AsRef<[u8]>>(packet: &Packet<B>) -> Self {
        Self {
            source: packet.source(),
            destination: packet.destination(),
            next_header: packet.next_header(),
            hop_limit: packet.hop_limit(),
            traffic_class: packet.traffic_class(),
            flow_label: packet.flow_label(),
            payload_len: packet.payload_len(),
        }
    }

    /// What a transport checksum covers besides the payload.
    #[must_use]
    pub const fn pseudo_header(&self) -> PseudoHeader {
        PseudoHeader::V6 {
            source: self.source,
            destination: self.destination,
        }
    }

    /// How many bytes [`emit`](Self::emit) writes.
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the fixed header.
    ///
    /// # Panics
    /// If `buffer` is shorter than [`buffer_len`](Self::buffer_len), or the payload over 65535 bytes.
    pub fn emit(&self, buffer: &mut [u8]) {
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0x000f_ffff;
        buffer[..4].copy_from_slice(&first.to_be_bytes());
        buffer[4..6].copy_from_slice(&len16(self.payload_len).to_be_bytes());
        buffer[6] = self.next_header;
        buffer[7] = self.hop_limit;
        buffer[8..24].copy_from_slice(&self.source.octets());
        buffer[24..40].copy_from_slice(&self.destination.octets());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const BYTES: [u8; 42] = [
        0x6a, 0xb1, 0x23, 0x45, 0x00, 0x02, 0x11, 0x40, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01,
        0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0xaa, 0xbb,
    ];

    fn repr() -> Repr {
        Repr {
            traffic_class: 0xab,
            flow_label: 0x12345,
            ..Repr::new("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap(), 17, 2)
        }
    }

    #[test]
    fn known_bytes_both_ways() {
        let mut header = [0xff; HEADER_LEN];
        repr().emit(&mut header);
        assert_eq!(header, BYTES[..HEADER_LEN]);
        let packet = Packet::new_checked(&BYTES).unwrap();
        assert_eq!(Repr::parse(&packet), repr());
        assert_eq!(packet.payload(), [0xaa, 0xbb]);
        assert_eq!(
            packet.upper_layer(),
            Ok(UpperLayer {
                protocol: 17,
                offset: 40,
                fragment: None
            })
        );
    }

    #[test]
    fn what_is_missing_and_another_version_are_told_apart() {
        assert_eq!(
            Packet::new_checked(&BYTES[..41]).unwrap_err(),
            DecodeError::truncated(Layer::Ipv6, 42, 41)
        );
        let mut bytes = BYTES;
        bytes[0] = 0x45;
        assert_eq!(
            Packet::new_checked(&bytes).unwrap_err().reason,
            Reason::BadVersion
        );
    }

    fn with_extensions(first: u8, extensions: &[u8]) -> Vec<u8> {
        let mut bytes = std::vec![0; HEADER_LEN];
        Repr {
            next_header: first,
            payload_len: extensions.len(),
            ..repr()
        }
        .emit(&mut bytes);
        bytes.extend_from_slice(extensions);
        bytes
    }

    #[test]
    fn the_walk_passes_every_extension_header() {
        let mut chain = Vec::new();
        chain.extend([extension::AUTHENTICATION, 0, 0, 0, 0, 0, 0, 0]);
        chain.extend([extension::FRAGMENT, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        chain.extend([6, 0, 0, 1, 0xde, 0xad, 0xbe, 0xef]);
        let bytes = with_extensions(extension::HOP_BY_HOP, &chain);
        let packet = Packet::new_checked(&bytes).unwrap();
        let found: Vec<_> = packet
            .extensions()
            .map(|header| header.unwrap())
            .map(|h| (h.kind, h.offset))
            .collect();
        assert_eq!(found, [(0, 40), (51, 48), (44, 60)]);
        let fragment = Fragment {
            offset: 0,
            more: true,
            identification: 0xdead_beef,
        };
        assert_eq!(
            packet.upper_layer(),
            Ok(UpperLayer {
                protocol: 6,
                offset: 68,
                fragment: Some(fragment)
            })
        );
    }

    #[test]
    fn a_cut_off_extension_header_is_an_error_where_it_stands() {
        let bytes = with_extensions(extension::DESTINATION, &[6, 1, 0, 0, 0, 0, 0, 0]);
        let packet = Packet::new_checked(&bytes).unwrap();
        assert_eq!(
            packet.upper_layer(),
            Err(DecodeError::truncated(Layer::Ipv6, 16, 8).within(40))
        );
        assert_eq!(packet.extensions().count(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_survive(mut bytes: Vec<u8>, first in 0x60u8..0x70, next in prop::sample::select(std::vec![0u8, 43, 44, 51, 59, 60, 135, 17])) {
            if bytes.len() > 6 {
                bytes[0] = first;
                bytes[6] = next;
            }
            if let Ok(packet) = Packet::new_header_checked(&bytes) {
                prop_assert!(packet.extensions().count() < 66);
                if let Ok(upper) = packet.upper_layer() {
                    prop_assert!(upper.offset <= bytes.len());
                }
                let mut again = [0; HEADER_LEN];
                Repr::parse(&packet).emit(&mut again);
                prop_assert_eq!(&again, &bytes[..HEADER_LEN]);
            }
        }
    }
}

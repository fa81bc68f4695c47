//! UDP headers (RFC 768; for IPv6 also RFC 8200 section 8.1 and RFC 6935).
use super::checksum::PseudoHeader;
use super::{DecodeError, Layer, Reason, be16, len16, protocol, require};

/// The length of the header, in bytes.
pub const HEADER_LEN: usize = 8;

/// A view of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Packet<B: AsRef<[u8]>> {
    buffer: B,
}

impl<B: AsRef<[u8]>> Packet<B> {
    /// The view, if the whole datagram is there; bytes behind its length are padding.
    ///
    /// # Errors
    /// [`DecodeError`] with [`Reason::Truncated`] or [`Reason::BadLength`].
    pub fn new_checked(buffer: B) -> Result<Self, DecodeError> {
        let packet = Self::new_header_checked(buffer)?;
        require(Layer::Udp, packet.bytes(), packet.total_len())?;
        Ok(packet)
    }

    /// The view, if the header is there. The payload may be cut short.
    ///
    /// # Errors
    /// As [`new_checked`](Self::new_checked).
    pub fn new_header_checked(buffer: B) -> Result<Self, DecodeError> {
        require(Layer::Udp, buffer.as_ref(), HEADER_LEN)?;
        let packet = Self { buffer };
        if packet.total_len() < HEADER_LEN {
            return Err(DecodeError::bad(
                Layer::Udp,
                4,
                HEADER_LEN,
                packet.total_len(),
                Reason::BadLength,
            ));
        }
        Ok(packet)
    }

    fn bytes(&self) -> &[u8] {
        self.buffer.as_ref()
    }

    /// The sender's port.
    pub fn source_port(&self) -> u16 {
        be16(self.bytes(), 0)
    }

    /// The receiver's port.
    pub fn destination_port(&self) -> u16 {
        be16(self.bytes(), 2)
    }

    /// The length of the datagram with its header, in bytes.
    pub fn total_len(&self) -> usize {
        usize::from(be16(self.bytes(), 4))
    }

    /// The checksum as it stands there; 0 means that there is none.
    pub fn checksum(&self) -> u16 {
        be16(self.bytes(), 6)
    }

    /// Whether the checksum is right, or absent. (RFC 6935 allows an absent one over IPv6 for tunnels only.)
    pub fn checksum_ok(&self, pseudo: PseudoHeader) -> bool {
        let bytes = self.bytes();
        self.checksum() == 0 || pseudo.is_valid(protocol::UDP, &bytes[..self.total_len().min(bytes.len())])
    }

    /// The payload; shorter than announced only if just the header was checked.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.bytes();
        &bytes[HEADER_LEN..self.total_len().min(bytes.len())]
    }

    /// The bytes that the view was made of.
    pub fn into_inner(self) -> B {
        self.buffer
    }
}

/// The header as a value. Length and checksum are made when it is emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// The length of the payload, in bytes.
    pub payload_len: usize,
}

impl Repr {
    /// The value of a view's header.
    pub fn parse<B: AsRef<[u8]>>(packet: &Packet<B>) -> Self {
        Self {
            source_port: packet.source_port(),
            destination_port: packet.destination_port(),
            payload_len: packet.total_len() - HEADER_LEN,
        }
    }

    /// How many bytes the datagram takes.
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN + self.payload_len
    }

    /// Writes the header in front of the payload, which is in its place already; with a pseudo header also the checksum,
    /// without one 0, which means none.
    ///
    /// # Panics
    /// If `buffer` is shorter than [`buffer_len`](Self::buffer_len), or that is over 65535.
    pub fn emit(&self, buffer: &mut [u8], pseudo: Option<PseudoHeader>) {
        let datagram = &mut buffer[..self.buffer_len()];
        datagram[..2].copy_from_slice(&self.source_port.to_be_bytes());
        datagram[2..4].copy_from_slice(&self.destination_port.to_be_bytes());
        datagram[4..6].copy_from_slice(&len16(self.buffer_len()).to_be_bytes());
        datagram[6..8].fill(0);
        if let Some(pseudo) = pseudo {
            // RFC 768: a checksum that comes out as zero is sent as all ones, since zero means none.
            let checksum = match pseudo.checksum(protocol::UDP, datagram) {
                0 => 0xffff,
                checksum => checksum,
            };
            datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;
    use std::vec::Vec;

    const PSEUDO: PseudoHeader = PseudoHeader::V4 {
        source: Ipv4Addr::new(192, 168, 0, 31),
        destination: Ipv4Addr::new(192, 168, 0, 30),
    };

    // Addresses, protocol 17, twice the length, ports and payload sum up to 0xca3a.
    const BYTES: [u8; 10] = [0x00, 0x14, 0x00, 0x0a, 0x00, 0x0a, 0x35, 0xc5, 0x48, 0x69];

    #[test]
    fn known_bytes_both_ways() {
        let packet = Packet::new_checked(&BYTES).unwrap();
        assert!(packet.checksum_ok(PSEUDO));
        let repr = Repr {
            source_port: 20,
            destination_port: 10,
            payload_len: 2,
        };
        assert_eq!(Repr::parse(&packet), repr);
        let mut bytes = [0, 0, 0, 0, 0, 0, 0, 0, 0x48, 0x69];
        repr.emit(&mut bytes, Some(PSEUDO));
        assert_eq!(bytes, BYTES);
        repr.emit(&mut bytes, None);
        assert_eq!(bytes[6..8], [0, 0]);
        assert!(Packet::new_checked(&bytes).unwrap().checksum_ok(PSEUDO));
    }

    #[test]
    fn a_wrong_length_and_missing_bytes_are_told_apart() {
        assert_eq!(
            Packet::new_checked(&BYTES[..9]).unwrap_err(),
            DecodeError::truncated(Layer::Udp, 10, 9)
        );
        let mut bytes = BYTES;
        bytes[5] = 7;
        assert_eq!(Packet::new_checked(&bytes).unwrap_err().reason, Reason::BadLength);
        bytes[5] = 10;
        bytes[9] ^= 1;
        assert!(!Packet::new_checked(&bytes).unwrap().checksum_ok(PSEUDO));
    }

    #[test]
    fn a_checksum_of_zero_is_sent_as_all_ones() {
        let repr = Repr {
            source_port: 0,
            destination_port: 0,
            payload_len: 2,
        };
        let mut bytes = [0; 10];
        repr.emit(&mut bytes, Some(PSEUDO));
        let payload = PSEUDO.checksum(protocol::UDP, &[0, 0, 0, 0, 0, 10, 0, 0, 0, 0]);
        bytes[8..].copy_from_slice(&payload.to_be_bytes());
        repr.emit(&mut bytes, Some(PSEUDO));
        assert_eq!(bytes[6..8], [0xff, 0xff]);
        assert!(Packet::new_checked(&bytes).unwrap().checksum_ok(PSEUDO));
    }

    proptest! {
        #[test]
        fn any_bytes_survive(bytes: Vec<u8>) {
            for packet in [Packet::new_checked(&bytes), Packet::new_header_checked(&bytes)].into_iter().flatten() {
                let _ = (packet.payload(), packet.checksum_ok(PSEUDO));
                let _ = Repr::parse(&packet).buffer_len();
            }
        }

        #[test]
        fn every_value_survives_its_bytes(source_port: u16, destination_port: u16, payload: Vec<u8>) {
            let repr = Repr { source_port, destination_port, payload_len: payload.len() };
            let mut bytes = std::vec![0; HEADER_LEN];
            bytes.extend_from_slice(&payload);
            repr.emit(&mut bytes, Some(PSEUDO));
            let packet = Packet::new_checked(&bytes).unwrap();
            prop_assert_ne!(packet.checksum(), 0);
            prop_assert!(packet.checksum_ok(PSEUDO));
            prop_assert_eq!(packet.payload(), &payload);
            prop_assert_eq!(Repr::parse(&packet), repr);
        }
    }
}

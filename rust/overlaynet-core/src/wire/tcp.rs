//! TCP headers (RFC 9293 section 3.1). Connections are none of our business; options stay bytes.
use core::fmt;

use super::checksum::PseudoHeader;
use super::ipv4::Options;
use super::{DecodeError, Layer, Reason, be16, be32, protocol, require};

/// The length of a header without options, in bytes.
pub const HEADER_LEN: usize = 20;

/// The control bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flags(pub u8);

impl Flags {
    const NAMES: [(u8, &'static str); 8] = [
        (1, "FIN"),
        (2, "SYN"),
        (4, "RST"),
        (8, "PSH"),
        (16, "ACK"),
        (32, "URG"),
        (64, "ECE"),
        (128, "CWR"),
    ];

    /// No more data from the sender.
    pub const FIN: Self = Self(1);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(2);
    /// Reset the connection.
    pub const RST: Self = Self(4);
    /// Push the data to the receiver.
    pub const PSH: Self = Self(8);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(16);
    /// The urgent pointer counts.
    pub const URG: Self = Self(32);

    /// Whether all of `flags` are set.
    #[must_use]
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (bit, name) in Self::NAMES {
            if self.0 & bit != 0 {
                write!(f, "{separator}{name}")?;
                separator = ",";
            }
        }
        if self.0 == 0 { f.write_str("none") } else { Ok(()) }
    }
}

/// A view of a segment.
#[derive(Clone, Copy, Debug)]
pub struct Packet<B: AsRef<[u8]>> {
    buffer: B,
}

impl<B: AsRef<[u8]>> Packet<B> {
    /// The view, if the whole header is there.
    ///
    /// # Errors
    /// [`DecodeError`] with [`Reason::Truncated`] or [`Reason::BadLength`].
    pub fn new_checked(buffer: B) -> Result<Self, DecodeError> {
        require(Layer::Tcp, buffer.as_ref(), HEADER_LEN)?;
        let packet = Self { buffer };
        let header_len = packet.header_len();
        if header_len < HEADER_LEN {
            return Err(DecodeError::bad(
                Layer::Tcp,
                12,
                HEADER_LEN,
                header_len,
                Reason::BadLength,
            ));
        }
        require(Layer::Tcp, packet.bytes(), header_len)?;
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

    /// The number of the first byte of data.
    pub fn sequence(&self) -> u32 {
        be32(self.bytes(), 4)
    }

    /// The number of the byte that is expected next.
    pub fn acknowledgement(&self) -> u32 {
        be32(self.bytes(), 8)
    }

    /// The length of the header with its options, in bytes.
    pub fn header_len(&self) -> usize {
        usize::from(self.bytes()[12] >> 4) * 4
    }

    /// The control bits.
    pub fn flags(&self) -> Flags {
        Flags(self.bytes()[13])
    }

    /// The receive window, not scaled.
    pub fn window(&self) -> u16 {
        be16(self.bytes(), 14)
    }

    /// The checksum as it stands there.
    pub fn checksum(&self) -> u16 {
        be16(self.bytes(), 16)
    }

    /// Whether the checksum over the whole buffer is right.
    pub fn checksum_ok(&self, pseudo: PseudoHeader) -> bool {
        pseudo.is_valid(protocol::TCP, self.bytes())
    }

    /// The urgent pointer.
    pub fn urgent(&self) -> u16 {
        be16(self.bytes(), 18)
    }

    /// The options, padding included.
    pub fn options(&self) -> &[u8] {
        &self.bytes()[HEADER_LEN..self.header_len()]
    }

    /// The data.
    pub fn payload(&self) -> &[u8] {
        &self.bytes()[self.header_len()..]
    }
}

/// The header as a value. The checksum is made when it is emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// The number of the first byte of data.
    pub sequence: u32,
    /// The number of the byte that is expected next.
    pub acknowledgement: u32,
    /// The control bits.
    pub flags: Flags,
    /// The receive window, not scaled.
    pub window: u16,
    /// The urgent pointer.
    pub urgent: u16,
    /// The options, padded to words.
    pub options: Options,
    /// The length of the data, in bytes.
    pub payload_len: usize,
}

impl Repr {
    /// The value of a view's header; reserved bits are dropped.
    pub fn parse<B: AsRef<[u8]>>(packet: &Packet<B>) -> Self {
        Self {
            source_port: packet.source_port(),
            destination_port: packet.destination_port(),
            sequence: packet.sequence(),
            acknowledgement: packet.acknowledgement(),
            flags: packet.flags(),
            window: packet.window(),
            urgent: packet.urgent(),
            options: Options::new(packet.options()).unwrap_or(Options::NONE),
            payload_len: packet.payload().len(),
        }
    }

    /// The length of the header with its options, in bytes.
    #[must_use]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.options.as_bytes().len()
    }

    /// How many bytes the segment takes.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        self.header_len() + self.payload_len
    }

    /// Writes the header with its checksum in front of the data, which is in its place already.
    ///
    /// # Panics
    /// If `buffer` is shorter than [`buffer_len`](Self::buffer_len).
    pub fn emit(&self, buffer: &mut [u8], pseudo: PseudoHeader) {
        let header_len = self.header_len();
        let segment = &mut buffer[..self.buffer_len()];
        segment[..2].copy_from_slice(&self.source_port.to_be_bytes());
        segment[2..4].copy_from_slice(&self.destination_port.to_be_bytes());
        segment[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        segment[8..12].copy_from_slice(&self.acknowledgement.to_be_bytes());
        #[allow(clippy::cast_possible_truncation, reason = "at most 15 words")]
        let words = (header_len / 4) as u8;
        segment[12] = words << 4;
        segment[13] = self.flags.0;
        segment[14..16].copy_from_slice(&self.window.to_be_bytes());
        segment[16..18].fill(0);
        segment[18..20].copy_from_slice(&self.urgent.to_be_bytes());
        segment[HEADER_LEN..header_len].copy_from_slice(self.options.as_bytes());
        let checksum = pseudo.checksum(protocol::TCP, segment);
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;
    use std::string::ToString;
    use std::vec::Vec;

    const BYTES: [u8; 26] = [
        0x1f, 0x90, 0xc0, 0x01, 0x00, 0x00, 0x00, 0x07, 0x00, 0x00, 0x01, 0x00, 0x60, 0x18, 0x02, 0x00, 0xab,
        0xcd, 0x00, 0x00, 0x02, 0x04, 0x05, 0xb4, 0x68, 0x69,
    ];

    #[test]
    fn known_bytes() {
        let packet = Packet::new_checked(&BYTES).unwrap();
        assert_eq!((packet.source_port(), packet.destination_port()), (8080, 0xc001));
        assert_eq!((packet.sequence(), packet.acknowledgement()), (7, 256));
        assert_eq!(packet.flags().to_string(), "PSH,ACK");
        assert!(packet.flags().contains(Flags::ACK) && !packet.flags().contains(Flags::SYN));
        assert_eq!(
            (packet.window(), packet.checksum(), packet.urgent()),
            (512, 0xabcd, 0)
        );
        assert_eq!(
            (packet.options(), packet.payload()),
            (&BYTES[20..24], &BYTES[24..])
        );
    }

    #[test]
    fn a_segment_is_written_as_it_was_read() {
        let pseudo = PseudoHeader::V4 {
            source: Ipv4Addr::LOCALHOST,
            destination: Ipv4Addr::LOCALHOST,
        };
        let repr = Repr::parse(&Packet::new_checked(&BYTES).unwrap());
        let mut bytes = BYTES;
        repr.emit(&mut bytes, pseudo);
        let packet = Packet::new_checked(&bytes).unwrap();
        assert!(packet.checksum_ok(pseudo));
        assert_eq!(Repr::parse(&packet), repr);
        assert_eq!((&bytes[..16], &bytes[18..]), (&BYTES[..16], &BYTES[18..]));
    }

    #[test]
    fn a_wrong_data_offset_is_an_error() {
        let mut bytes = BYTES;
        bytes[12] = 0x40;
        assert_eq!(Packet::new_checked(&bytes).unwrap_err().reason, Reason::BadLength);
        bytes[12] = 0xf0;
        assert_eq!(
            Packet::new_checked(&bytes).unwrap_err(),
            DecodeError::truncated(Layer::Tcp, 60, 26)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_survive(bytes: Vec<u8>) {
            if let Ok(packet) = Packet::new_checked(&bytes) {
                prop_assert_eq!(HEADER_LEN + packet.options().len() + packet.payload().len(), bytes.len());
                let _ = packet.flags().to_string();
            }
        }
    }
}

//! ICMPv6 messages (RFC 4443).
use core::fmt;

use super::checksum::PseudoHeader;
use super::{DecodeError, Layer, array, be16, protocol, require};

/// The length of the header, in bytes.
pub const HEADER_LEN: usize = 8;

/// The message types that overlaynet knows by name. Types below 128 are errors.
pub mod kind {
    /// Destination unreachable.
    pub const DESTINATION_UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
}

/// The codes of "destination unreachable".
pub mod unreachable {
    /// No route to the destination.
    pub const NO_ROUTE: u8 = 0;
    /// Communication is administratively prohibited.
    pub const PROHIBITED: u8 = 1;
    /// The address does not answer.
    pub const ADDRESS: u8 = 3;
    /// Nobody listens at the port.
    pub const PORT: u8 = 4;
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// A request to be answered.
    EchoRequest {
        /// Which sender.
        identifier: u16,
        /// Which request.
        sequence: u16,
    },
    /// The answer.
    EchoReply {
        /// Which sender.
        identifier: u16,
        /// Which request.
        sequence: u16,
    },
    /// The packet whose start follows could not be delivered.
    DestinationUnreachable {
        /// Why ([`mod@unreachable`]).
        code: u8,
    },
    /// The packet whose start follows is larger than the next link's MTU.
    PacketTooBig {
        /// The next link's MTU in bytes.
        mtu: u32,
    },
    /// The packet whose start follows lived too long.
    TimeExceeded {
        /// 0 in transit, 1 while being reassembled.
        code: u8,
    },
    /// Another message.
    Other {
        /// The type.
        kind: u8,
        /// The code.
        code: u8,
    },
}

impl Message {
    /// What a header's fields say.
    #[must_use]
    pub const fn of(kind: u8, code: u8, rest: [u8; 4]) -> Self {
        let [a, b, c, d] = rest;
        let (identifier, sequence) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        match kind {
            kind::ECHO_REQUEST => Self::EchoRequest { identifier, sequence },
            kind::ECHO_REPLY => Self::EchoReply { identifier, sequence },
            kind::DESTINATION_UNREACHABLE => Self::DestinationUnreachable { code },
            kind::PACKET_TOO_BIG => Self::PacketTooBig {
                mtu: u32::from_be_bytes(rest),
            },
            kind::TIME_EXCEEDED => Self::TimeExceeded { code },
            _ => Self::Other { kind, code },
        }
    }

    /// Whether the message reports an error, so that the start of a packet follows and no ICMPv6 error may answer it.
    #[must_use]
    pub const fn is_error(self) -> bool {
        match self {
            Self::DestinationUnreachable { .. } | Self::PacketTooBig { .. } | Self::TimeExceeded { .. } => {
                true
            }
            Self::EchoRequest { .. } | Self::EchoReply { .. } => false,
            Self::Other { kind, .. } => kind < 128,
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EchoRequest { identifier, sequence } => {
                write!(f, "echo request id {identifier} seq {sequence}")
            }
            Self::EchoReply { identifier, sequence } => {
                write!(f, "echo reply id {identifier} seq {sequence}")
            }
            Self::DestinationUnreachable { code } => write!(f, "destination unreachable code {code}"),
            Self::PacketTooBig { mtu } => write!(f, "packet too big mtu {mtu}"),
            Self::TimeExceeded { code } => write!(f, "time exceeded code {code}"),
            Self::Other { kind, code } => write!(f, "type {kind} code {code}"),
        }
    }
}

/// A view of a message.
#[derive(Clone, Copy, Debug)]
pub struct Packet<B: AsRef<[u8]>> {
    buffer: B,
}

impl<B: AsRef<[u8]>> Packet<B> {
    /// The view, if the header is there.
    ///
    /// # Errors
    /// [`Reason::Truncated`](super::Reason::Truncated).
    pub fn new_checked(buffer: B) -> Result<Self, DecodeError> {
        require(Layer::Icmpv6, buffer.as_ref(), HEADER_LEN)?;
        Ok(Self { buffer })
    }

    /// The type.
    pub fn kind(&self) -> u8 {
        self.buffer.as_ref()[0]
    }

    /// The code.
    pub fn code(&self) -> u8 {
        self.buffer.as_ref()[1]
    }

    /// The checksum as it stands there.
    pub fn checksum(&self) -> u16 {
        be16(self.buffer.as_ref(), 2)
    }

    /// Whether the checksum over the pseudo header and the whole buffer is right.
    pub fn checksum_ok(&self, pseudo: PseudoHeader) -> bool {
        pseudo.is_valid(protocol::ICMPV6, self.buffer.as_ref())
    }

    /// The rest of the header, whose meaning depends on the type.
    pub fn rest(&self) -> [u8; 4] {
        array(self.buffer.as_ref(), 4)
    }

    /// What the message says.
    pub fn message(&self) -> Message {
        Message::of(self.kind(), self.code(), self.rest())
    }

    /// What follows the header: echoed data, or the start of the packet that an error is about.
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..]
    }
}

/// The header as a value. The checksum is made when it is emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// The type.
    pub kind: u8,
    /// The code.
    pub code: u8,
    /// The rest of the header.
    pub rest: [u8; 4],
    /// The length of what follows the header, in bytes.
    pub payload_len: usize,
}

impl Repr {
    /// An echo request or its reply.
    #[must_use]
    pub const fn echo(kind: u8, identifier: u16, sequence: u16, payload_len: usize) -> Self {
        let ([a, b], [c, d]) = (identifier.to_be_bytes(), sequence.to_be_bytes());
        Self {
            kind,
            code: 0,
            rest: [a, b, c, d],
            payload_len,
        }
    }

    /// "Destination unreachable", for a reason out of [`mod@unreachable`].
    #[must_use]
    pub const fn destination_unreachable(code: u8, payload_len: usize) -> Self {
        Self {
            kind: kind::DESTINATION_UNREACHABLE,
            code,
            rest: [0; 4],
            payload_len,
        }
    }

    /// "Packet too big", for a link with this MTU.
    #[must_use]
    pub const fn packet_too_big(mtu: u32, payload_len: usize) -> Self {
        Self {
            kind: kind::PACKET_TOO_BIG,
            code: 0,
            rest: mtu.to_be_bytes(),
            payload_len,
        }
    }

    /// "Hop limit exceeded in transit".
    #[must_use]
    pub const fn time_exceeded(payload_len: usize) -> Self {
        Self {
            kind: kind::TIME_EXCEEDED,
            code: 0,
            rest: [0; 4],
            payload_len,
        }
    }

    /// The value of a view's header.
    pub fn parse<B: AsRef<[u8]>>(packet: &Packet<B>) -> Self {
        Self {
            kind: packet.kind(),
            code: packet.code(),
            rest: packet.rest(),
            payload_len: packet.payload().len(),
        }
    }

    /// How many bytes the message takes.
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN + self.payload_len
    }

    /// Writes the header with its checksum in front of the payload, which is in its place already.
    ///
    /// # Panics
    /// If `buffer` is shorter than [`buffer_len`](Self::buffer_len).
    pub fn emit(&self, buffer: &mut [u8], pseudo: PseudoHeader) {
        let message = &mut buffer[..self.buffer_len()];
        message[0] = self.kind;
        message[1] = self.code;
        message[2..4].fill(0);
        message[4..8].copy_from_slice(&self.rest);
        let checksum = pseudo.checksum(protocol::ICMPV6, message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv6Addr;
    use proptest::prelude::*;
    use std::vec::Vec;

    const PSEUDO: PseudoHeader = PseudoHeader::V6 {
        source: Ipv6Addr::LOCALHOST,
        destination: Ipv6Addr::LOCALHOST,
    };

    // 0x8000 + 0x0102 + 0x0003 + 0x0145 and the pseudo header's 1 + 1 + 10 + 58 sum up to 0x8290.
    const BYTES: [u8; 10] = [128, 0, 0x7d, 0x6f, 0x01, 0x02, 0x00, 0x03, 0x01, 0x45];

    #[test]
    fn known_bytes_both_ways() {
        let packet = Packet::new_checked(&BYTES).unwrap();
        assert!(packet.checksum_ok(PSEUDO));
        assert_eq!(
            packet.message(),
            Message::EchoRequest {
                identifier: 0x0102,
                sequence: 3
            }
        );
        let mut bytes = [0; 10];
        bytes[8..].copy_from_slice(&BYTES[8..]);
        Repr::echo(kind::ECHO_REQUEST, 0x0102, 3, 2).emit(&mut bytes, PSEUDO);
        assert_eq!(bytes, BYTES);
    }

    #[test]
    fn errors_know_what_they_say() {
        let said = |repr: Repr| Message::of(repr.kind, repr.code, repr.rest);
        assert_eq!(
            said(Repr::packet_too_big(70_000, 0)),
            Message::PacketTooBig { mtu: 70_000 }
        );
        assert_eq!(said(Repr::time_exceeded(0)), Message::TimeExceeded { code: 0 });
        let unreachable = Repr::destination_unreachable(unreachable::ADDRESS, 0);
        assert_eq!(said(unreachable), Message::DestinationUnreachable { code: 3 });
        assert!(
            said(unreachable).is_error()
                && !Message::of(128, 0, [0; 4]).is_error()
                && Message::of(4, 0, [0; 4]).is_error()
        );
    }

    proptest! {
        #[test]
        fn any_bytes_survive(bytes: Vec<u8>) {
            if let Ok(packet) = Packet::new_checked(&bytes) {
                let repr = Repr::parse(&packet);
                let mut again = bytes.clone();
                repr.emit(&mut again, PSEUDO);
                let emitted = Packet::new_checked(&again).unwrap();
                prop_assert!(emitted.checksum_ok(PSEUDO));
                prop_assert_eq!(Repr::parse(&emitted), repr);
            }
        }
    }
}

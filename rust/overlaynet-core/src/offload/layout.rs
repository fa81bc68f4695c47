//! Where the headers of a TCP or UDP packet lie, and what of them changes from one segment to the next.
use crate::wire::checksum::Sum;
use crate::wire::{ipv4, ipv6};

/// More than the headers of any packet that is split or joined: those of IPv6 with 448 bytes of extension headers, and of TCP.
pub const MAX_HEADERS_BYTES: usize = 548;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

pub(super) const TCP_CHECKSUM: usize = 16;
pub(super) const UDP_CHECKSUM: usize = 6;
pub(super) const TCP_FLAGS: usize = 13;
pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const URG: u8 = 0x20;
pub(super) const CWR: u8 = 0x80;

const TCP_HEADER_BYTES: usize = 20;
const UDP_HEADER_BYTES: usize = 8;

/// The Internet layer below the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Below {
    V4,
    V6,
}

/// The transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    pub(super) fn protocol(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
        }
    }

    /// Where the checksum lies in the transport's header.
    pub(super) fn checksum(self) -> usize {
        match self {
            Self::Tcp => TCP_CHECKSUM,
            Self::Udp => UDP_CHECKSUM,
        }
    }
}

/// The offsets of a whole (unfragmented) TCP or UDP packet of at most [`MAX_HEADERS_BYTES`] of headers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) below: Below,
    pub(super) transport: Transport,
    /// Where the transport's header begins.
    pub(super) at: usize,
    /// Where its payload begins.
    pub(super) payload: usize,
    /// Where the packet ends.
    pub(super) end: usize,
    /// Whether there are IPv4 options or IPv6 extension headers.
    pub(super) has_extras: bool,
}

impl Layout {
    /// The layout of `packet`, which is as long as its IP header says or longer; None for anything but whole TCP and UDP packets.
    pub(super) fn of(packet: &[u8]) -> Option<Self> {
        let (below, protocol, at, end, has_extras) = match packet.first()? >> 4 {
            4 => {
                let view = ipv4::Packet::new_checked(packet).ok()?;
                if view.is_fragment() {
                    return None;
                }
                let at = view.header_len();
                (
                    Below::V4,
                    view.protocol(),
                    at,
                    view.total_len(),
                    at > ipv4::HEADER_LEN,
                )
            }
            6 => {
                let view = ipv6::Packet::new_checked(packet).ok()?;
                let (protocol, at) = match view.next_header() {
                    next @ (TCP | UDP) => (next, ipv6::HEADER_LEN),
                    _ => {
                        let upper = view.upper_layer().ok()?;
                        if upper.fragment.is_some() {
                            return None;
                        }
                        (upper.protocol, upper.offset)
                    }
                };
                (Below::V6, protocol, at, view.total_len(), at > ipv6::HEADER_LEN)
            }
            _ => return None,
        };
        let transport_bytes = packet.get(at..end)?;
        let (transport, header) = match protocol {
            TCP => {
                let header = usize::from(transport_bytes.get(12)? >> 4) * 4;
                (Transport::Tcp, header.max(TCP_HEADER_BYTES))
            }
            UDP => (Transport::Udp, UDP_HEADER_BYTES),
            _ => return None,
        };
        if header > transport_bytes.len() || at + header > MAX_HEADERS_BYTES {
            return None;
        }
        Some(Self {
            below,
            transport,
            at,
            payload: at + header,
            end,
            has_extras,
        })
    }

    pub(super) fn payload_len(&self) -> usize {
        self.end - self.payload
    }

    /// The sum of the pseudo header but for the length, and of the protocol, for a packet without routing header.
    pub(super) fn addresses(&self, packet: &[u8]) -> Sum {
        let addresses = match self.below {
            Below::V4 => &packet[12..20],
            Below::V6 => &packet[8..40],
        };
        Sum::ZERO
            .plus(addresses)
            .plus_word(u16::from(self.transport.protocol()))
    }

    /// Writes the length fields of a packet with `payload` bytes, whose headers are in `header`.
    pub(super) fn set_lengths(&self, header: &mut [u8], payload: usize) {
        let total = self.payload + payload;
        match self.below {
            Below::V4 => set_word(header, 2, word_of(total)),
            Below::V6 => set_word(header, 4, word_of(total - ipv6::HEADER_LEN)),
        }
        if self.transport == Transport::Udp {
            set_word(header, self.at + 4, word_of(total - self.at));
        }
    }

    /// Computes the IPv4 header's checksum anew.
    pub(super) fn set_ip_checksum(&self, header: &mut [u8]) {
        if self.below == Below::V4 {
            set_word(header, 10, 0);
            let sum = Sum::ZERO.plus(&header[..self.at]).complement();
            set_word(header, 10, sum);
        }
    }
}

pub(super) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn set_word(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

pub(super) fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A length as its field holds it. Callers keep packets below 64 KiB.
#[allow(clippy::cast_possible_truncation, reason = "packets are shorter than 64 KiB")]
pub(super) fn word_of(length: usize) -> u16 {
    length as u16
}

//! Whole packets: the [`Walk`] from the outermost header inwards, tunnels included, and [`encode`], which writes headers
//! around a payload.
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use super::checksum::{self, PseudoHeader, Sum};
use super::scan::{Part, Scan};
use super::{
    DecodeError, Layer, arp, be16, ethernet, icmp, icmpv6, ipv4, ipv6, protocol, tcp, udp, vlan, vxlan,
};

pub use super::scan::{IP_PORT, Next, VXLAN_PORTS};

/// One header as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header<'a> {
    /// Ethernet II.
    Ethernet(ethernet::Repr),
    /// A VLAN tag.
    Vlan(vlan::Repr),
    /// ARP.
    Arp(arp::Repr),
    /// IPv4 with its options.
    Ipv4(ipv4::Repr),
    /// IPv6 and the bytes of its extension headers.
    Ipv6(ipv6::Repr, &'a [u8]),
    /// UDP, and whether it has a checksum.
    Udp(udp::Repr, bool),
    /// TCP.
    Tcp(tcp::Repr),
    /// ICMP for IPv4.
    Icmp(icmp::Repr),
    /// ICMP for IPv6.
    Icmpv6(icmpv6::Repr),
    /// VXLAN.
    Vxlan(vxlan::Repr),
}

impl Header<'_> {
    /// Its kind.
    #[must_use]
    pub const fn layer(&self) -> Layer {
        match self {
            Self::Ethernet(_) => Layer::Ethernet,
            Self::Vlan(_) => Layer::Vlan,
            Self::Arp(_) => Layer::Arp,
            Self::Ipv4(_) => Layer::Ipv4,
            Self::Ipv6(..) => Layer::Ipv6,
            Self::Udp(..) => Layer::Udp,
            Self::Tcp(_) => Layer::Tcp,
            Self::Icmp(_) => Layer::Icmp,
            Self::Icmpv6(_) => Layer::Icmpv6,
            Self::Vxlan(_) => Layer::Vxlan,
        }
    }

    /// Its length with options and extension headers, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Ethernet(_) => ethernet::HEADER_LEN,
            Self::Vlan(_) => vlan::HEADER_LEN,
            Self::Arp(_) => arp::MESSAGE_LEN,
            Self::Ipv4(repr) => repr.buffer_len(),
            Self::Ipv6(_, extensions) => ipv6::HEADER_LEN + extensions.len(),
            Self::Udp(..) => udp::HEADER_LEN,
            Self::Tcp(repr) => repr.header_len(),
            Self::Icmp(_) => icmp::HEADER_LEN,
            Self::Icmpv6(_) => icmpv6::HEADER_LEN,
            Self::Vxlan(_) => vxlan::HEADER_LEN,
        }
    }

    /// Whether it has no bytes: never.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    pub(super) const fn pseudo_header(&self) -> Option<PseudoHeader> {
        match self {
            Self::Ipv4(repr) => Some(repr.pseudo_header()),
            Self::Ipv6(repr, _) => Some(repr.pseudo_header()),
            _ => None,
        }
    }
}

/// What is known of a header's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The header has none.
    Absent,
    /// It is right.
    Right,
    /// It is wrong.
    Wrong,
    /// What it covers is not all there: no IP header is around it, or a routing header hides the final destination.
    Unknown,
}

impl Verdict {
    const fn of(right: bool) -> Self {
        if right { Self::Right } else { Self::Wrong }
    }

    /// The verdict as a word.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Right => "right",
            Self::Wrong => "wrong",
            Self::Unknown => "unknown",
        }
    }
}

/// One header that the walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Its value.
    pub header: Header<'a>,
    /// Where it starts, in bytes from the start of what is walked.
    pub offset: usize,
    /// Its checksum.
    pub checksum: Verdict,
}

impl<'a> Part<'a> {
    /// The header's value.
    ///
    /// # Errors
    /// None: the scan has found the header to be whole. (The views check it again.)
    pub fn header(&self) -> Result<Header<'a>, DecodeError> {
        let bytes = self.bytes;
        Ok(match self.layer {
            Layer::Ethernet => Header::Ethernet(ethernet::Repr::parse(&ethernet::Frame::new_checked(bytes)?)),
            Layer::Vlan => Header::Vlan(vlan::Repr::parse(&vlan::Tag::new_checked(bytes)?)),
            Layer::Arp => Header::Arp(arp::Repr::parse(&arp::Packet::new_checked(bytes)?)),
            Layer::Ipv4 => Header::Ipv4(ipv4::Repr::parse(&ipv4::Packet::new_checked(bytes)?)),
            Layer::Ipv6 => Header::Ipv6(
                ipv6::Repr::parse(&ipv6::Packet::new_checked(bytes)?),
                bytes.get(ipv6::HEADER_LEN..self.header_len).unwrap_or_default(),
            ),
            Layer::Udp => {
                let packet = udp::Packet::new_checked(bytes)?;
                Header::Udp(udp::Repr::parse(&packet), packet.checksum() != 0)
            }
            Layer::Tcp => Header::Tcp(tcp::Repr::parse(&tcp::Packet::new_checked(bytes)?)),
            Layer::Icmp => Header::Icmp(icmp::Repr::parse(&icmp::Packet::new_checked(bytes)?)),
            Layer::Icmpv6 => Header::Icmpv6(icmpv6::Repr::parse(&icmpv6::Packet::new_checked(bytes)?)),
            Layer::Vxlan => Header::Vxlan(vxlan::Repr::parse(&vxlan::Packet::new_checked(bytes)?)),
        })
    }

    /// What is known of the checksum.
    #[must_use]
    #[inline(always)]
    pub fn checksum(&self) -> Verdict {
        let bytes = self.bytes;
        let number = match self.layer {
            Layer::Ethernet | Layer::Vlan | Layer::Arp | Layer::Ipv6 | Layer::Vxlan => {
                return Verdict::Absent;
            }
            Layer::Ipv4 => return Verdict::of(checksum::is_valid(&bytes[..self.header_len])),
            Layer::Icmp => return Verdict::of(Sum::ZERO.plus(bytes).is_valid()),
            Layer::Udp if be16(bytes, 6) == 0 => return Verdict::Absent,
            Layer::Udp => protocol::UDP,
            Layer::Tcp => protocol::TCP,
            Layer::Icmpv6 => protocol::ICMPV6,
        };
        match pseudo_header(self.ip) {
            Some(pseudo) => Verdict::of(pseudo.is_valid(number, bytes)),
            None => Verdict::Unknown,
        }
    }
}

/// What a checksum covers besides the transport, of the IP packet around it.
fn pseudo_header(ip: &[u8]) -> Option<PseudoHeader> {
    match ip.first()? >> 4 {
        4 => ipv4::Packet::new_checked(ip)
            .ok()
            .map(|packet| packet.pseudo_header()),
        _ => {
            let packet = ipv6::Packet::new_checked(ip).ok()?;
            (!passes_routers(&packet)).then(|| packet.pseudo_header())
        }
    }
}

/// The walk over a packet's headers, from the outermost inwards: what a [`Scan`] finds, with values and verdicts.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    scan: Scan<'a>,
}

impl<'a> Walk<'a> {
    /// The walk over `bytes`, which start with `first`; with `tunnels` it goes on into VXLAN and IP-in-UDP on their ports.
    #[must_use]
    pub const fn new(bytes: &'a [u8], first: Next, tunnels: bool) -> Self {
        Self {
            scan: Scan::new(bytes, first, tunnels),
        }
    }

    /// Where the payload lies, once the walk has ended; until then, all that is not walked yet.
    #[must_use]
    pub fn payload(&self) -> Range<usize> {
        self.scan.offset()..self.scan.offset() + self.scan.payload().len()
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<Found<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let part = match self.scan.next()? {
            Ok(part) => part,
            Err(error) => return Some(Err(error)),
        };
        Some(part.header().map(|header| Found {
            header,
            offset: part.offset,
            checksum: part.checksum(),
        }))
    }
}

/// Whether a routing header has segments left, so that the destination field is not the final destination.
fn passes_routers(packet: &ipv6::Packet<&[u8]>) -> bool {
    packet
        .extensions()
        .flatten()
        .any(|header| header.kind == ipv6::extension::ROUTING && header.bytes[3] != 0)
}

/// Headers that cannot be written around a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// A length does not fit into the layer's 16-bit field.
    TooLong {
        /// Whose length.
        layer: Layer,
        /// What it would be, in bytes.
        len: usize,
    },
    /// The layer's checksum covers IP addresses, and no IP header is around it.
    NoAddresses {
        /// Whose checksum.
        layer: Layer,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { layer, len } => write!(f, "{layer}: length {len}: at most 65535 bytes"),
            Self::NoAddresses { layer } => write!(f, "{layer}: the checksum needs an IP header around it"),
        }
    }
}

impl core::error::Error for EncodeError {}

/// The packet of `headers`, the outermost first, around `payload`. Payload lengths inside the headers are ignored: all lengths
/// and checksums are made.
///
/// # Errors
/// [`EncodeError`].
pub fn encode(headers: &[Header<'_>], payload: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let total = headers.iter().map(Header::len).sum::<usize>() + payload.len();
    let mut bytes = vec![0; total];
    let start = total - payload.len();
    bytes[start..].copy_from_slice(payload);
    emit(headers, &mut bytes, start)?;
    Ok(bytes)
}

/// Writes `headers` into `bytes`, in front of the payload that is there from `start` on.
pub(super) fn emit(headers: &[Header<'_>], bytes: &mut [u8], mut start: usize) -> Result<(), EncodeError> {
    let total = bytes.len();
    for (index, header) in headers.iter().enumerate().rev() {
        let payload_len = total - start;
        start -= header.len();
        let buffer = &mut bytes[start..];
        let layer = header.layer();
        let fits = |len: usize| {
            if len > 0xffff {
                Err(EncodeError::TooLong { layer, len })
            } else {
                Ok(())
            }
        };
        let pseudo = || {
            let around = headers[..index].iter().rev().find_map(Header::pseudo_header);
            around.ok_or(EncodeError::NoAddresses { layer })
        };
        match *header {
            Header::Ethernet(repr) => repr.emit(buffer),
            Header::Vlan(repr) => repr.emit(buffer),
            Header::Arp(repr) => repr.emit(buffer),
            Header::Ipv4(repr) => {
                fits(buffer.len())?;
                ipv4::Repr { payload_len, ..repr }.emit(buffer);
            }
            Header::Ipv6(repr, extensions) => {
                let payload_len = extensions.len() + payload_len;
                fits(payload_len)?;
                ipv6::Repr { payload_len, ..repr }.emit(buffer);
                buffer[ipv6::HEADER_LEN..ipv6::HEADER_LEN + extensions.len()].copy_from_slice(extensions);
            }
            Header::Udp(repr, checksum) => {
                fits(buffer.len())?;
                let pseudo = if checksum { Some(pseudo()?) } else { None };
                udp::Repr { payload_len, ..repr }.emit(buffer, pseudo);
            }
            Header::Tcp(repr) => tcp::Repr { payload_len, ..repr }.emit(buffer, pseudo()?),
            Header::Icmp(repr) => icmp::Repr { payload_len, ..repr }.emit(buffer),
            Header::Icmpv6(repr) => icmpv6::Repr { payload_len, ..repr }.emit(buffer, pseudo()?),
            Header::Vxlan(repr) => repr.emit(buffer),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

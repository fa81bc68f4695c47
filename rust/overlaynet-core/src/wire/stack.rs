//! Whole packets: the [`Walk`] from the outermost header inwards, tunnels included, and [`encode`], which writes headers
//! around a payload.
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use super::checksum::PseudoHeader;
use super::{DecodeError, Layer, ethernet, icmp, icmpv6, ipv4, ipv6, protocol, tcp, udp, vxlan};

/// The UDP ports behind which the walk expects VXLAN: IANA's, and Linux's and flannel's default.
pub const VXLAN_PORTS: [u16; 2] = [vxlan::PORT, 8472];

/// The UDP port behind which the walk expects an IP packet without further header: flannel's `udp` backend.
pub const IP_PORT: u16 = 8285;

/// One header as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header<'a> {
    /// Ethernet II.
    Ethernet(ethernet::Repr),
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

    const fn pseudo_header(&self) -> Option<PseudoHeader> {
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

/// Which header comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ethernet II.
    Ethernet,
    /// IPv4 or IPv6, as the version field says.
    Ip,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// ICMP for IPv4.
    Icmp,
    /// ICMP for IPv6.
    Icmpv6,
    /// VXLAN.
    Vxlan,
    /// None that the walk knows: the rest is payload.
    Payload,
}

/// The walk over a packet's headers, from the outermost inwards. It ends at the payload, and after the first fault.
///
/// Fragments are payload: their transport is not all there. So is the packet that an ICMP error quotes.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    bytes: &'a [u8],
    /// What is not walked yet; the end moves inwards past padding.
    rest: Range<usize>,
    next: Next,
    pseudo: Option<PseudoHeader>,
    tunnels: bool,
}

impl<'a> Walk<'a> {
    /// The walk over `bytes`, which start with `first`; with `tunnels` it goes on into VXLAN and IP-in-UDP on their ports.
    #[must_use]
    pub const fn new(bytes: &'a [u8], first: Next, tunnels: bool) -> Self {
        Self {
            bytes,
            rest: 0..bytes.len(),
            next: first,
            pseudo: None,
            tunnels,
        }
    }

    /// Where the payload lies, once the walk has ended; until then, all that is not walked yet.
    #[must_use]
    pub fn payload(&self) -> Range<usize> {
        self.rest.clone()
    }

    fn step(&mut self) -> Result<Option<Found<'a>>, DecodeError> {
        let rest = &self.bytes[self.rest.clone()];
        let mut end = rest.len();
        let mut checksum = Verdict::Absent;
        let transport = |valid: &dyn Fn(PseudoHeader) -> bool, pseudo: Option<PseudoHeader>| {
            pseudo.map_or(Verdict::Unknown, |pseudo| Verdict::of(valid(pseudo)))
        };
        let header = match self.next {
            Next::Payload => return Ok(None),
            Next::Ip => {
                self.next = match rest.first() {
                    Some(byte) if byte >> 4 == 6 => Next::Ipv6,
                    _ => Next::Ipv4,
                };
                return self.step();
            }
            Next::Ethernet => {
                let repr = ethernet::Repr::parse(&ethernet::Frame::new_checked(rest)?);
                self.pseudo = None;
                self.next = match repr.ether_type {
                    ethernet::ether_type::IPV4 => Next::Ipv4,
                    ethernet::ether_type::IPV6 => Next::Ipv6,
                    _ => Next::Payload,
                };
                Header::Ethernet(repr)
            }
            Next::Ipv4 => {
                let packet = ipv4::Packet::new_checked(rest)?;
                checksum = Verdict::of(packet.checksum_ok());
                end = packet.total_len();
                self.pseudo = Some(packet.pseudo_header());
                self.next = match packet.protocol() {
                    _ if packet.is_fragment() => Next::Payload,
                    protocol::ICMP => Next::Icmp,
                    other => transport_of(other),
                };
                Header::Ipv4(ipv4::Repr::parse(&packet))
            }
            Next::Ipv6 => {
                let packet = ipv6::Packet::new_checked(rest)?;
                let upper = packet.upper_layer()?;
                end = packet.total_len();
                self.pseudo = if passes_routers(&packet) {
                    None
                } else {
                    Some(packet.pseudo_header())
                };
                self.next = match upper.protocol {
                    _ if upper
                        .fragment
                        .is_some_and(|fragment| fragment.more || fragment.offset != 0) =>
                    {
                        Next::Payload
                    }
                    protocol::ICMPV6 => Next::Icmpv6,
                    other => transport_of(other),
                };
                Header::Ipv6(ipv6::Repr::parse(&packet), &rest[ipv6::HEADER_LEN..upper.offset])
            }
            Next::Udp => {
                let packet = udp::Packet::new_checked(rest)?;
                let present = packet.checksum() != 0;
                if present {
                    checksum = transport(&|pseudo| packet.checksum_ok(pseudo), self.pseudo);
                }
                end = packet.total_len();
                self.next = match packet.destination_port() {
                    port if self.tunnels && VXLAN_PORTS.contains(&port) => Next::Vxlan,
                    IP_PORT if self.tunnels => Next::Ip,
                    _ => Next::Payload,
                };
                Header::Udp(udp::Repr::parse(&packet), present)
            }
            Next::Tcp => {
                let packet = tcp::Packet::new_checked(rest)?;
                checksum = transport(&|pseudo| packet.checksum_ok(pseudo), self.pseudo);
                self.next = Next::Payload;
                Header::Tcp(tcp::Repr::parse(&packet))
            }
            Next::Icmp => {
                let packet = icmp::Packet::new_checked(rest)?;
                checksum = Verdict::of(packet.checksum_ok());
                self.next = Next::Payload;
                Header::Icmp(icmp::Repr::parse(&packet))
            }
            Next::Icmpv6 => {
                let packet = icmpv6::Packet::new_checked(rest)?;
                checksum = transport(&|pseudo| packet.checksum_ok(pseudo), self.pseudo);
                self.next = Next::Payload;
                Header::Icmpv6(icmpv6::Repr::parse(&packet))
            }
            Next::Vxlan => {
                let packet = vxlan::Packet::new_checked(rest)?;
                self.next = Next::Ethernet;
                Header::Vxlan(vxlan::Repr::parse(&packet))
            }
        };
        let offset = self.rest.start;
        self.rest = offset + header.len()..offset + end;
        Ok(Some(Found {
            header,
            offset,
            checksum,
        }))
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<Found<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.step();
        if found.is_err() {
            self.next = Next::Payload;
        }
        found.map_err(|error| error.within(self.rest.start)).transpose()
    }
}

const fn transport_of(number: u8) -> Next {
    match number {
        protocol::UDP => Next::Udp,
        protocol::TCP => Next::Tcp,
        _ => Next::Payload,
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
    let mut start = total - payload.len();
    bytes[start..].copy_from_slice(payload);
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
    Ok(bytes)
}

#[cfg(test)]
mod tests;

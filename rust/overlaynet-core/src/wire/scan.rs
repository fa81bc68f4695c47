//! Where a packet's headers lie: the [`Scan`] from the outermost header inwards, tunnels included.
//!
//! It looks at no more than it needs to find the next header, so that whoever wants one field of a packet does not pay for the
//! others. Values and verdicts on checksums are made of a [`Part`] when they are asked for.
use super::{DecodeError, Layer, arp, ethernet, icmp, icmpv6, ipv4, ipv6, protocol, tcp, udp, vlan, vxlan};

/// The UDP ports behind which the scan expects VXLAN: IANA's, and Linux's and flannel's default.
pub const VXLAN_PORTS: [u16; 2] = [vxlan::PORT, 8472];

/// The UDP port behind which the scan expects an IP packet without further header: flannel's `udp` backend.
pub const IP_PORT: u16 = 8285;

/// Which header comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ethernet II.
    Ethernet,
    /// A VLAN tag.
    Vlan,
    /// ARP, if it is for IPv4 over Ethernet; other ARP is payload.
    Arp,
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
    /// None that the scan knows: the rest is payload.
    Payload,
}

impl Next {
    const fn of_ether_type(number: u16) -> Self {
        match number {
            ethernet::ether_type::IPV4 => Self::Ipv4,
            ethernet::ether_type::IPV6 => Self::Ipv6,
            ethernet::ether_type::ARP => Self::Arp,
            ethernet::ether_type::VLAN | ethernet::ether_type::SERVICE_VLAN => Self::Vlan,
            _ => Self::Payload,
        }
    }

    const fn of_protocol(number: u8) -> Self {
        match number {
            protocol::UDP => Self::Udp,
            protocol::TCP => Self::Tcp,
            _ => Self::Payload,
        }
    }
}

/// One header that the scan found, and all that belongs to it. Only a scan makes one, so that its header is known to be whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part<'a> {
    /// What it is.
    pub layer: Layer,
    /// Where it starts, in bytes from the start of what is scanned.
    pub offset: usize,
    /// Its length with options and extension headers, in bytes.
    pub header_len: usize,
    /// The header and what it carries, without padding.
    pub bytes: &'a [u8],
    /// The IP header that directly carries this one, and all behind it; empty if none does.
    pub(super) ip: &'a [u8],
}

/// What is done with each part of a packet.
pub trait Visitor<'a> {
    /// Takes the next part.
    fn part(&mut self, part: Part<'a>);
}

/// The scan over a packet's headers, from the outermost inwards. It ends at the payload, and after the first fault.
///
/// Fragments are payload: their transport is not all there. So is the packet that an ICMP error quotes.
#[derive(Clone, Debug)]
pub struct Scan<'a> {
    rest: &'a [u8],
    ip: &'a [u8],
    offset: usize,
    next: Next,
    tunnels: bool,
}

impl<'a> Scan<'a> {
    /// The scan over `bytes`, which start with `first`; with `tunnels` it goes on into VXLAN and IP-in-UDP on their ports.
    #[must_use]
    pub const fn new(bytes: &'a [u8], first: Next, tunnels: bool) -> Self {
        Self {
            rest: bytes,
            ip: &[],
            offset: 0,
            next: first,
            tunnels,
        }
    }

    /// The payload, once the scan has ended; until then, all that is not scanned yet.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.rest
    }

    /// Where the payload starts, in bytes from the start of what is scanned.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// Gives every part to `visitor`, and says what ended the scan if it was a fault. The same as iterating, and faster where
    /// the visitor is inlined: for each layer only what it needs is left.
    ///
    /// # Errors
    /// The fault.
    #[inline(always)]
    pub fn visit(&mut self, visitor: &mut impl Visitor<'a>) -> Result<(), DecodeError> {
        loop {
            match self.step(visitor) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => {
                    self.next = Next::Payload;
                    return Err(error.within(self.offset));
                }
            }
        }
    }

    /// Whether there was another part.
    #[inline(always)]
    fn step(&mut self, visitor: &mut impl Visitor<'a>) -> Result<bool, DecodeError> {
        let rest = self.rest;
        if self.next == Next::Ip {
            self.next = match rest.first() {
                Some(byte) if byte >> 4 == 6 => Next::Ipv6,
                _ => Next::Ipv4,
            };
        }
        match self.next {
            Next::Payload => return Ok(false),
            Next::Arp if !arp::is_ipv4_over_ethernet(rest) => return Ok(false),
            Next::Ethernet => {
                let next = Next::of_ether_type(ethernet::Frame::new_checked(rest)?.ether_type());
                self.found(Layer::Ethernet, ethernet::HEADER_LEN, rest.len(), next, visitor);
            }
            Next::Vlan => {
                let next = Next::of_ether_type(vlan::Tag::new_checked(rest)?.ether_type());
                self.found(Layer::Vlan, vlan::HEADER_LEN, rest.len(), next, visitor);
            }
            Next::Arp => {
                arp::Packet::new_checked(rest)?;
                self.found(
                    Layer::Arp,
                    arp::MESSAGE_LEN,
                    arp::MESSAGE_LEN,
                    Next::Payload,
                    visitor,
                );
            }
            Next::Ipv4 | Next::Ip => {
                let packet = ipv4::Packet::new_checked(rest)?;
                let next = match packet.protocol() {
                    _ if packet.is_fragment() => Next::Payload,
                    protocol::ICMP => Next::Icmp,
                    other => Next::of_protocol(other),
                };
                self.found(
                    Layer::Ipv4,
                    packet.header_len(),
                    packet.total_len(),
                    next,
                    visitor,
                );
            }
            Next::Ipv6 => {
                let packet = ipv6::Packet::new_checked(rest)?;
                let upper = packet.upper_layer()?;
                let next = match upper.protocol {
                    _ if upper
                        .fragment
                        .is_some_and(|fragment| fragment.more || fragment.offset != 0) =>
                    {
                        Next::Payload
                    }
                    protocol::ICMPV6 => Next::Icmpv6,
                    other => Next::of_protocol(other),
                };
                self.found(Layer::Ipv6, upper.offset, packet.total_len(), next, visitor);
            }
            Next::Udp => {
                let packet = udp::Packet::new_checked(rest)?;
                let next = match packet.destination_port() {
                    port if self.tunnels && VXLAN_PORTS.contains(&port) => Next::Vxlan,
                    IP_PORT if self.tunnels => Next::Ip,
                    _ => Next::Payload,
                };
                self.found(Layer::Udp, udp::HEADER_LEN, packet.total_len(), next, visitor);
            }
            Next::Tcp => {
                let packet = tcp::Packet::new_checked(rest)?;
                self.found(
                    Layer::Tcp,
                    packet.header_len(),
                    rest.len(),
                    Next::Payload,
                    visitor,
                );
            }
            Next::Icmp => {
                icmp::Packet::new_checked(rest)?;
                self.found(Layer::Icmp, icmp::HEADER_LEN, rest.len(), Next::Payload, visitor);
            }
            Next::Icmpv6 => {
                icmpv6::Packet::new_checked(rest)?;
                self.found(
                    Layer::Icmpv6,
                    icmpv6::HEADER_LEN,
                    rest.len(),
                    Next::Payload,
                    visitor,
                );
            }
            Next::Vxlan => {
                vxlan::Packet::new_checked(rest)?;
                self.found(
                    Layer::Vxlan,
                    vxlan::HEADER_LEN,
                    rest.len(),
                    Next::Ethernet,
                    visitor,
                );
            }
        }
        Ok(true)
    }

    /// The part is `end` bytes long.
    #[inline(always)]
    fn found(
        &mut self,
        layer: Layer,
        header_len: usize,
        end: usize,
        next: Next,
        visitor: &mut impl Visitor<'a>,
    ) {
        let bytes = &self.rest[..end];
        visitor.part(Part {
            layer,
            offset: self.offset,
            header_len,
            bytes,
            ip: self.ip,
        });
        self.ip = if matches!(layer, Layer::Ipv4 | Layer::Ipv6) {
            bytes
        } else {
            &[]
        };
        self.rest = &bytes[header_len..];
        self.offset += header_len;
        self.next = next;
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Result<Part<'a>, DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let mut found = None;
        if let Err(error) = self.step(&mut found) {
            self.next = Next::Payload;
            return Some(Err(error.within(self.offset)));
        }
        found.map(Ok)
    }
}

impl<'a> Visitor<'a> for Option<Part<'a>> {
    #[inline(always)]
    fn part(&mut self, part: Part<'a>) {
        *self = Some(part);
    }
}

//! One packet in one row: what a table of many packets says of each.
//!
//! It is the scan's result with every check of it, checksums included, in a value of fixed size.
use super::scan::{Next, Part, Scan, Visitor};
use super::stack::Verdict;
use super::vxlan::Vni;
use super::{Layer, Reason, array};

/// What a packet holds. Addresses, protocol and ports are those of the innermost IP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Why the scan ended before the payload; what came before it is told all the same.
    pub fault: Option<Reason>,
    /// How many headers were found.
    pub layers: u8,
    /// How many of them have a wrong checksum.
    pub wrong_checksums: u8,
    /// The innermost VXLAN header's network identifier.
    pub vni: Option<Vni>,
    /// 4 or 6; 0 if there is no IP header.
    pub version: u8,
    /// What follows the IP header: IPv4's protocol, IPv6's next header.
    pub protocol: u8,
    /// Where the packet comes from; an IPv4 address takes the first four bytes.
    pub source: [u8; 16],
    /// Where the packet goes, in the same form.
    pub destination: [u8; 16],
    /// UDP's or TCP's source port, or 0.
    pub source_port: u16,
    /// UDP's or TCP's destination port, or 0.
    pub destination_port: u16,
    /// Where the payload starts, in bytes from the start of the packet.
    pub payload_offset: usize,
    /// How many bytes of payload there are.
    pub payload_length: usize,
}

impl Summary {
    /// The summary of `bytes`, which start with `first`; `tunnels` is the [`Scan`]'s.
    #[must_use]
    #[inline(always)]
    pub fn of(bytes: &[u8], first: Next, tunnels: bool) -> Self {
        let mut found = Innermost::default();
        let mut scan = Scan::new(bytes, first, tunnels);
        let ended = scan.visit(&mut found);
        let (source, destination, protocol) = match (found.version, found.ip) {
            (4, ip) if ip.len() >= 20 => (ipv4_address(array(ip, 12)), ipv4_address(array(ip, 16)), ip[9]),
            (6, ip) if ip.len() >= 40 => (array(ip, 8), array(ip, 24), ip[6]),
            _ => ([0; 16], [0; 16], 0),
        };
        let (source_port, destination_port) = match *found.transport {
            [a, b, c, d, ..] => (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
            _ => (0, 0),
        };
        Self {
            fault: ended.err().map(|error| error.reason),
            layers: found.layers,
            wrong_checksums: found.wrong_checksums,
            vni: match *found.vxlan {
                [_, _, _, _, a, b, c, _, ..] => Vni::new(u32::from_be_bytes([0, a, b, c])),
                _ => None,
            },
            version: found.version,
            protocol,
            source,
            destination,
            source_port,
            destination_port,
            payload_offset: scan.offset(),
            payload_length: scan.payload().len(),
        }
    }
}

/// The innermost headers that were found; empty: none. Their fields are read once, when the scan has ended.
#[derive(Default)]
struct Innermost<'a> {
    layers: u8,
    wrong_checksums: u8,
    version: u8,
    ip: &'a [u8],
    transport: &'a [u8],
    vxlan: &'a [u8],
}

impl<'a> Visitor<'a> for Innermost<'a> {
    #[inline(always)]
    fn part(&mut self, part: Part<'a>) {
        self.layers = self.layers.saturating_add(1);
        if part.checksum() == Verdict::Wrong {
            self.wrong_checksums = self.wrong_checksums.saturating_add(1);
        }
        match part.layer {
            Layer::Ipv4 | Layer::Ipv6 => {
                self.version = if part.layer == Layer::Ipv4 { 4 } else { 6 };
                (self.ip, self.transport) = (part.bytes, &[]);
            }
            // Both begin with the ports.
            Layer::Udp | Layer::Tcp => self.transport = part.bytes,
            Layer::Vxlan => self.vxlan = part.bytes,
            Layer::Ethernet | Layer::Vlan | Layer::Arp | Layer::Icmp | Layer::Icmpv6 => {}
        }
    }
}

/// Four bytes and twelve zeros: as a number, so that it takes two moves.
const fn ipv4_address(octets: [u8; 4]) -> [u8; 16] {
    (u32::from_le_bytes(octets) as u128).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::stack::{Header, Walk};
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// The same by way of the walk's values.
    fn slowly(bytes: &[u8], first: Next) -> Summary {
        let mut summary = Summary::default();
        let mut walk = Walk::new(bytes, first, true);
        for found in walk.by_ref() {
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    summary.fault = Some(error.reason);
                    break;
                }
            };
            summary.layers += 1;
            summary.wrong_checksums += u8::from(found.checksum == Verdict::Wrong);
            match found.header {
                Header::Ipv4(repr) => {
                    (summary.version, summary.protocol) = (4, repr.protocol);
                    summary.source = ipv4_address(repr.source.octets());
                    summary.destination = ipv4_address(repr.destination.octets());
                    (summary.source_port, summary.destination_port) = (0, 0);
                }
                Header::Ipv6(repr, _) => {
                    (summary.version, summary.protocol) = (6, repr.next_header);
                    (summary.source, summary.destination) = (repr.source.octets(), repr.destination.octets());
                    (summary.source_port, summary.destination_port) = (0, 0);
                }
                Header::Udp(repr, _) => {
                    (summary.source_port, summary.destination_port) =
                        (repr.source_port, repr.destination_port);
                }
                Header::Tcp(repr) => {
                    (summary.source_port, summary.destination_port) =
                        (repr.source_port, repr.destination_port);
                }
                Header::Vxlan(repr) => summary.vni = Some(repr.vni),
                _ => {}
            }
        }
        summary.payload_offset = walk.payload().start;
        summary.payload_length = walk.payload().len();
        summary
    }

    proptest! {
        #[test]
        fn a_summary_says_what_the_walk_says(which in 0usize..20, at: prop::sample::Index, value: u8, cut: prop::sample::Index) {
            let packets = include_str!("../../../../tests/vectors/packets.txt");
            let line = packets.lines().filter(|line| !line.starts_with('#')).nth(which).unwrap();
            let text = line.rsplit(' ').next().unwrap();
            let mut bytes: Vec<u8> = (0..text.len() / 2)
                .map(|pair| u8::from_str_radix(&text[2 * pair..2 * pair + 2], 16).unwrap())
                .collect();
            let (at, cut) = (at.index(bytes.len()), cut.index(bytes.len() + 1));
            for first in [Next::Ethernet, Next::Ip] {
                prop_assert_eq!(Summary::of(&bytes, first, true), slowly(&bytes, first));
            }
            bytes[at] = value;
            for first in [Next::Ethernet, Next::Ip] {
                prop_assert_eq!(Summary::of(&bytes[..cut], first, true), slowly(&bytes[..cut], first));
            }
        }
    }
}

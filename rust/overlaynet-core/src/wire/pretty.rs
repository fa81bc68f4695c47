//! Packets as text: one line a header, with its offset, its fields and the verdict on its checksum.
use core::fmt;

use super::stack::{Found, Header, Next, Verdict, Walk};
use super::{icmp, icmpv6};

/// A packet that can be displayed. A fault is the last line, never an error.
///
/// ```
/// use overlaynet_core::wire::{pretty::Pretty, stack::Next};
/// assert_eq!(format!("{}", Pretty::new(&[0x45], Next::Ip)), "  0 ! ipv4 at byte 0: truncated: need 20, have 1\n");
/// ```
#[derive(Clone, Debug)]
pub struct Pretty<'a>(Walk<'a>);

impl<'a> Pretty<'a> {
    /// The text of `bytes`, which start with `first`, tunnels included.
    #[must_use]
    pub const fn new(bytes: &'a [u8], first: Next) -> Self {
        Self(Walk::new(bytes, first, true))
    }

    /// The text of what `walk` finds.
    #[must_use]
    pub const fn of(walk: Walk<'a>) -> Self {
        Self(walk)
    }
}

impl fmt::Display for Pretty<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut walk = self.0.clone();
        for found in walk.by_ref() {
            match found {
                Ok(found) => line(f, &found)?,
                Err(error) => return writeln!(f, "{:>3} ! {error}", error.offset),
            }
        }
        let payload = walk.payload();
        if payload.is_empty() {
            return Ok(());
        }
        writeln!(f, "{:>3} payload {} bytes", payload.start, payload.len())
    }
}

fn line(f: &mut fmt::Formatter<'_>, found: &Found<'_>) -> fmt::Result {
    write!(f, "{:>3} {} ", found.offset, found.header.layer())?;
    match found.header {
        Header::Ethernet(repr) => write!(
            f,
            "{} > {} type 0x{:04x}",
            repr.source, repr.destination, repr.ether_type
        )?,
        Header::Vlan(repr) => write!(
            f,
            "id {} priority {} type 0x{:04x}",
            repr.id, repr.priority, repr.ether_type
        )?,
        Header::Arp(repr) => write!(f, "{repr}")?,
        Header::Ipv4(repr) => {
            write!(
                f,
                "{} > {} protocol {} ttl {}",
                repr.source, repr.destination, repr.protocol, repr.ttl
            )?;
            write!(f, " length {}", repr.buffer_len() + repr.payload_len)?;
            if repr.more_fragments || repr.fragment_offset != 0 {
                let more = if repr.more_fragments { "+" } else { "" };
                write!(
                    f,
                    " fragment {}:{}{more}",
                    repr.identification,
                    usize::from(repr.fragment_offset) * 8
                )?;
            } else if repr.dont_fragment {
                f.write_str(" df")?;
            }
        }
        Header::Ipv6(repr, extensions) => {
            write!(
                f,
                "{} > {} next {} hops {}",
                repr.source, repr.destination, repr.next_header, repr.hop_limit
            )?;
            write!(f, " payload {}", repr.payload_len)?;
            if !extensions.is_empty() {
                write!(f, " extensions {} bytes", extensions.len())?;
            }
        }
        Header::Udp(repr, _) => {
            write!(
                f,
                "{} > {} length {}",
                repr.source_port,
                repr.destination_port,
                repr.buffer_len()
            )?;
        }
        Header::Tcp(repr) => {
            write!(
                f,
                "{} > {} {} seq {}",
                repr.source_port, repr.destination_port, repr.flags, repr.sequence
            )?;
            write!(f, " ack {} window {}", repr.acknowledgement, repr.window)?;
        }
        Header::Icmp(repr) => write!(f, "{}", icmp::Message::of(repr.kind, repr.code, repr.rest))?,
        Header::Icmpv6(repr) => write!(f, "{}", icmpv6::Message::of(repr.kind, repr.code, repr.rest))?,
        Header::Vxlan(repr) => {
            write!(f, "vni {}", repr.vni)?;
            if let Some(group) = repr.group {
                write!(f, " group {}", group.id)?;
            }
        }
    }
    match found.checksum {
        Verdict::Absent => writeln!(f),
        verdict => writeln!(f, " checksum {}", verdict.text()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ethernet, ipv4, protocol, stack, udp, vxlan};
    use core::net::Ipv4Addr;
    use std::string::ToString;

    #[test]
    fn text_of_a_tunnel() {
        let mac = |last| ethernet::MacAddress([2, 0, 0, 0, 0, last]);
        let addresses = |net, to| (Ipv4Addr::new(net, 0, 0, 1), Ipv4Addr::new(net, 0, 0, to));
        let frame = Header::Ethernet(ethernet::Repr {
            destination: mac(1),
            source: mac(2),
            ether_type: 0x0800,
        });
        let (source, destination) = addresses(172, 2);
        let outer = Header::Ipv4(ipv4::Repr::new(source, destination, protocol::UDP, 0));
        let (source, destination) = addresses(10, 3);
        let inner = Header::Ipv4(ipv4::Repr::new(source, destination, protocol::ICMP, 0));
        let udp = Header::Udp(
            udp::Repr {
                source_port: 4000,
                destination_port: 8472,
                payload_len: 0,
            },
            false,
        );
        let vxlan = Header::Vxlan(vxlan::Repr {
            vni: vxlan::Vni::new(7).unwrap(),
            group: None,
        });
        let echo = Header::Icmp(icmp::Repr::echo(icmp::kind::ECHO_REQUEST, 1, 2, 0));
        let bytes = stack::encode(&[outer, udp, vxlan, frame, inner, echo], b"abcd").unwrap();
        let expected = "  0 ipv4 172.0.0.1 > 172.0.0.2 protocol 17 ttl 64 length 82 checksum right\n \
                        20 udp 4000 > 8472 length 62\n \
                        28 vxlan vni 7\n \
                        36 ethernet 02:00:00:00:00:02 > 02:00:00:00:00:01 type 0x0800\n \
                        50 ipv4 10.0.0.1 > 10.0.0.3 protocol 1 ttl 64 length 32 checksum right\n \
                        70 icmp echo request id 1 seq 2 checksum right\n \
                        78 payload 4 bytes\n";
        assert_eq!(Pretty::new(&bytes, Next::Ip).to_string(), expected);
    }
}

//! Two implementations that share no code with ours, etherparse and smoltcp, read and write the same bytes.
#![allow(clippy::unwrap_used, reason = "tests")]
use core::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice, VlanId};
use overlaynet_core::wire::ethernet::{self, MacAddress};
use overlaynet_core::wire::scan::Next;
use overlaynet_core::wire::stack::{Header, Verdict, Walk, encode};
use overlaynet_core::wire::tcp::Flags;
use overlaynet_core::wire::{arp, icmp, icmpv6, ipv4, ipv6, protocol, tcp, udp, vlan};
use proptest::collection::vec;
use proptest::prelude::*;
use smoltcp::wire as smol;

#[derive(Clone, Debug)]
enum Transport {
    Udp(u16, u16),
    Tcp(u16, u16, u32, u16),
    Echo(u16, u16),
}

#[derive(Clone, Debug)]
struct Frame {
    macs: ([u8; 6], [u8; 6]),
    vlan: Option<u16>,
    v6: bool,
    addresses: (u128, u128),
    ttl: u8,
    transport: Transport,
    payload: Vec<u8>,
}

fn frames() -> impl Strategy<Value = Frame> {
    // Ports that lead into a tunnel are another test's.
    let port = || any::<u16>().prop_filter("a tunnel's", |port| ![4789, 8472, 8285].contains(port));
    let transport = prop_oneof![
        (port(), port()).prop_map(|(source, destination)| Transport::Udp(source, destination)),
        (port(), port(), any::<u32>(), any::<u16>()).prop_map(|(source, destination, number, window)| {
            Transport::Tcp(source, destination, number, window)
        }),
        (any::<u16>(), any::<u16>()).prop_map(|(id, sequence)| Transport::Echo(id, sequence)),
    ];
    let vlan = prop::option::of(0_u16..4096);
    let macs = any::<([u8; 6], [u8; 6])>();
    let ip = (any::<bool>(), any::<(u128, u128)>(), any::<u8>());
    (macs, vlan, ip, transport, vec(any::<u8>(), 0..200)).prop_map(
        |(macs, vlan, (v6, addresses, ttl), transport, payload)| Frame {
            macs,
            vlan,
            v6,
            addresses,
            ttl,
            transport,
            payload,
        },
    )
}

fn v4(number: u128) -> Ipv4Addr {
    Ipv4Addr::from_bits((number & 0xffff_ffff) as u32)
}

impl Frame {
    /// As our encoder writes it.
    fn ours(&self) -> Vec<u8> {
        let mut headers = Vec::new();
        let ip_type = if self.v6 {
            ethernet::ether_type::IPV6
        } else {
            ethernet::ether_type::IPV4
        };
        headers.push(Header::Ethernet(ethernet::Repr {
            destination: MacAddress(self.macs.0),
            source: MacAddress(self.macs.1),
            ether_type: if self.vlan.is_some() {
                ethernet::ether_type::VLAN
            } else {
                ip_type
            },
        }));
        headers.extend(self.vlan.map(|id| {
            Header::Vlan(vlan::Repr {
                id,
                priority: 0,
                drop_eligible: false,
                ether_type: ip_type,
            })
        }));
        let number = match self.transport {
            Transport::Udp(..) => protocol::UDP,
            Transport::Tcp(..) => protocol::TCP,
            Transport::Echo(..) if self.v6 => protocol::ICMPV6,
            Transport::Echo(..) => protocol::ICMP,
        };
        let (source, destination) = self.addresses;
        headers.push(if self.v6 {
            let repr = ipv6::Repr::new(source.into(), destination.into(), number, 0);
            Header::Ipv6(
                ipv6::Repr {
                    hop_limit: self.ttl,
                    ..repr
                },
                &[],
            )
        } else {
            let repr = ipv4::Repr::new(v4(source), v4(destination), number, 0);
            Header::Ipv4(ipv4::Repr {
                ttl: self.ttl,
                dont_fragment: true,
                ..repr
            })
        });
        headers.push(match self.transport {
            Transport::Udp(source_port, destination_port) => Header::Udp(
                udp::Repr {
                    source_port,
                    destination_port,
                    payload_len: 0,
                },
                true,
            ),
            Transport::Tcp(source_port, destination_port, sequence, window) => Header::Tcp(tcp::Repr {
                source_port,
                destination_port,
                sequence,
                acknowledgement: 0,
                flags: Flags(0),
                window,
                urgent: 0,
                options: ipv4::Options::NONE,
                payload_len: 0,
            }),
            Transport::Echo(id, sequence) if self.v6 => {
                let [a, b] = id.to_be_bytes();
                let [c, d] = sequence.to_be_bytes();
                Header::Icmpv6(icmpv6::Repr {
                    kind: 128,
                    code: 0,
                    rest: [a, b, c, d],
                    payload_len: 0,
                })
            }
            Transport::Echo(id, sequence) => {
                Header::Icmp(icmp::Repr::echo(icmp::kind::ECHO_REQUEST, id, sequence, 0))
            }
        });
        encode(&headers, &self.payload).unwrap()
    }

    /// As etherparse's builder writes it.
    fn theirs(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let link = PacketBuilder::ethernet2(self.macs.1, self.macs.0);
        let (source, destination) = self.addresses;
        let (v4, v6) = (
            (v4(source).octets(), v4(destination).octets()),
            (
                Ipv6Addr::from_bits(source).octets(),
                Ipv6Addr::from_bits(destination).octets(),
            ),
        );
        let ip = match (self.vlan.map(|id| VlanId::try_new(id).unwrap()), self.v6) {
            (None, false) => link.ipv4(v4.0, v4.1, self.ttl),
            (None, true) => link.ipv6(v6.0, v6.1, self.ttl),
            (Some(id), false) => link.single_vlan(id).ipv4(v4.0, v4.1, self.ttl),
            (Some(id), true) => link.single_vlan(id).ipv6(v6.0, v6.1, self.ttl),
        };
        match self.transport {
            Transport::Udp(source, destination) => {
                ip.udp(source, destination)
                    .write(&mut bytes, &self.payload)
                    .unwrap();
            }
            Transport::Tcp(source, destination, sequence, window) => {
                let tcp = ip.tcp(source, destination, sequence, window);
                tcp.write(&mut bytes, &self.payload).unwrap();
            }
            Transport::Echo(id, sequence) if self.v6 => {
                ip.icmpv6_echo_request(id, sequence)
                    .write(&mut bytes, &self.payload)
                    .unwrap();
            }
            Transport::Echo(id, sequence) => {
                ip.icmpv4_echo_request(id, sequence)
                    .write(&mut bytes, &self.payload)
                    .unwrap();
            }
        }
        bytes
    }
}

proptest! {
    #[test]
    fn etherparse_writes_the_same_bytes(frame in frames()) {
        prop_assert_eq!(frame.ours(), frame.theirs());
    }

    #[test]
    fn etherparse_reads_what_we_write(frame in frames()) {
        let bytes = frame.ours();
        let theirs = SlicedPacket::from_ethernet(&bytes).unwrap();
        prop_assert_eq!(theirs.vlan_ids().first().map(|id| id.value()), frame.vlan);
        let mut walk = Walk::new(&bytes, Next::Ethernet, true);
        for found in walk.by_ref() {
            let found = found.unwrap();
            prop_assert!(matches!(found.checksum, Verdict::Right | Verdict::Absent));
            match (found.header, &theirs.net, &theirs.transport) {
                (Header::Ipv4(repr), Some(NetSlice::Ipv4(slice)), _) => {
                    prop_assert_eq!(repr.source, slice.header().source_addr());
                    prop_assert_eq!(repr.destination, slice.header().destination_addr());
                    prop_assert_eq!(repr.ttl, slice.header().ttl());
                }
                (Header::Ipv6(repr, _), Some(NetSlice::Ipv6(slice)), _) => {
                    prop_assert_eq!(repr.source, slice.header().source_addr());
                    prop_assert_eq!(repr.destination, slice.header().destination_addr());
                }
                (Header::Udp(repr, _), _, Some(TransportSlice::Udp(slice))) => {
                    prop_assert_eq!(repr.source_port, slice.source_port());
                    prop_assert_eq!(repr.buffer_len(), usize::from(slice.length()));
                }
                (Header::Tcp(repr), _, Some(TransportSlice::Tcp(slice))) => {
                    prop_assert_eq!(repr.sequence, slice.sequence_number());
                    prop_assert_eq!(repr.window, slice.window_size());
                }
                (Header::Icmp(repr), _, Some(TransportSlice::Icmpv4(slice))) => {
                    prop_assert_eq!(repr.rest, slice.bytes5to8());
                }
                (Header::Icmpv6(repr), _, Some(TransportSlice::Icmpv6(slice))) => {
                    prop_assert_eq!(repr.rest, slice.bytes5to8());
                }
                (Header::Ethernet(_) | Header::Vlan(_), ..) => {}
                (header, ..) => prop_assert!(false, "{:?} and {:?}", header, theirs),
            }
        }
        prop_assert_eq!(&bytes[walk.payload()], &frame.payload);
    }

    /// What either implementation says of packets that are nearly right: the same, if both take them for packets.
    #[test]
    fn smoltcp_judges_checksums_as_we_do(frame in frames(), at: prop::sample::Index, value: u8) {
        let mut bytes = frame.ours();
        let at = at.index(bytes.len());
        bytes[at] = value;
        let found: Vec<_> = Walk::new(&bytes, Next::Ethernet, false).map_while(Result::ok).collect();
        for (index, one) in found.iter().enumerate() {
            let part = &bytes[one.offset..];
            let addresses = found[..index].last().and_then(|ip| match ip.header {
                Header::Ipv4(repr) => Some((smol::IpAddress::from(repr.source), repr.destination.into(), repr.payload_len)),
                Header::Ipv6(repr, &[]) => Some((repr.source.into(), repr.destination.into(), repr.payload_len)),
                _ => None,
            });
            let theirs = match (one.header, addresses) {
                (Header::Ipv4(_), _) => smol::Ipv4Packet::new_checked(part).map(|packet| packet.verify_checksum()),
                (Header::Udp(..), Some((source, destination, _))) => smol::UdpPacket::new_checked(part)
                    .map(|packet| packet.verify_checksum(&source, &destination)),
                (Header::Tcp(_), Some((source, destination, len))) => smol::TcpPacket::new_checked(&part[..len])
                    .map(|packet| packet.verify_checksum(&source, &destination)),
                _ => continue,
            };
            // smoltcp refuses ports of zero and the like, which are none of a codec's business.
            if let Ok(right) = theirs {
                prop_assert_eq!(one.checksum != Verdict::Wrong, right, "{:?}", one);
            }
        }
    }

    #[test]
    fn smoltcp_writes_the_same_arp(operation in 1_u16..3, macs: ([u8; 6], [u8; 6]), addresses: (u32, u32)) {
        let ours = arp::Repr {
            operation,
            sender_mac: MacAddress(macs.0),
            sender: Ipv4Addr::from_bits(addresses.0),
            target_mac: MacAddress(macs.1),
            target: Ipv4Addr::from_bits(addresses.1),
        };
        let theirs = smol::ArpRepr::EthernetIpv4 {
            operation: smol::ArpOperation::from(operation),
            source_hardware_addr: smol::EthernetAddress(macs.0),
            source_protocol_addr: ours.sender,
            target_hardware_addr: smol::EthernetAddress(macs.1),
            target_protocol_addr: ours.target,
        };
        let mut bytes = [0; arp::MESSAGE_LEN];
        theirs.emit(&mut smol::ArpPacket::new_unchecked(&mut bytes));
        prop_assert_eq!(arp::Repr::parse(&arp::Packet::new_checked(&bytes).unwrap()), ours);
        let mut again = [0; arp::MESSAGE_LEN];
        ours.emit(&mut again);
        prop_assert_eq!(again, bytes);
    }
}

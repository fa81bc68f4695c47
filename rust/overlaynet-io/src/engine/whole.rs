//! Tests of packets that leave in one piece, and of super-packets that come so.
use super::*;
use crate::memory::{MemoryPort, Received};
use overlaynet_core::encapsulation::{MAX_HEADER_BYTES, Vtep};
use overlaynet_core::forward::{IpPrefix, Tables};
use overlaynet_core::wire::checksum::PseudoHeader;
use overlaynet_core::wire::ethernet::MacAddress;
use overlaynet_core::wire::vxlan::Vni;
use overlaynet_core::wire::{ipv4, protocol, tcp, udp};
use std::net::{Ipv4Addr, SocketAddr};

const HERE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 2);
const MTU: usize = 1450;

fn mac(last: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, last])
}

/// The host whose subnet is 10.1.`host`.0/24, with the other one as its peer.
fn node(host: u8) -> Engine<MemoryPort, MemoryPort> {
    let other = 1 - host;
    let subnet = |host: u8| IpPrefix::V4(format!("10.1.{host}.0/24").parse().unwrap());
    let mut tables = Tables::new(MTU);
    tables.set_encapsulation(Encapsulation::Vxlan(Vtep {
        vni: Vni::new(1).unwrap(),
        v4: mac(host),
        v6: mac(host),
    }));
    tables.add_local(subnet(host));
    tables.add_vtep(endpoint(other), mac(other), &[subnet(other)]);
    let shared = Arc::new(Shared::default());
    shared.exchange(tables);
    let batch = Batch::new(64, 4 << 20);
    Engine::new(MemoryPort::default(), MemoryPort::default(), batch, shared)
}

fn endpoint(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host + 1], 8472))
}

/// A TCP packet with a complete checksum, or a super-packet with one that is half done.
fn stream(payload: usize) -> Received {
    let inner = tcp::Repr {
        source_port: 1,
        destination_port: 2,
        sequence: 3,
        acknowledgement: 4,
        flags: tcp::Flags::ACK,
        window: 5,
        urgent: 0,
        options: ipv4::Options::NONE,
        payload_len: payload,
    };
    let ip = ipv4::Repr::new(HERE, THERE, protocol::TCP, inner.buffer_len());
    let mut bytes = vec![7; 40 + payload];
    ip.emit(&mut bytes[..20]);
    inner.emit(&mut bytes[20..], ip.pseudo_header());
    let mut vnet = VnetHeader::default();
    if bytes.len() > MTU {
        let sum = ip.pseudo_header().sum(protocol::TCP, inner.buffer_len()).fold();
        bytes[36..38].copy_from_slice(&sum.to_be_bytes());
        vnet = VnetHeader {
            needs_checksum: true,
            gso: Gso::TcpV4,
            // Of a packet that was forwarded it may be anything.
            header_len: 999,
            segment_bytes: 1400,
            checksum_start: 20,
            checksum_offset: 16,
            ..vnet
        };
    }
    Received {
        bytes,
        vnet,
        ..Received::default()
    }
}

fn datagram() -> Received {
    let inner = udp::Repr {
        source_port: 1,
        destination_port: 2,
        payload_len: 8,
    };
    let ip = ipv4::Repr::new(HERE, THERE, protocol::UDP, inner.buffer_len());
    let mut bytes = vec![7; 36];
    ip.emit(&mut bytes[..20]);
    inner.emit(&mut bytes[20..], Some(ip.pseudo_header()));
    Received {
        bytes,
        ..Received::default()
    }
}

fn checksum_is_right(packet: &[u8]) -> bool {
    let pseudo = PseudoHeader::V4 {
        source: HERE,
        destination: THERE,
    };
    pseudo.is_valid(protocol::TCP, &packet[20..])
}

#[test]
fn tcp_leaves_as_it_came_where_the_port_takes_it_and_all_else_as_before() {
    let mut one = node(0);
    one.udp.takes_whole = true;
    one.tun
        .inbox
        .extend([stream(3000), stream(10), datagram(), datagram()]);
    one.turn().unwrap();
    let sent = &one.udp.outbox;
    let told: Vec<_> = sent
        .iter()
        .map(|sent| (sent.message.whole, sent.message.packets, sent.message.inner))
        .collect();
    // Three packets on the wire, each with its headers; the datagrams share a send.
    assert_eq!(told, [(true, 3, 3120), (true, 1, 50), (false, 2, 72)]);
    assert_eq!(sent[0].bytes.len(), MAX_HEADER_BYTES + 3040);
    let vnet = sent[0].message.vnet;
    assert_eq!(
        (vnet.gso, vnet.segment_bytes, vnet.header_len),
        (Gso::TcpV4, 1400, 40)
    );
    assert_eq!(sent[1].message.vnet.gso, Gso::None);
    assert!(checksum_is_right(&sent[1].bytes[MAX_HEADER_BYTES..]));
    assert_eq!(one.shared.traffic().tx_packets.value(), 6);
    assert_eq!(one.shared.traffic().tx_bytes.value(), 3242);
}

#[test]
fn what_is_refused_in_one_piece_leaves_in_parts_and_in_order() {
    let mut one = node(0);
    one.udp.takes_whole = true;
    one.udp.refusal = Some(Box::new(|message| message.whole.then_some(libc::EIO)));
    one.tun.inbox.extend([stream(60_000), stream(10), datagram()]);
    one.turn().unwrap();
    let lengths: Vec<_> = one
        .udp
        .outbox
        .iter()
        .map(|sent| sent.bytes.len() - MAX_HEADER_BYTES)
        .collect();
    let mut expected = vec![1440; 42];
    expected.extend([1240, 50, 36]);
    assert_eq!(lengths, expected);
    let tcp = &one.udp.outbox[..44];
    assert!(
        tcp.iter()
            .all(|sent| checksum_is_right(&sent.bytes[MAX_HEADER_BYTES..]))
    );
    assert_eq!(one.shared.traffic().tx_packets.value(), 45);
    assert!(one.shared.drops().iter().all(|(_, count)| count == 0));
}

#[test]
fn super_packet_that_nobody_cut_is_delivered_as_one() {
    let (mut one, mut two) = (node(0), node(1));
    one.udp.takes_whole = true;
    one.tun.inbox.push_back(stream(30_000));
    one.turn().unwrap();
    let came = Received {
        bytes: one.udp.outbox[0].bytes.clone(),
        sender: Some(endpoint(0)),
        ..Received::default()
    };
    two.udp.inbox.push_back(came.clone());
    two.turn().unwrap();
    let delivered = &two.tun.outbox[0];
    assert_eq!(delivered.bytes, came.bytes[MAX_HEADER_BYTES..]);
    let vnet = delivered.message.vnet;
    assert_eq!(
        (vnet.gso, vnet.segment_bytes, vnet.needs_checksum),
        (Gso::TcpV4, 536, true)
    );

    // A TUN without super-packets gets its parts.
    two.shared.offloads().rule_out(Offload::Tso);
    two.udp.inbox.push_back(came);
    two.turn().unwrap();
    let parts = &two.tun.outbox[1..];
    assert_eq!(parts.len(), 56);
    assert!(
        parts
            .iter()
            .all(|part| part.bytes.len() <= 576 && checksum_is_right(&part.bytes))
    );
    let payload: usize = parts.iter().map(|part| part.bytes.len() - 40).sum();
    assert_eq!(payload, 30_000);
}

#[test]
fn long_packet_with_a_wrong_checksum_is_not_made_a_right_one() {
    let mut two = node(1);
    let mut bytes = two.shared.picture().tables.header(0).to_vec();
    bytes[8..14].copy_from_slice(&mac(1).0);
    bytes.extend(stream(30_000).bytes);
    bytes[MAX_HEADER_BYTES + 36] ^= 1;
    two.udp.inbox.push_back(Received {
        bytes: bytes.clone(),
        sender: Some(endpoint(0)),
        ..Received::default()
    });
    two.turn().unwrap();
    assert_eq!(two.tun.outbox[0].bytes, bytes[MAX_HEADER_BYTES..]);
    assert_eq!(two.tun.outbox[0].message.vnet, VnetHeader::default());
}

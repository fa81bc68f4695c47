use super::*;
use crate::port::MemoryPort;
use overlaynet_core::forward::IpPrefix;
use overlaynet_core::wire::ipv4;
use std::net::Ipv4Addr;

const HOSTS: [Ipv4Addr; 3] = [
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(192, 0, 2, 2),
    Ipv4Addr::new(192, 0, 2, 3),
];

fn endpoint(host: usize) -> SocketAddr {
    SocketAddr::new(HOSTS[host].into(), 8285)
}

fn subnet(host: usize) -> IpPrefix {
    IpPrefix::V4(format!("10.1.{host}.0/24").parse().unwrap())
}

fn pod(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, u8::try_from(host).unwrap(), 2)
}

fn tables(host: usize, peers: &[usize]) -> Tables {
    let mut tables = Tables::new(1472);
    tables.add_local(subnet(host));
    tables.set_address(IpAddr::V4(Ipv4Addr::new(10, 1, u8::try_from(host).unwrap(), 0)));
    for &peer in peers {
        tables.add_peer(endpoint(peer), &[subnet(peer)]);
    }
    tables
}

fn node(host: usize, peers: &[usize]) -> Engine<MemoryPort, MemoryPort> {
    let shared = Arc::new(Shared::default());
    shared.exchange(tables(host, peers));
    Engine::new(MemoryPort::default(), MemoryPort::default(), shared)
}

fn packet(from: usize, to: usize) -> Vec<u8> {
    let repr = ipv4::Repr::new(pod(from), pod(to), 17, 8);
    let mut bytes = vec![7; 28];
    repr.emit(&mut bytes[..20]);
    bytes
}

/// What `from` sent into its socket arrives at `to`.
fn carry(from: &mut Engine<MemoryPort, MemoryPort>, sender: usize, to: &mut Engine<MemoryPort, MemoryPort>) {
    for (datagram, _) in from.udp.outbox.drain(..) {
        to.udp.inbox.push_back((datagram, Some(endpoint(sender))));
    }
}

#[test]
fn a_packet_crosses_two_nodes() {
    let (mut one, mut two) = (node(0, &[1]), node(1, &[0]));
    one.tun.inbox.push_back((packet(0, 1), None));
    assert!(one.turn().unwrap());
    assert_eq!(one.udp.outbox[0].1, Some(endpoint(1)));
    carry(&mut one, 0, &mut two);
    assert!(two.turn().unwrap());
    assert_eq!(two.tun.outbox.len(), 1);
    assert_eq!(two.tun.outbox[0].0[20..], [7; 8]);
    assert_eq!(one.shared.traffic().tx_packets.value(), 1);
    let peers = two.shared.peers();
    assert_eq!(peers[&IpAddr::V4(HOSTS[0])].traffic.rx_bytes.value(), 28);
    assert!(!one.turn().unwrap());
}

#[test]
fn forged_packets_are_dropped_and_counted() {
    let mut two = node(1, &[0]);
    two.udp.inbox.push_back((packet(0, 1), Some(endpoint(2))));
    two.udp.inbox.push_back((packet(2, 1), Some(endpoint(0))));
    two.udp.inbox.push_back((packet(0, 2), Some(endpoint(0))));
    two.udp.inbox.push_back((vec![0; 3], Some(endpoint(0))));
    two.turn().unwrap();
    assert!(two.tun.outbox.is_empty());
    let dropped: Vec<_> = two
        .shared
        .drops()
        .iter()
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_eq!(
        dropped,
        [
            (DropReason::Malformed, 1),
            (DropReason::UnknownPeer, 1),
            (DropReason::ForeignSource, 1),
            (DropReason::ForeignDestination, 1)
        ]
    );
    let of_peer: u64 = two.shared.peers()[&IpAddr::V4(HOSTS[0])]
        .drops
        .iter()
        .map(|(_, count)| count)
        .sum();
    assert_eq!(of_peer, 3);
}

#[test]
fn a_packet_to_nobody_is_answered_into_the_tun() {
    let mut one = node(0, &[1]);
    one.tun.inbox.push_back((packet(0, 2), None));
    one.turn().unwrap();
    assert!(one.udp.outbox.is_empty());
    assert_eq!(one.tun.outbox[0].0[20], 3);
}

#[test]
fn order_is_kept_and_a_refused_packet_is_counted() {
    let mut one = node(0, &[1, 2]);
    for at in 0..200_u8 {
        let mut bytes = packet(0, 1 + usize::from(at % 2));
        bytes[27] = at;
        one.tun.inbox.push_back((bytes, None));
    }
    while one.turn().unwrap() {}
    let order: Vec<u8> = one.udp.outbox.iter().map(|(bytes, _)| bytes[27]).collect();
    assert_eq!(order, (0..200).collect::<Vec<u8>>());
    one.udp.refuses = true;
    one.tun.inbox.push_back((packet(0, 1), None));
    one.turn().unwrap();
    assert!(
        one.shared
            .drops()
            .iter()
            .any(|entry| entry == (DropReason::SendFailed, 1))
    );
}

#[test]
fn counters_of_a_peer_that_stays_survive_an_exchange() {
    let mut one = node(0, &[1, 2]);
    one.tun.inbox.push_back((packet(0, 1), None));
    one.turn().unwrap();
    one.shared.exchange(tables(0, &[1]));
    let peers = one.shared.peers();
    assert_eq!(peers.len(), 1);
    assert_eq!(peers[&IpAddr::V4(HOSTS[1])].traffic.tx_packets.value(), 1);
}

use super::*;
use crate::memory::{MemoryPort, Received};
use crate::offload::OffloadState;
use overlaynet_core::forward::{IpPrefix, Tables};
use overlaynet_core::wire::checksum::PseudoHeader;
use overlaynet_core::wire::{ipv4, tcp, udp};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

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
    Engine::new(
        MemoryPort::default(),
        MemoryPort::default(),
        Batch::new(64, 4 << 20),
        shared,
    )
}

fn received(bytes: Vec<u8>) -> Received {
    Received {
        bytes,
        ..Received::default()
    }
}

fn from_host(bytes: Vec<u8>, host: usize) -> Received {
    Received {
        sender: Some(endpoint(host)),
        ..received(bytes)
    }
}

fn packet(from: usize, to: usize) -> Vec<u8> {
    let repr = ipv4::Repr::new(pod(from), pod(to), 17, 8);
    let mut bytes = vec![7; 28];
    repr.emit(&mut bytes[..20]);
    bytes
}

/// What `from` sent into its socket arrives at `to`.
fn carry(from: &mut Engine<MemoryPort, MemoryPort>, sender: usize, to: &mut Engine<MemoryPort, MemoryPort>) {
    for sent in from.udp.outbox.drain(..) {
        to.udp.inbox.push_back(Received {
            segment: if sent.message.packets > 1 {
                sent.message.segment
            } else {
                0
            },
            ..from_host(sent.bytes, sender)
        });
    }
}

#[test]
fn a_packet_crosses_two_nodes() {
    let (mut one, mut two) = (node(0, &[1]), node(1, &[0]));
    one.tun.inbox.push_back(received(packet(0, 1)));
    assert!(one.turn().unwrap());
    assert_eq!(one.udp.outbox[0].message.endpoint, Some(endpoint(1)));
    carry(&mut one, 0, &mut two);
    assert!(two.turn().unwrap());
    assert_eq!(two.tun.outbox.len(), 1);
    assert_eq!(two.tun.outbox[0].bytes[20..], [7; 8]);
    assert_eq!(one.shared.traffic().tx_packets.value(), 1);
    let peers = two.shared.peers();
    assert_eq!(peers[&IpAddr::V4(HOSTS[0])].traffic.rx_bytes.value(), 28);
    assert!(!one.turn().unwrap());
}

#[test]
fn forged_packets_are_dropped_and_counted() {
    let mut two = node(1, &[0]);
    two.udp.inbox.push_back(from_host(packet(0, 1), 2));
    two.udp.inbox.push_back(from_host(packet(2, 1), 0));
    two.udp.inbox.push_back(from_host(packet(0, 2), 0));
    two.udp.inbox.push_back(from_host(vec![0; 3], 0));
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
    one.tun.inbox.push_back(received(packet(0, 2)));
    one.turn().unwrap();
    assert!(one.udp.outbox.is_empty());
    assert_eq!(one.tun.outbox[0].bytes[20], 3);
}

#[test]
fn packets_of_a_peer_keep_their_order_and_share_sends() {
    let mut one = node(0, &[1, 2]);
    for at in 0..200_u8 {
        let mut bytes = packet(0, 1 + usize::from(at % 2));
        bytes[27] = at;
        one.tun.inbox.push_back(received(bytes));
    }
    while one.turn().unwrap() {}
    for host in [1, 2] {
        let sends = one
            .udp
            .outbox
            .iter()
            .filter(|sent| sent.message.endpoint == Some(endpoint(host)));
        let order: Vec<u8> = sends
            .flat_map(|sent| sent.datagrams())
            .map(|bytes| bytes[27])
            .collect();
        let first = u8::try_from(host - 1).unwrap();
        assert_eq!(order, (first..200).step_by(2).collect::<Vec<u8>>());
    }
    assert_eq!(one.udp.outbox.len(), 2);
    assert_eq!(one.shared.traffic().tx_packets.value(), 200);
}

/// A TCP packet of `payload` bytes, or the super-packet of such packets.
fn tcp_packet(from: usize, to: usize, payload: usize, segment: Option<usize>) -> Received {
    let repr = tcp::Repr {
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
    let ip = ipv4::Repr::new(pod(from), pod(to), 6, repr.buffer_len());
    let mut bytes: Vec<u8> = (0..40 + payload).map(|at| (at % 251) as u8).collect();
    ip.emit(&mut bytes[..20]);
    repr.emit(&mut bytes[20..], ip.pseudo_header());
    let Some(segment) = segment else {
        return received(bytes);
    };
    let sum = ip.pseudo_header().sum(6, repr.buffer_len()).fold();
    bytes[36..38].copy_from_slice(&sum.to_be_bytes());
    let vnet = VnetHeader {
        needs_checksum: true,
        gso: Gso::TcpV4,
        header_len: 40,
        segment_bytes: u16::try_from(segment).unwrap(),
        checksum_start: 20,
        checksum_offset: 16,
        ..VnetHeader::default()
    };
    Received {
        vnet,
        ..received(bytes)
    }
}

/// Every packet is a whole one with good checksums; the bytes of TCP in order.
fn stream(packets: &[Vec<u8>]) -> Vec<u8> {
    let payload = |bytes: &Vec<u8>| {
        let ip = ipv4::Packet::new_checked(&bytes[..]).unwrap();
        assert!(ip.checksum_ok());
        let segment = tcp::Packet::new_checked(ip.payload()).unwrap();
        assert!(segment.checksum_ok(ip.pseudo_header()));
        segment.payload().to_vec()
    };
    packets.iter().flat_map(payload).collect()
}

#[test]
fn a_super_packet_crosses_as_one_send_and_one_delivery() {
    let (mut one, mut two) = (node(0, &[1]), node(1, &[0]));
    let big = tcp_packet(0, 1, 60_000, Some(1400));
    one.tun.inbox.push_back(big.clone());
    one.turn().unwrap();
    assert_eq!(one.udp.outbox.len(), 1);
    assert_eq!(stream(&one.udp.outbox[0].datagrams()), &big.bytes[40..]);
    assert_eq!(one.shared.traffic().tx_packets.value(), 43);
    carry(&mut one, 0, &mut two);
    two.turn().unwrap();
    assert_eq!(two.tun.outbox.len(), 1);
    let arrived = &two.tun.outbox[0];
    assert_eq!(arrived.message.vnet, big.vnet);
    assert_eq!(arrived.bytes[40..], big.bytes[40..]);
    assert_eq!(two.shared.traffic().rx_packets.value(), 43);
    assert_eq!(
        two.shared.traffic().rx_bytes.value(),
        one.shared.traffic().tx_bytes.value()
    );
}

#[test]
fn a_wrong_inner_checksum_arrives_as_wrong_as_it_was() {
    let (mut one, mut two) = (node(0, &[1]), node(1, &[0]));
    one.tun.inbox.push_back(tcp_packet(0, 1, 7_000, Some(1400)));
    one.turn().unwrap();
    one.udp.outbox[0].bytes[1440 * 2 + 100] ^= 1;
    carry(&mut one, 0, &mut two);
    two.turn().unwrap();
    let arrived: Vec<_> = two
        .tun
        .outbox
        .iter()
        .map(|sent| (sent.message.packets, sent.message.vnet.gso))
        .collect();
    assert_eq!(arrived, [(2, Gso::TcpV4), (1, Gso::None), (2, Gso::TcpV4)]);
    let harmed = ipv4::Packet::new_checked(&two.tun.outbox[1].bytes[..]).unwrap();
    assert!(
        !tcp::Packet::new_checked(harmed.payload())
            .unwrap()
            .checksum_ok(harmed.pseudo_header())
    );
    assert!(!two.tun.outbox[1].message.vnet.checksum_known);
}

/// Refuses sends of more than `most` packets.
fn refuses(most: usize, error: i32) -> crate::memory::Refusal {
    Box::new(move |message| (message.packets > most).then_some(error))
}

#[test]
fn sends_that_the_kernel_refuses_go_one_by_one_and_nothing_is_lost() {
    for (error, after) in [
        (libc::EIO, OffloadState::GivenUp(libc::EIO)),
        (libc::EINVAL, OffloadState::GivenUp(libc::EINVAL)),
        (libc::EMSGSIZE, OffloadState::On),
    ] {
        let mut one = node(0, &[1]);
        one.udp.refusal = Some(refuses(1, error));
        let mut expected = vec![];
        for _ in 0..3 {
            let big = tcp_packet(0, 1, 10_000, Some(1400));
            expected.extend_from_slice(&big.bytes[40..]);
            one.tun.inbox.push_back(big);
            one.turn().unwrap();
        }
        let packets: Vec<_> = one.udp.outbox.iter().map(|sent| sent.bytes.clone()).collect();
        assert_eq!(stream(&packets), expected);
        assert_eq!(one.shared.offloads().state(Offload::Gso), after);
        assert!(one.shared.drops().iter().all(|(_, count)| count == 0));
        assert_eq!(one.shared.traffic().tx_packets.value(), 24);
    }
}

#[test]
fn a_path_that_is_too_narrow_is_learned_told_and_forgotten() {
    let mut one = node(0, &[1]);
    one.udp.refusal = Some(refuses(1, libc::EMSGSIZE));
    one.udp.path_payload = Some(1372);
    let mut big = tcp_packet(0, 1, 10_000, Some(1400));
    // It must not be fragmented.
    big.bytes[6] = 0x40;
    big.bytes[10..12].fill(0);
    let sum = overlaynet_core::wire::checksum::checksum(&big.bytes[..20]);
    big.bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    one.tun.inbox.push_back(big.clone());
    one.turn().unwrap();
    assert_eq!(one.udp.outbox.len(), 8);

    one.tun.inbox.push_back(big.clone());
    one.turn().unwrap();
    assert_eq!(one.udp.outbox.len(), 8);
    let told = &one.tun.outbox[0].bytes;
    assert_eq!(
        (told[20], told[21], &told[26..28]),
        (3, 4, &1372_u16.to_be_bytes()[..])
    );
    assert!(
        one.shared
            .drops()
            .iter()
            .any(|entry| entry == (DropReason::TooBig, 1))
    );

    let peers = one.shared.peers();
    peers[&IpAddr::V4(HOSTS[1])].path_mtu.learn(1372, 0);
    one.tun.inbox.push_back(big);
    one.turn().unwrap();
    assert_eq!(one.udp.outbox.len(), 16);
}

#[test]
fn answers_are_limited_and_the_limit_passes() {
    let mut answers = Answers::new();
    let begun = Instant::now();
    let many = |answers: &mut Answers, now| (0..500).filter(|_| answers.may_answer(now)).count();
    assert_eq!(many(&mut answers, begun), 50);
    assert_eq!(many(&mut answers, begun + Duration::from_millis(20)), 20);
    assert_eq!(many(&mut answers, begun + Duration::from_secs(60)), 50);

    let mut one = node(0, &[1]);
    for _ in 0..300 {
        one.tun.inbox.push_back(received(packet(0, 2)));
    }
    let begun = Instant::now();
    while one.turn().unwrap() {}
    let most = 50 + usize::try_from(begun.elapsed().as_millis()).unwrap() + 1;
    assert!((50..=most).contains(&one.tun.outbox.len()));
    assert!(
        one.shared
            .drops()
            .iter()
            .any(|entry| entry == (DropReason::NoPeer, 300))
    );
}

#[test]
fn vxlan_crosses_two_nodes_in_lanes() {
    use overlaynet_core::encapsulation::Vtep;
    use overlaynet_core::wire::ethernet::MacAddress;
    use overlaynet_core::wire::vxlan::Vni;
    let mac = |host: usize| MacAddress([2, 0, 0, 0, 0, u8::try_from(host).unwrap()]);
    let vtep_node = |host: usize, peer: usize| {
        let engine = node(host, &[]);
        let mut tables = tables(host, &[]);
        tables.set_encapsulation(Encapsulation::Vxlan(Vtep {
            vni: Vni::new(1).unwrap(),
            v4: mac(host),
            v6: mac(host),
        }));
        tables.add_vtep(endpoint(peer), mac(peer), &[subnet(peer)]);
        engine.shared.exchange(tables);
        engine
    };
    let (mut one, mut two) = (vtep_node(0, 1), vtep_node(1, 0));
    let big = tcp_packet(0, 1, 60_000, Some(1400));
    one.tun.inbox.push_back(received(packet(0, 1)));
    one.tun.inbox.push_back(big.clone());
    one.turn().unwrap();
    assert!(one.udp.outbox.iter().all(|sent| sent.message.lane < LANES));
    for sent in &one.udp.outbox {
        for datagram in sent.datagrams() {
            assert_eq!(datagram[..22], *one.shared.picture().tables.header(0));
        }
    }
    assert_eq!(one.shared.traffic().tx_bytes.value(), 28 + 60_000 + 43 * 40);
    carry(&mut one, 0, &mut two);
    two.turn().unwrap();
    let mut arrived: Vec<_> = two.tun.outbox.iter().map(|sent| sent.bytes.clone()).collect();
    arrived.sort_by_key(Vec::len);
    assert_eq!(arrived[0][20..], [7; 8]);
    assert_eq!(arrived[1][40..], big.bytes[40..]);
}

#[test]
fn a_kernel_that_takes_fewer_segments_gets_fewer() {
    let mut one = node(0, &[1]);
    one.udp.refusal = Some(refuses(64, libc::EINVAL));
    for turn in 0..2 {
        for _ in 0..128 {
            one.tun.inbox.push_back(received(packet(0, 1)));
        }
        one.turn().unwrap();
        let packets: Vec<_> = one
            .udp
            .outbox
            .drain(..)
            .map(|sent| sent.message.packets)
            .collect();
        assert_eq!(packets.iter().sum::<usize>(), 128);
        if turn == 1 {
            assert_eq!(packets, [63, 63, 2]);
        }
    }
    assert_eq!(one.shared.offloads().state(Offload::Gso), OffloadState::On);
}

#[test]
fn a_delivery_that_the_kernel_refuses_goes_packet_by_packet() {
    let (mut one, mut two) = (node(0, &[1]), node(1, &[0]));
    two.tun.refusal = Some(refuses(1, libc::EINVAL));
    let big = tcp_packet(0, 1, 10_000, Some(1400));
    for _ in 0..2 {
        one.tun.inbox.push_back(big.clone());
        one.turn().unwrap();
        carry(&mut one, 0, &mut two);
        two.turn().unwrap();
        let packets: Vec<_> = two.tun.outbox.drain(..).map(|sent| sent.bytes).collect();
        assert_eq!(stream(&packets), &big.bytes[40..]);
    }
    assert_eq!(
        two.shared.offloads().state(Offload::Tso),
        OffloadState::GivenUp(libc::EINVAL)
    );
    assert_eq!(two.shared.traffic().rx_packets.value(), 16);
}

#[test]
fn what_the_kernel_does_not_take_at_all_is_counted() {
    let mut one = node(0, &[1]);
    one.udp.refusal = Some(refuses(0, libc::ENETUNREACH));
    one.tun.inbox.push_back(tcp_packet(0, 1, 10_000, Some(1400)));
    one.turn().unwrap();
    assert!(
        one.shared
            .drops()
            .iter()
            .any(|entry| entry == (DropReason::SendFailed, 8))
    );
    assert_eq!(one.shared.offloads().state(Offload::Gso), OffloadState::On);
}

/// Puts 200 datagrams of one flow into the TUN, each filled with its number.
fn flow_of_datagrams(one: &mut Engine<MemoryPort, MemoryPort>) {
    for at in 0..200_u8 {
        let repr = udp::Repr {
            source_port: 1,
            destination_port: 2,
            payload_len: 100,
        };
        let mut ip = ipv4::Repr::new(pod(0), pod(1), 17, 108);
        ip.identification = u16::from(at);
        let mut bytes = vec![at; 128];
        ip.emit(&mut bytes[..20]);
        let pseudo: PseudoHeader = ip.pseudo_header();
        repr.emit(&mut bytes[20..], Some(pseudo));
        one.tun.inbox.push_back(received(bytes));
    }
}

#[test]
fn datagrams_inside_keep_their_borders() {
    let (mut one, mut two) = (node(0, &[1]), node(1, &[0]));
    flow_of_datagrams(&mut one);
    one.turn().unwrap();
    carry(&mut one, 0, &mut two);
    two.turn().unwrap();
    assert_eq!(two.tun.outbox.len(), 2);
    for (arrived, first, packets) in [(&two.tun.outbox[0], 0, 127), (&two.tun.outbox[1], 127, 73)] {
        assert_eq!(
            (arrived.message.vnet.gso, arrived.message.vnet.segment_bytes),
            (Gso::Udp, 100)
        );
        let order: Vec<u8> = arrived.bytes[28..]
            .chunks(100)
            .map(|datagram| datagram[0])
            .collect();
        assert_eq!(order, (first..first + packets).collect::<Vec<u8>>());
    }
}

#[test]
fn a_kernel_that_takes_fewer_datagrams_at_once_gets_fewer_and_loses_none() {
    let (mut one, mut two) = (node(0, &[1]), node(1, &[0]));
    two.tun.refusal = Some(refuses(64, libc::EINVAL));
    for turn in 0..2 {
        flow_of_datagrams(&mut one);
        one.turn().unwrap();
        carry(&mut one, 0, &mut two);
        two.turn().unwrap();
        assert_eq!(
            two.shared.offloads().state(Offload::Uso),
            OffloadState::On,
            "{turn}"
        );
        assert_eq!(two.shared.traffic().rx_packets.value(), 200 * (turn + 1));
    }
    let longest = two.tun.outbox.iter().map(|sent| sent.message.packets).max();
    assert_eq!(longest, Some(63));
    let order: Vec<u8> = two
        .tun
        .outbox
        .iter()
        .flat_map(|sent| {
            sent.bytes[28..]
                .chunks(100)
                .map(|datagram| datagram[0])
                .collect::<Vec<u8>>()
        })
        .collect();
    assert_eq!(
        order,
        [(0..200).collect::<Vec<u8>>(), (0..200).collect()].concat()
    );
}

#[test]
fn a_super_packet_in_small_segments_takes_several_sends_and_loses_nothing() {
    let mut one = node(0, &[1]);
    let big = tcp_packet(0, 1, 65_000, Some(20));
    one.tun.inbox.push_back(big.clone());
    one.turn().unwrap();
    let packets: Vec<_> = one.udp.outbox.iter().flat_map(|sent| sent.datagrams()).collect();
    assert_eq!(packets.len(), 3250);
    assert_eq!(stream(&packets), &big.bytes[40..]);
}

#[test]
fn super_packets_of_one_turn_fill_every_send_but_the_last() {
    let mut one = node(0, &[1]);
    let big = tcp_packet(0, 1, 45 * 1432, Some(1432));
    one.tun.inbox.extend([big.clone(), big.clone(), big]);
    one.turn().unwrap();
    let sends: Vec<_> = one.udp.outbox.iter().map(|sent| sent.message.packets).collect();
    assert_eq!(sends, [44, 44, 44, 3]);
}

#[test]
fn packets_as_long_as_can_be_go_one_by_one() {
    let mut one = node(0, &[1]);
    let mut tables = Tables::new(65_535);
    tables.add_peer(endpoint(1), &[subnet(1)]);
    one.shared.exchange(tables);
    let long = tcp_packet(0, 1, 65_495, None);
    one.tun
        .inbox
        .extend([received(packet(0, 1)), long.clone(), long.clone(), long]);
    for _ in 0..4 {
        one.turn().unwrap();
    }
    let sent: Vec<_> = one.udp.outbox.iter().map(|sent| sent.bytes.len()).collect();
    assert_eq!(sent, [28, 65_535, 65_535, 65_535]);
}

#[test]
fn counters_of_a_peer_that_stays_survive_an_exchange() {
    let mut one = node(0, &[1, 2]);
    one.tun.inbox.push_back(received(packet(0, 1)));
    one.turn().unwrap();
    one.shared.exchange(tables(0, &[1]));
    let peers = one.shared.peers();
    assert_eq!(peers.len(), 1);
    assert_eq!(peers[&IpAddr::V4(HOSTS[1])].traffic.tx_packets.value(), 1);
}

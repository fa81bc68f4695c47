use super::*;
use proptest::prelude::*;
use std::vec;

const OWN: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 0);
const POD: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 2);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 2);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

fn v4(text: &str) -> IpPrefix {
    IpPrefix::V4(text.parse().unwrap())
}

fn v6(text: &str) -> IpPrefix {
    IpPrefix::V6(text.parse().unwrap())
}

fn tables() -> Tables {
    let mut tables = Tables::new(1400);
    tables.add_local(v4("10.1.1.0/24"));
    tables.add_local(v6("fd00:1::/64"));
    tables.set_address(OWN.into());
    tables.set_address("fd00:1::".parse().unwrap());
    tables.add_peer(
        SocketAddr::new(PEER.into(), 8285),
        &[v4("10.1.2.0/24"), v6("fd00:2::/64")],
    );
    tables.add_peer(SocketAddr::new(OTHER.into(), 8285), &[v4("10.1.3.0/24")]);
    tables
}

fn packet_v4(source: Ipv4Addr, destination: Ipv4Addr, payload: usize) -> Vec<u8> {
    let mut repr = ipv4::Repr::new(source, destination, 17, payload);
    repr.ttl = 5;
    repr.dont_fragment = true;
    let mut bytes = vec![0xab; repr.buffer_len() + payload];
    repr.emit(&mut bytes[..20]);
    bytes
}

fn packet_v6(source: &str, destination: &str, payload: usize) -> Vec<u8> {
    let mut repr = ipv6::Repr::new(source.parse().unwrap(), destination.parse().unwrap(), 17, payload);
    repr.hop_limit = 5;
    let mut bytes = vec![0xab; 40 + payload];
    repr.emit(&mut bytes[..40]);
    bytes
}

fn leave(tables: &Tables, packet: &mut [u8], reply: &mut [u8]) -> Outgoing {
    let len = packet.len();
    tables.outgoing(packet, len, &|_| None, reply)
}

#[derive(Debug, PartialEq)]
enum Incoming {
    Deliver(PeerIndex, usize),
    Stranger(usize),
    Drop(Option<PeerIndex>, DropReason),
}

fn arrive(tables: &Tables, sender: IpAddr, packet: &[u8]) -> Incoming {
    let peer = tables.peer_at(sender);
    match tables.incoming(peer, packet) {
        Ok((len, Some(owner))) => Incoming::Deliver(owner, len),
        Ok((len, None)) => Incoming::Stranger(len),
        Err(reason) => Incoming::Drop(peer, reason),
    }
}

#[test]
fn packet_to_a_peer_goes_on_with_one_hop_less() {
    let mut bytes = packet_v4(POD, FAR, 8);
    let verdict = leave(&tables(), &mut bytes, &mut [0; 1280]);
    assert_eq!(verdict, Outgoing::Encapsulate(PeerIndex(0)));
    let packet = ipv4::Packet::new_checked(&bytes[..]).unwrap();
    assert_eq!(packet.ttl(), 4);
    assert!(packet.checksum_ok());

    let mut bytes = packet_v6("fd00:1::2", "fd00:2::2", 8);
    let verdict = leave(&tables(), &mut bytes, &mut [0; 1280]);
    assert_eq!(verdict, Outgoing::Encapsulate(PeerIndex(0)));
    assert_eq!(bytes[7], 4);
}

#[test]
fn packet_to_nobody_is_answered_and_quotes_itself() {
    let mut bytes = packet_v4(POD, Ipv4Addr::new(10, 1, 9, 9), 4000);
    let mut reply = [0; 1280];
    let Outgoing::Reply(len, DropReason::NoPeer) = leave(&tables(), &mut bytes, &mut reply) else {
        panic!("not answered");
    };
    assert_eq!(len, ICMP_ERROR_BYTES);
    let ip = ipv4::Packet::new_checked(&reply[..len]).unwrap();
    assert!(ip.checksum_ok());
    assert_eq!((ip.source(), ip.destination()), (OWN, POD));
    let error = icmp::Packet::new_checked(ip.payload()).unwrap();
    assert!(error.checksum_ok());
    assert_eq!((error.kind(), error.code()), (3, 0));
    assert_eq!(error.payload(), &bytes[..548]);
}

#[test]
fn short_packet_is_quoted_whole_and_nothing_more() {
    let mut bytes = packet_v4(POD, Ipv4Addr::new(10, 1, 9, 9), 3);
    let mut reply = [0xee; 1280];
    let Outgoing::Reply(len, _) = leave(&tables(), &mut bytes, &mut reply) else {
        panic!("not answered");
    };
    assert_eq!(len, 20 + 8 + 23);
    assert_eq!(&reply[28..len], &bytes[..]);
}

#[test]
fn used_up_ttl_and_long_packets_are_answered() {
    let mut bytes = packet_v4(POD, FAR, 8);
    ipv4::Packet::new_checked(&mut bytes[..]).unwrap().set_ttl(1);
    let mut reply = [0; 1280];
    assert!(matches!(
        leave(&tables(), &mut bytes, &mut reply),
        Outgoing::Reply(_, DropReason::TtlExceeded)
    ));
    assert_eq!(reply[20], 11);

    let mut bytes = packet_v4(POD, FAR, 1390);
    assert!(matches!(
        leave(&tables(), &mut bytes, &mut reply),
        Outgoing::Reply(_, DropReason::TooBig)
    ));
    assert_eq!(
        (reply[20], reply[21], &reply[26..28]),
        (3, 4, &1400_u16.to_be_bytes()[..])
    );

    let mut bytes = packet_v6("fd00:1::2", "fd00:2::2", 1390);
    let Outgoing::Reply(len, DropReason::TooBig) = leave(&tables(), &mut bytes, &mut reply) else {
        panic!("not answered");
    };
    let ip = ipv6::Packet::new_checked(&reply[..len]).unwrap();
    let error = icmpv6::Packet::new_checked(ip.payload()).unwrap();
    assert!(error.checksum_ok(ip.pseudo_header()));
    assert_eq!((error.kind(), error.rest()), (2, 1400_u32.to_be_bytes()));
    assert_eq!(len, ICMPV6_ERROR_BYTES);
}

#[test]
fn a_super_packet_is_as_long_as_its_longest_part() {
    let mut bytes = packet_v4(POD, FAR, 4000);
    let (tables, mut reply) = (tables(), [0; 1280]);
    let verdict = tables.outgoing(&mut bytes, 1400, &|_| None, &mut reply);
    assert_eq!(verdict, Outgoing::Encapsulate(PeerIndex(0)));
    let verdict = tables.outgoing(&mut bytes, 1401, &|_| None, &mut reply);
    assert!(matches!(verdict, Outgoing::Reply(_, DropReason::TooBig)));
}

#[test]
fn errors_and_later_fragments_are_never_answered() {
    let nowhere = Ipv4Addr::new(10, 1, 9, 9);
    let mut about_error = packet_v4(POD, nowhere, 8);
    about_error[20] = 3;
    let mut repr = ipv4::Repr::new(POD, nowhere, 1, 8);
    repr.emit(&mut about_error[..20]);
    let mut fragment = packet_v4(POD, nowhere, 8);
    repr = ipv4::Repr::new(POD, nowhere, 17, 8);
    repr.fragment_offset = 64;
    repr.emit(&mut fragment[..20]);
    let mut from_many = packet_v4(Ipv4Addr::new(224, 0, 0, 1), nowhere, 8);
    for bytes in [&mut about_error, &mut fragment, &mut from_many] {
        assert_eq!(
            leave(&tables(), bytes, &mut [0; 1280]),
            Outgoing::Drop(DropReason::NoPeer)
        );
    }
}

#[test]
fn only_a_peer_may_send_and_only_from_its_subnet_to_ours() {
    let tables = tables();
    let good = packet_v4(FAR, POD, 8);
    assert_eq!(
        arrive(&tables, PEER.into(), &good),
        Incoming::Deliver(PeerIndex(0), 28)
    );
    let mapped: IpAddr = PEER.to_ipv6_mapped().into();
    assert_eq!(
        arrive(&tables, mapped, &good),
        Incoming::Deliver(PeerIndex(0), 28)
    );
    let stranger = Ipv4Addr::new(192, 0, 2, 99);
    assert_eq!(
        arrive(&tables, stranger.into(), &good),
        Incoming::Drop(None, DropReason::UnknownPeer)
    );
    let peer = Some(PeerIndex(1));
    assert_eq!(
        arrive(&tables, OTHER.into(), &good),
        Incoming::Drop(peer, DropReason::ForeignSource)
    );
    let own_source = packet_v4(POD, POD, 8);
    assert_eq!(
        arrive(&tables, OTHER.into(), &own_source),
        Incoming::Drop(peer, DropReason::ForeignSource)
    );
    let peer = Some(PeerIndex(0));
    let astray = packet_v4(FAR, Ipv4Addr::new(10, 1, 3, 1), 8);
    assert_eq!(
        arrive(&tables, PEER.into(), &astray),
        Incoming::Drop(peer, DropReason::ForeignDestination)
    );
    let good = packet_v6("fd00:2::2", "fd00:1::2", 8);
    assert_eq!(
        arrive(&tables, PEER.into(), &good),
        Incoming::Deliver(PeerIndex(0), 48)
    );
}

#[test]
fn a_peer_behind_translation_is_known_by_its_packets_and_nobody_by_nothing() {
    let stranger: IpAddr = Ipv4Addr::new(192, 0, 2, 99).into();
    let good = packet_v4(FAR, POD, 8);
    let forged = packet_v4(Ipv4Addr::new(10, 1, 77, 1), POD, 8);
    let astray = packet_v4(FAR, Ipv4Addr::new(10, 1, 3, 1), 8);
    let mut tables = tables();
    tables.set_source_check(SourceCheck::Inner);
    assert_eq!(
        arrive(&tables, stranger, &good),
        Incoming::Deliver(PeerIndex(0), 28)
    );
    assert_eq!(
        arrive(&tables, OTHER.into(), &good),
        Incoming::Deliver(PeerIndex(0), 28)
    );
    assert_eq!(
        arrive(&tables, stranger, &forged),
        Incoming::Drop(None, DropReason::ForeignSource)
    );
    assert_eq!(
        arrive(&tables, stranger, &astray),
        Incoming::Drop(None, DropReason::ForeignDestination)
    );
    tables.set_source_check(SourceCheck::Off);
    assert_eq!(arrive(&tables, stranger, &forged), Incoming::Stranger(28));
    assert_eq!(
        arrive(&tables, PEER.into(), &forged),
        Incoming::Deliver(PeerIndex(0), 28)
    );
    assert_eq!(
        arrive(&tables, stranger, &astray),
        Incoming::Drop(None, DropReason::ForeignDestination)
    );
}

#[test]
fn a_smaller_path_is_told_but_never_below_what_every_host_takes() {
    let (tables, mut reply) = (tables(), [0; 1280]);
    for (path, told) in [(1300, 1300_u16), (100, 576)] {
        let mut bytes = packet_v4(POD, FAR, 1370);
        let verdict = tables.outgoing(&mut bytes, 1390, &|_| Some(path), &mut reply);
        assert!(matches!(verdict, Outgoing::Reply(_, DropReason::TooBig)));
        assert_eq!(
            (reply[20], reply[21], &reply[26..28]),
            (3, 4, &told.to_be_bytes()[..])
        );
    }
    for (path, told) in [(1300, 1300_u32), (100, 1280)] {
        let mut bytes = packet_v6("fd00:1::2", "fd00:2::2", 1350);
        let verdict = tables.outgoing(&mut bytes, 1390, &|_| Some(path), &mut reply);
        assert!(matches!(verdict, Outgoing::Reply(_, DropReason::TooBig)));
        assert_eq!((reply[40], &reply[44..48]), (2, &told.to_be_bytes()[..]));
    }
    let mut bytes = packet_v4(POD, FAR, 1370);
    let mut repr = ipv4::Repr::new(POD, FAR, 17, 1370);
    repr.dont_fragment = false;
    repr.emit(&mut bytes[..20]);
    let verdict = tables.outgoing(&mut bytes, 1390, &|_| Some(1300), &mut reply);
    assert_eq!(verdict, Outgoing::Encapsulate(PeerIndex(0)));
}

#[test]
fn bytes_behind_the_packet_are_not_delivered() {
    let mut bytes = packet_v4(FAR, POD, 8);
    bytes.extend([1, 2, 3]);
    assert_eq!(
        arrive(&tables(), PEER.into(), &bytes),
        Incoming::Deliver(PeerIndex(0), 28)
    );
}

#[test]
fn damaged_headers_are_dropped() {
    let tables = tables();
    let peer = Some(PeerIndex(0));
    let mut bytes = packet_v4(FAR, POD, 8);
    bytes[10] ^= 1;
    assert_eq!(
        arrive(&tables, PEER.into(), &bytes),
        Incoming::Drop(peer, DropReason::BadChecksum)
    );
    assert_eq!(
        leave(&tables, &mut bytes, &mut [0; 1280]),
        Outgoing::Drop(DropReason::BadChecksum)
    );
    for short in [&[][..], &[0x45], &[0x60; 39], &[0x15; 40]] {
        assert_eq!(
            arrive(&tables, PEER.into(), short),
            Incoming::Drop(peer, DropReason::Malformed)
        );
        assert_eq!(
            leave(&tables, &mut short.to_vec(), &mut [0; 1280]),
            Outgoing::Drop(DropReason::Malformed)
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_get_a_verdict(mut bytes in prop::collection::vec(any::<u8>(), 0..200), first in prop::sample::select(vec![0x45_u8, 0x60, 0x4f])) {
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        let tables = tables();
        let _ = arrive(&tables, PEER.into(), &bytes);
        let mut reply = [0; 1280];
        if let Outgoing::Reply(len, _) = leave(&tables, &mut bytes, &mut reply) {
            prop_assert!(len <= ICMPV6_ERROR_BYTES);
        }
    }
}

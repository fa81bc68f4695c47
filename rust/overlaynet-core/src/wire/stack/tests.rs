use core::net::{Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;
use std::string::ToString;
use std::vec::Vec;

use super::super::Reason;
use super::*;

fn frame(ether_type: u16) -> Header<'static> {
    let (destination, source) = (
        ethernet::MacAddress([2, 0, 0, 0, 0, 1]),
        ethernet::MacAddress([2, 0, 0, 0, 0, 2]),
    );
    Header::Ethernet(ethernet::Repr {
        destination,
        source,
        ether_type,
    })
}

fn ipv4(protocol: u8) -> Header<'static> {
    Header::Ipv4(ipv4::Repr::new(
        Ipv4Addr::new(10, 1, 1, 2),
        Ipv4Addr::new(10, 1, 2, 3),
        protocol,
        0,
    ))
}

fn ipv6(next_header: u8, extensions: &[u8]) -> Header<'_> {
    let addresses = (Ipv6Addr::from_bits(1), Ipv6Addr::from_bits(2));
    Header::Ipv6(
        ipv6::Repr::new(addresses.0, addresses.1, next_header, 0),
        extensions,
    )
}

fn udp(destination_port: u16, checksum: bool) -> Header<'static> {
    Header::Udp(
        udp::Repr {
            source_port: 40000,
            destination_port,
            payload_len: 0,
        },
        checksum,
    )
}

fn tunnel() -> Vec<Header<'static>> {
    std::vec![
        frame(0x0800),
        ipv4(17),
        udp(8472, false),
        Header::Vxlan(vxlan::Repr {
            vni: vxlan::Vni::new(1).unwrap(),
            group: None,
        }),
        frame(0x86dd),
        ipv6(17, &[]),
        udp(53, true),
    ]
}

fn layers(bytes: &[u8], first: Next) -> Result<Vec<(Layer, Verdict)>, DecodeError> {
    Walk::new(bytes, first, true)
        .map(|found| found.map(|found| (found.header.layer(), found.checksum)))
        .collect()
}

#[test]
fn a_tunnel_is_walked_to_its_innermost_payload() {
    use Verdict::{Absent, Right};
    let mut bytes = encode(&tunnel(), b"hello").unwrap();
    assert_eq!(bytes.len(), 14 + 20 + 8 + 8 + 14 + 40 + 8 + 5);
    bytes.extend([0; 7]);
    let expected = [
        (Layer::Ethernet, Absent),
        (Layer::Ipv4, Right),
        (Layer::Udp, Absent),
        (Layer::Vxlan, Absent),
        (Layer::Ethernet, Absent),
        (Layer::Ipv6, Absent),
        (Layer::Udp, Right),
    ];
    assert_eq!(layers(&bytes, Next::Ethernet).unwrap(), expected);
    let mut walk = Walk::new(&bytes, Next::Ethernet, true);
    let offsets: Vec<usize> = walk.by_ref().map(|found| found.unwrap().offset).collect();
    assert_eq!(offsets, [0, 14, 34, 42, 50, 64, 104]);
    assert_eq!(&bytes[walk.payload()], b"hello", "the padding is no payload");
    assert_eq!(Walk::new(&bytes, Next::Ethernet, false).count(), 3);
}

#[test]
fn a_wrong_bit_is_a_wrong_checksum_and_no_error() {
    let mut bytes = encode(&tunnel(), b"hello").unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    bytes[22] ^= 1;
    let verdicts: Vec<Verdict> = layers(&bytes, Next::Ethernet)
        .unwrap()
        .into_iter()
        .map(|layer| layer.1)
        .collect();
    assert_eq!((verdicts[1], verdicts[6]), (Verdict::Wrong, Verdict::Wrong));
}

#[test]
fn a_fault_is_told_where_it_stands_and_ends_the_walk() {
    let bytes = encode(&tunnel(), b"hello").unwrap();
    let error = layers(&bytes[..60], Next::Ethernet).unwrap_err();
    assert_eq!(
        (error.layer, error.offset, error.reason),
        (Layer::Ipv4, 14, Reason::Truncated)
    );
    assert_eq!(Walk::new(&bytes[..60], Next::Ethernet, true).count(), 2);
    let inner = encode(&[ipv4(17), udp(IP_PORT, true)], &[0x45, 0, 0]).unwrap();
    assert_eq!(
        layers(&inner, Next::Ip).unwrap_err().to_string(),
        "ipv4 at byte 28: truncated: need 20, have 3"
    );
}

#[test]
fn fragments_and_quotations_are_payload() {
    let Header::Ipv4(repr) = ipv4(17) else {
        unreachable!()
    };
    let fragment = Header::Ipv4(ipv4::Repr {
        more_fragments: true,
        ..repr
    });
    assert_eq!(
        layers(&encode(&[fragment], &[1; 8]).unwrap(), Next::Ip)
            .unwrap()
            .len(),
        1
    );
    let extension = [17, 0, 0, 8, 0, 0, 0, 1];
    let fragment = encode(&[ipv6(ipv6::extension::FRAGMENT, &extension)], &[1; 8]).unwrap();
    assert_eq!(layers(&fragment, Next::Ip).unwrap().len(), 1);
    let error = [ipv4(1), Header::Icmp(icmp::Repr::time_exceeded(0)), ipv4(17)];
    assert_eq!(layers(&encode(&error, &[]).unwrap(), Next::Ip).unwrap().len(), 2);
}

#[test]
fn a_destination_that_is_not_the_final_one_leaves_the_checksum_open() {
    let routing = [17, 0, 4, 1, 0, 0, 0, 0];
    let bytes = encode(&[ipv6(ipv6::extension::ROUTING, &routing), udp(53, true)], b"x").unwrap();
    assert_eq!(
        layers(&bytes, Next::Ip).unwrap()[1],
        (Layer::Udp, Verdict::Unknown)
    );
}

#[test]
fn what_cannot_be_written_is_an_error() {
    let long = std::vec![0; 65516];
    let too_long = |layer, len| Err(EncodeError::TooLong { layer, len });
    assert_eq!(encode(&[ipv4(17)], &long), too_long(Layer::Ipv4, 65536));
    assert_eq!(encode(&[ipv4(17)], &long[..65515]).unwrap().len(), 65535);
    assert_eq!(
        encode(&[ipv6(17, &[]), udp(1, true)], &[0; 65528]),
        too_long(Layer::Udp, 65536)
    );
    assert_eq!(
        encode(&[udp(1, true)], &[]),
        Err(EncodeError::NoAddresses { layer: Layer::Udp })
    );
}

proptest! {
    #[test]
    fn any_bytes_survive(bytes: Vec<u8>, first in prop::sample::select(std::vec![
        Next::Ethernet, Next::Ip, Next::Ipv4, Next::Ipv6, Next::Udp, Next::Tcp, Next::Icmp, Next::Icmpv6, Next::Vxlan
    ])) {
        let mut walk = Walk::new(&bytes, first, true);
        prop_assert!(walk.by_ref().count() <= bytes.len() + 1);
        prop_assert!(walk.payload().end <= bytes.len());
    }

    #[test]
    fn any_damage_to_a_tunnel_survives(at in 0usize..112, value: u8, cut in 0usize..=112) {
        let mut bytes = encode(&tunnel(), b"hello").unwrap();
        bytes[at] = value;
        let bytes = &bytes[..cut];
        let mut walk = Walk::new(bytes, Next::Ethernet, true);
        for found in walk.by_ref().flatten() {
            prop_assert!(found.offset + found.header.len() <= cut);
        }
        prop_assert!(bytes.get(walk.payload()).is_some());
        let _ = super::super::pretty::Pretty::new(bytes, Next::Ethernet).to_string();
    }

    #[test]
    fn decoding_and_encoding_again_gives_the_same_bytes(payload: Vec<u8>) {
        let bytes = encode(&tunnel(), &payload).unwrap();
        let mut walk = Walk::new(&bytes, Next::Ethernet, true);
        let headers: Vec<Header<'_>> = walk.by_ref().map(|found| found.unwrap().header).collect();
        prop_assert_eq!(encode(&headers, &bytes[walk.payload()]).unwrap(), bytes);
    }
}

#[test]
fn shared_packets_are_what_is_written_beside_them() {
    let packets = include_str!("../../../../../tests/vectors/packets.txt");
    for line in packets.lines().filter(|line| !line.starts_with('#')) {
        let [name, first, layers, payload, text] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let first = match first {
            "ethernet" => Next::Ethernet,
            "ip" => Next::Ip,
            "ipv4" => Next::Ipv4,
            _ => panic!("{name}: {first}"),
        };
        let digits: Vec<u8> = text
            .bytes()
            .map(|digit| (digit as char).to_digit(16).unwrap() as u8)
            .collect();
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        let mut walk = Walk::new(&bytes, first, true);
        let found: Vec<std::string::String> = walk
            .by_ref()
            .map(|found| {
                let found = found.unwrap();
                let mark = match found.checksum {
                    Verdict::Wrong => "!wrong",
                    Verdict::Unknown => "!unknown",
                    Verdict::Right | Verdict::Absent => "",
                };
                found.header.layer().name().to_string() + mark
            })
            .collect();
        assert_eq!(found.join(","), layers, "{name}");
        assert_eq!(walk.payload().len().to_string(), payload, "{name}");
    }
}

//! Split and join against a slow builder of packets that shares no code with them.
use super::*;
use crate::wire::checksum::Sum;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

/// A flow's constant headers, from which any of its packets can be built, one byte after the other.
#[derive(Clone, Debug)]
struct Flow {
    v6: bool,
    tcp: bool,
    /// IPv4 options or IPv6 extension headers, whole.
    extras: Vec<u8>,
    tcp_options: Vec<u8>,
    tos: u8,
    dont_fragment: bool,
    ttl: u8,
    hosts: (u8, u8),
    ports: (u16, u16),
    acknowledgement: u32,
    window: u16,
}

/// What differs between the packets of a flow.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    identification: u16,
    sequence: u32,
    flags: u8,
    payload: Vec<u8>,
}

/// RFC 1071, word by word.
fn slow_sum(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    u16::try_from(sum).unwrap()
}

impl Flow {
    fn addresses(&self) -> Vec<u8> {
        if self.v6 {
            let mut bytes = vec![0xfd; 32];
            (bytes[15], bytes[31]) = self.hosts;
            bytes
        } else {
            vec![10, 1, 0, self.hosts.0, 10, 1, 1, self.hosts.1]
        }
    }

    fn pseudo(&self, transport_len: usize) -> Vec<u8> {
        let mut bytes = self.addresses();
        bytes.extend(u32::try_from(transport_len).unwrap().to_be_bytes());
        bytes.extend([0, 0, 0, if self.tcp { 6 } else { 17 }]);
        bytes
    }

    fn transport(&self, part: &Part) -> Vec<u8> {
        let mut bytes = vec![];
        bytes.extend(self.ports.0.to_be_bytes());
        bytes.extend(self.ports.1.to_be_bytes());
        if self.tcp {
            bytes.extend(part.sequence.to_be_bytes());
            bytes.extend(self.acknowledgement.to_be_bytes());
            bytes.push(u8::try_from((20 + self.tcp_options.len()) / 4 * 16).unwrap());
            bytes.push(part.flags);
            bytes.extend(self.window.to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(&self.tcp_options);
        } else {
            bytes.extend(u16::try_from(8 + part.payload.len()).unwrap().to_be_bytes());
            bytes.extend([0; 2]);
        }
        bytes.extend(&part.payload);
        bytes
    }

    fn checksum_at(&self) -> usize {
        if self.tcp { 16 } else { 6 }
    }

    fn transport_at(&self) -> usize {
        self.extras.len() + if self.v6 { 40 } else { 20 }
    }

    fn below(&self, identification: u16, transport_len: usize) -> Vec<u8> {
        let protocol = if self.tcp { 6 } else { 17 };
        let len = u16::try_from(self.transport_at() + transport_len).unwrap();
        let mut bytes = vec![];
        if self.v6 {
            bytes.extend([0x60 | self.tos >> 4, self.tos << 4, 1, 2]);
            bytes.extend((len - 40).to_be_bytes());
            bytes.push(if self.extras.is_empty() { protocol } else { 60 });
            bytes.push(self.ttl);
            bytes.extend(self.addresses());
            bytes.extend(&self.extras);
            if !self.extras.is_empty() {
                bytes[40] = protocol;
            }
        } else {
            bytes.push(u8::try_from(0x40 + self.transport_at() / 4).unwrap());
            bytes.push(self.tos);
            bytes.extend(len.to_be_bytes());
            bytes.extend(identification.to_be_bytes());
            bytes.extend([u8::from(self.dont_fragment) * 0x40, 0, self.ttl, protocol, 0, 0]);
            bytes.extend(self.addresses());
            bytes.extend(&self.extras);
            let sum = !slow_sum(&[&bytes]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    /// A packet as it is on the wire.
    fn packet(&self, part: &Part) -> Vec<u8> {
        let mut transport = self.transport(part);
        let mut sum = !slow_sum(&[&self.pseudo(transport.len()), &transport]);
        if sum == 0 && !self.tcp {
            sum = 0xffff;
        }
        let at = self.checksum_at();
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        [self.below(part.identification, transport.len()), transport].concat()
    }

    /// A super-packet as the kernel hands it over.
    fn super_packet(&self, part: &Part, segment: usize, hint: u16) -> (VnetHeader, Vec<u8>) {
        let mut transport = self.transport(part);
        let sum = slow_sum(&[&self.pseudo(transport.len())]);
        let at = self.checksum_at();
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let vnet = VnetHeader {
            needs_checksum: true,
            checksum_known: false,
            gso: match (self.tcp, self.v6) {
                (true, false) => Gso::TcpV4,
                (true, true) => Gso::TcpV6,
                (false, _) => Gso::Udp,
            },
            ecn: self.tcp && part.flags & 0x80 != 0,
            header_len: hint,
            segment_bytes: u16::try_from(segment).unwrap(),
            checksum_start: u16::try_from(self.transport_at()).unwrap(),
            checksum_offset: u16::try_from(at).unwrap(),
        };
        (
            vnet,
            [self.below(part.identification, transport.len()), transport].concat(),
        )
    }

    /// The parts that a super-packet stands for (tcp_gso_segment in net/ipv4/tcp_offload.c).
    fn parts(&self, part: &Part, segment: usize) -> Vec<Part> {
        let chunks: Vec<&[u8]> = part.payload.chunks(segment).collect();
        let last = chunks.len() - 1;
        let each = chunks.iter().enumerate().map(|(at, chunk)| {
            let not_first = if at > 0 { 0x80 } else { 0 };
            let not_last = if at < last { 0x09 } else { 0 };
            let number = u16::try_from(at).unwrap();
            Part {
                identification: part.identification.wrapping_add(number),
                sequence: part.sequence.wrapping_add(u32::try_from(at * segment).unwrap()),
                flags: part.flags & !not_first & !not_last,
                payload: chunk.to_vec(),
            }
        });
        each.collect()
    }
}

fn flows() -> impl Strategy<Value = Flow> {
    let extras = prop_oneof![3 => Just(0_usize), 1 => 1_usize..=5];
    let shape = (any::<bool>(), any::<bool>(), extras, 0_usize..=10, any::<u8>());
    let rest = (
        any::<bool>(),
        1_u8..,
        any::<(u8, u8)>(),
        any::<(u16, u16)>(),
        any::<(u32, u16)>(),
    );
    (shape, rest).prop_map(
        |((v6, tcp, extras, options, tos), (df, ttl, hosts, ports, (ack, window)))| {
            let extras = match (extras, v6) {
                (0, _) => vec![],
                // One destination options header (RFC 8200 section 4.6) of that many units of eight bytes, filled with PadN.
                (units, true) => {
                    let len = u8::try_from(units * 8 - 4).unwrap();
                    let mut bytes = vec![59, u8::try_from(units - 1).unwrap(), 1, len];
                    bytes.resize(units * 8, 0);
                    bytes
                }
                (words, false) => vec![1; words * 4],
            };
            Flow {
                v6,
                tcp,
                extras,
                tcp_options: vec![1; if tcp { options * 4 } else { 0 }],
                tos,
                dont_fragment: df,
                ttl,
                hosts,
                ports,
                acknowledgement: ack,
                window,
            }
        },
    )
}

/// Plain data flags, sometimes with ECE, CWR, PSH and FIN.
fn flags() -> impl Strategy<Value = u8> {
    prop_oneof![
        4 => Just(0x10_u8),
        1 => Just(0x18),
        1 => Just(0x50),
        1 => Just(0x90),
        1 => Just(0xd9),
        1 => Just(0x11),
    ]
}

fn big_parts() -> impl Strategy<Value = (Part, usize)> {
    let payload = proptest::collection::vec(any::<u8>(), 1..4000);
    (any::<u16>(), any::<u32>(), flags(), payload, 1_usize..1500).prop_map(
        |(identification, sequence, flags, payload, segment)| {
            let part = Part {
                identification,
                sequence,
                flags,
                payload,
            };
            (part, segment)
        },
    )
}

fn split(vnet: &VnetHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    let split = Split::new(vnet, packet).unwrap();
    let packets = (0..split.len()).map(|at| {
        let mut packet = vec![0xee; split.packet_len(at)];
        split.emit(at, &mut packet, Sum::plus_copied);
        packet
    });
    packets.collect()
}

/// Joins what follows each other, and returns the packets of each run with what it became.
fn join(packets: &[Vec<u8>]) -> Vec<(Vec<Vec<u8>>, VnetHeader, Vec<u8>)> {
    let mut runs = vec![];
    let mut at = 0;
    while at < packets.len() {
        let first = &packets[at];
        let Some(mut run) = Run::begin(first, Sum::plus) else {
            runs.push((vec![first.clone()], VnetHeader::default(), first.clone()));
            at += 1;
            continue;
        };
        while packets
            .get(at + run.len())
            .is_some_and(|next| run.take(first, next, Sum::plus))
        {}
        let members = &packets[at..at + run.len()];
        let mut whole = first.clone();
        let mut vnet = Run::alone();
        if run.len() > 1 {
            whole = vec![0xee; run.header_len()];
            vnet = run.emit(first, &mut whole);
            for member in members {
                whole.extend(&member[run.header_len()..]);
            }
        }
        runs.push((members.to_vec(), vnet, whole));
        at += members.len();
    }
    runs
}

/// What happens to a packet on its way, so that it may no longer join its neighbours.
#[derive(Clone, Debug)]
enum Harm {
    None,
    /// A byte is changed.
    Flip(usize),
    /// The same, and the checksums fit.
    Other,
    /// It comes before the one that it should follow.
    Early,
    /// It is lost.
    Lost,
}

fn harms() -> impl Strategy<Value = Harm> {
    prop_oneof![
        6 => Just(Harm::None),
        1 => any::<usize>().prop_map(Harm::Flip),
        1 => Just(Harm::Other),
        1 => Just(Harm::Early),
        1 => Just(Harm::Lost),
    ]
}

/// A packet without the identification (and the checksum over it) if it may not be fragmented.
fn meaning(packet: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    if bytes[0] >> 4 == 4 && bytes[6] & 0x40 != 0 {
        bytes[4..6].fill(0);
        bytes[10..12].fill(0);
    }
    bytes
}

proptest! {
    #[test]
    fn a_split_agrees_with_the_slow_builder(flow in flows(), (part, segment) in big_parts(), hint: u16) {
        let (vnet, packet) = flow.super_packet(&part, segment, hint);
        let expected: Vec<Vec<u8>> = flow.parts(&part, segment).iter().map(|part| flow.packet(part)).collect();
        prop_assert_eq!(Split::new(&vnet, &packet).unwrap().longest(), expected[0].len());
        prop_assert_eq!(split(&vnet, &packet), expected);
    }

    #[test]
    fn what_was_split_is_joined_to_the_same(flow in flows(), (part, segment) in big_parts()) {
        prop_assume!(flow.extras.is_empty());
        let (vnet, packet) = flow.super_packet(&part, segment, u16::try_from(flow.transport_at()).unwrap());
        let runs = join(&split(&vnet, &packet));
        prop_assert_eq!(runs.len(), 1);
        let (members, joined, whole) = &runs[0];
        if members.len() == 1 {
            prop_assert!(joined.checksum_known && joined.gso == Gso::None);
            prop_assert_eq!(whole, &members[0]);
        } else {
            let header_len = u16::try_from(packet.len() - part.payload.len()).unwrap();
            prop_assert_eq!(joined, &VnetHeader { header_len, ..vnet });
            prop_assert_eq!(whole, &packet);
        }
    }

    #[test]
    fn a_join_keeps_every_packet_in_order_and_no_wrong_checksum_becomes_right(
        flows in proptest::collection::vec((flows(), big_parts()), 1..4),
        harms in proptest::collection::vec(harms(), 1..40),
        equal_identifications: bool,
    ) {
        let mut packets: Vec<Vec<u8>> = vec![];
        for (flow, (part, segment)) in &flows {
            let segment = &(*segment).max(part.payload.len() / 12);
            for (mut part, harm) in flow.parts(part, *segment).into_iter().zip(harms.iter().cycle()) {
                if equal_identifications {
                    part.identification = 0;
                }
                if matches!(harm, Harm::Other) {
                    part.sequence = part.sequence.wrapping_add(1);
                    part.flags ^= 0x40;
                }
                let mut packet = flow.packet(&part);
                match harm {
                    Harm::Flip(at) => {
                        let at = at % packet.len();
                        packet[at] ^= 0x10;
                    }
                    Harm::Early => packets.insert(packets.len().saturating_sub(1), packet.clone()),
                    _ => {}
                }
                if !matches!(harm, Harm::Early | Harm::Lost) {
                    packets.push(packet);
                }
            }
        }
        let runs = join(&packets);
        let mut after = vec![];
        for (members, vnet, whole) in runs {
            if vnet.gso == Gso::None {
                prop_assert_eq!(members.len(), 1);
                after.push(whole);
            } else {
                prop_assert!(members.len() > 1 && whole.len() <= 65_535);
                after.extend(split(&vnet, &whole));
            }
        }
        let before: Vec<_> = packets.iter().map(|packet| meaning(packet)).collect();
        let after: Vec<_> = after.iter().map(|packet| meaning(packet)).collect();
        prop_assert_eq!(after, before);
    }

    #[test]
    fn no_bytes_make_it_panic(
        header: [u8; VNET_HEADER_BYTES],
        mut packet in proptest::collection::vec(any::<u8>(), 0..200),
        other in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let Some(vnet) = VnetHeader::parse(header) else { return Ok(()) };
        prop_assert_eq!(VnetHeader::parse(vnet.emit()), Some(vnet));
        if let Ok(split) = Split::new(&vnet, &packet) {
            for at in 0..split.len() {
                split.emit(at, &mut vec![0; split.packet_len(at)], Sum::plus_copied);
            }
        }
        if let Some(mut run) = Run::begin(&packet, Sum::plus) {
            run.take(&packet, &other, Sum::plus);
        }
        let _ = complete_checksum(&vnet, &mut packet, Sum::plus);
    }

    #[test]
    fn a_half_done_checksum_is_completed(flow in flows(), (part, _) in big_parts()) {
        let (vnet, mut packet) = flow.super_packet(&part, 1, 0);
        complete_checksum(&vnet, &mut packet, Sum::plus).unwrap();
        prop_assert_eq!(packet, flow.packet(&part));
    }
}

fn plain(tcp: bool) -> Flow {
    Flow {
        v6: false,
        tcp,
        extras: vec![],
        tcp_options: vec![],
        tos: 0,
        dont_fragment: true,
        ttl: 64,
        hosts: (1, 2),
        ports: (3, 4),
        acknowledgement: 5,
        window: 6,
    }
}

fn part(payload: usize) -> Part {
    Part {
        identification: 7,
        sequence: 0xffff_ff00,
        flags: 0x10,
        payload: vec![9; payload],
    }
}

#[test]
fn a_header_that_contradicts_the_packet_is_refused() {
    let (vnet, packet) = plain(true).super_packet(&part(3000), 1000, 0);
    let refused = |vnet: VnetHeader, packet: &[u8]| Split::new(&vnet, packet).unwrap_err();
    assert_eq!(
        refused(
            VnetHeader {
                gso: Gso::TcpV6,
                ..vnet
            },
            &packet
        ),
        SplitError::Kind
    );
    assert_eq!(
        refused(
            VnetHeader {
                gso: Gso::Udp,
                ..vnet
            },
            &packet
        ),
        SplitError::Kind
    );
    assert_eq!(
        refused(
            VnetHeader {
                segment_bytes: 0,
                ..vnet
            },
            &packet
        ),
        SplitError::SegmentSize
    );
    assert_eq!(
        refused(
            VnetHeader {
                checksum_start: 24,
                ..vnet
            },
            &packet
        ),
        SplitError::ChecksumPlace
    );
    assert_eq!(
        refused(
            VnetHeader {
                needs_checksum: false,
                ..vnet
            },
            &packet
        ),
        SplitError::ChecksumPlace
    );
    assert_eq!(refused(vnet, &[&packet[..], &[0]].concat()), SplitError::Length);
}

#[test]
fn datagrams_without_checksum_and_packets_that_open_or_break_connections_stay_alone() {
    let mut datagram = plain(false).packet(&part(100));
    datagram[26..28].fill(0);
    assert!(Run::begin(&datagram, Sum::plus).is_none());
    for flags in [0x02, 0x12, 0x14, 0x30, 0x00] {
        let packet = plain(true).packet(&Part { flags, ..part(100) });
        assert!(Run::begin(&packet, Sum::plus).is_none(), "{flags:#x}");
    }
    assert!(Run::begin(&plain(true).packet(&part(0)), Sum::plus).is_none());
    let mut fragment = plain(false).packet(&part(100));
    fragment[6] = 0x20;
    assert!(Run::begin(&fragment, Sum::plus).is_none());
}

#[test]
fn a_run_ends_with_push_with_a_shorter_packet_and_before_64_kib() {
    let flow = plain(true);
    let first = flow.packet(&part(1000));
    let next = |payload: usize, flags: u8, after: u32| {
        flow.packet(&Part {
            sequence: part(0).sequence.wrapping_add(after),
            flags,
            ..part(payload)
        })
    };
    let mut run = Run::begin(&first, Sum::plus).unwrap();
    assert!(!run.take(&first, &next(1001, 0x10, 1000), Sum::plus));
    assert!(run.take(&first, &next(1000, 0x18, 1000), Sum::plus) && run.is_over());
    assert!(!run.take(&first, &next(1000, 0x10, 2000), Sum::plus));
    let mut run = Run::begin(&first, Sum::plus).unwrap();
    assert!(run.take(&first, &next(999, 0x10, 1000), Sum::plus) && run.is_over());
    let mut run = Run::begin(&first, Sum::plus).unwrap();
    let mut taken = 1;
    while run.take(&first, &next(1000, 0x10, 1000 * taken), Sum::plus) {
        taken += 1;
    }
    assert_eq!(taken, 65);
}

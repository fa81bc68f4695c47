//! Any tables and any packet: a verdict that holds, in both directions.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use overlaynet_core::encapsulation::{Encapsulation, Vtep, flow};
use overlaynet_core::forward::{ICMPV6_ERROR_BYTES, IpPrefix, Outgoing, PeerIndex, Tables};
use overlaynet_core::prefix::{Ipv4Prefix, Ipv6Prefix};
use overlaynet_core::wire::checksum::checksum;
use overlaynet_core::wire::ethernet::MacAddress;
use overlaynet_core::wire::vxlan::Vni;
use overlaynet_core::wire::{ipv4, ipv6};

/// Bytes taken one after another; zeros when they have run out.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let len = N.min(self.0.len());
        taken[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    /// An address of a few networks, so that tables and packets have some in common.
    fn address(&mut self) -> IpAddr {
        let [kind, a, b] = self.take();
        match kind % 4 {
            0 => Ipv4Addr::new(10, 1, a % 4, b).into(),
            1 => Ipv6Addr::new(0xfd00, 0, 0, u16::from(a % 4), 0, 0, 0, u16::from(b)).into(),
            2 => Ipv4Addr::from(self.take::<4>()).into(),
            _ => Ipv6Addr::from(self.take::<16>()).into(),
        }
    }

    fn prefix(&mut self) -> Option<IpPrefix> {
        let len = self.byte();
        match self.address() {
            IpAddr::V4(address) => Ipv4Prefix::new_truncated(address, len % 33)
                .ok()
                .map(IpPrefix::V4),
            IpAddr::V6(address) => Ipv6Prefix::new_truncated(address, len % 129)
                .ok()
                .map(IpPrefix::V6),
        }
    }
}

/// Panics where that does not hold.
pub fn check(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let mtu = usize::from(u16::from_be_bytes(bytes.take()));
    let mut tables = Tables::new(mtu);
    let mut peers: Vec<PeerIndex> = Vec::new();
    for _ in 0..bytes.byte() % 8 {
        match bytes.byte() % 3 {
            0 => {
                if let Some(prefix) = bytes.prefix() {
                    tables.add_local(prefix);
                }
            }
            1 => tables.set_address(bytes.address()),
            _ => {
                let endpoint = SocketAddr::new(bytes.address(), u16::from_be_bytes(bytes.take()));
                let subnets: Vec<IpPrefix> = (0..bytes.byte() % 4).filter_map(|_| bytes.prefix()).collect();
                let peer = tables.add_peer(endpoint, &subnets);
                assert_eq!(tables.peer_at(endpoint.ip()), Some(peer));
                peers.push(peer);
            }
        }
    }
    let repair = bytes.byte();
    let (source, destination) = (bytes.address(), bytes.address());
    let mut packet = bytes.0.to_vec();
    if repair & 1 == 1 {
        make_valid(&mut packet, source, destination);
    }
    for &peer in &peers {
        if let Ok((len, owner)) = tables.incoming(Some(peer), &packet) {
            assert!(0 < len && len <= packet.len());
            assert_eq!(owner, Some(peer));
        }
    }
    let longest = if repair & 2 == 2 {
        packet.len()
    } else {
        usize::from(repair) << 8
    };
    assert!(tables.incoming(None, &packet).is_err());
    let path = (repair & 4 == 4).then_some(usize::from(repair) << 3);
    for room in [ICMPV6_ERROR_BYTES, usize::from(repair)] {
        let (before, mut after, mut reply) = (&packet, packet.clone(), vec![0; room]);
        match tables.outgoing(&mut after, longest, &|_| path, &mut reply) {
            Outgoing::Encapsulate(peer) => {
                assert!(tables.endpoint(peer).is_some());
                assert!(longest <= mtu);
                assert_one_hop_less(before, &after);
            }
            Outgoing::Reply(0, _) => assert!(room < ICMPV6_ERROR_BYTES),
            Outgoing::Reply(len, _) => assert_answers(&reply[..len], before),
            Outgoing::Drop(_) => assert_eq!(*before, after),
        }
    }
}

/// Panics where a tunnel's header is not stripped to an IP packet, or not refused; `bytes` is a datagram.
pub fn strip(bytes: &[u8]) {
    let mac = MacAddress([2, 0, 0, 0, 0, 1]);
    let vni = bytes
        .get(4..7)
        .and_then(|vni| Vni::new(u32::from_be_bytes([0, vni[0], vni[1], vni[2]])));
    let vtep = Vtep {
        vni: vni.unwrap_or_default(),
        v4: mac,
        v6: mac,
    };
    let mut ours = bytes.to_vec();
    if let Some(destination) = ours.get_mut(8..14) {
        destination.copy_from_slice(&mac.0);
    }
    for datagram in [bytes, &ours] {
        if let Ok(start) = Encapsulation::Vxlan(vtep).strip(datagram) {
            assert!(matches!(datagram[start] >> 4, 4 | 6));
        }
        let _ = flow(datagram);
    }
}

/// Gives the packet a header that passes for one, so that what is behind the first checks is reached.
fn make_valid(packet: &mut Vec<u8>, source: IpAddr, destination: IpAddr) {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet.resize(packet.len().max(20), 0);
            let len = u16::try_from(packet.len()).unwrap_or(u16::MAX);
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&len.to_be_bytes());
            packet[10..12].fill(0);
            packet[12..16].copy_from_slice(&source.octets());
            packet[16..20].copy_from_slice(&destination.octets());
            let sum = checksum(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet.resize(packet.len().max(40), 0);
            let len = u16::try_from(packet.len() - 40).unwrap_or(u16::MAX);
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&len.to_be_bytes());
            packet[8..24].copy_from_slice(&source.octets());
            packet[24..40].copy_from_slice(&destination.octets());
        }
        _ => {}
    }
}

fn assert_one_hop_less(before: &[u8], after: &[u8]) {
    if let (Ok(old), Ok(new)) = (
        ipv4::Packet::new_checked(before),
        ipv4::Packet::new_checked(after),
    ) {
        assert!(new.checksum_ok());
        assert_eq!(old.ttl() - 1, new.ttl());
        assert_eq!(old.payload(), new.payload());
    } else {
        let (Ok(old), Ok(new)) = (
            ipv6::Packet::new_checked(before),
            ipv6::Packet::new_checked(after),
        ) else {
            panic!("what is no packet was let through");
        };
        assert_eq!(old.hop_limit() - 1, new.hop_limit());
        assert_eq!(old.payload(), new.payload());
    }
}

/// The reply is a whole packet to the sender of `about`.
fn assert_answers(reply: &[u8], about: &[u8]) {
    if let (Ok(answer), Ok(asked)) = (ipv4::Packet::new_checked(reply), ipv4::Packet::new_checked(about)) {
        assert!(answer.checksum_ok());
        assert_eq!(answer.total_len(), reply.len());
        assert_eq!(answer.destination(), asked.source());
    } else {
        let (Ok(answer), Ok(asked)) = (ipv6::Packet::new_checked(reply), ipv6::Packet::new_checked(about))
        else {
            panic!("the reply is no packet");
        };
        assert_eq!(answer.total_len(), reply.len());
        assert_eq!(answer.destination(), asked.source());
    }
}

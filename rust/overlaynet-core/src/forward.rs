//! The forwarding decision: a packet in, a verdict out; no I/O.
//!
//! [`Tables`] is a frozen picture of the overlay as one host sees it. [`Tables::outgoing`] decides about a packet that the host
//! routed into the tunnel, [`Tables::incoming`] about one that a datagram brought. Nothing here allocates.
//!
//! The tunnel counts as one hop: the TTL (hop limit) goes down by one on the way in to it. The kernels on both sides forward and
//! count for themselves. A packet that cannot go on is answered with an ICMP or ICMPv6 error within the limits of RFC 1812
//! section 4.3.2 and RFC 4443 section 2.4: never about an error, a later fragment, or addresses of more than one host.
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::encapsulation::{Encapsulation, Family, Header};
use crate::prefix::{Ipv4Prefix, Ipv6Prefix};
use crate::stats::DropReason;
use crate::table::PrefixTable;
use crate::wire::ethernet::MacAddress;
use crate::wire::{icmp, icmpv6, ipv4, ipv6};

/// The longest IPv4 packet that carries an ICMP error, in bytes (RFC 1812 section 4.3.2.3).
pub const ICMP_ERROR_BYTES: usize = 576;

/// The longest IPv6 packet that carries an ICMPv6 error, in bytes (RFC 4443 section 2.4 (c)): the least IPv6 MTU.
pub const ICMPV6_ERROR_BYTES: usize = 1280;

const REPLY_TTL: u8 = 64;

/// The least path MTU that anybody is told, in bytes: what every host takes (RFC 791 section 3.1, RFC 8200 section 5).
const LEAST_MTU_V4: usize = 576;
const LEAST_MTU_V6: usize = 1280;

/// How far the source of an incoming packet must fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceCheck {
    /// The datagram comes from a peer's address, and the packet from that peer's subnets.
    #[default]
    Strict,
    /// The packet comes from any peer's subnets, wherever the datagram is from: for peers behind address translation.
    Inner,
    /// Nothing is asked of the source.
    Off,
}

/// The place of a peer in [`Tables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerIndex(u32);

impl PeerIndex {
    /// The index as a number, in the order in which peers were added.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

/// A prefix of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpPrefix {
    /// An IPv4 prefix.
    V4(Ipv4Prefix),
    /// An IPv6 prefix.
    V6(Ipv6Prefix),
}

/// What becomes of a packet that the host routed into the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// It goes to this peer, in a datagram.
    Encapsulate(PeerIndex),
    /// It is dropped for this reason, and the first bytes of the reply buffer, as many as given here, go back to its sender.
    Reply(usize, DropReason),
    /// It is dropped.
    Drop(DropReason),
}

/// The overlay as one host sees it.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    mtu: usize,
    address_v4: Option<Ipv4Addr>,
    address_v6: Option<Ipv6Addr>,
    local_v4: PrefixTable<Ipv4Prefix, ()>,
    local_v6: PrefixTable<Ipv6Prefix, ()>,
    routes_v4: PrefixTable<Ipv4Prefix, PeerIndex>,
    routes_v6: PrefixTable<Ipv6Prefix, PeerIndex>,
    source_check: SourceCheck,
    encapsulation: Encapsulation,
    peers: Vec<SocketAddr>,
    headers: Vec<Header>,
    /// The first address of each peer's first subnet, by which the peer itself is reached inside the overlay.
    hosts: Vec<Option<IpAddr>>,
    by_address: BTreeMap<IpAddr, PeerIndex>,
}

impl Tables {
    /// Tables without peers. `mtu` is that of the TUN device, in bytes of inner packet.
    #[must_use]
    pub fn new(mtu: usize) -> Self {
        Self {
            mtu,
            ..Self::default()
        }
    }

    /// Takes `prefix` for one of this host's subnets.
    pub fn add_local(&mut self, prefix: IpPrefix) {
        match prefix {
            IpPrefix::V4(prefix) => drop(self.local_v4.insert(prefix, ())),
            IpPrefix::V6(prefix) => drop(self.local_v6.insert(prefix, ())),
        }
    }

    /// Takes `address` for this host's own in the overlay: the source of its ICMP errors.
    pub fn set_address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.address_v4 = Some(address),
            IpAddr::V6(address) => self.address_v6 = Some(address),
        }
    }

    /// Says how far the sources of incoming packets must fit.
    pub fn set_source_check(&mut self, check: SourceCheck) {
        self.source_check = check;
    }

    /// Says how inner packets lie in datagrams; before any peer is added.
    pub fn set_encapsulation(&mut self, encapsulation: Encapsulation) {
        self.encapsulation = encapsulation;
    }

    /// How inner packets lie in datagrams.
    #[must_use]
    pub fn encapsulation(&self) -> &Encapsulation {
        &self.encapsulation
    }

    /// Adds the VTEP of a peer, with its subnets of one family; otherwise as [`add_peer`](Self::add_peer).
    pub fn add_vtep(&mut self, endpoint: SocketAddr, mac: MacAddress, subnets: &[IpPrefix]) -> PeerIndex {
        let index = self.add_peer(endpoint, subnets);
        let family = match subnets.first() {
            Some(IpPrefix::V6(_)) => Family::V6,
            _ => Family::V4,
        };
        self.headers[index.get()] = self.encapsulation.header(family, mac);
        index
    }

    /// The bytes before each inner packet for the peer at `index`.
    #[must_use]
    pub fn header(&self, index: usize) -> &[u8] {
        self.headers.get(index).map_or(&[], Header::as_bytes)
    }

    /// Adds a peer with its subnets. A second peer with the same address shares the first one's index, and its port is ignored.
    pub fn add_peer(&mut self, endpoint: SocketAddr, subnets: &[IpPrefix]) -> PeerIndex {
        let next = PeerIndex(u32::try_from(self.peers.len()).unwrap_or(u32::MAX));
        let index = *self
            .by_address
            .entry(endpoint.ip().to_canonical())
            .or_insert(next);
        if index == next {
            self.peers.push(endpoint);
            self.headers.push(Header::default());
            self.hosts.push(subnets.first().map(|subnet| match subnet {
                IpPrefix::V4(prefix) => prefix.address().into(),
                IpPrefix::V6(prefix) => prefix.address().into(),
            }));
        }
        for subnet in subnets {
            match *subnet {
                IpPrefix::V4(prefix) => drop(self.routes_v4.insert(prefix, index)),
                IpPrefix::V6(prefix) => drop(self.routes_v6.insert(prefix, index)),
            }
        }
        index
    }

    /// Where the peer's datagrams go.
    #[must_use]
    pub fn endpoint(&self, peer: PeerIndex) -> Option<SocketAddr> {
        self.peers.get(peer.get()).copied()
    }

    /// This host's and the peer's own addresses inside the overlay, of one family: between them the two hosts can be told apart
    /// from what is behind them. A peer's is the first of its subnet, as flannel's hosts have it.
    #[must_use]
    pub fn between(&self, index: usize) -> Option<(IpAddr, IpAddr)> {
        let theirs = (*self.hosts.get(index)?)?;
        let own = match theirs {
            IpAddr::V4(_) => self.address_v4?.into(),
            IpAddr::V6(_) => self.address_v6?.into(),
        };
        Some((own, theirs))
    }

    /// The MTU of the TUN device, in bytes of inner packet.
    #[must_use]
    pub fn mtu(&self) -> usize {
        self.mtu
    }

    /// Every peer's endpoint, in the order of the indexes.
    #[must_use]
    pub fn endpoints(&self) -> &[SocketAddr] {
        &self.peers
    }

    /// Decides about a packet that the host routed into the tunnel; its TTL is lowered where it goes on.
    ///
    /// `longest` is the length of the longest packet that it becomes on the wire: its own, but for super-packets. `path_mtu` is what
    /// is known of the way to a peer, in bytes of inner packet; what may be fragmented goes on whatever that is, since datagrams
    /// are fragmented outside. `reply` has room for [`ICMPV6_ERROR_BYTES`].
    pub fn outgoing(
        &self,
        packet: &mut [u8],
        longest: usize,
        path_mtu: &dyn Fn(PeerIndex) -> Option<usize>,
        reply: &mut [u8],
    ) -> Outgoing {
        match packet.first().map(|byte| byte >> 4) {
            Some(4) => self.outgoing_v4(packet, longest, path_mtu, reply),
            Some(6) => self.outgoing_v6(packet, longest, path_mtu, reply),
            _ => Outgoing::Drop(DropReason::Malformed),
        }
    }

    fn outgoing_v4(
        &self,
        bytes: &mut [u8],
        longest: usize,
        path_mtu: &dyn Fn(PeerIndex) -> Option<usize>,
        reply: &mut [u8],
    ) -> Outgoing {
        let Ok(mut packet) = ipv4::Packet::new_checked(bytes) else {
            return Outgoing::Drop(DropReason::Malformed);
        };
        if !packet.checksum_ok() {
            return Outgoing::Drop(DropReason::BadChecksum);
        }
        let ttl = packet.ttl();
        let (reason, error) = match self.routes_v4.lookup(packet.destination()) {
            None => (
                DropReason::NoPeer,
                icmp::Repr::destination_unreachable(NET_UNREACHABLE, 0),
            ),
            Some(_) if ttl <= 1 => (DropReason::TtlExceeded, icmp::Repr::time_exceeded(0)),
            Some(_) if longest > self.mtu => {
                if !packet.dont_fragment() {
                    return Outgoing::Drop(DropReason::TooBig);
                }
                let mtu = u16::try_from(self.mtu).unwrap_or(u16::MAX);
                (DropReason::TooBig, icmp::Repr::fragmentation_needed(mtu, 0))
            }
            Some((_, peer)) => match path_mtu(*peer).map(|mtu| mtu.max(LEAST_MTU_V4)) {
                Some(mtu) if longest > mtu && packet.dont_fragment() => {
                    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
                    (DropReason::TooBig, icmp::Repr::fragmentation_needed(mtu, 0))
                }
                _ => {
                    packet.set_ttl(ttl - 1);
                    return Outgoing::Encapsulate(*peer);
                }
            },
        };
        match self.address_v4.filter(|_| may_answer_v4(&packet)) {
            Some(source) => Outgoing::Reply(answer_v4(source, &packet, error, reply), reason),
            None => Outgoing::Drop(reason),
        }
    }

    fn outgoing_v6(
        &self,
        bytes: &mut [u8],
        longest: usize,
        path_mtu: &dyn Fn(PeerIndex) -> Option<usize>,
        reply: &mut [u8],
    ) -> Outgoing {
        let Ok(mut packet) = ipv6::Packet::new_checked(bytes) else {
            return Outgoing::Drop(DropReason::Malformed);
        };
        let hop_limit = packet.hop_limit();
        let (reason, error) = match self.routes_v6.lookup(packet.destination()) {
            None => (
                DropReason::NoPeer,
                icmpv6::Repr::destination_unreachable(NO_ROUTE, 0),
            ),
            Some(_) if hop_limit <= 1 => (DropReason::TtlExceeded, icmpv6::Repr::time_exceeded(0)),
            Some(_) if longest > self.mtu => {
                let mtu = u32::try_from(self.mtu).unwrap_or(u32::MAX);
                (DropReason::TooBig, icmpv6::Repr::packet_too_big(mtu, 0))
            }
            Some((_, peer)) => match path_mtu(*peer).map(|mtu| mtu.max(LEAST_MTU_V6)) {
                Some(mtu) if longest > mtu => {
                    let mtu = u32::try_from(mtu).unwrap_or(u32::MAX);
                    (DropReason::TooBig, icmpv6::Repr::packet_too_big(mtu, 0))
                }
                _ => {
                    packet.set_hop_limit(hop_limit - 1);
                    return Outgoing::Encapsulate(*peer);
                }
            },
        };
        match self.address_v6.filter(|_| may_answer_v6(&packet)) {
            Some(source) => Outgoing::Reply(answer_v6(source, &packet, error, reply), reason),
            None => Outgoing::Drop(reason),
        }
    }

    /// The peer whose datagrams come from `address`.
    #[must_use]
    pub fn peer_at(&self, address: IpAddr) -> Option<PeerIndex> {
        self.by_address.get(&address.to_canonical()).copied()
    }

    /// The length of a packet that a datagram of `peer` (None: of a stranger) brought, if it may come in, and whose it is.
    ///
    /// # Errors
    /// Why it is dropped.
    pub fn incoming(
        &self,
        peer: Option<PeerIndex>,
        bytes: &[u8],
    ) -> Result<(usize, Option<PeerIndex>), DropReason> {
        if peer.is_none() && self.source_check == SourceCheck::Strict {
            return Err(DropReason::UnknownPeer);
        }
        let (owner, is_ours, len) = match bytes.first().map(|byte| byte >> 4) {
            Some(4) => {
                let packet = ipv4::Packet::new_checked(bytes).map_err(|_| DropReason::Malformed)?;
                if !packet.checksum_ok() {
                    return Err(DropReason::BadChecksum);
                }
                let owner = self.routes_v4.lookup(packet.source()).map(|(_, owner)| *owner);
                let is_ours = self.local_v4.lookup(packet.destination()).is_some();
                (owner, is_ours, packet.total_len())
            }
            Some(6) => {
                let packet = ipv6::Packet::new_checked(bytes).map_err(|_| DropReason::Malformed)?;
                let owner = self.routes_v6.lookup(packet.source()).map(|(_, owner)| *owner);
                let is_ours = self.local_v6.lookup(packet.destination()).is_some();
                (owner, is_ours, packet.total_len())
            }
            _ => return Err(DropReason::Malformed),
        };
        let fits = match self.source_check {
            SourceCheck::Strict => owner == peer,
            SourceCheck::Inner => owner.is_some(),
            SourceCheck::Off => true,
        };
        if !fits {
            return Err(DropReason::ForeignSource);
        }
        if !is_ours {
            return Err(DropReason::ForeignDestination);
        }
        Ok((len, owner.or(peer)))
    }
}

/// ICMP destination unreachable, code: network unreachable (RFC 792).
const NET_UNREACHABLE: u8 = 0;

/// ICMPv6 destination unreachable, code: no route to destination (RFC 4443 section 3.1).
const NO_ROUTE: u8 = 0;

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;

fn may_answer_v4<B: AsRef<[u8]>>(packet: &ipv4::Packet<B>) -> bool {
    let source = packet.source();
    let destination = packet.destination();
    let one_sender =
        !(source.is_unspecified() || source.is_multicast() || source.is_broadcast() || source.is_loopback());
    let is_error = packet.protocol() == PROTOCOL_ICMP
        && packet
            .payload()
            .first()
            .is_none_or(|&kind| icmp::Message::of(kind, 0, [0; 4]).is_error());
    one_sender
        && !destination.is_multicast()
        && !destination.is_broadcast()
        && packet.fragment_offset() == 0
        && !is_error
}

fn may_answer_v6<B: AsRef<[u8]>>(packet: &ipv6::Packet<B>) -> bool {
    let source = packet.source();
    let Ok(upper) = packet.upper_layer() else {
        return false;
    };
    let later_fragment = upper.fragment.is_some_and(|fragment| fragment.offset != 0);
    // Types below 128 are errors (RFC 4443 section 2.1).
    let is_error = upper.protocol == PROTOCOL_ICMPV6
        && first_upper_byte(packet, upper.offset).is_none_or(|kind| kind < 128);
    let one_sender = !(source.is_unspecified() || source.is_multicast() || source.is_loopback());
    one_sender && !(packet.destination().is_multicast() || later_fragment || is_error)
}

/// The first byte of the upper layer, `offset` bytes into the packet.
fn first_upper_byte<B: AsRef<[u8]>>(packet: &ipv6::Packet<B>, offset: usize) -> Option<u8> {
    packet
        .payload()
        .get(offset.checked_sub(ipv6::HEADER_LEN)?)
        .copied()
}

/// The length of the ICMP error about `packet` that is now in `reply`.
fn answer_v4<B: AsRef<[u8]>>(
    source: Ipv4Addr,
    packet: &ipv4::Packet<B>,
    error: icmp::Repr,
    reply: &mut [u8],
) -> usize {
    let room = ICMP_ERROR_BYTES - ipv4::HEADER_LEN - icmp::HEADER_LEN;
    let header = packet.header();
    let quoted = room.min(header.len() + packet.payload().len());
    let error = icmp::Repr {
        payload_len: quoted,
        ..error
    };
    let mut ip = ipv4::Repr::new(source, packet.source(), PROTOCOL_ICMP, error.buffer_len());
    ip.ttl = REPLY_TTL;
    let len = ip.buffer_len() + error.buffer_len();
    let Some(reply) = reply.get_mut(..len) else {
        return 0;
    };
    let start = len - quoted;
    quote(&mut reply[start..], header, packet.payload());
    error.emit(&mut reply[ipv4::HEADER_LEN..]);
    ip.emit(&mut reply[..ipv4::HEADER_LEN]);
    len
}

/// The length of the ICMPv6 error about `packet` that is now in `reply`.
fn answer_v6<B: AsRef<[u8]>>(
    source: Ipv6Addr,
    packet: &ipv6::Packet<B>,
    error: icmpv6::Repr,
    reply: &mut [u8],
) -> usize {
    let room = ICMPV6_ERROR_BYTES - ipv6::HEADER_LEN - icmpv6::HEADER_LEN;
    let mut header = [0; ipv6::HEADER_LEN];
    ipv6::Repr::parse(packet).emit(&mut header);
    let quoted = room.min(header.len() + packet.payload().len());
    let error = icmpv6::Repr {
        payload_len: quoted,
        ..error
    };
    let mut ip = ipv6::Repr::new(source, packet.source(), PROTOCOL_ICMPV6, error.buffer_len());
    ip.hop_limit = REPLY_TTL;
    let len = ip.buffer_len() + error.buffer_len();
    let Some(reply) = reply.get_mut(..len) else {
        return 0;
    };
    let start = len - quoted;
    quote(&mut reply[start..], &header, packet.payload());
    error.emit(&mut reply[ipv6::HEADER_LEN..], ip.pseudo_header());
    ip.emit(&mut reply[..ipv6::HEADER_LEN]);
    len
}

/// Fills `room` with the first bytes of header and payload, which together are at least as long.
fn quote(room: &mut [u8], header: &[u8], payload: &[u8]) {
    let of_header = header.len().min(room.len());
    let (first, rest) = room.split_at_mut(of_header);
    first.copy_from_slice(&header[..of_header]);
    rest.copy_from_slice(&payload[..rest.len()]);
}

#[cfg(test)]
mod tests;

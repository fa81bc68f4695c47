//! What stands before a packet that leaves through a TAP device in a UDP tunnel: the outer headers, and before them the header by
//! which the kernel knows how to cut the packet behind them (`struct virtio_net_hdr_v1_hash_tunnel` in
//! include/uapi/linux/virtio_net.h, Linux 6.17; virtio 1.4 section 5.1.6, `VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO`).
//!
//! Behind the outer headers come the encapsulation and one inner packet, a TCP super-packet as it is or a packet with its own
//! checksum complete. The outer checksum is left to be completed by whoever cuts: it holds the pseudo header's sum.
use core::net::{IpAddr, SocketAddr};

use super::vnet::{Gso, VNET_HEADER_BYTES, VnetHeader};
use crate::wire::ethernet::{self, MacAddress, ether_type};
use crate::wire::{ipv4, ipv6, protocol, udp};

/// The length of the header before the frame, in bytes.
pub const TUNNEL_HEADER_BYTES: usize = 24;

/// The most bytes that [`Outer::emit`] writes: with IPv6 outside.
pub const OUTER_BYTES: usize =
    TUNNEL_HEADER_BYTES + ethernet::HEADER_LEN + ipv6::HEADER_LEN + udp::HEADER_LEN;

/// The longest IPv4 packet, and the most that an IPv6 header can say of what follows it, in bytes.
const MOST_BYTES: usize = 65_535;

// include/uapi/linux/virtio_net.h
const UDP_TUNNEL_CSUM: u8 = 8;
const GSO_UDP_TUNNEL_IPV4: u8 = 0x20;
const GSO_UDP_TUNNEL_IPV6: u8 = 0x40;

/// The outer headers of one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// The TAP device's own link-layer address: the frame is for this host, which forwards what is in it.
    pub device: MacAddress,
    /// Where the datagram comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// The TTL or hop limit with which it enters the host, which takes one.
    pub ttl: u8,
    /// The IPv4 identification of the first packet.
    pub identification: u16,
}

impl Outer {
    /// Writes all that stands before a datagram's payload: `encapsulation` bytes, and behind them a packet before which `inner`
    /// would stand; `payload` bytes together. How many were written.
    ///
    /// None if the payload is too long for one datagram, or the addresses are not of one family.
    pub fn emit(
        &self,
        inner: &VnetHeader,
        encapsulation: usize,
        payload: usize,
        buffer: &mut [u8; OUTER_BYTES],
    ) -> Option<usize> {
        let datagram = udp::HEADER_LEN + payload;
        let (header, frame) = buffer.split_at_mut(TUNNEL_HEADER_BYTES);
        let (link, internet) = frame.split_at_mut(ethernet::HEADER_LEN);
        let (kind, internet_len, pseudo, tunnel) = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                if ipv4::HEADER_LEN + datagram > MOST_BYTES {
                    return None;
                }
                let mut repr = ipv4::Repr::new(source, destination, protocol::UDP, datagram);
                (repr.ttl, repr.identification, repr.dont_fragment) = (self.ttl, self.identification, true);
                repr.emit(internet);
                let pseudo = repr.pseudo_header();
                (ether_type::IPV4, ipv4::HEADER_LEN, pseudo, GSO_UDP_TUNNEL_IPV4)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                if datagram > MOST_BYTES {
                    return None;
                }
                let mut repr = ipv6::Repr::new(source, destination, protocol::UDP, datagram);
                repr.hop_limit = self.ttl;
                repr.emit(internet);
                let pseudo = repr.pseudo_header();
                (ether_type::IPV6, ipv6::HEADER_LEN, pseudo, GSO_UDP_TUNNEL_IPV6)
            }
            _ => return None,
        };
        let mut neighbour = self.device;
        neighbour.0[5] ^= 1;
        ethernet::Repr {
            destination: self.device,
            source: neighbour,
            ether_type: kind,
        }
        .emit(link);
        let transport = &mut internet[internet_len..internet_len + udp::HEADER_LEN];
        #[allow(clippy::cast_possible_truncation, reason = "at most 65,535, as checked above")]
        let datagram_len = datagram as u16;
        let sum = pseudo.sum(protocol::UDP, datagram).fold();
        for (to, word) in transport.chunks_exact_mut(2).zip([
            self.source.port(),
            self.destination.port(),
            datagram_len,
            sum,
        ]) {
            to.copy_from_slice(&word.to_be_bytes());
        }
        let outer_transport = ethernet::HEADER_LEN + internet_len;
        let inner_network = outer_transport + udp::HEADER_LEN + encapsulation;
        header.copy_from_slice(&tunnel_header(inner, tunnel, outer_transport, inner_network));
        Some(TUNNEL_HEADER_BYTES + outer_transport + udp::HEADER_LEN)
    }
}

fn tunnel_header(
    inner: &VnetHeader,
    tunnel: u8,
    outer_transport: usize,
    inner_network: usize,
) -> [u8; TUNNEL_HEADER_BYTES] {
    #[allow(clippy::cast_possible_truncation, reason = "headers are shorter than 1 KiB")]
    let (outer_transport, inner_network) = (outer_transport as u16, inner_network as u16);
    let mut bytes = [0; TUNNEL_HEADER_BYTES];
    if inner.gso == Gso::None {
        // Nothing is cut, so that it is an ordinary packet whose (outer) UDP checksum is half done.
        const CHECKSUM: u16 = 6;
        let plain = VnetHeader {
            needs_checksum: true,
            checksum_start: outer_transport,
            checksum_offset: CHECKSUM,
            ..VnetHeader::default()
        };
        bytes[..VNET_HEADER_BYTES].copy_from_slice(&plain.emit());
        return bytes;
    }
    let moved = VnetHeader {
        header_len: inner.header_len + inner_network,
        checksum_start: inner.checksum_start + inner_network,
        ..*inner
    };
    bytes[..VNET_HEADER_BYTES].copy_from_slice(&moved.emit());
    bytes[0] |= UDP_TUNNEL_CSUM;
    bytes[1] |= tunnel;
    bytes[20..22].copy_from_slice(&outer_transport.to_le_bytes());
    bytes[22..24].copy_from_slice(&inner_network.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outer(source: &str, destination: &str) -> Outer {
        Outer {
            device: MacAddress([2, 0, 0, 0, 0, 9]),
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            ttl: 65,
            identification: 0x1234,
        }
    }

    const SUPER: VnetHeader = VnetHeader {
        needs_checksum: true,
        checksum_known: false,
        gso: Gso::TcpV4,
        ecn: false,
        header_len: 52,
        segment_bytes: 1398,
        checksum_start: 20,
        checksum_offset: 16,
    };

    #[test]
    #[cfg(target_endian = "little")]
    fn bytes_before_a_super_packet_over_ipv4() {
        let mut bytes = [0; OUTER_BYTES];
        let len = outer("192.0.2.1:40000", "192.0.2.2:8472").emit(&SUPER, 22, 5000, &mut bytes);
        assert_eq!(len, Some(66));
        #[rustfmt::skip]
        let expected = [
            // flags: checksum needed, outer checksum as well; TCP over IPv4 in a tunnel over IPv4
            0x09, 0x21,
            // header length 116, segment 1398, checksum at 84 + 16
            0x74, 0x00, 0x76, 0x05, 0x54, 0x00, 0x10, 0x00,
            // buffers, hash
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            // outer UDP at 34, inner IP at 64
            0x22, 0x00, 0x40, 0x00,
            // Ethernet
            2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 8, 0,
            // IPv4
            0x45, 0x00, 0x13, 0xa4, 0x12, 0x34, 0x40, 0x00, 0x41, 0x11, 0x90, 0x11, 192, 0, 2, 1, 192, 0, 2, 2,
            // UDP: the checksum is the pseudo header's sum
            0x9c, 0x40, 0x21, 0x18, 0x13, 0x90, 0x97, 0xa5,
        ];
        assert_eq!(bytes[..66], expected);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn bytes_before_a_super_packet_over_ipv6() {
        let mut bytes = [0; OUTER_BYTES];
        let inner = VnetHeader {
            gso: Gso::TcpV6,
            ecn: true,
            header_len: 72,
            checksum_start: 40,
            ..SUPER
        };
        let len = outer("[2001:db8::1]:40000", "[2001:db8::2]:8472").emit(&inner, 22, 65_527, &mut bytes);
        assert_eq!(len, Some(86));
        #[rustfmt::skip]
        let expected = [
            0x09, 0xc4, 0x9c, 0x00, 0x76, 0x05, 0x7c, 0x00, 0x10, 0x00,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0x36, 0x00, 0x54, 0x00,
            2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 0x86, 0xdd,
            0x60, 0x00, 0x00, 0x00, 0xff, 0xff, 0x11, 0x41,
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
            0x9c, 0x40, 0x21, 0x18, 0xff, 0xff, 0x5b, 0x86,
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn ordinary_packet_leaves_its_outer_checksum_to_be_completed() {
        let mut bytes = [0; OUTER_BYTES];
        outer("192.0.2.1:40000", "192.0.2.2:8472").emit(&VnetHeader::default(), 22, 100, &mut bytes);
        assert_eq!(bytes[..10], [1, 0, 0, 0, 0, 0, 0x22, 0, 6, 0]);
        assert_eq!(bytes[10..24], [0; 14]);
    }

    #[test]
    fn what_no_datagram_holds_is_refused() {
        let mut bytes = [0; OUTER_BYTES];
        let v4 = outer("192.0.2.1:1", "192.0.2.2:2");
        assert_eq!(v4.emit(&SUPER, 22, 65_507, &mut bytes), Some(66));
        assert_eq!(v4.emit(&SUPER, 22, 65_508, &mut bytes), None);
        let v6 = outer("[2001:db8::1]:1", "[2001:db8::2]:2");
        assert_eq!(v6.emit(&SUPER, 22, 65_528, &mut bytes), None);
        assert_eq!(
            outer("192.0.2.1:1", "[2001:db8::2]:2").emit(&SUPER, 22, 100, &mut bytes),
            None
        );
    }
}

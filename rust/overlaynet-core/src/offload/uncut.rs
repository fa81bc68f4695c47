//! A super-packet that came through a tunnel as it was sent: between sockets of one machine, say, nobody cuts it.
use super::layout::{Below, CWR, Layout, TCP_FLAGS, Transport, word, word_of};
use super::vnet::{Gso, VnetHeader};

/// What every link must take, in bytes (RFC 791 section 3.1, RFC 8200 section 5).
const LEAST_V4: usize = 576;
const LEAST_V6: usize = 1280;

/// What is to stand before `packet`, which is longer than any link of the overlay takes, if it is a TCP super-packet: its checksum
/// is half done. None: it is something else, or its checksum is complete.
///
/// Where it is to be cut is not told with it. Its sender's segments fit every link on the way, so that segments which fit what
/// every link must take are never too long for one; longer ones might be.
#[must_use]
pub fn uncut(packet: &[u8]) -> Option<VnetHeader> {
    let layout = Layout::of(packet)?;
    if layout.transport != Transport::Tcp || layout.has_extras || layout.end != packet.len() {
        return None;
    }
    let at = layout.at;
    let offset = layout.transport.checksum();
    let pseudo = layout.addresses(packet).plus_word(word_of(layout.end - at));
    if word(packet, at + offset) != pseudo.fold() {
        return None;
    }
    let (gso, least) = match layout.below {
        Below::V4 => (Gso::TcpV4, LEAST_V4),
        Below::V6 => (Gso::TcpV6, LEAST_V6),
    };
    let segment = least - layout.payload;
    (layout.payload_len() > segment).then(|| VnetHeader {
        needs_checksum: true,
        checksum_known: false,
        gso,
        ecn: packet[at + TCP_FLAGS] & CWR != 0,
        header_len: word_of(layout.payload),
        segment_bytes: word_of(segment),
        checksum_start: word_of(at),
        checksum_offset: word_of(offset),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Split, complete_checksum};
    use super::*;
    use crate::wire::checksum::Sum;
    use crate::wire::{ipv4, ipv6, protocol, tcp};
    use std::vec;
    use std::vec::Vec;

    fn headers(payload: usize) -> tcp::Repr {
        tcp::Repr {
            source_port: 1,
            destination_port: 2,
            sequence: 3,
            acknowledgement: 4,
            flags: tcp::Flags::ACK,
            window: 5,
            urgent: 0,
            options: ipv4::Options::NONE,
            payload_len: payload,
        }
    }

    /// A packet with the sum of its pseudo header for a checksum, as the kernel hands super-packets on.
    fn half_done(v6: bool, payload: usize) -> Vec<u8> {
        let inner = headers(payload);
        let (mut bytes, at, pseudo) = if v6 {
            let address = |last| core::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last);
            let ip = ipv6::Repr::new(address(1), address(2), protocol::TCP, inner.buffer_len());
            let mut bytes = vec![7; 40 + inner.buffer_len()];
            ip.emit(&mut bytes);
            (bytes, 40, ip.pseudo_header())
        } else {
            let address = |last| core::net::Ipv4Addr::new(10, 1, 0, last);
            let ip = ipv4::Repr::new(address(1), address(2), protocol::TCP, inner.buffer_len());
            let mut bytes = vec![7; 20 + inner.buffer_len()];
            ip.emit(&mut bytes);
            (bytes, 20, ip.pseudo_header())
        };
        inner.emit(&mut bytes[at..], pseudo);
        let sum = pseudo.sum(protocol::TCP, inner.buffer_len()).fold();
        bytes[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    #[test]
    fn half_done_super_packet_is_one_whose_parts_fit_every_link() {
        for (v6, least) in [(false, 576), (true, 1280)] {
            let packet = half_done(v6, 30_000);
            let vnet = uncut(&packet).unwrap();
            assert_eq!(Split::new(&vnet, &packet).unwrap().longest(), least);
        }
    }

    #[test]
    fn complete_or_wrong_checksum_is_left_as_it_is() {
        let whole = half_done(false, 30_000);
        let vnet = uncut(&whole).unwrap();
        let mut complete = whole.clone();
        complete_checksum(&vnet, &mut complete, Sum::plus).unwrap();
        assert_eq!(uncut(&complete), None);
        let mut wrong = whole.clone();
        wrong[37] ^= 1;
        assert_eq!(uncut(&wrong), None);
        let mut address = whole;
        address[19] ^= 4;
        assert_eq!(uncut(&address), None);
    }

    #[test]
    fn what_needs_no_cut_or_is_no_tcp_is_none() {
        assert_eq!(uncut(&half_done(false, 536)), None);
        assert!(uncut(&half_done(false, 537)).is_some());
        let mut datagram = half_done(false, 30_000);
        datagram[9] = protocol::UDP;
        assert_eq!(uncut(&datagram), None);
        assert_eq!(uncut(&[]), None);
    }
}

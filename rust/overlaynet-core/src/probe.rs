//! Echo requests inside the overlay, by which a host finds out whether a way to a peer carries packets.
//!
//! They are sent between the two hosts' own overlay addresses, which any kind of host answers (the kernel's vxlan device as well
//! as an engine), and say in their payload who sent them and which it is: nobody else knows the secret, so that an answer tells
//! that this very packet arrived.
use core::net::IpAddr;

use crate::wire::{icmp, icmpv6, ipv4, ipv6, protocol};

/// The bytes of the payload that say which probe it is; the rest is padding.
const SIGN_BYTES: usize = 16;

const TTL: u8 = 64;

/// Which probe a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign {
    /// What only the sender knows.
    pub secret: u64,
    /// Which of its probes.
    pub number: u64,
}

/// Writes an echo request from `own` to `theirs`, as long as `packet`. None: that is too short, or the families differ.
pub fn request(own: IpAddr, theirs: IpAddr, sign: Sign, packet: &mut [u8]) -> Option<()> {
    let header = match own {
        IpAddr::V4(_) => ipv4::HEADER_LEN,
        IpAddr::V6(_) => ipv6::HEADER_LEN,
    };
    let payload = packet
        .len()
        .checked_sub(header + icmp::HEADER_LEN)
        .filter(|len| *len >= SIGN_BYTES)?;
    let message = &mut packet[header..];
    message[icmp::HEADER_LEN..].fill(0);
    message[icmp::HEADER_LEN..][..8].copy_from_slice(&sign.secret.to_be_bytes());
    message[icmp::HEADER_LEN + 8..][..8].copy_from_slice(&sign.number.to_be_bytes());
    #[allow(clippy::cast_possible_truncation, reason = "only for who looks at a capture")]
    let (identifier, sequence) = (sign.secret as u16, sign.number as u16);
    match (own, theirs) {
        (IpAddr::V4(own), IpAddr::V4(theirs)) => {
            icmp::Repr::echo(icmp::kind::ECHO_REQUEST, identifier, sequence, payload).emit(message);
            let mut repr = ipv4::Repr::new(own, theirs, protocol::ICMP, icmp::HEADER_LEN + payload);
            (repr.ttl, repr.dont_fragment) = (TTL, true);
            repr.emit(packet);
        }
        (IpAddr::V6(own), IpAddr::V6(theirs)) => {
            let repr = ipv6::Repr::new(own, theirs, protocol::ICMPV6, icmp::HEADER_LEN + payload);
            icmpv6::Repr::echo(icmpv6::kind::ECHO_REQUEST, identifier, sequence, payload)
                .emit(message, repr.pseudo_header());
            repr.emit(packet);
        }
        _ => return None,
    }
    Some(())
}

/// Which probe `packet` answers, if it is an echo reply that could be one.
#[must_use]
pub fn answer(packet: &[u8]) -> Option<Sign> {
    let (kind, at, reply) = match packet.first()? >> 4 {
        4 => (
            *packet.get(9)?,
            usize::from(packet[0] & 15) * 4,
            icmp::kind::ECHO_REPLY,
        ),
        6 => (*packet.get(6)?, ipv6::HEADER_LEN, icmpv6::kind::ECHO_REPLY),
        _ => return None,
    };
    if !matches!(kind, protocol::ICMP | protocol::ICMPV6) || *packet.get(at)? != reply {
        return None;
    }
    let sign = packet.get(at + icmp::HEADER_LEN..)?;
    let word = |at: usize| Some(u64::from_be_bytes(*sign.get(at..)?.first_chunk()?));
    Some(Sign {
        secret: word(0)?,
        number: word(8)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    const SIGN: Sign = Sign {
        secret: 0x0102_0304_0506_0708,
        number: 0x2122_2324_2526_2728,
    };

    #[test]
    fn request_over_ipv4_is_an_echo_request_of_the_length_that_was_asked_for() {
        let mut packet = vec![9; 46];
        let addresses = ("10.1.0.0".parse().unwrap(), "10.1.1.0".parse().unwrap());
        request(addresses.0, addresses.1, SIGN, &mut packet).unwrap();
        #[rustfmt::skip]
        let expected = [
            0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 1, 0x25, 0xce, 10, 1, 0, 0, 10, 1, 1, 0,
            8, 0, 0x29, 0x27, 7, 8, 0x27, 0x28,
            1, 2, 3, 4, 5, 6, 7, 8, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0, 0,
        ];
        assert_eq!(packet, expected);
        assert_eq!(answer(&packet), None);
        packet[20] = 0;
        assert_eq!(answer(&packet), Some(SIGN));
        for len in 0..44 {
            assert_eq!(answer(&packet[..len]), None);
        }
    }

    #[test]
    fn request_over_ipv6_has_a_right_checksum_and_its_reply_is_known() {
        let mut packet = vec![9; 100];
        request(
            "fd00::".parse().unwrap(),
            "fd00:1::".parse().unwrap(),
            SIGN,
            &mut packet,
        )
        .unwrap();
        let view = ipv6::Packet::new_checked(&packet[..]).unwrap();
        assert_eq!((view.next_header(), view.payload_len()), (protocol::ICMPV6, 60));
        assert!(view.pseudo_header().is_valid(protocol::ICMPV6, view.payload()));
        assert_eq!(packet[40], icmpv6::kind::ECHO_REQUEST);
        assert_eq!(answer(&packet), None);
        packet[40] = icmpv6::kind::ECHO_REPLY;
        assert_eq!(answer(&packet), Some(SIGN));
    }

    #[test]
    fn what_has_no_room_or_no_common_family_is_no_request() {
        let (v4, v6) = ("10.1.0.0".parse().unwrap(), "fd00::".parse().unwrap());
        assert_eq!(request(v4, v4, SIGN, &mut [0; 43]), None);
        assert!(request(v4, v4, SIGN, &mut [0; 44]).is_some());
        assert_eq!(request(v4, v6, SIGN, &mut [0; 100]), None);
        assert_eq!(answer(&[]), None);
    }
}

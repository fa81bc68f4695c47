//! What stands between the UDP header and the inner IP packet: nothing (flannel's udp), or a VXLAN and an Ethernet header.
//!
//! The Ethernet header is that of the two VTEPs (RFC 7348 section 5), as the kernel's own device writes it for a routed packet. One
//! host has a VTEP for each family of the overlay, with a link-layer address of its own.
use crate::stats::DropReason;
use crate::wire::ethernet::{self, MacAddress, ether_type};
use crate::wire::vxlan::{self, Vni};

/// The longest header, in bytes.
pub const MAX_HEADER_BYTES: usize = vxlan::HEADER_LEN + ethernet::HEADER_LEN;

/// This host's VTEPs.
#[derive(Clone, Copy, Debug)]
pub struct Vtep {
    /// The network's identifier.
    pub vni: Vni,
    /// The link-layer address for IPv4 inside.
    pub v4: MacAddress,
    /// The link-layer address for IPv6 inside.
    pub v6: MacAddress,
}

/// How inner packets lie in datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub enum Encapsulation {
    /// Alone.
    #[default]
    Plain,
    /// Behind a VXLAN and an Ethernet header.
    Vxlan(Vtep),
}

/// The family of an inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The bytes before each inner packet for one peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Header {
    bytes: [u8; MAX_HEADER_BYTES],
    len: usize,
}

impl Header {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Encapsulation {
    /// The header before packets of `family` to the peer whose VTEP has the address `to`.
    #[must_use]
    pub fn header(&self, family: Family, to: MacAddress) -> Header {
        let Self::Vxlan(vtep) = self else {
            return Header::default();
        };
        let (source, kind) = match family {
            Family::V4 => (vtep.v4, ether_type::IPV4),
            Family::V6 => (vtep.v6, ether_type::IPV6),
        };
        let mut bytes = [0; MAX_HEADER_BYTES];
        let (outer, inner) = bytes.split_at_mut(vxlan::HEADER_LEN);
        vxlan::Repr {
            vni: vtep.vni,
            group: None,
        }
        .emit(outer);
        ethernet::Repr {
            destination: to,
            source,
            ether_type: kind,
        }
        .emit(inner);
        Header {
            bytes,
            len: MAX_HEADER_BYTES,
        }
    }

    /// Where the inner packet begins in `datagram`.
    ///
    /// # Errors
    /// It is no VXLAN frame, of another network, not for this host's VTEP, or holds no IP packet.
    pub fn strip(&self, datagram: &[u8]) -> Result<usize, DropReason> {
        let Self::Vxlan(vtep) = self else {
            return Ok(0);
        };
        let outer = vxlan::Packet::new_checked(datagram).map_err(|_| DropReason::Malformed)?;
        if outer.vni() != vtep.vni {
            return Err(DropReason::ForeignNetwork);
        }
        let frame = ethernet::Frame::new_checked(&datagram[vxlan::HEADER_LEN..])
            .map_err(|_| DropReason::Malformed)?;
        let (own, version) = match frame.ether_type() {
            ether_type::IPV4 => (vtep.v4, 4),
            ether_type::IPV6 => (vtep.v6, 6),
            _ => return Err(DropReason::ForeignFrame),
        };
        if frame.destination() != own {
            return Err(DropReason::ForeignFrame);
        }
        match datagram.get(MAX_HEADER_BYTES) {
            Some(byte) if byte >> 4 == version => Ok(MAX_HEADER_BYTES),
            _ => Err(DropReason::Malformed),
        }
    }
}

/// A number that is equal for all packets of a flow, and else likely not.
#[must_use]
pub fn flow(packet: &[u8]) -> u32 {
    let word = |at: usize| {
        let bytes = packet.get(at..at + 4).and_then(|bytes| bytes.first_chunk());
        bytes.map_or(0, |bytes: &[u8; 4]| u32::from_ne_bytes(*bytes))
    };
    let (addresses, ports) = match packet.first().map(|byte| byte >> 4) {
        Some(4) => {
            // Later fragments have no ports, so none of a fragmented packet's parts is looked at for them.
            let is_fragment = word(4) & 0x0000_3fff_u32.to_be() != 0;
            let at = usize::from(packet[0] & 15) * 4;
            (
                word(12) ^ word(16).rotate_left(16),
                if is_fragment { 0 } else { word(at) },
            )
        }
        Some(6) => {
            let addresses = (8..40)
                .step_by(4)
                .fold(0, |sum: u32, at| sum.rotate_left(5) ^ word(at));
            let has_ports = matches!(packet.get(6), Some(6 | 17));
            (
                addresses ^ (word(0) & 0x000f_ffff_u32.to_be()),
                if has_ports { word(40) } else { 0 },
            )
        }
        _ => return 0,
    };
    // The finalizer of MurmurHash3: every bit of the input changes about half of the output's.
    let mut hash = addresses ^ ports;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    const HERE: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const THERE: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

    fn vtep(v4: MacAddress, vni: u32) -> Encapsulation {
        Encapsulation::Vxlan(Vtep {
            vni: Vni::new(vni).unwrap(),
            v4,
            v6: MacAddress([2, 0, 0, 0, 6, v4.0[5]]),
        })
    }

    #[test]
    fn what_one_host_writes_the_other_strips() {
        let header = vtep(HERE, 7).header(Family::V4, THERE);
        let known = [8, 0, 0, 0, 0, 0, 7, 0, 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        assert_eq!(header.as_bytes(), known);
        let mut datagram = known.to_vec();
        datagram.push(0x45);
        assert_eq!(vtep(THERE, 7).strip(&datagram), Ok(22));
        assert_eq!(vtep(THERE, 8).strip(&datagram), Err(DropReason::ForeignNetwork));
        assert_eq!(vtep(HERE, 7).strip(&datagram), Err(DropReason::ForeignFrame));
        datagram[22] = 0x60;
        assert_eq!(vtep(THERE, 7).strip(&datagram), Err(DropReason::Malformed));
        datagram[20..22].copy_from_slice(&[8, 6]);
        assert_eq!(vtep(THERE, 7).strip(&datagram), Err(DropReason::ForeignFrame));
        datagram[0] = 0;
        assert_eq!(vtep(THERE, 7).strip(&datagram), Err(DropReason::Malformed));
        for len in 0..22 {
            assert_eq!(vtep(THERE, 7).strip(&known[..len]), Err(DropReason::Malformed));
        }
        assert_eq!(Encapsulation::Plain.strip(&[]), Ok(0));
        assert!(
            Encapsulation::Plain
                .header(Family::V6, THERE)
                .as_bytes()
                .is_empty()
        );
    }

    #[test]
    fn a_flow_has_one_number_and_flows_differ() {
        let mut packet = vec![0; 60];
        packet[0] = 0x45;
        packet[12..20].copy_from_slice(&[10, 1, 0, 2, 10, 1, 1, 2]);
        let mut seen = std::collections::BTreeSet::new();
        for port in 0..64 {
            packet[23] = port;
            packet[2] = port;
            seen.insert(flow(&packet) % 8);
        }
        assert_eq!(seen.len(), 8);
        packet[6] = 0x20;
        let first = flow(&packet);
        packet[23] = 99;
        assert_eq!(flow(&packet), first);
        packet[0] = 0x60;
        let first = flow(&packet);
        packet[3] ^= 1;
        assert_ne!(flow(&packet), first);
        packet[0] = 0x15;
        assert_eq!(flow(&packet), 0);
    }
}

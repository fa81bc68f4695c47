//! Headers that stay the same around payloads that change: a tunnel's constants.
//!
//! A [`Template`] is written once. For each payload only lengths and checksums are new: lengths are added, an IPv4 header's
//! checksum follows from its constant sum, and only checksums that cover the payload are computed over it. What comes out is
//! what [`stack::encode`](super::stack::encode) writes, byte for byte.
use alloc::vec;
use alloc::vec::Vec;

use super::checksum::{PseudoHeader, Sum};
use super::stack::{EncodeError, Header, emit};
use super::{Layer, ipv6, protocol};

/// Headers, ready to be put in front of payloads.
#[derive(Clone, Debug)]
pub struct Template {
    headers: Vec<u8>,
    lengths: Vec<Length>,
    checksums: Vec<Checksum>,
}

/// A length field: what it is without payload, and the sum of the header around it if that has a checksum of its own.
#[derive(Clone, Copy, Debug)]
struct Length {
    layer: Layer,
    start: usize,
    empty: usize,
    sum: Sum,
}

/// A checksum that covers all that follows.
#[derive(Clone, Copy, Debug)]
struct Checksum {
    start: usize,
    field: usize,
    protocol: u8,
    pseudo: Option<PseudoHeader>,
}

impl Template {
    /// The template of `headers`, the outermost first.
    ///
    /// # Errors
    /// [`EncodeError`], as for [`stack::encode`](super::stack::encode) around an empty payload.
    pub fn new(headers: &[Header<'_>]) -> Result<Self, EncodeError> {
        let total = headers.iter().map(Header::len).sum();
        let mut template = Self {
            headers: vec![0; total],
            lengths: Vec::new(),
            checksums: Vec::new(),
        };
        emit(headers, &mut template.headers, total)?;
        let mut start = 0;
        let mut pseudo = None;
        for header in headers {
            template.add(header, start, total - start, pseudo);
            pseudo = header.pseudo_header().or(pseudo);
            start += header.len();
        }
        // The innermost first, as checksums further out cover those further in.
        template.lengths.reverse();
        template.checksums.reverse();
        Ok(template)
    }

    fn add(&mut self, header: &Header<'_>, start: usize, len: usize, pseudo: Option<PseudoHeader>) {
        let layer = header.layer();
        let (empty, field, number) = match header {
            Header::Ipv4(_) => (Some(len), None, 0),
            Header::Ipv6(..) => (Some(len - ipv6::HEADER_LEN), None, 0),
            Header::Udp(_, checksum) => (Some(len), checksum.then_some(6), protocol::UDP),
            Header::Tcp(_) => (None, Some(16), protocol::TCP),
            Header::Icmp(_) => (None, Some(2), protocol::ICMP),
            Header::Icmpv6(_) => (None, Some(2), protocol::ICMPV6),
            Header::Ethernet(_) | Header::Vlan(_) | Header::Arp(_) | Header::Vxlan(_) => (None, None, 0),
        };
        if let Some(empty) = empty {
            let bytes = &self.headers[start..start + header.len()];
            let sum = match layer {
                Layer::Ipv4 => Sum::ZERO.plus(&bytes[..2]).plus(&bytes[4..10]).plus(&bytes[12..]),
                _ => Sum::ZERO,
            };
            self.lengths.push(Length {
                layer,
                start,
                empty,
                sum,
            });
        }
        if let Some(field) = field {
            // ICMP's checksum covers no addresses (RFC 792).
            let pseudo = pseudo.filter(|_| layer != Layer::Icmp);
            self.checksums.push(Checksum {
                start,
                field,
                protocol: number,
                pseudo,
            });
        }
    }

    /// How many bytes the headers take.
    #[must_use]
    pub fn len(&self) -> usize {
        self.headers.len()
    }

    /// Whether there are no headers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }

    /// Whether a payload of so many bytes fits.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`], for the innermost layer whose length field is too small.
    #[inline]
    pub fn fits(&self, payload_len: usize) -> Result<(), EncodeError> {
        for &Length { layer, empty, .. } in &self.lengths {
            let len = empty.saturating_add(payload_len);
            if len > 0xffff {
                return Err(EncodeError::TooLong { layer, len });
            }
        }
        Ok(())
    }

    /// Writes the headers for a payload of `payload_len` bytes into the start of `packet`, but for checksums that cover it.
    ///
    /// # Panics
    /// If `packet` is shorter than [`len`](Self::len).
    #[inline]
    pub fn emit_headers(&self, packet: &mut [u8], payload_len: usize) {
        packet[..self.headers.len()].copy_from_slice(&self.headers);
        for &Length {
            layer,
            start,
            empty,
            sum,
        } in &self.lengths
        {
            #[allow(clippy::cast_possible_truncation, reason = "`fits` holds for the payload")]
            let len = (empty + payload_len) as u16;
            let header = &mut packet[start..];
            let field = if layer == Layer::Ipv4 { 2 } else { 4 };
            header[field..field + 2].copy_from_slice(&len.to_be_bytes());
            if layer == Layer::Ipv4 {
                header[10..12].copy_from_slice(&sum.plus_word(len).complement().to_be_bytes());
            }
        }
    }

    /// Computes the checksums that cover the payload, over the whole `packet`.
    ///
    /// # Panics
    /// If `packet` is shorter than [`len`](Self::len).
    #[inline]
    pub fn emit_checksums(&self, packet: &mut [u8]) {
        for &Checksum {
            start,
            field,
            protocol: number,
            pseudo,
        } in &self.checksums
        {
            let part = &mut packet[start..];
            part[field..field + 2].fill(0);
            let sum = pseudo.map_or(Sum::ZERO, |pseudo| pseudo.sum(number, part.len()));
            let checksum = match sum.plus(part).complement() {
                // RFC 768: a checksum that comes out as zero is sent as all ones, since zero means none.
                0 if number == protocol::UDP => 0xffff,
                checksum => checksum,
            };
            part[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
        }
    }

    /// Writes headers and `payload`, for which [`fits`](Self::fits) holds.
    ///
    /// # Panics
    /// If `packet` does not have the length of both.
    #[inline]
    pub fn emit(&self, packet: &mut [u8], payload: &[u8]) {
        packet[self.headers.len()..].copy_from_slice(payload);
        self.emit_headers(packet, payload.len());
        self.emit_checksums(packet);
    }

    /// Writes headers and payload into each slot of `packets`, for the `stride` bytes of each slot of `payloads`, for which
    /// [`fits`](Self::fits) holds.
    ///
    /// # Panics
    /// If `packets` are not as many slots as `payloads`, each longer by [`len`](Self::len); if `stride` is 0.
    pub fn emit_all(&self, packets: &mut [u8], payloads: &[u8], stride: usize) {
        let (header, len) = (self.headers.len(), self.headers.len() + stride);
        let count = payloads.len() / stride;
        assert_eq!(packets.len(), count * len, "a slot for each payload");
        let mut headers = self.headers.clone();
        self.emit_headers(&mut headers, stride);
        for (packet, payload) in packets.chunks_exact_mut(len).zip(payloads.chunks_exact(stride)) {
            packet[..header].copy_from_slice(&headers);
            packet[header..].copy_from_slice(payload);
            if !self.checksums.is_empty() {
                self.emit_checksums(packet);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{icmp, ipv4, stack, udp};
    use super::*;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;

    fn stacks() -> [Vec<Header<'static>>; 3] {
        let ip = |protocol| {
            Header::Ipv4(ipv4::Repr::new(
                Ipv4Addr::LOCALHOST,
                Ipv4Addr::BROADCAST,
                protocol,
                0,
            ))
        };
        let ipv6 = Header::Ipv6(
            ipv6::Repr::new([1; 16].into(), [2; 16].into(), 60, 0),
            &[17, 0, 1, 4, 0, 0, 0, 0],
        );
        let udp = |checksum| {
            let (source_port, destination_port) = (1, 8285);
            Header::Udp(
                udp::Repr {
                    source_port,
                    destination_port,
                    payload_len: 0,
                },
                checksum,
            )
        };
        let echo = Header::Icmp(icmp::Repr::echo(icmp::kind::ECHO_REQUEST, 1, 2, 0));
        [
            vec![ip(17), udp(false), ip(1), echo],
            vec![ipv6, udp(true), ip(17), udp(true)],
            vec![],
        ]
    }

    #[test]
    fn a_payload_is_too_long_where_the_stack_says_so() {
        for headers in stacks() {
            let template = Template::new(&headers).unwrap();
            for len in [0, 1, 65535 - 68, 65470, 65479, 65480, 65499, 65500, 65527, 65535] {
                let expected = stack::encode(&headers, &vec![0; len]).map(|_| ());
                assert_eq!(template.fits(len), expected, "{len}");
            }
        }
    }

    #[test]
    fn a_checksum_without_addresses_is_an_error_at_once() {
        let headers = &stacks()[1][1..2];
        assert_eq!(
            Template::new(headers).unwrap_err(),
            EncodeError::NoAddresses { layer: Layer::Udp }
        );
    }

    proptest! {
        #[test]
        fn many_packets_are_what_single_ones_are(seed: u8, stride in 1usize..300, count in 0usize..80, which in 0usize..3) {
            let template = Template::new(&stacks()[which]).unwrap();
            let payloads: Vec<u8> = (0..count * stride).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect();
            let len = template.len() + stride;
            let mut packets = vec![0xff; count * len];
            template.emit_all(&mut packets, &payloads, stride);
            let mut single = vec![0; len];
            for (packet, payload) in packets.chunks_exact(len).zip(payloads.chunks_exact(stride)) {
                template.emit(&mut single, payload);
                prop_assert_eq!(packet, &single);
            }
        }

        #[test]
        fn a_template_writes_what_the_stack_writes(payload: Vec<u8>, which in 0usize..3) {
            let headers = &stacks()[which];
            let template = Template::new(headers).unwrap();
            let mut packet = vec![0xff; template.len() + payload.len()];
            template.emit(&mut packet, &payload);
            prop_assert_eq!(packet, stack::encode(headers, &payload).unwrap());
        }
    }
}

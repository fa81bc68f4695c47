//! Whether super-packets arrive where echo requests do: the acknowledgements of their receivers say so.
//!
//! What lets short packets pass may still drop long ones, a network card that does not cut tunnelled packets as it says, or a
//! filter by length. So now and then one super-packet that left through the TAP is remembered, until a packet of the other
//! direction acknowledges its end. Where several in a row are not acknowledged within half a second, the way is no use. One that is
//! not may belong to a receiver that is gone: another flow's is taken next. An acknowledgement of what was sent twice does not tell which
//! of them arrived (RFC 6298 section 3): one whose first byte is sent again counts as not acknowledged.
use std::time::{Duration, Instant};

use overlaynet_core::wire::protocol;

/// How long a super-packet may wait for its acknowledgement.
const PATIENCE: Duration = Duration::from_millis(500);

/// The distance of super-packets that are remembered, while all is well.
const SPACING: Duration = Duration::from_millis(100);

/// So many in a row without acknowledgement are no chance.
const DOUBTS: u32 = 3;

/// The addresses and ports of a flow, as its other direction has them.
type Reverse = [u8; 36];

/// A super-packet that was remembered.
#[derive(Clone, Copy, Debug)]
struct Sample {
    reverse: Reverse,
    /// The sequence numbers of its first byte and behind its last.
    start: u32,
    end: u32,
    since: Instant,
}

impl Sample {
    fn is_repeated_by(&self, packet: &[u8]) -> bool {
        flow_of(packet, false)
            .is_some_and(|(at, reverse)| reverse == self.reverse && long(packet, at + 4) == Some(self.start))
    }
}

/// What is known of one peer's super-packets.
#[derive(Clone, Copy, Debug)]
pub struct Proof {
    sample: Option<Sample>,
    again: Instant,
    doubts: u32,
    /// The flow of the last one that was not acknowledged, and until when another's is looked for.
    doubted: Option<(Reverse, Instant)>,
}

impl Proof {
    /// Nothing was sent yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            sample: None,
            again: now,
            doubts: 0,
            doubted: None,
        }
    }

    /// Whether an acknowledgement would be of interest.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.sample.is_some()
    }

    /// Notes that `packet` is about to leave; whether the way is of no use.
    pub fn sent(&mut self, packet: &[u8], now: Instant) -> bool {
        if let Some(sample) = self.sample {
            if now < sample.since + PATIENCE && !sample.is_repeated_by(packet) {
                return false;
            }
            self.sample = None;
            self.doubted = Some((sample.reverse, now + SPACING));
            self.doubts += 1;
            if self.doubts == DOUBTS {
                self.doubts = 0;
                return true;
            }
        } else if now < self.again {
            return false;
        }
        if let Some((at, reverse)) = flow_of(packet, false)
            && !matches!(self.doubted, Some((doubted, until)) if doubted == reverse && now < until)
            && let Some(sequence) = long(packet, at + 4)
        {
            let header = at + usize::from(packet[at + 12] >> 4) * 4;
            #[allow(clippy::cast_possible_truncation, reason = "packets are shorter than 64 KiB")]
            let payload = packet.len().saturating_sub(header) as u32;
            self.sample = Some(Sample {
                reverse,
                start: sequence,
                end: sequence.wrapping_add(payload),
                since: now,
            });
        }
        false
    }

    /// Notes that a single packet is about to leave; whether the way is of no use.
    pub fn sent_single(&mut self, packet: &[u8], now: Instant) -> bool {
        self.sample.is_some_and(|sample| sample.is_repeated_by(packet)) && self.sent(packet, now)
    }

    /// Looks at a packet that came from the peer; whether it acknowledges what was remembered.
    pub fn heard(&mut self, packet: &[u8], now: Instant) -> bool {
        let Some(sample) = self.sample else {
            return false;
        };
        if let Some((at, flow)) = flow_of(packet, true)
            && flow == sample.reverse
            && let Some(acknowledged) = long(packet, at + 8)
            && acknowledged.wrapping_sub(sample.end).cast_signed() >= 0
        {
            (self.sample, self.doubts, self.again) = (None, 0, now + SPACING);
            return true;
        }
        false
    }
}

/// Where the TCP header of `packet` begins, and its addresses and ports, or with `reverse` those of the other direction.
fn flow_of(packet: &[u8], reverse: bool) -> Option<(usize, Reverse)> {
    let (addresses, len, at) = match packet.first()? >> 4 {
        4 if packet.get(9) == Some(&protocol::TCP) => (12, 4, usize::from(packet[0] & 15) * 4),
        6 if packet.get(6) == Some(&protocol::TCP) => (8, 16, 40),
        _ => return None,
    };
    let ends = packet.get(addresses..addresses + 2 * len)?;
    let ports = packet.get(at..at + 4)?;
    packet.get(at + 12)?;
    let (mut one, mut other) = (ends.split_at(len), ports.split_at(2));
    if !reverse {
        (one, other) = ((one.1, one.0), (other.1, other.0));
    }
    let mut flow = [0; 36];
    flow[..len].copy_from_slice(one.0);
    flow[16..16 + len].copy_from_slice(one.1);
    flow[32..34].copy_from_slice(other.0);
    flow[34..].copy_from_slice(other.1);
    Some((at, flow))
}

fn long(packet: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*packet.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TCP packet between the hosts 1 and 2, from the first or from the second.
    fn packet(
        v6: bool,
        back: bool,
        ports: [u16; 2],
        sequence: u32,
        acknowledged: u32,
        payload: usize,
    ) -> Vec<u8> {
        let mut bytes = vec![0; if v6 { 60 } else { 40 } + payload];
        let (at, addresses, len) = if v6 { (40, 8, 16) } else { (20, 12, 4) };
        bytes[0] = if v6 { 0x60 } else { 0x45 };
        bytes[if v6 { 6 } else { 9 }] = 6;
        let (hosts, ports) = if back {
            ([2, 1], [ports[1], ports[0]])
        } else {
            ([1, 2], ports)
        };
        bytes[addresses + len - 1] = hosts[0];
        bytes[addresses + 2 * len - 1] = hosts[1];
        bytes[at..at + 2].copy_from_slice(&ports[0].to_be_bytes());
        bytes[at + 2..at + 4].copy_from_slice(&ports[1].to_be_bytes());
        bytes[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
        bytes[at + 8..at + 12].copy_from_slice(&acknowledged.to_be_bytes());
        bytes[at + 12] = 0x50;
        bytes
    }

    #[test]
    fn super_packets_that_are_acknowledged_leave_no_doubt() {
        for v6 in [false, true] {
            let mut now = Instant::now();
            let mut proof = Proof::new(now);
            for round in 0..20_u32 {
                // The numbers run over.
                let sequence = 0xffff_8000_u32.wrapping_add(round * 5000);
                assert!(!proof.sent(&packet(v6, false, [1, 2], sequence, 9, 5000), now));
                assert!(proof.is_waiting());
                proof.heard(&packet(v6, true, [1, 2], 9, sequence.wrapping_add(4999), 0), now);
                proof.heard(&packet(v6, true, [1, 3], 9, sequence.wrapping_add(5000), 0), now);
                proof.heard(&packet(v6, false, [1, 2], 9, sequence.wrapping_add(5000), 0), now);
                assert!(proof.is_waiting());
                now += PATIENCE - Duration::from_millis(1);
                proof.heard(&packet(v6, true, [1, 2], 9, sequence.wrapping_add(5001), 0), now);
                assert!(!proof.is_waiting());
                assert!(!proof.sent(&packet(v6, false, [1, 2], sequence, 9, 5000), now));
                assert!(!proof.is_waiting(), "not before the next is due");
                now += SPACING;
            }
        }
    }

    #[test]
    fn three_in_a_row_that_nobody_acknowledges_are_enough() {
        let mut now = Instant::now();
        let mut proof = Proof::new(now);
        let mut useless = vec![];
        for round in 0..300_u32 {
            useless.push(proof.sent(&packet(false, false, [1, 2], round * 3000, 1, 3000), now));
            now += Duration::from_millis(10);
        }
        assert_eq!(useless.iter().position(|useless| *useless), Some(170));
    }

    #[test]
    fn receiver_that_is_gone_is_not_the_way() {
        let mut now = Instant::now();
        let mut proof = Proof::new(now);
        for round in 0..1000_u32 {
            // Of two flows one is acknowledged at once.
            for port in [1, 2] {
                assert!(!proof.sent(&packet(false, false, [port, 9], round, 1, 3000), now));
                now += Duration::from_millis(7);
            }
            proof.heard(&packet(false, true, [2, 9], 1, round + 3000, 0), now);
        }
    }

    #[test]
    fn what_was_sent_twice_proves_nothing() {
        let mut now = Instant::now();
        let mut proof = Proof::new(now);
        for round in 1..=3_u32 {
            let sequence = round * 100_000;
            assert!(!proof.sent(&packet(false, false, [1, 2], sequence, 1, 3000), now));
            assert!(!proof.sent_single(&packet(false, false, [1, 2], sequence - 1000, 1, 1000), now));
            assert!(proof.is_waiting(), "another packet was repeated");
            now += Duration::from_millis(200);
            let useless = proof.sent_single(&packet(false, false, [1, 2], sequence, 1, 1000), now);
            assert_eq!(useless, round == 3);
            assert!(!proof.heard(&packet(false, true, [1, 2], 1, sequence + 3000, 0), now));
            now += SPACING;
        }
    }

    #[test]
    fn no_bytes_are_too_few() {
        let now = Instant::now();
        let whole = packet(true, false, [1, 2], 1, 1, 0);
        for len in 0..whole.len() {
            let mut proof = Proof::new(now);
            proof.sent(&whole[..len], now);
            proof.heard(&whole[..len], now);
        }
    }
}

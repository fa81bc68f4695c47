//! When to let small packets gather before the next turn.
use std::time::{Duration, Instant};

/// So many packets a millisecond are many: each costs a microsecond or more, so that they take a good part of a processor.
const MANY_A_MILLISECOND: usize = 64;

/// How long packets are counted before they are called many or not.
const COUNTED: Duration = Duration::from_millis(1);

/// A turn with fewer packets than this is worth waiting for more: half of what a send takes.
const FEW: usize = 64;

/// Packets are small while they have no more bytes than this each, on average: what a packet costs is more than what its bytes do.
/// Where they are longer a turn of few is bulk that came as one piece, and waiting would keep TCP's acknowledgements back.
const SMALL_BYTES: usize = 256;

/// How long packets gather. Network cards wait as long where much comes in (`rx-usecs` of ethtool(8)).
pub(super) const GATHERING: Duration = Duration::from_micros(50);

/// Whether to let packets gather before the next turn.
///
/// Where many come and a turn finds few of them, the thread is quicker than their sender: then every send carries few, and so does
/// everything behind it, down to the wake-ups of the peer's thread, which on a machine without idle processors take from the sender
/// what it needs. It is what network cards do when they moderate interrupts, and costs a round trip as little.
#[derive(Debug)]
pub(super) struct Gathering {
    since: Instant,
    packets: usize,
    are_many: bool,
}

impl Gathering {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            packets: 0,
            are_many: false,
        }
    }

    /// Whether to wait after a turn with so many packets of so many bytes together.
    pub(super) fn waits(&mut self, packets: usize, bytes: usize, now: Instant) -> bool {
        let are_small = bytes <= packets * SMALL_BYTES;
        if are_small {
            self.packets += packets;
        }
        let span = now.saturating_duration_since(self.since);
        if span >= COUNTED {
            self.are_many =
                self.packets as u128 * COUNTED.as_micros() >= MANY_A_MILLISECOND as u128 * span.as_micros();
            (self.since, self.packets) = (now, 0);
        }
        self.are_many && are_small && packets < FEW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The turns, of so many packets of so many bytes each, one every so many microseconds, after which packets are let gather.
    fn waiting_turns(
        gathering: &mut Gathering,
        begun: Instant,
        (packets, each): (usize, usize),
        every_us: u64,
        turns: u64,
    ) -> u64 {
        let moment = |turn| begun + Duration::from_micros(every_us * turn);
        (1..=turns)
            .filter(|turn| gathering.waits(packets, packets * each, moment(*turn)))
            .count() as u64
    }

    #[test]
    fn packets_gather_only_where_many_come_in_small_turns() {
        let begun = Instant::now();
        let waiting = |packets, every_us| {
            waiting_turns(&mut Gathering::new(begun), begun, (packets, 92), every_us, 1000)
        };
        // Round trips, one after the other, and a stream of 50,000 packets a second.
        assert_eq!(waiting(1, 30), 0);
        assert_eq!(waiting(5, 100), 0);
        // 100,000 a second, once they have been counted; in turns that are large anyway; all at once, but seldom.
        assert_eq!(waiting(1, 10), 1000 - 99);
        assert_eq!(waiting(FEW, 10), 0);
        assert_eq!(waiting(63, 5000), 0);
    }

    #[test]
    fn bulk_never_waits_nor_makes_acknowledgements_wait() {
        let begun = Instant::now();
        let mut gathering = Gathering::new(begun);
        // Super-packets of 44 datagrams, each followed by an acknowledgement the other way.
        let waits = (1..=1000).filter(|turn| {
            let now = begun + Duration::from_micros(50 * turn);
            gathering.waits(44, 44 * 1452, now) || gathering.waits(1, 52, now)
        });
        assert_eq!(waits.count(), 0);
    }

    #[test]
    fn packets_do_not_gather_after_the_flood() {
        let begun = Instant::now();
        let mut gathering = Gathering::new(begun);
        assert!(waiting_turns(&mut gathering, begun, (2, 92), 10, 500) > 0);
        let later = begun + Duration::from_millis(50);
        assert_eq!(waiting_turns(&mut gathering, later, (1, 92), 500, 100), 0);
    }
}

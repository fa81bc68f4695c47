//! Which peers the TAP is known to reach: what is written to it is forwarded by the host like anybody's packets, and what drops
//! those (a filter, the reverse path filter, a route) tells nobody.
//!
//! So a peer's packets take that way on credit only. An echo request that went through the TAP and was answered is good for
//! [`CREDIT`]; while packets go, one is asked every [`ASKING`]. Where answers fail to come the credit ends by itself, and with
//! it the way: packets go through the socket, at most [`CREDIT`] after the first was lost. Then the peer is asked for
//! [`PATIENCE`] more, and after that again after a pause that doubles. Nothing is asked of peers to whom nothing goes.
//!
//! There is no clock here and no I/O: who calls says what time it is, and sends what is to be asked.
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use overlaynet_core::probe::Sign;

/// How long an answer is good for.
pub const CREDIT: Duration = Duration::from_millis(400);

/// How often a peer is asked while packets go to it, or while nothing is known.
pub const ASKING: Duration = Duration::from_millis(50);

/// How long a peer may take for its first answer.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// The pause after a peer that did not answer, at first and at most.
pub const PAUSE: Duration = Duration::from_secs(1);
/// The pause after super-packets did not arrive, at first: finding out costs a flow seconds.
const SWALLOWED_PAUSE: Duration = Duration::from_secs(8);

const PAUSE_MOST: Duration = Duration::from_secs(64);

/// Peers of which anything is remembered. Others' packets take the socket.
const PEERS: usize = 4096;

/// Marks the number of a request that went through the socket: answered, it tells that the peer is there.
const CONTROL: u64 = 1 << 63;

/// What is known of the way to one peer.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Nothing, but that it was asked since then.
    Asked(Instant),
    /// It answers: until then the way may be taken.
    Open(Instant),
    /// It did not answer: until then nobody asks.
    Closed(Instant),
}

#[derive(Clone, Copy, Debug)]
struct Way {
    state: State,
    /// When it was asked last.
    asked: Instant,
    /// Requests without an answer since the last answer.
    unanswered: u32,
    /// The first and the last number of requests that count.
    numbers: (u64, u64),
    /// How often it was asked in vain, in a row.
    failures: u32,
    /// How often super-packets did not arrive though answers did, in a row.
    distrust: u32,
    /// Whether packets took the way when answers stopped to come, which nobody was told yet.
    left: bool,
    /// Whether it was asked through the socket, and answered.
    control: (bool, bool),
}

/// What became of the way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Answers to requests stopped to come while packets went.
    Lost,
    /// It did not answer in time. `there`: it did when it was asked through the socket.
    Silent {
        /// Whether the peer is there at all.
        there: bool,
    },
    /// It answers, but no super-packet arrives.
    Swallowed,
    /// It answers.
    Opened,
}

/// What to do with a packet for a peer, and what to send besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// The packet may go through the TAP.
    pub take: bool,
    /// Send this request through the TAP.
    pub ask: Option<Sign>,
    /// Send this one through the socket.
    pub control: Option<Sign>,
    /// Tell the operator.
    pub change: Option<Change>,
}

/// The ways to all peers.
#[derive(Debug)]
pub struct Reach {
    secret: u64,
    number: u64,
    /// Requests that wait for an answer, of all peers.
    waiting: bool,
    peers: HashMap<IpAddr, Way>,
}

impl Reach {
    /// Nothing is known yet. `secret` is what nobody else should guess.
    #[must_use]
    pub fn new(secret: u64) -> Self {
        Self {
            secret,
            number: 0,
            waiting: false,
            peers: HashMap::new(),
        }
    }

    /// Whether an answer might come.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Whether packets for `peer` may take the way now.
    #[must_use]
    pub fn is_open(&self, peer: IpAddr, now: Instant) -> bool {
        matches!(self.peers.get(&peer), Some(Way { state: State::Open(until), .. }) if now < *until)
    }

    /// What to do with a packet for `peer` that would take the way.
    pub fn advise(&mut self, peer: IpAddr, now: Instant) -> Advice {
        if !self.peers.contains_key(&peer) && !self.make_room(now) {
            return Advice::default();
        }
        let next = self.number + 1;
        let way = self.peers.entry(peer).or_insert(Way {
            state: State::Closed(now),
            asked: now,
            unanswered: 0,
            numbers: (next, next),
            failures: 0,
            distrust: 0,
            left: false,
            control: (false, false),
        });
        let mut advice = Advice::default();
        let mut due = now >= way.asked + ASKING;
        match way.state {
            State::Open(until) if now < until => advice.take = true,
            State::Open(_) => {
                // Where nothing went nothing was asked. One request may be lost by chance: the next one tells.
                way.left = way.unanswered > 0;
                (way.state, way.control, due) = (State::Asked(now), (false, false), true);
            }
            State::Asked(since) if now >= since + PATIENCE => {
                let pause = PAUSE.saturating_mul(1 << way.failures.min(16)).min(PAUSE_MOST);
                way.failures += 1;
                way.state = State::Closed(now + pause);
                advice.change = Some(Change::Silent { there: way.control.1 });
                return advice;
            }
            State::Asked(since) => {
                if way.left && due {
                    way.left = false;
                    advice.change = Some(Change::Lost);
                }
                if !way.control.0 && now >= since + PATIENCE / 2 {
                    way.control.0 = true;
                    advice.control = Some(Sign {
                        secret: self.secret,
                        number: next | CONTROL,
                    });
                }
            }
            State::Closed(until) if now < until => return advice,
            State::Closed(_) => {
                way.numbers.0 = next;
                way.unanswered = 0;
                (way.state, way.control, due) = (State::Asked(now), (false, false), true);
            }
        }
        if due || advice.control.is_some() {
            self.number = next;
            self.waiting = true;
            way.numbers.1 = next;
        }
        if due {
            way.asked = now;
            way.unanswered += 1;
            advice.ask = Some(Sign {
                secret: self.secret,
                number: next,
            });
        }
        advice
    }

    /// Takes a packet's sign for an answer of `peer`; what has changed by it.
    pub fn answered(&mut self, peer: IpAddr, sign: Sign, now: Instant) -> Option<Change> {
        if sign.secret != self.secret {
            return None;
        }
        let way = self.peers.get_mut(&peer)?;
        let number = sign.number & !CONTROL;
        if number < way.numbers.0 || number > way.numbers.1 {
            return None;
        }
        if sign.number & CONTROL != 0 {
            way.control.1 = way.control.0;
            return None;
        }
        let before = way.state;
        if let State::Closed(_) = before {
            return None;
        }
        way.numbers.0 = number + 1;
        (way.unanswered, way.failures, way.left) = (0, 0, false);
        way.state = State::Open(now + CREDIT);
        self.waiting = self.peers.values().any(|way| way.unanswered > 0);
        matches!(before, State::Asked(_)).then_some(Change::Opened)
    }

    /// Super-packets to `peer` do not arrive, whatever it answers: leaves the way for a longer while each time.
    pub fn swallowed(&mut self, peer: IpAddr, now: Instant) {
        if let Some(way) = self.peers.get_mut(&peer) {
            let pause = SWALLOWED_PAUSE
                .saturating_mul(1 << way.distrust.min(16))
                .min(PAUSE_MOST);
            way.distrust += 1;
            way.state = State::Closed(now + pause);
        }
    }

    /// Super-packets to `peer` arrive.
    pub fn proved(&mut self, peer: IpAddr) {
        if let Some(way) = self.peers.get_mut(&peer) {
            way.distrust = 0;
        }
    }

    /// Forgets what was known: the way is another now.
    pub fn forget(&mut self) {
        self.peers.clear();
        self.waiting = false;
    }

    /// Whether one more peer may be remembered, perhaps in the place of some to whom nothing goes.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.peers.len() >= PEERS {
            self.peers.retain(
                |_, way| matches!(way.state, State::Open(until) | State::Closed(until) if now < until),
            );
        }
        self.peers.len() < PEERS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    const STEP: Duration = Duration::from_millis(10);

    /// A peer to which a packet goes every ten milliseconds, over a way that takes requests or not.
    struct World {
        reach: Reach,
        now: Instant,
        arrives: bool,
        is_there: bool,
        asked: usize,
        changes: Vec<Change>,
    }

    impl World {
        fn new(arrives: bool, is_there: bool) -> Self {
            Self {
                reach: Reach::new(77),
                now: Instant::now(),
                arrives,
                is_there,
                asked: 0,
                changes: vec![],
            }
        }

        /// Whether the packet took the way.
        fn step(&mut self) -> bool {
            self.now += STEP;
            let advice = self.reach.advise(PEER, self.now);
            self.changes.extend(advice.change);
            self.asked += usize::from(advice.ask.is_some());
            for sign in [
                advice.ask.filter(|_| self.arrives),
                advice.control.filter(|_| self.is_there),
            ]
            .into_iter()
            .flatten()
            {
                self.changes.extend(self.reach.answered(PEER, sign, self.now));
            }
            advice.take
        }

        fn run(&mut self, span: Duration) -> usize {
            let steps = span.as_millis() / STEP.as_millis();
            (0..steps).filter(|_| self.step()).count()
        }
    }

    #[test]
    fn way_is_taken_from_the_first_answer_on_and_asked_twenty_times_a_second() {
        let mut world = World::new(true, true);
        assert!(!world.step());
        assert!(world.step());
        assert_eq!(world.run(Duration::from_secs(1)), 100);
        assert_eq!(world.asked, 21);
        assert_eq!(world.changes, [Change::Opened]);
        assert!(world.reach.is_open(PEER, world.now));
        assert!(!world.reach.is_open(PEER, world.now + CREDIT));
    }

    #[test]
    fn way_that_is_closed_in_use_is_left_within_its_credit() {
        let mut world = World::new(true, true);
        world.run(Duration::from_secs(1));
        world.arrives = false;
        let taken = world.run(Duration::from_secs(1));
        assert!(taken <= 40, "{taken}");
        assert_eq!(world.changes, [Change::Opened, Change::Lost]);
        world.run(Duration::from_secs(1));
        assert_eq!(world.changes[2..], [Change::Silent { there: true }]);
        world.arrives = true;
        assert_eq!(world.run(Duration::from_millis(300)), 0);
        world.run(Duration::from_secs(1));
        assert_eq!(world.changes[3..], [Change::Opened]);
        assert!(world.step());
    }

    #[test]
    fn peer_that_does_not_answer_is_asked_ever_more_seldom() {
        let mut world = World::new(false, false);
        assert_eq!(world.run(Duration::from_secs(120)), 0);
        // A second of questions each, and pauses of 1, 2, 4, 8, 16, 32 and 64 seconds.
        assert_eq!(world.changes, [Change::Silent { there: false }; 7]);
        assert!(world.asked < 160, "{}", world.asked);
    }

    #[test]
    fn traffic_that_stands_still_with_the_way_is_told_when_it_goes_on() {
        let mut world = World::new(true, true);
        world.run(Duration::from_millis(300));
        world.arrives = false;
        // All that was sent is lost: nothing comes until the sender repeats something.
        world.run(Duration::from_millis(60));
        world.now += Duration::from_secs(1);
        world.run(Duration::from_millis(100));
        assert_eq!(world.changes, [Change::Opened, Change::Lost]);
    }

    #[test]
    fn pause_of_the_traffic_is_no_loss() {
        let mut world = World::new(true, true);
        world.run(Duration::from_millis(300));
        world.now += Duration::from_secs(10);
        assert!(!world.step());
        assert!(world.step());
        assert_eq!(world.changes, [Change::Opened, Change::Opened]);
    }

    #[test]
    fn way_that_swallows_super_packets_stays_closed_for_longer_each_time_until_some_arrive() {
        let mut world = World::new(true, true);
        for (round, pause_s) in [8, 16, 32, 64, 64].into_iter().enumerate() {
            world.run(Duration::from_millis(100));
            assert!(world.reach.is_open(PEER, world.now), "{round}");
            world.reach.swallowed(PEER, world.now);
            assert_eq!(world.run(Duration::from_secs(pause_s) - STEP), 0);
        }
        world.run(Duration::from_millis(100));
        world.reach.proved(PEER);
        world.reach.swallowed(PEER, world.now);
        assert_eq!(world.run(Duration::from_secs(8) - STEP), 0);
        world.run(Duration::from_millis(100));
        assert!(world.reach.is_open(PEER, world.now));
    }

    #[test]
    fn only_an_answer_to_what_was_asked_of_that_peer_counts() {
        let mut reach = Reach::new(77);
        let now = Instant::now();
        let sign = reach.advise(PEER, now).ask.unwrap();
        assert!(reach.is_waiting());
        let other = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3));
        let wrong = [
            (other, sign),
            (PEER, Sign { secret: 78, ..sign }),
            (
                PEER,
                Sign {
                    number: sign.number + 1,
                    ..sign
                },
            ),
            (
                PEER,
                Sign {
                    number: sign.number | CONTROL,
                    ..sign
                },
            ),
        ];
        for (peer, sign) in wrong {
            assert_eq!(reach.answered(peer, sign, now), None);
            assert!(!reach.is_open(PEER, now));
        }
        assert_eq!(reach.answered(PEER, sign, now), Some(Change::Opened));
        assert!(reach.is_open(PEER, now));
        assert!(!reach.is_waiting());
        reach.forget();
        assert!(!reach.is_open(PEER, now));
    }

    #[test]
    fn memory_is_bounded_and_goes_to_those_in_use() {
        let mut reach = Reach::new(77);
        let now = Instant::now();
        let peer = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(number));
        for number in 0..5000 {
            reach.advise(peer(number), now);
            assert!(reach.peers.len() <= PEERS);
        }
    }
}

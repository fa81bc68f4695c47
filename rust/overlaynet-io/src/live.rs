//! [`LiveTable`]: a prefix table that one thread changes while others look addresses up in it, and nobody waits.
//!
//! Values are `u32`: places in whatever the readers keep. A lookup finds what it would have found before a change or what it finds
//! after it, also while a change of many addresses is under way; of two lookups, the second sees no older state for one address than
//! the first. A change is visible at once to every reader that [begins](Reader::begin) after it, and to most that have begun.
//!
//! The readers' part of the table is [`Lookup`], which core keeps readable while it changes; `seats` says when what changes took out
//! of use may be used again. A reader that never ends what it began makes the writer need more and more memory, but stops nobody.
//!
//! The pump does not use this: its routes, peers, headers and counters belong together, and a packet must see all of one picture,
//! so it exchanges pictures as a whole ([`Shared`](crate::shared::Shared)).
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwap;
use overlaynet_core::address::Packed;
use overlaynet_core::prefix::{Ipv4Prefix, Ipv6Prefix, Prefix};
use overlaynet_core::table::{Lookup, NO_SLOT, PrefixTable};

use crate::seats::{Clock, Seat};
use crate::{cpu, pages};

/// After how many things that were taken out of use the writer looks at the seats: often enough that memory is warm when it is used
/// again, seldom enough that a fence and some cache misses do not count.
const RECLAIM_AFTER: u64 = 64;

/// An IPv4 table with its writer's side.
pub type LiveIpv4Table = LiveTable<Ipv4Prefix>;
/// An IPv6 table with its writer's side.
pub type LiveIpv6Table = LiveTable<Ipv6Prefix>;

/// The writer's side.
#[derive(Debug)]
pub struct LiveTable<P: Prefix> {
    table: PrefixTable<P, ()>,
    shared: Arc<Published<P>>,
    /// What the readers were told of last.
    published: Arc<Lookup<P>>,
    seats: Vec<Weak<Seat>>,
    /// Marks of [`PrefixTable::retired`] and the step of the clock that ended there.
    waiting: VecDeque<(u64, u64)>,
    marked: u64,
}

/// What both sides know.
#[derive(Debug)]
struct Published<P: Prefix> {
    lookup: ArcSwap<Lookup<P>>,
    /// Goes up each time `lookup` is exchanged.
    generation: AtomicU64,
    values: Values,
    clock: Clock,
}

/// A reader's side, for one thread.
#[derive(Debug)]
pub struct Reader<P: Prefix> {
    shared: Arc<Published<P>>,
    seat: Arc<Seat>,
    lookup: Arc<Lookup<P>>,
    generation: u64,
}

/// Lookups of one reader; it ends when this is dropped.
#[derive(Debug)]
pub struct Reading<'a, P: Prefix>(&'a Reader<P>);

impl<P: Prefix> LiveTable<P> {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A reader, which sees the table as it is from now on.
    #[must_use]
    pub fn reader(&mut self) -> Reader<P> {
        let seat = Arc::new(Seat::new());
        self.seats.retain(|seat| seat.strong_count() > 0);
        self.seats.push(Arc::downgrade(&seat));
        Reader {
            shared: Arc::clone(&self.shared),
            seat,
            lookup: Arc::clone(&self.published),
            generation: self.shared.generation.load(Ordering::Acquire),
        }
    }

    /// The value that `prefix` had before, if any; it now has `value`.
    pub fn insert(&mut self, prefix: P, value: u32) -> Option<u32> {
        if let Some(slot) = self.table.slot(&prefix) {
            return Some(self.shared.values.exchange(slot, value));
        }
        self.shared.values.exchange(self.table.next_slot(), value);
        self.table.insert(prefix, ());
        self.changed();
        None
    }

    /// The value of exactly `prefix`, which is no longer in the table.
    pub fn remove(&mut self, prefix: &P) -> Option<u32> {
        let value = self.get(prefix)?;
        self.table.remove(prefix);
        self.changed();
        Some(value)
    }

    /// Removes every prefix.
    pub fn clear(&mut self) {
        self.table.clear();
        self.changed();
    }

    /// The value of exactly `prefix`.
    #[must_use]
    pub fn get(&self, prefix: &P) -> Option<u32> {
        Some(self.shared.values.at(self.table.slot(prefix)?))
    }

    /// How many prefixes the table holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether the table holds no prefix.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// All prefixes and their values, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (P, u32)> + '_ {
        let value = |prefix| self.get(&prefix).map(|value| (prefix, value));
        self.table.iter().filter_map(move |(prefix, ())| value(prefix))
    }

    fn changed(&mut self) {
        if !std::ptr::eq(self.table.as_lookup(), &*self.published) {
            let lookup = self.table.share();
            lookup.memory().into_iter().for_each(pages::advise);
            self.published = Arc::clone(&lookup);
            self.shared.lookup.store(lookup);
            self.shared.generation.fetch_add(1, Ordering::Release);
        }
        let retired = self.table.retired();
        if retired - self.marked >= RECLAIM_AFTER {
            self.marked = retired;
            self.waiting.push_back((retired, self.shared.clock.tick()));
            self.reclaim();
        }
    }

    fn reclaim(&mut self) {
        while let Some(&(mark, step)) = self.waiting.front() {
            if self
                .seats
                .iter()
                .filter_map(Weak::upgrade)
                .any(|seat| seat.may_see(step))
            {
                return;
            }
            self.table.reclaim(mark);
            self.waiting.pop_front();
        }
    }
}

impl<P: Prefix> Default for LiveTable<P> {
    fn default() -> Self {
        Self::from_iter([])
    }
}

/// Builds the table as a whole; of equal prefixes, the last one's value stays.
impl<P: Prefix> FromIterator<(P, u32)> for LiveTable<P> {
    fn from_iter<I: IntoIterator<Item = (P, u32)>>(entries: I) -> Self {
        let built: PrefixTable<P, u32> = entries.into_iter().collect();
        let mut table: PrefixTable<P, ()> = built.iter().map(|(prefix, _)| (prefix, ())).collect();
        let values = Values::default();
        for (prefix, &value) in &built {
            if let Some(slot) = table.slot(&prefix) {
                values.exchange(slot, value);
            }
        }
        let published = table.share();
        pages::advise_table(&table);
        Self {
            table,
            shared: Arc::new(Published {
                lookup: ArcSwap::new(Arc::clone(&published)),
                generation: AtomicU64::new(0),
                values,
                clock: Clock::new(),
            }),
            published,
            seats: Vec::new(),
            waiting: VecDeque::new(),
            marked: 0,
        }
    }
}

impl<P: Prefix> Reader<P> {
    /// Begins to read. A fence and a few loads; for many lookups, once.
    pub fn begin(&mut self) -> Reading<'_, P> {
        self.seat.sit(&self.shared.clock);
        let generation = self.shared.generation.load(Ordering::Acquire);
        if generation != self.generation {
            self.lookup = self.shared.lookup.load_full();
            self.generation = generation;
        }
        Reading(self)
    }
}

impl<P: Prefix> Reading<'_, P> {
    /// The value of the longest prefix that holds `address`.
    #[must_use]
    pub fn lookup(&self, address: impl Packed<P::Address>) -> Option<u32> {
        let slot = self.0.lookup.slot(address);
        (slot != NO_SLOT).then(|| self.0.shared.values.at(slot))
    }

    /// The value of the longest prefix that holds each address, or `none`, into the same place of `values`; the shorter of the two
    /// says how many.
    pub fn lookup_many<A: Packed<P::Address>>(&self, addresses: &[A], values: &mut [u32], none: u32) {
        cpu::lookup_slots(&self.0.lookup, addresses, values);
        for value in values.iter_mut().take(addresses.len()) {
            *value = match *value {
                NO_SLOT => none,
                slot => self.0.shared.values.at(slot),
            };
        }
    }
}

impl<P: Prefix> Drop for Reading<'_, P> {
    fn drop(&mut self) {
        self.0.seat.leave();
    }
}

/// A value for each slot, at an address that never changes: pieces, each twice as long as the one before.
#[derive(Debug, Default)]
struct Values {
    pieces: [OnceLock<Box<[AtomicU32]>>; PIECES],
}

const FIRST_PIECE: u32 = 64;
const PIECES: usize = (u32::BITS - FIRST_PIECE.ilog2()) as usize;

impl Values {
    /// In which piece the slot's value is, and where.
    fn place(slot: u32) -> (usize, usize) {
        let place = u64::from(slot) + u64::from(FIRST_PIECE);
        let piece = place.ilog2() - FIRST_PIECE.ilog2();
        (
            piece as usize,
            (place - (u64::from(FIRST_PIECE) << piece)) as usize,
        )
    }

    fn at(&self, slot: u32) -> u32 {
        let (piece, at) = Self::place(slot);
        self.pieces[piece]
            .get()
            .map_or(0, |piece| piece[at].load(Ordering::Relaxed))
    }

    fn exchange(&self, slot: u32, value: u32) -> u32 {
        let (piece, at) = Self::place(slot);
        let empty = || (0..FIRST_PIECE << piece).map(|_| AtomicU32::new(0)).collect();
        let word = &self.pieces[piece].get_or_init(empty)[at];
        let before = word.load(Ordering::Relaxed);
        word.store(value, Ordering::Release);
        before
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::sync::atomic::AtomicBool;

    fn prefix(text: &str) -> Ipv4Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_reader_sees_each_change_when_it_begins_anew() {
        let mut table = LiveIpv4Table::new();
        let mut reader = table.reader();
        assert_eq!(reader.begin().lookup([10, 1, 2, 3]), None);
        table.insert(prefix("10.0.0.0/8"), 1);
        assert_eq!(table.insert(prefix("10.1.2.0/24"), 2), None);
        assert_eq!(reader.begin().lookup([10, 1, 2, 3]), Some(2));
        assert_eq!(table.insert(prefix("10.1.2.0/24"), 3), Some(2));
        let mut values = [0; 3];
        reader
            .begin()
            .lookup_many(&[[10, 1, 2, 3], [10, 0, 0, 1], [11, 0, 0, 1]], &mut values, 99);
        assert_eq!(values, [3, 1, 99]);
        assert_eq!(table.remove(&prefix("10.1.2.0/24")), Some(3));
        assert_eq!(reader.begin().lookup([10, 1, 2, 3]), Some(1));
        assert!(table.iter().eq([(prefix("10.0.0.0/8"), 1)]));
        table.clear();
        assert_eq!(reader.begin().lookup([10, 1, 2, 3]), None);
    }

    #[test]
    fn values_lie_one_behind_the_other() {
        let values = Values::default();
        for slot in 0..1000 {
            values.exchange(slot, slot + 7);
        }
        assert!((0..1000).all(|slot| values.at(slot) == slot + 7));
        assert_eq!(Values::place(NO_SLOT - 1).0, PIECES - 1);
    }

    /// Every value says of which prefix it is, so a reader that finds another prefix's value, or none, has seen what never was.
    #[test]
    fn readers_under_a_writer_see_old_or_new_and_never_neither() {
        const ROUNDS: u32 = 30_000;
        let net = |third: u32, len: u8| {
            Ipv4Prefix::new_truncated(Ipv4Addr::from_bits(0x0a00_0000 | third << 8), len).unwrap()
        };
        let mut table: LiveIpv4Table = [(prefix("10.0.0.0/8"), 1000)].into_iter().collect();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for start in 0..2_u32 {
                let mut reader = table.reader();
                let done = &done;
                scope.spawn(move || {
                    let mut rounds = 0_u32;
                    while !done.load(Ordering::Relaxed) || rounds < 10 {
                        let reading = reader.begin();
                        for third in 0..512_u32 {
                            let third = (third * 7 + start) % 512;
                            let found = reading.lookup(0x0a00_0001_u32 | third << 8);
                            let allowed = [1000, 1001 + (third & !15), 2000 + third, 4000 + third];
                            assert!(
                                found.is_some_and(|found| allowed.contains(&found)),
                                "{third}: {found:?}"
                            );
                        }
                        rounds += 1;
                    }
                });
            }
            for round in 0..ROUNDS {
                let third = round.wrapping_mul(0x9e37_79b9) >> 23;
                match round % 5 {
                    0 => drop(table.insert(net(third, 24), 2000 + third)),
                    1 => drop(table.insert(net(third & !15, 20), 1001 + (third & !15))),
                    2 => drop(table.insert(net(third, 24), 4000 + third)),
                    3 => drop(table.remove(&net(third, 24))),
                    _ => drop(table.remove(&net(third & !15, 20))),
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        // Readers have left, so all but the last few are reclaimed.
        for _ in 0..200 {
            table.insert(net(1, 24), 1);
            table.remove(&net(1, 24));
        }
        assert!(table.waiting.len() <= 1, "{} steps wait", table.waiting.len());
    }
}

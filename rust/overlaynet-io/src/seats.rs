//! How a writer learns that no reader looks any more at what it took out of use, without either waiting for the other.
//!
//! Each reader has a seat. While it reads, the seat holds the number that the writer's clock showed when it sat down; else 0. The
//! writer takes something out of use (no reader that sits down later can find it), then lets its clock [`tick`](Clock::tick), and
//! may use the thing again once every seat is empty or shows a later number. This is epoch-based reclamation (Fraser, "Practical
//! lock-freedom", 2004, section 5.2.3) with one writer.
//!
//! Why it holds: both sides put a sequentially consistent fence between what they write and what they read. Either the writer sees
//! the reader's seat taken, or its fence came first and the reader finds the thing gone. And a reader whose seat shows a later
//! number has read the clock after the tick, so it also finds it gone.
#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Counts the writer's steps. The first is 1.
#[derive(Debug)]
pub(crate) struct Clock(AtomicU64);

/// Where one reader says since when it reads. Alone in its cache lines, since readers write to theirs all the time.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Seat(AtomicU64);

const EMPTY: u64 = 0;

impl Clock {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(1))
    }

    /// The number of the step that ends here. The one writer calls it, after what it took out of use.
    pub(crate) fn tick(&self) -> u64 {
        fence(Ordering::SeqCst);
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now + 1, Ordering::Relaxed);
        now
    }
}

impl Seat {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(EMPTY))
    }

    /// From here on, what this thread finds is kept for it.
    pub(crate) fn sit(&self, clock: &Clock) {
        self.0.store(clock.0.load(Ordering::Relaxed), Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// This thread looks at nothing any more.
    pub(crate) fn leave(&self) {
        self.0.store(EMPTY, Ordering::Release);
    }

    /// Whether the reader may look at what was taken out of use in the step `step`. The writer asks after that [`Clock::tick`].
    pub(crate) fn may_see(&self, step: u64) -> bool {
        let since = self.0.load(Ordering::Acquire);
        since != EMPTY && since <= step
    }
}

/// Every interleaving: `RUSTFLAGS="--cfg loom" cargo test --release -p overlaynet-io --lib seats`.
#[cfg(test)]
#[cfg(loom)]
mod tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU32;
    use loom::thread;

    /// Two blocks of two words, and a word that says which one is in use: a table's memory, small.
    struct Memory {
        clock: Clock,
        seat: Seat,
        leads_to: AtomicU32,
        blocks: [[AtomicU32; 2]; 2],
    }

    #[test]
    fn a_reader_finds_the_old_block_or_the_new_one_and_never_neither() {
        loom::model(|| {
            let words = |value| [AtomicU32::new(value), AtomicU32::new(value)];
            let memory = Arc::new(Memory {
                clock: Clock::new(),
                seat: Seat::new(),
                leads_to: AtomicU32::new(0),
                blocks: [words(0), words(9)],
            });
            let writer = {
                let memory = Arc::clone(&memory);
                thread::spawn(move || {
                    let mut retired = None;
                    for value in 1..=2 {
                        let free = match retired {
                            None => 1,
                            Some((_, step)) if memory.seat.may_see(step) => return,
                            Some((block, _)) => block,
                        };
                        for word in &memory.blocks[free] {
                            word.store(value, Ordering::Release);
                        }
                        memory.leads_to.store(free as u32, Ordering::Release);
                        retired = Some((1 - free, memory.clock.tick()));
                    }
                })
            };
            for _ in 0..2 {
                memory.seat.sit(&memory.clock);
                let block = &memory.blocks[memory.leads_to.load(Ordering::Acquire) as usize];
                let [first, second] = [&block[0], &block[1]].map(|word| word.load(Ordering::Relaxed));
                assert_eq!(first, second);
                assert!(first <= 2);
                memory.seat.leave();
            }
            writer.join().unwrap();
        });
    }
}

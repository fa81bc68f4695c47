//! The pump: one thread that carries packets between a TUN device and a UDP socket.
//!
//! The thread runs to completion: it takes a batch from the TUN, then one from the socket, until both are empty. Then it looks a few
//! times more, since an answer often comes within microseconds and a wake-up costs more than that, and sleeps. It takes the tables
//! from an atomic pointer once a batch, so that they may be exchanged at any time without losing a packet and without a lock.
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::engine::Engine;
use crate::offload::{Offload, Offloads};
use crate::shared::Shared;
use crate::shortcut::Report;
use crate::tun::Tun;
use crate::udp::Udp;
use crate::underlay::Underlay;

/// How long the thread looks for more packets before it sleeps: about the way through a peer's stack and back.
const POLLING: Duration = Duration::from_micros(40);

/// The fewest processors with which it does so at all. With fewer it stands in the way of whoever is to answer: measured on two,
/// round trips took no less time, and at two milliseconds' distance twice as much.
const POLLING_PROCESSORS: usize = 4;

/// Looking once takes microseconds: if it takes longer than this, somebody else had the processor meanwhile.
const LONG_LOOK: Duration = Duration::from_micros(100);

/// A turn that carried more than this is bulk, and likely so is the next.
const BULK_BYTES: usize = 8 << 10;

/// How long bulk is taken to go on.
const BULK_LASTS: Duration = Duration::from_millis(2);

/// How long a busy machine is taken to stay so at first, and at most.
const CONTENDED: Duration = Duration::from_millis(50);
const CONTENDED_MOST: Duration = Duration::from_secs(2);

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
const GATHERING: Duration = Duration::from_micros(50);

/// A TUN device and UDP sockets, with a TAP perhaps, and the thread between them while it runs.
pub struct Pump {
    shared: Arc<Shared>,
    report: Option<Arc<Report>>,
    wake: Arc<OwnedFd>,
    engine: Option<Engine<Tun, Underlay>>,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    /// A pump that does not run yet.
    ///
    /// # Errors
    /// There is no descriptor left for its wake-up.
    pub fn new(tun: Tun, underlay: Underlay, offloads: Arc<Offloads>) -> io::Result<Self> {
        if thread::available_parallelism().is_ok_and(|count| count.get() < POLLING_PROCESSORS) {
            offloads.rule_out(Offload::Poll);
        }
        let shared = Arc::new(Shared::new(offloads));
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let report = underlay.report().cloned();
        let engine = Some(Engine::new(tun, underlay, Udp::batch(), Arc::clone(&shared)));
        Ok(Self {
            shared,
            report,
            wake,
            engine,
            thread: None,
        })
    }

    /// The counters, and the way to exchange the tables.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What an operator is told of the TAP, if there is to be one.
    #[must_use]
    pub fn report(&self) -> Option<&Arc<Report>> {
        self.report.as_ref()
    }

    /// Whether the thread runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Starts the thread; nothing happens if it was started before.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(&mut self) -> io::Result<()> {
        let Some(mut engine) = self.engine.take() else {
            return Ok(());
        };
        let wake = Arc::clone(&self.wake);
        let run = move || {
            let shared = Arc::clone(&engine.shared);
            watched(&shared, move || run(&mut engine, &wake));
        };
        self.thread = Some(thread::Builder::new().name("overlaynet-pump".into()).spawn(run)?);
        Ok(())
    }

    /// Stops the thread and waits for its end, some microseconds. A pump that was stopped stays so; its device and socket are closed.
    pub fn stop(&mut self) {
        self.engine = None;
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.shared.stop();
        // It fails only when the counter is full, and then the thread is awake already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        // The thread catches its own panics: there is nothing to learn here.
        let _ = thread.join();
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs `body` and leaves in `shared` why it ended, unless in order: a defect must not look like an engine that runs.
///
/// What `body` owns is dropped with it and never seen again, whatever state it is in.
fn watched(shared: &Shared, body: impl FnOnce() -> io::Result<()>) {
    match panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => shared.fail(error.to_string()),
        Err(_) => shared.fail("a defect in overlaynet itself: the engine's thread panicked".to_owned()),
    }
}

fn run(engine: &mut Engine<Tun, Underlay>, wake: &OwnedFd) -> io::Result<()> {
    let mut patience = Patience::default();
    let mut gathering = Gathering::new(Instant::now());
    while !engine.shared.is_stopping() {
        if engine.turn()? {
            patience.work(engine.carried());
            let waits = gathering.waits(engine.packets(), engine.carried(), Instant::now());
            if waits && engine.shared.offloads().has(Offload::Batch) {
                thread::sleep(GATHERING);
            }
        } else if !(engine.shared.offloads().has(Offload::Poll) && patience.look_again()) {
            sleep(engine, wake)?;
            patience.work(0);
        }
    }
    Ok(())
}

/// Whether to look for more packets or to sleep.
#[derive(Debug, Default)]
struct Patience {
    idle_since: Option<Instant>,
    looked: Option<Instant>,
    sleeps_until: Option<Instant>,
    contended_until: Option<Instant>,
    contended: Duration,
}

impl Patience {
    /// There was something, of so many bytes.
    fn work(&mut self, bytes: usize) {
        self.idle_since = None;
        if bytes > BULK_BYTES {
            self.sleeps_until = self.sleeps_until.max(Some(Instant::now() + BULK_LASTS));
        }
    }

    /// Whether to look again.
    ///
    /// It does not yield meanwhile: a scheduler that takes a yield for the whole of the time slice (Linux 6.18) would let the thread
    /// wait for it when there is work. Where somebody else took the processor between two looks, the machine is busy: then a thread
    /// that sleeps is better off, since it is woken before the others. So it is in bulk, where more will come by itself, and the
    /// more at once the better.
    fn look_again(&mut self) -> bool {
        let now = Instant::now();
        if self.sleeps_until.is_some_and(|until| now < until) {
            return false;
        }
        let since = *self.idle_since.get_or_insert(now);
        let looked = self.looked.replace(now).filter(|looked| *looked >= since);
        if looked.is_some_and(|looked| now - looked > LONG_LOOK) {
            // A machine that is still busy when it is looked at again is likely to stay so for longer.
            let again = self
                .contended_until
                .is_some_and(|until| now < until + self.contended);
            let twice = (self.contended * 2).min(CONTENDED_MOST);
            self.contended = if again { twice } else { CONTENDED };
            self.contended_until = Some(now + self.contended);
            self.sleeps_until = self.sleeps_until.max(self.contended_until);
            return false;
        }
        if now - since >= POLLING {
            return false;
        }
        std::hint::spin_loop();
        true
    }
}

/// Whether to let packets gather before the next turn.
///
/// Where many come and a turn finds few of them, the thread is quicker than their sender: then every send carries few, and so does
/// everything behind it, down to the wake-ups of the peer's thread, which on a machine without idle processors take from the sender
/// what it needs. It is what network cards do when they moderate interrupts, and costs a round trip as little.
#[derive(Debug)]
struct Gathering {
    since: Instant,
    packets: usize,
    are_many: bool,
}

impl Gathering {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            packets: 0,
            are_many: false,
        }
    }

    /// Whether to wait after a turn with so many packets of so many bytes together.
    fn waits(&mut self, packets: usize, bytes: usize, now: Instant) -> bool {
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

/// Waits until there is something on a port, or to stop.
fn sleep(engine: &Engine<Tun, Underlay>, wake: &OwnedFd) -> io::Result<()> {
    let wait = |descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN);
    let mut sockets = engine.udp.listening();
    let (tun, wake) = (engine.tun.as_fd(), wake.as_fd());
    // Where there is no second socket, the wake-up is waited for twice.
    let mut waited = [
        wait(tun),
        wait(wake),
        wait(sockets.next().unwrap_or(wake)),
        wait(sockets.next().unwrap_or(wake)),
    ];
    match poll(&mut waited, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryPort;
    use crate::port::{Batch, Buffers, Message, PacketPort, Sent};

    /// A port with a defect.
    struct Defect;

    impl PacketPort for Defect {
        fn receive(&mut self, _: &mut Batch) -> io::Result<()> {
            let nothing: [u8; 0] = [];
            // What an index out of range does, wherever it may stand.
            assert_eq!(nothing[std::hint::black_box(0)], 0);
            Ok(())
        }

        fn send(&mut self, _: Buffers<'_>, _: &[Message]) -> io::Result<Sent> {
            unreachable!("nothing was received")
        }
    }

    /// What is left in `shared` by a thread that ran `body`, which must end.
    fn left_by(body: impl FnOnce(Arc<Shared>) -> io::Result<()> + Send + 'static) -> Option<String> {
        let shared = Arc::new(Shared::default());
        let inside = Arc::clone(&shared);
        let thread = thread::spawn(move || watched(&Arc::clone(&inside), || body(inside)));
        assert!(thread.join().is_ok(), "the panic went through");
        shared.failure()
    }

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

    #[test]
    fn panic_in_the_thread_is_its_failure_and_not_a_hang() {
        let why = left_by(|shared| {
            let mut engine = Engine::new(Defect, MemoryPort::default(), Batch::new(1, 1 << 16), shared);
            loop {
                engine.turn()?;
            }
        });
        assert_eq!(
            why.as_deref(),
            Some("a defect in overlaynet itself: the engine's thread panicked")
        );
    }

    #[test]
    fn error_of_a_port_is_the_failure() {
        assert_eq!(
            left_by(|_| Err(io::Error::other("the device is gone"))).as_deref(),
            Some("the device is gone")
        );
    }

    #[test]
    fn end_in_order_is_no_failure() {
        assert_eq!(left_by(|_| Ok(())), None);
    }
}

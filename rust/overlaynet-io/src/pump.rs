//! The pump: one thread that carries packets between a TUN device and a UDP socket.
//!
//! The thread runs to completion: it takes a batch from the TUN, then one from the socket, until both are empty. Then it looks a few
//! times more, since an answer often comes within microseconds and a wake-up costs more than that, and sleeps. It takes the tables
//! from an atomic pointer once a batch, so that they may be exchanged at any time without losing a packet and without a lock.
mod gathering;
mod patience;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use self::gathering::{GATHERING, Gathering};
use self::patience::Patience;
use crate::engine::Engine;
use crate::offload::{Offload, Offloads};
use crate::shared::Shared;
use crate::shortcut::Report;
use crate::tun::Tun;
use crate::udp::Udp;
use crate::underlay::Underlay;

/// The fewest processors with which it does so at all. With fewer it stands in the way of whoever is to answer: measured on two,
/// round trips took no less time, and at two milliseconds' distance twice as much.
const POLLING_PROCESSORS: usize = 4;

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

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
use crate::tun::Tun;
use crate::udp::Udp;

/// How long the thread looks for more packets before it sleeps: longer than the way through a peer's stack and back.
const POLLING: Duration = Duration::from_micros(50);

/// A TUN device and a UDP socket, and the thread between them while it runs.
pub struct Pump {
    shared: Arc<Shared>,
    wake: Arc<OwnedFd>,
    engine: Option<Engine<Tun, Udp>>,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    /// A pump that does not run yet.
    ///
    /// # Errors
    /// There is no descriptor left for its wake-up.
    pub fn new(tun: Tun, udp: Udp, offloads: Arc<Offloads>) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(offloads));
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let engine = Some(Engine::new(tun, udp, Udp::batch(), Arc::clone(&shared)));
        Ok(Self {
            shared,
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
            // A defect must not look like an engine that runs. The engine is dropped and never seen again, whatever state it is in.
            let ended = panic::catch_unwind(AssertUnwindSafe(move || run(&mut engine, &wake)));
            let why = match ended {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "a defect in overlaynet itself: the engine's thread panicked".to_owned(),
            };
            shared.fail(why);
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

fn run(engine: &mut Engine<Tun, Udp>, wake: &OwnedFd) -> io::Result<()> {
    let mut idle_since = None;
    while !engine.shared.is_stopping() {
        if engine.turn()? {
            idle_since = None;
            continue;
        }
        if engine.shared.offloads().has(Offload::Poll) {
            let since = *idle_since.get_or_insert_with(Instant::now);
            if since.elapsed() < POLLING {
                // Whoever is to answer may need this very core.
                thread::yield_now();
                continue;
            }
        }
        sleep(engine, wake)?;
        idle_since = None;
    }
    Ok(())
}

/// Waits until there is something on a port, or to stop.
fn sleep(engine: &Engine<Tun, Udp>, wake: &OwnedFd) -> io::Result<()> {
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

//! The pump: one thread that carries packets between a TUN device and a UDP socket.
//!
//! The thread runs to completion: it empties the TUN, then the socket, until both are empty, then sleeps. It takes the tables from
//! an atomic pointer once a batch, so that they may be exchanged at any time without losing a packet and without a lock. It
//! allocates nothing while it runs: two batches and one reply buffer, 8 MiB of address space of which only what packets touch is
//! used.
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use arc_swap::ArcSwap;
use overlaynet_core::forward::{ICMPV6_ERROR_BYTES, Incoming, Outgoing, Tables};
use overlaynet_core::stats::{DropReason, Drops, Traffic};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::port::{Batch, PacketPort};
use crate::tun::Tun;
use crate::udp::Udp;

/// What is counted of one peer.
#[derive(Debug, Default)]
pub struct PeerStats {
    /// Packets and bytes.
    pub traffic: Traffic,
    /// Packets of or for this peer that were dropped.
    pub drops: Drops,
}

/// The tables with each peer's counters, at the peer's index.
#[derive(Debug, Default)]
pub struct Picture {
    tables: Tables,
    peers: Vec<Arc<PeerStats>>,
}

/// What the thread and its owner share.
#[derive(Debug, Default)]
pub struct Shared {
    picture: ArcSwap<Picture>,
    drops: Drops,
    traffic: Traffic,
    stopping: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl Shared {
    /// Exchanges the tables. Peers that stay, by address, keep their counters.
    pub fn exchange(&self, tables: Tables) {
        let before = self.peers();
        let peers = tables
            .endpoints()
            .iter()
            .map(|endpoint| before.get(&endpoint.ip()).cloned().unwrap_or_default())
            .collect();
        self.picture.store(Arc::new(Picture { tables, peers }));
    }

    /// Every peer's counters, by its address.
    #[must_use]
    pub fn peers(&self) -> BTreeMap<IpAddr, Arc<PeerStats>> {
        let picture = self.picture.load();
        let addresses = picture.tables.endpoints().iter().map(SocketAddr::ip);
        addresses.zip(picture.peers.iter().cloned()).collect()
    }

    /// Packets dropped, of all peers and of none.
    #[must_use]
    pub fn drops(&self) -> &Drops {
        &self.drops
    }

    /// Packets and bytes of all peers.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Why the thread ended by itself, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn drop_packet(&self, peer: Option<&Arc<PeerStats>>, reason: DropReason) {
        self.drops.count(reason);
        if let Some(peer) = peer {
            peer.drops.count(reason);
        }
    }
}

/// Both ports and the buffers between them; runs over real devices as over ports in memory.
pub struct Engine<T, U> {
    tun: T,
    udp: U,
    shared: Arc<Shared>,
    batch: Batch,
    owners: Box<[usize]>,
    reply: Box<[u8]>,
}

impl<T: PacketPort, U: PacketPort> Engine<T, U> {
    /// An engine between `tun` and `udp`.
    pub fn new(tun: T, udp: U, shared: Arc<Shared>) -> Self {
        Self {
            tun,
            udp,
            shared,
            batch: Batch::new(),
            owners: vec![0; crate::port::BATCH_PACKETS].into_boxed_slice(),
            reply: vec![0; ICMPV6_ERROR_BYTES].into_boxed_slice(),
        }
    }

    /// Carries at most one batch each way; whether there was anything.
    ///
    /// # Errors
    /// A port is of no more use.
    pub fn turn(&mut self) -> io::Result<bool> {
        Ok(self.send_out()? | self.bring_in()?)
    }

    fn send_out(&mut self) -> io::Result<bool> {
        self.batch.clear();
        self.tun.receive(&mut self.batch)?;
        let picture = self.shared.picture.load();
        for at in 0..self.batch.len() {
            let (packet, slot) = self.batch.packet_mut(at);
            slot.endpoint = None;
            match picture.tables.outgoing(packet, &mut self.reply) {
                Outgoing::Encapsulate(peer) => {
                    slot.endpoint = picture.tables.endpoint(peer);
                    self.owners[at] = peer.get();
                }
                Outgoing::Reply(len, reason) => {
                    self.shared.drops.count(reason);
                    if !self.tun.send(&self.reply[..len])? {
                        self.shared.drops.count(DropReason::DeliverFailed);
                    }
                }
                Outgoing::Drop(reason) => self.shared.drops.count(reason),
            }
        }
        let mut taken = u64::MAX;
        self.udp.send_batch(&self.batch, &mut |at| taken &= !(1 << at))?;
        for at in 0..self.batch.len() {
            let slot = self.batch.slot(at);
            if slot.endpoint.is_none() {
                continue;
            }
            let peer = &picture.peers[self.owners[at]];
            if taken & (1 << at) == 0 {
                self.shared.drop_packet(Some(peer), DropReason::SendFailed);
            } else {
                peer.traffic.sent(slot.len);
                self.shared.traffic.sent(slot.len);
            }
        }
        Ok(!self.batch.is_empty())
    }

    fn bring_in(&mut self) -> io::Result<bool> {
        self.batch.clear();
        self.udp.receive(&mut self.batch)?;
        let picture = self.shared.picture.load();
        for at in 0..self.batch.len() {
            let Some(sender) = self.batch.slot(at).endpoint else {
                self.shared.drops.count(DropReason::UnknownPeer);
                continue;
            };
            let packet = self.batch.packet(at);
            match picture.tables.incoming(sender.ip(), packet) {
                Incoming::Deliver(peer, len) => {
                    let peer = &picture.peers[peer.get()];
                    if self.tun.send(&packet[..len])? {
                        peer.traffic.delivered(len);
                        self.shared.traffic.delivered(len);
                    } else {
                        self.shared.drop_packet(Some(peer), DropReason::DeliverFailed);
                    }
                }
                Incoming::Drop(peer, reason) => {
                    self.shared
                        .drop_packet(peer.map(|peer| &picture.peers[peer.get()]), reason);
                }
            }
        }
        Ok(!self.batch.is_empty())
    }
}

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
    pub fn new(tun: Tun, udp: Udp) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let engine = Some(Engine::new(tun, udp, Arc::clone(&shared)));
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
            *shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
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
        self.shared.stopping.store(true, Ordering::Release);
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
    while !engine.shared.stopping.load(Ordering::Acquire) {
        if engine.turn()? {
            continue;
        }
        let mut waited = [
            PollFd::from_borrowed_fd(engine.tun.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(engine.udp.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN),
        ];
        match poll(&mut waited, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

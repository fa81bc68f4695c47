//! What the pump's thread and its owner share: the tables, the counters, and how it stands with the offloads.
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use overlaynet_core::forward::Tables;
use overlaynet_core::stats::{DropReason, Drops, Traffic};

use crate::offload::Offloads;

/// How long a smaller path MTU is believed, as the kernel believes its own (`mtu_expires`, ip-sysctl).
pub const PATH_MTU_LASTS: Duration = Duration::from_secs(600);

/// The MTU of the way to a peer where it is smaller than the TUN's, in bytes of inner packet; it is forgotten after a while.
#[derive(Debug, Default)]
pub struct PathMtu {
    bytes: AtomicUsize,
    /// Milliseconds since the engine began.
    ends: AtomicU64,
}

impl PathMtu {
    /// Believes `bytes` until `ends`, in milliseconds since the engine began.
    pub fn learn(&self, bytes: usize, ends: u64) {
        self.ends.store(ends, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// What is believed; `now` is asked only if there is something.
    pub fn value(&self, now: impl FnOnce() -> u64) -> Option<usize> {
        match self.bytes.load(Ordering::Relaxed) {
            0 => None,
            bytes if now() < self.ends.load(Ordering::Relaxed) => Some(bytes),
            _ => {
                self.bytes.store(0, Ordering::Relaxed);
                None
            }
        }
    }
}

/// What is counted of one peer, and what is known of the way to it.
#[derive(Debug, Default)]
pub struct PeerStats {
    /// The MTU of the way.
    pub path_mtu: PathMtu,
    /// Packets and bytes.
    pub traffic: Traffic,
    /// Packets of or for this peer that were dropped.
    pub drops: Drops,
}

/// The tables with each peer's counters, at the peer's index.
#[derive(Debug, Default)]
pub struct Picture {
    pub(crate) tables: Tables,
    pub(crate) peers: Vec<Arc<PeerStats>>,
}

/// What the thread and its owner share.
#[derive(Debug, Default)]
pub struct Shared {
    picture: ArcSwap<Picture>,
    offloads: Arc<Offloads>,
    drops: Drops,
    traffic: Traffic,
    stopping: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl Shared {
    /// Empty tables, counters at zero.
    #[must_use]
    pub fn new(offloads: Arc<Offloads>) -> Self {
        Self {
            offloads,
            ..Self::default()
        }
    }

    /// The tables of this moment.
    pub fn picture(&self) -> Guard<Arc<Picture>> {
        self.picture.load()
    }

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

    /// How it stands with each offload.
    #[must_use]
    pub fn offloads(&self) -> &Offloads {
        &self.offloads
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

    pub(crate) fn fail(&self, why: String) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(crate) fn drop_packets(&self, peer: Option<&Arc<PeerStats>>, reason: DropReason, packets: usize) {
        self.drops.count_many(reason, packets);
        if let Some(peer) = peer {
            peer.drops.count_many(reason, packets);
        }
    }
}

//! How it stands with the TAP, for an operator.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use overlaynet_core::stats::Counter;

/// What an operator is told of the way.
#[derive(Debug, Default)]
pub struct Report {
    told: Mutex<Told>,
    /// Super-packets that went through the TAP.
    pub frames: Counter,
    /// How often a way was left while packets took it.
    pub fallbacks: Counter,
}

#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) missing: Option<String>,
    pub(super) device: Option<String>,
    pub(super) peers: BTreeMap<IpAddr, String>,
}

impl Report {
    pub(super) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it stands, in a line; of the peers only those that `is_peer`.
    #[must_use]
    pub fn state(&self, is_peer: impl Fn(&IpAddr) -> bool) -> String {
        let told = self.told();
        if let Some(why) = &told.missing {
            return format!("missing: {why}");
        }
        if let Some(why) = &told.device {
            return format!("given up: {why}");
        }
        let mut troubled = told.peers.iter().filter(|(peer, _)| is_peer(peer));
        match (troubled.next(), troubled.count()) {
            (None, _) => "on".to_owned(),
            (Some((peer, why)), 0) => format!("given up for {peer}: {why}"),
            (Some((peer, why)), more) => format!("given up for {peer} and {more} more: {why}"),
        }
    }
}

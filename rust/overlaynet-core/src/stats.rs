//! What is counted: packets and bytes of each peer, and packets dropped, by reason.
//!
//! Counters are atomics with relaxed order: they may be read at any time from any thread, and each is right by itself.
use core::sync::atomic::{AtomicU64, Ordering};

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DropReason {
    /// Not an IP packet, or one whose header contradicts itself.
    Malformed,
    /// The IPv4 header checksum is wrong.
    BadChecksum,
    /// No peer leases the destination.
    NoPeer,
    /// The TTL or hop limit is used up.
    TtlExceeded,
    /// The packet is longer than the MTU.
    TooBig,
    /// The datagram came from an address that is no peer's.
    UnknownPeer,
    /// The inner source is not in the subnets of the peer that sent the datagram.
    ForeignSource,
    /// The inner destination is not in this host's subnets.
    ForeignDestination,
    /// The VXLAN frame is of another network.
    ForeignNetwork,
    /// The VXLAN frame is not for this host's VTEP, or holds no IP packet.
    ForeignFrame,
    /// The system did not take the datagram.
    SendFailed,
    /// The TUN device did not take the packet.
    DeliverFailed,
}

impl DropReason {
    /// Every reason, each at the index of its counter.
    pub const ALL: [Self; 12] = [
        Self::Malformed,
        Self::BadChecksum,
        Self::NoPeer,
        Self::TtlExceeded,
        Self::TooBig,
        Self::UnknownPeer,
        Self::ForeignSource,
        Self::ForeignDestination,
        Self::ForeignNetwork,
        Self::ForeignFrame,
        Self::SendFailed,
        Self::DeliverFailed,
    ];

    /// A stable name, as shown to operators.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BadChecksum => "bad_checksum",
            Self::NoPeer => "no_peer",
            Self::TtlExceeded => "ttl_exceeded",
            Self::TooBig => "too_big",
            Self::UnknownPeer => "unknown_peer",
            Self::ForeignSource => "foreign_source",
            Self::ForeignDestination => "foreign_destination",
            Self::ForeignNetwork => "foreign_network",
            Self::ForeignFrame => "foreign_frame",
            Self::SendFailed => "send_failed",
            Self::DeliverFailed => "deliver_failed",
        }
    }
}

/// One number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The number now.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Packets dropped, by reason.
#[derive(Debug, Default)]
pub struct Drops([Counter; DropReason::ALL.len()]);

impl Drops {
    /// Counts one packet.
    pub fn count(&self, reason: DropReason) {
        self.count_many(reason, 1);
    }

    /// Counts some packets.
    pub fn count_many(&self, reason: DropReason, packets: usize) {
        self.0[reason as usize].add(packets as u64);
    }

    /// Every reason with its number.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().zip(self.0.iter().map(Counter::value))
    }
}

/// Packets and inner bytes in both directions.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Packets sent into the tunnel.
    pub tx_packets: Counter,
    /// Bytes of inner packets sent into the tunnel.
    pub tx_bytes: Counter,
    /// Packets delivered from the tunnel.
    pub rx_packets: Counter,
    /// Bytes of inner packets delivered from the tunnel.
    pub rx_bytes: Counter,
}

impl Traffic {
    /// Counts packets of `bytes` together that were sent.
    pub fn sent(&self, packets: usize, bytes: usize) {
        self.tx_packets.add(packets as u64);
        self.tx_bytes.add(bytes as u64);
    }

    /// Counts packets of `bytes` together that were delivered.
    pub fn delivered(&self, packets: usize, bytes: usize) {
        self.rx_packets.add(packets as u64);
        self.rx_bytes.add(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter() {
        let drops = Drops::default();
        for (at, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
            for _ in 0..=at {
                drops.count(reason);
            }
        }
        for (at, (_, count)) in drops.iter().enumerate() {
            assert_eq!(count, at as u64 + 1);
        }
    }
}

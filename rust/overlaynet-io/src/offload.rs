//! What the pump leaves to the kernel to do in bulk, and whether the kernel still does it.
//!
//! Each offload is wanted or not (an option), there or not (probed at start), and may be given up at run time, once and for all,
//! when the kernel refuses it; packets then go without it.
use std::fmt;
use std::sync::atomic::{AtomicI32, Ordering};

/// One way of moving more than one packet at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// TCP super-packets and checksums through the TUN (`IFF_VNET_HDR`, `TUN_F_TSO4`, `TUN_F_TSO6`, `TUN_F_CSUM`).
    Tso,
    /// UDP super-packets through the TUN (`TUN_F_USO4`, `TUN_F_USO6`, Linux 6.2).
    Uso,
    /// Several datagrams in one send (`UDP_SEGMENT`, Linux 4.18).
    Gso,
    /// Several datagrams in one receive (`UDP_GRO`, Linux 5.0).
    Gro,
    /// Several messages in one system call (recvmmsg(2), sendmmsg(2)).
    Batch,
    /// Looking for more packets for some microseconds before sleeping.
    Poll,
}

impl Offload {
    /// Every offload, each at the index of its state.
    pub const ALL: [Self; 6] = [
        Self::Tso,
        Self::Uso,
        Self::Gso,
        Self::Gro,
        Self::Batch,
        Self::Poll,
    ];

    /// The name, as options and operators use it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tso => "tso",
            Self::Uso => "uso",
            Self::Gso => "gso",
            Self::Gro => "gro",
            Self::Batch => "batch",
            Self::Poll => "poll",
        }
    }

    /// The offload of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|offload| offload.name() == name)
    }
}

/// How it stands with one offload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffloadState {
    /// In use.
    On,
    /// Not wanted.
    Off,
    /// The kernel does not have it: the error number of the probe.
    Missing(i32),
    /// The kernel refused it at run time: the error number.
    GivenUp(i32),
}

impl fmt::Display for OffloadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::On => f.write_str("on"),
            Self::Off => f.write_str("off"),
            Self::Missing(error) => write!(f, "missing: {}", std::io::Error::from_raw_os_error(error)),
            Self::GivenUp(error) => write!(f, "given up: {}", std::io::Error::from_raw_os_error(error)),
        }
    }
}

const ON: i32 = 0;
const OFF: i32 = -1;
const GIVEN_UP: i32 = 1 << 16;

/// The state of every offload; may be read from any thread.
#[derive(Debug)]
pub struct Offloads([AtomicI32; Offload::ALL.len()]);

impl Offloads {
    /// Those in `wanted` are on, the others off.
    #[must_use]
    pub fn new(wanted: &[Offload]) -> Self {
        let state = |offload| AtomicI32::new(if wanted.contains(&offload) { ON } else { OFF });
        Self(Offload::ALL.map(state))
    }

    /// Whether it is in use.
    #[must_use]
    pub fn has(&self, offload: Offload) -> bool {
        self.0[offload as usize].load(Ordering::Relaxed) == ON
    }

    /// How it stands with it.
    #[must_use]
    pub fn state(&self, offload: Offload) -> OffloadState {
        match self.0[offload as usize].load(Ordering::Relaxed) {
            ON => OffloadState::On,
            OFF => OffloadState::Off,
            error if error >= GIVEN_UP => OffloadState::GivenUp(error - GIVEN_UP),
            error => OffloadState::Missing(error),
        }
    }

    /// Notes that the kernel does not have it.
    pub fn miss(&self, offload: Offload, error: i32) {
        self.0[offload as usize].store(error, Ordering::Relaxed);
    }

    /// Notes that it is of no use here, whoever wants it.
    pub fn rule_out(&self, offload: Offload) {
        self.0[offload as usize].store(OFF, Ordering::Relaxed);
    }

    /// Notes that the kernel refused it.
    pub fn give_up(&self, offload: Offload, error: i32) {
        self.0[offload as usize].store(GIVEN_UP + error, Ordering::Relaxed);
    }
}

impl Default for Offloads {
    fn default() -> Self {
        Self::new(&Offload::ALL)
    }
}

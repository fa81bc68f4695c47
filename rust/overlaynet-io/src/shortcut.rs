//! The way for TCP super-packets of VXLAN peers past the split: whole, through a TAP, where that is known to arrive.
//!
//! Which packets take it: super-packets of TCP for a peer that answers (see [`reach`](crate::reach)), and with them the single
//! packets of the same flow as long as it has super-packets, so that a flow goes one way. It changes over when its first
//! super-packet comes, when it had none for [`FLOW_LASTS`], and when the way opens or closes. Both ways end in the same queue of
//! the underlay's link within the system call, and packets have the same outer addresses and ports on both, so that also then
//! none overtakes another, unless a queue below treats a socket's packets and forwarded ones apart. All else takes the socket:
//! equal small packets in one send are faster there.
mod obstacle;
mod report;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::iter::once;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use overlaynet_core::encapsulation::{MAX_HEADER_BYTES, flow};
use overlaynet_core::forward::Tables;
use overlaynet_core::offload::{OUTER_BYTES, Outer, VnetHeader};
use overlaynet_core::probe::{self, Sign};
use overlaynet_core::wire::ethernet::MacAddress;

pub use self::report::Report;
use crate::outbox::{Destination, SEND_BYTES};
use crate::port::{Batch, Buffers, Message};
use crate::proof::Proof;
use crate::reach::{Change, Reach};
use crate::tap::{Tap, Unusable};

/// How long a flow's single packets follow its last super-packet.
pub const FLOW_LASTS: Duration = Duration::from_secs(1);

/// The pause before a device that could not be used is looked for again.
const DEVICE_PAUSE: Duration = Duration::from_secs(1);

/// The pause after the kernel refused a frame.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// Flows that are told apart. Two that share a place go the same way for a while, which does no harm.
const FLOWS: usize = 1024;

/// Peers whose super-packets are watched, about.
const PROOFS: usize = 4096;

/// The most payload of a datagram over IPv6 where the same limit holds for both families.
const PAYLOAD_BYTES: usize = SEND_BYTES;

/// Where a flow had its last super-packet, in time.
#[derive(Debug)]
struct Flows(Box<[Option<Instant>]>);

impl Flows {
    fn place(&mut self, flow: u32) -> &mut Option<Instant> {
        &mut self.0[flow as usize % FLOWS]
    }

    fn has_super_packets(&mut self, flow: u32, now: Instant) -> bool {
        self.place(flow).is_some_and(|last| now < last + FLOW_LASTS)
    }
}

/// The outer source of datagrams, as the socket has it.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Address and port.
    pub address: SocketAddr,
    /// The TTL or hop limit of its datagrams.
    pub ttl: u8,
}

/// The device, if it can be used, and what is known of the ways through it.
#[derive(Debug)]
pub struct Shortcut {
    name: String,
    tap: Option<(Tap, MacAddress)>,
    /// When the device is looked for again.
    again: Instant,
    reach: Reach,
    proofs: HashMap<IpAddr, Proof>,
    /// Whether one of them waits for an acknowledgement.
    proving: bool,
    flows: Flows,
    report: Arc<Report>,
    identification: u16,
    /// Room for a request and what stands before it.
    request: Vec<u8>,
}

/// What [`Shortcut::takes`] says. Who calls has the socket.
#[derive(Debug)]
pub struct Taken<'a> {
    /// The packet may go through the TAP.
    pub take: bool,
    /// Send this datagram to the peer through the socket.
    pub datagram: Option<&'a [u8]>,
}

const NOT_TAKEN: Taken<'static> = Taken {
    take: false,
    datagram: None,
};

impl Shortcut {
    /// A way through the TAP called `name`, if that is there and the kernel can; else it is looked for again from time to time.
    #[must_use]
    pub fn new(name: String) -> Self {
        let mut shortcut = Self {
            name,
            tap: None,
            again: Instant::now(),
            reach: Reach::new(RandomState::new().build_hasher().finish()),
            proofs: HashMap::new(),
            proving: false,
            flows: Flows(vec![None; FLOWS].into_boxed_slice()),
            report: Arc::default(),
            identification: 0,
            request: Vec::new(),
        };
        shortcut.is_usable(Instant::now());
        shortcut
    }

    /// What an operator is told of it.
    #[must_use]
    pub fn report(&self) -> &Arc<Report> {
        &self.report
    }

    /// Whether `packet`, which has its encapsulation before it and is a super-packet or not, may go to the peer through the TAP.
    pub fn takes(
        &mut self,
        tables: &Tables,
        to: Destination,
        source: Source,
        packet: &[u8],
        is_super: bool,
    ) -> Taken<'_> {
        let (now, peer) = (Instant::now(), to.endpoint.ip());
        // What repeats lost super-packets are single ones: they ask as well.
        let asks = is_super
            || (self.tap.is_some()
                && self.flows.has_super_packets(flow(packet), now)
                && self.reach.is_open(peer, now));
        if !asks {
            return NOT_TAKEN;
        }
        let outside = tables.header(to.peer);
        if outside.is_empty()
            || outside.len() + packet.len() > PAYLOAD_BYTES
            || source.address.ip().is_unspecified()
            || is_link_local(peer)
            || !self.is_usable(now)
        {
            return NOT_TAKEN;
        }
        let advice = self.reach.advise(peer, now);
        if let Some(change) = advice.change {
            self.tell(peer, change);
        }
        if let Some(sign) = advice.ask
            && let Some(len) = self.write_request(tables, to.peer, sign)
        {
            let request = std::mem::take(&mut self.request);
            let written = self.write(
                source,
                to.endpoint,
                &VnetHeader::default(),
                1,
                len,
                once(&request[..len]),
            );
            self.request = request;
            if let Err(error) = written {
                self.refused(&error, now);
                return NOT_TAKEN;
            }
        }
        if advice.take && self.is_swallowed(peer, packet, is_super, now) {
            return NOT_TAKEN;
        }
        if advice.take && is_super {
            *self.flows.place(flow(packet)) = Some(now);
        }
        let control = advice
            .control
            .and_then(|sign| self.write_request(tables, to.peer, sign));
        Taken {
            take: advice.take,
            datagram: control.map(|len| &self.request[..len]),
        }
    }

    /// Sends a message whole.
    ///
    /// # Errors
    /// The device or the kernel does not take it; from now on nothing is, for a while.
    pub fn send(&mut self, buffers: &Buffers<'_>, message: &Message, source: Source) -> io::Result<()> {
        // Of a batch for a device that was lost only the first tells.
        let (Some(endpoint), Some(_)) = (message.endpoint, &self.tap) else {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        };
        let pieces = buffers.pieces_of(message);
        match self.write(
            source,
            endpoint,
            &message.vnet,
            message.packets,
            message.len,
            pieces,
        ) {
            Ok(()) => {
                self.report.frames.add(1);
                Ok(())
            }
            Err(error) => {
                self.report.fallbacks.add(1);
                self.refused(&error, Instant::now());
                Err(error)
            }
        }
    }

    /// Looks for answers among what the socket received.
    pub fn hear(&mut self, batch: &Batch) {
        if !self.reach.is_waiting() && !self.proving {
            return;
        }
        let now = Instant::now();
        for at in 0..batch.len() {
            let slot = batch.slot(at);
            let Some(peer) = slot.sender.map(|sender| sender.ip().to_canonical()) else {
                continue;
            };
            let step = if slot.segment == 0 { slot.len } else { slot.segment };
            let bytes = &batch.bytes()[slot.start..slot.start + slot.len];
            for datagram in bytes.chunks(step.max(1)) {
                let Some(packet) = datagram.get(MAX_HEADER_BYTES..) else {
                    continue;
                };
                if let Some(sign) = probe::answer(packet)
                    && let Some(change) = self.reach.answered(peer, sign, now)
                {
                    self.tell(peer, change);
                }
                if self.proving
                    && let Some(proof) = self.proofs.get_mut(&peer)
                    && proof.heard(packet, now)
                {
                    self.reach.proved(peer);
                    self.proving = self.proofs.values().any(Proof::is_waiting);
                }
            }
        }
    }

    /// Whether super-packets for the peer turn out not to arrive, now that `packet` is about to leave.
    fn is_swallowed(&mut self, peer: IpAddr, packet: &[u8], is_super: bool, now: Instant) -> bool {
        if !self.proofs.contains_key(&peer) {
            let reach = &self.reach;
            if self.proofs.len() >= PROOFS {
                self.proofs.retain(|peer, _| reach.is_open(*peer, now));
            }
        }
        let proof = self.proofs.entry(peer).or_insert_with(|| Proof::new(now));
        let useless = if is_super {
            proof.sent(packet, now)
        } else {
            proof.sent_single(packet, now)
        };
        self.proving |= proof.is_waiting();
        if useless {
            self.reach.swallowed(peer, now);
            self.tell(peer, Change::Swallowed);
        }
        useless
    }

    /// Writes a request to a peer, encapsulated, as long as the overlay's packets get: its length.
    fn write_request(&mut self, tables: &Tables, peer: usize, sign: Sign) -> Option<usize> {
        let outside = tables.header(peer);
        let (own, theirs) = tables.between(peer)?;
        let len = outside.len() + tables.mtu();
        if self.request.len() < len {
            self.request.resize(len, 0);
        }
        let (before, packet) = self.request[..len].split_at_mut(outside.len());
        before.copy_from_slice(outside);
        probe::request(own, theirs, sign, packet).map(|()| len)
    }

    fn write<'a>(
        &mut self,
        source: Source,
        endpoint: SocketAddr,
        vnet: &VnetHeader,
        packets: usize,
        payload: usize,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let Some((tap, device)) = &mut self.tap else {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        };
        let outer = Outer {
            device: *device,
            source: source.address,
            destination: endpoint,
            // The host takes one as it forwards.
            ttl: source.ttl.saturating_add(1),
            identification: self.identification,
        };
        let mut header = [0; OUTER_BYTES];
        let len = outer
            .emit(vnet, MAX_HEADER_BYTES, payload, &mut header)
            .ok_or_else(invalid)?;
        #[allow(clippy::cast_possible_truncation, reason = "it counts on and around")]
        let after = self.identification.wrapping_add(packets as u16);
        self.identification = after;
        tap.write(&header[..len], pieces)
    }

    /// Whether the device is there; it is looked for if it was not.
    fn is_usable(&mut self, now: Instant) -> bool {
        if self.tap.is_some() {
            return true;
        }
        if now < self.again {
            return false;
        }
        let opened = Tap::open(&self.name).and_then(|tap| {
            let mac = tap.mac().map_err(Unusable::Device)?;
            Ok((tap, mac))
        });
        let mut told = self.report.told();
        (told.missing, told.device) = (None, None);
        match opened {
            Ok(tap) => self.tap = Some(tap),
            Err(Unusable::Missing(error)) => {
                told.missing = Some(format!("{error}: UDP tunnel segmentation needs Linux 6.17"));
                self.again = now + REFUSED_PAUSE;
            }
            Err(Unusable::Device(error)) => {
                let why = obstacle::of_device(&error);
                told.device = Some(format!("TAP device {}: {why}", self.name));
                self.again = now + DEVICE_PAUSE;
            }
        }
        self.tap.is_some()
    }

    /// The kernel refused a frame: the device is gone or down, or there are frames that it does not take.
    fn refused(&mut self, error: &io::Error, now: Instant) {
        let is_devices = matches!(
            error.raw_os_error(),
            Some(libc::EBADFD | libc::EIO | libc::ENODEV)
        );
        self.tap = None;
        self.reach.forget();
        self.proofs.clear();
        self.proving = false;
        self.again = now + if is_devices { DEVICE_PAUSE } else { REFUSED_PAUSE };
        self.report.told().device = Some(format!("TAP device {}: {error}", self.name));
    }

    fn tell(&mut self, peer: IpAddr, change: Change) {
        if change == Change::Opened {
            self.report.told().peers.remove(&peer);
            return;
        }
        if matches!(change, Change::Lost | Change::Swallowed) {
            self.report.fallbacks.add(1);
        }
        let device = &self.name;
        let found = obstacle::of_forwarding(device, peer).filter(|_| change != Change::Swallowed);
        let why = found.unwrap_or_else(|| match change {
            Change::Swallowed => format!(
                "echo requests through {device} arrive, super-packets do not: look for a filter by length, or a network card that \
                 does not cut tunnels (ethtool -K LINK tx-udp_tnl-csum-segmentation off)"
            ),
            Change::Silent { there: false } => {
                "it does not answer echo requests to its overlay address".to_owned()
            }
            Change::Silent { there: true } => format!(
                "frames through {device} do not arrive, datagrams of the socket do: \
                 look for a FORWARD policy or filter on this host"
            ),
            _ => format!("frames through {device} no longer arrive"),
        });
        // The address may have been changed.
        if let Some((tap, mac)) = &mut self.tap
            && let Ok(now) = tap.mac()
        {
            *mac = now;
        }
        self.report.told().peers.insert(peer, why);
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

//! One turn of the pump: what the TUN has goes out in datagrams, what the socket has goes into the TUN.
//!
//! It runs over real devices as over ports in memory, and allocates nothing after it was made: two batches, one outbox and one reply
//! buffer, 2 MiB of address space of which only what packets touch is used.
//!
//! Packets of one peer leave in the order in which they came, and so do those of one sender. Packets for different peers may
//! overtake each other within a batch: those of one peer are brought together, so that equally long ones share a send.
mod answers;
mod joining;
mod way;

use std::io;
use std::sync::Arc;
use std::time::Instant;

use overlaynet_core::encapsulation::{Encapsulation, flow};
use overlaynet_core::forward::{ICMPV6_ERROR_BYTES, Outgoing, PeerIndex};
use overlaynet_core::offload::{Gso, Split, VnetHeader, complete_checksum};
use overlaynet_core::stats::DropReason;

use self::answers::Answers;
use self::joining::Joining;
use self::way::{Sending, Way, milliseconds};
use crate::offload::Offload;
use crate::outbox::{Destination, MORE_SEGMENTS};
use crate::port::{Batch, Buffers, Message, PacketPort, Piece, Place};
use crate::shared::{Picture, Shared};

/// Packets that one turn takes from the TUN: as many small ones as fill two sends.
const OUTGOING: usize = 2 * MORE_SEGMENTS;

/// Bytes that one turn takes from the TUN, about: four super-packets, which stay in the cache until they are sent.
const OUTGOING_BYTES: usize = 4 * (64 << 10);

/// How many source ports flows are spread over, where the encapsulation wants that.
pub const LANES: usize = 8;

/// A packet on its way out. The order is that in which packets leave: those that may share a send stand together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Leaving {
    peer: usize,
    lane: usize,
    at: usize,
}

/// The place of a packet's owner in the tables where it has none.
const NOBODY: usize = usize::MAX;

/// Both ports and the buffers between them.
pub struct Engine<T, U> {
    pub(crate) tun: T,
    pub(crate) udp: U,
    pub(crate) shared: Arc<Shared>,
    from_tun: Batch,
    from_udp: Batch,
    order: Box<[Leaving]>,
    sending: Sending,
    reply: Box<[u8]>,
    answers: Answers,
}

impl<T: PacketPort, U: PacketPort> Engine<T, U> {
    /// An engine between `tun` and `udp`, with `batch` for what the latter receives.
    pub fn new(tun: T, udp: U, batch: Batch, shared: Arc<Shared>) -> Self {
        let outgoing = if shared.offloads().has(Offload::Batch) {
            OUTGOING
        } else {
            1
        };
        Self {
            tun,
            udp,
            shared,
            from_tun: Batch::new(outgoing, OUTGOING_BYTES),
            from_udp: batch,
            order: vec![Leaving::default(); OUTGOING].into_boxed_slice(),
            sending: Sending::default(),
            reply: vec![0; ICMPV6_ERROR_BYTES].into_boxed_slice(),
            answers: Answers::new(),
        }
    }

    /// Carries at most one batch each way; whether there was anything.
    ///
    /// # Errors
    /// A port is of no more use.
    pub fn turn(&mut self) -> io::Result<bool> {
        Ok(self.send_out()? | self.bring_in()?)
    }

    /// The bytes that came in on both ports in the last turn.
    #[must_use]
    pub fn carried(&self) -> usize {
        self.from_tun.total() + self.from_udp.total()
    }

    /// The packets that came in on both ports in the last turn: a super-packet of the TUN is one, a datagram of a run each.
    #[must_use]
    pub fn packets(&self) -> usize {
        self.from_tun.datagrams() + self.from_udp.datagrams()
    }

    fn send_out(&mut self) -> io::Result<bool> {
        self.from_tun.clear();
        self.tun.receive(&mut self.from_tun)?;
        if self.from_tun.is_empty() {
            return Ok(false);
        }
        let picture = self.shared.picture();
        let mut count = 0;
        for at in 0..self.from_tun.len() {
            if let Some(leaving) = self.decide(&picture, at)? {
                self.order[count] = leaving;
                count += 1;
            }
        }
        let order = &mut self.order[..count];
        order.sort_unstable();
        let mut out = Way {
            port: &mut self.udp,
            batch: self.from_tun.bytes(),
            sending: &mut self.sending,
            shared: &self.shared,
            picture: &picture,
        };
        for &Leaving { peer, lane, at } in &*order {
            let Some(&endpoint) = picture.tables.endpoints().get(peer) else {
                continue;
            };
            let slot = self.from_tun.slot(at);
            let packet = slot.start..slot.start + slot.len;
            out.encapsulate(
                Destination { peer, endpoint, lane },
                slot.vnet.unwrap_or_default(),
                packet,
            )?;
        }
        out.flush()?;
        Ok(true)
    }

    /// Where the packet at `at` goes, or None: it was dropped, and answered where that is due.
    fn decide(&mut self, picture: &Picture, at: usize) -> io::Result<Option<Leaving>> {
        let slot = self.from_tun.slot(at);
        let packet = &mut self.from_tun.bytes_mut()[slot.start..slot.start + slot.len];
        let longest = match slot.vnet {
            Some(vnet) if vnet.gso == Gso::None => complete_checksum(&vnet, packet, self.sending.plus)
                .ok()
                .map(|()| packet.len()),
            Some(vnet) => Split::new(&vnet, packet).ok().map(|split| split.longest()),
            None => None,
        };
        let verdict = match longest {
            Some(longest) => {
                let begun = self.sending.begun;
                let path_mtu = |peer: PeerIndex| {
                    let known = picture.peers.get(peer.get())?;
                    known.path_mtu.value(|| milliseconds(begun))
                };
                picture
                    .tables
                    .outgoing(packet, longest, &path_mtu, &mut self.reply)
            }
            None => Outgoing::Drop(DropReason::Malformed),
        };
        match verdict {
            Outgoing::Encapsulate(peer) => {
                let lane = match picture.tables.encapsulation() {
                    Encapsulation::Plain => 0,
                    Encapsulation::Vxlan(_) => flow(packet) as usize % LANES,
                };
                // For those that leave in one piece.
                let header = picture.tables.header(peer.get());
                self.from_tun.bytes_mut()[slot.start - header.len()..slot.start].copy_from_slice(header);
                let peer = peer.get();
                return Ok(Some(Leaving { peer, lane, at }));
            }
            Outgoing::Reply(len, reason) => {
                self.shared.drop_packets(None, reason, 1);
                if self.answers.may_answer(Instant::now()) {
                    self.answer(len)?;
                }
            }
            Outgoing::Drop(reason) => self.shared.drop_packets(None, reason, 1),
        }
        Ok(None)
    }

    /// Sends the first bytes of the reply buffer into the TUN.
    fn answer(&mut self, len: usize) -> io::Result<()> {
        let piece = Piece {
            place: Place::Made,
            start: 0,
            len,
        };
        let buffers = Buffers {
            made: &self.reply,
            batch: &[],
            pieces: &[piece],
        };
        let message = Message {
            pieces: 0..1,
            len,
            packets: 1,
            segment: len,
            endpoint: None,
            lane: 0,
            whole: false,
            vnet: VnetHeader::default(),
            peer: 0,
            inner: len,
        };
        if self.tun.send(buffers, &[message])?.refused.is_some() {
            self.shared.drop_packets(None, DropReason::DeliverFailed, 1);
        }
        Ok(())
    }

    fn bring_in(&mut self) -> io::Result<bool> {
        self.from_udp.clear();
        self.udp.receive(&mut self.from_udp)?;
        if self.from_udp.is_empty() {
            return Ok(false);
        }
        let picture = self.shared.picture();
        let batch = &self.from_udp;
        let mut joining = Joining {
            way: Way {
                port: &mut self.tun,
                batch: batch.bytes(),
                sending: &mut self.sending,
                shared: &self.shared,
                picture: &picture,
            },
            open: None,
        };
        for at in 0..batch.len() {
            let slot = batch.slot(at);
            let step = if slot.segment == 0 { slot.len } else { slot.segment };
            let peer = slot.sender.and_then(|sender| picture.tables.peer_at(sender.ip()));
            let end = slot.start + slot.len;
            let mut start = slot.start;
            loop {
                let datagram = start..(start + step).min(end);
                let bytes = &batch.bytes()[datagram.clone()];
                let arrived = picture.tables.encapsulation().strip(bytes).and_then(|skip| {
                    let (len, owner) = picture.tables.incoming(peer, &bytes[skip..])?;
                    Ok((start + skip..start + skip + len, owner))
                });
                match arrived {
                    Ok((packet, owner)) => joining.deliver(owner.map_or(NOBODY, PeerIndex::get), packet)?,
                    Err(reason) => {
                        let stats = peer.and_then(|peer| picture.peers.get(peer.get()));
                        self.shared.drop_packets(stats, reason, 1);
                    }
                }
                start = datagram.end;
                if start >= end {
                    break;
                }
            }
        }
        joining.close();
        joining.way.flush()?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod whole;

//! One turn of the pump: what the TUN has goes out in datagrams, what the socket has goes into the TUN.
//!
//! It runs over real devices as over ports in memory, and allocates nothing after it was made: two batches, one outbox and one reply
//! buffer, 2 MiB of address space of which only what packets touch is used.
//!
//! Packets of one peer leave in the order in which they came, and so do those of one sender. Packets for different peers may
//! overtake each other within a batch: those of one peer are brought together, so that equally long ones share a send.
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overlaynet_core::encapsulation::{Encapsulation, flow};
use overlaynet_core::forward::{ICMPV6_ERROR_BYTES, Outgoing, PeerIndex};
use overlaynet_core::offload::{Gso, MAX_HEADERS_BYTES, Run, Split, VnetHeader, complete_checksum, uncut};
use overlaynet_core::stats::DropReason;
use overlaynet_core::wire::checksum::{Copying, Summing};
use overlaynet_core::wire::protocol;

use crate::offload::{Offload, Offloads};
use crate::outbox::{Destination, MORE_SEGMENTS, Outbox, SEGMENTS, Singles};
use crate::port::{Batch, Buffers, Message, PacketPort, Piece, Place};
use crate::shared::{PATH_MTU_LASTS, Picture, Shared};
use crate::summing;

/// Packets that one turn takes from the TUN: as many small ones as fill two sends.
const OUTGOING: usize = 2 * MORE_SEGMENTS;

/// Bytes that one turn takes from the TUN, about: four super-packets, which stay in the cache until they are sent.
const OUTGOING_BYTES: usize = 4 * (64 << 10);

/// The most TCP packets that are joined to one: what one write(2) can take in pieces, with room for headers. Of UDP packets the
/// kernel takes as many as in one send (`virtio_net_hdr_to_skb` in include/linux/virtio_net.h), and the engine as many as it sends.
const JOINED: usize = 1000;

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

/// How many ICMP errors may go out at once, and how many a second after that (the kernel's own `icmp_msgs_burst` and
/// `icmp_msgs_per_sec`, ip-sysctl).
const ANSWERS_AT_ONCE: u32 = 50;
const ANSWERS_A_SECOND: u32 = 1000;

/// Limits ICMP errors (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 (f)): a bucket of answers that fills with time.
#[derive(Debug)]
struct Answers {
    left: u32,
    filled: Instant,
}

impl Answers {
    fn new() -> Self {
        Self {
            left: ANSWERS_AT_ONCE,
            filled: Instant::now(),
        }
    }

    fn may_answer(&mut self, now: Instant) -> bool {
        let step = Duration::from_secs(1) / ANSWERS_A_SECOND;
        let steps = now.saturating_duration_since(self.filled).as_micros() / step.as_micros();
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        if steps > 0 {
            self.left = self.left.saturating_add(steps).min(ANSWERS_AT_ONCE);
            self.filled += step.saturating_mul(steps);
        }
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }
}

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

/// What is kept between sends: the buffers, and what the kernel takes.
#[derive(Debug)]
struct Sending {
    outbox: Outbox,
    singles: Singles,
    /// For what was to leave in one piece, and was not taken.
    parts: Outbox,
    segments: usize,
    plus: Summing,
    copying: Copying,
    /// From when on moments are counted.
    begun: Instant,
}

impl Default for Sending {
    fn default() -> Self {
        Self {
            outbox: Outbox::default(),
            singles: Singles::default(),
            parts: Outbox::default(),
            segments: MORE_SEGMENTS,
            plus: summing::fastest(),
            copying: summing::fastest_copying(),
            begun: Instant::now(),
        }
    }
}

/// From one port's batch to the other port.
struct Way<'a, P> {
    port: &'a mut P,
    batch: &'a [u8],
    sending: &'a mut Sending,
    shared: &'a Shared,
    picture: &'a Picture,
}

impl<P: PacketPort> Way<'_, P> {
    /// Puts a packet of the batch, or each part of a super-packet, into the outbox as a datagram.
    fn encapsulate(&mut self, to: Destination, vnet: VnetHeader, packet: Range<usize>) -> io::Result<()> {
        let most = if self.shared.offloads().has(Offload::Gso) {
            self.sending.segments
        } else {
            1
        };
        let outside = self.picture.tables.header(to.peer);
        let bytes = &self.batch[packet.clone()];
        // The encapsulation stands right before the packet since its way was decided.
        let piece = Piece {
            place: Place::Batch,
            start: packet.start - outside.len(),
            len: outside.len() + packet.len(),
        };
        if vnet.gso == Gso::None {
            if is_tcp(bytes) && self.port.takes(&self.picture.tables, to, bytes, false) {
                self.make_room(1, 0)?;
                let outbox = &mut self.sending.outbox;
                outbox.add_whole(to, VnetHeader::default(), 1, packet.len(), piece);
                return Ok(());
            }
            return self.add(to, most, bytes.len(), |inside| inside.copy_from_slice(bytes));
        }
        // It was whole when its way was decided.
        let Ok(split) = Split::new(&vnet, bytes) else {
            self.shared.drop_packets(None, DropReason::Malformed, 1);
            return Ok(());
        };
        if vnet.gso != Gso::Udp && self.port.takes(&self.picture.tables, to, bytes, true) {
            let inner = bytes.len() + (split.len() - 1) * split.header_len();
            #[allow(clippy::cast_possible_truncation, reason = "at most MAX_HEADERS_BYTES")]
            let header_len = split.header_len() as u16;
            let (vnet, packets) = (VnetHeader { header_len, ..vnet }, split.len());
            self.make_room(1, 0)?;
            self.sending.outbox.add_whole(to, vnet, packets, inner, piece);
            return Ok(());
        }
        let copying = self.sending.copying;
        for index in 0..split.len() {
            let write = |inside: &mut [u8]| split.emit(index, inside, copying);
            self.add(to, most, split.packet_len(index), write)?;
        }
        Ok(())
    }

    /// Puts one packet of `inner` bytes, which `write` writes, into the outbox as a datagram.
    fn add(
        &mut self,
        to: Destination,
        most: usize,
        inner: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> io::Result<()> {
        let outside = self.picture.tables.header(to.peer);
        if !self.sending.outbox.has_room_for(to, most, outside.len() + inner) {
            self.flush()?;
        }
        write(self.sending.outbox.datagram(to, most, outside, inner));
        Ok(())
    }

    fn make_room(&mut self, pieces: usize, headers: usize) -> io::Result<()> {
        if self.sending.outbox.has_room(pieces, headers) {
            return Ok(());
        }
        self.flush()
    }

    /// Sends what is in the outbox. A message that the kernel does not take in one piece goes packet by packet; what it does not
    /// take at all is counted.
    fn flush(&mut self) -> io::Result<()> {
        let Sending {
            outbox,
            singles,
            parts,
            segments,
            begun,
            copying,
            ..
        } = &mut *self.sending;
        let buffers = outbox.buffers(self.batch);
        let messages = outbox.messages();
        let mut first = 0;
        while first < messages.len() {
            let sent = self.port.send(buffers, &messages[first..])?;
            for message in &messages[first..first + sent.messages] {
                count(self.shared, self.picture, message);
            }
            first += sent.messages;
            let Some(error) = sent.refused else {
                continue;
            };
            let message = &messages[first];
            first += 1;
            if message.whole {
                let piece = outbox.piece(first - 1);
                take_apart(
                    self.port,
                    self.shared,
                    self.picture,
                    self.batch,
                    message,
                    piece,
                    parts,
                    *copying,
                )?;
                continue;
            }
            if message.packets == 1 || !is_about_size(error) {
                drop_message(self.shared, self.picture, message);
                continue;
            }
            if error == libc::EMSGSIZE {
                learn_path(self.port, self.picture, message, milliseconds(*begun));
            }
            give_up(self.shared.offloads(), message, error, segments);
            outbox.single(first - 1, singles);
            let buffers = singles.buffers(buffers);
            send_each(self.port, self.shared, self.picture, buffers, singles.messages())?;
        }
        outbox.clear();
        Ok(())
    }
}

/// Sends messages of one packet each; those that the kernel does not take are dropped.
fn send_each<P: PacketPort>(
    port: &mut P,
    shared: &Shared,
    picture: &Picture,
    buffers: Buffers<'_>,
    mut rest: &[Message],
) -> io::Result<()> {
    while !rest.is_empty() {
        let sent = port.send(buffers, rest)?;
        let (taken, after) = rest.split_at(sent.messages);
        for message in taken {
            count(shared, picture, message);
        }
        rest = after;
        if sent.refused.is_some()
            && let Some((message, after)) = rest.split_first()
        {
            drop_message(shared, picture, message);
            rest = after;
        }
    }
    Ok(())
}

/// Sends the packets of a message that was to leave in one piece, which lies at `piece`, one by one.
#[allow(clippy::too_many_arguments, reason = "what a flush has in its hands")]
fn take_apart<P: PacketPort>(
    port: &mut P,
    shared: &Shared,
    picture: &Picture,
    batch: &[u8],
    message: &Message,
    piece: Piece,
    parts: &mut Outbox,
    copying: Copying,
) -> io::Result<()> {
    let Some(endpoint) = message.endpoint else {
        return Ok(());
    };
    let (peer, lane) = (message.peer, message.lane);
    let to = Destination { peer, endpoint, lane };
    let outside = picture.tables.header(peer);
    let packet = &batch[piece.start + outside.len()..piece.start + piece.len];
    let split = Split::new(&message.vnet, packet).ok();
    for index in 0..split.map_or(1, |split| split.len()) {
        let inner = split.map_or(packet.len(), |split| split.packet_len(index));
        if !parts.has_room_for(to, 1, outside.len() + inner) {
            send_each(port, shared, picture, parts.buffers(batch), parts.messages())?;
            parts.clear();
        }
        let inside = parts.datagram(to, 1, outside, inner);
        match split {
            Some(split) => split.emit(index, inside, copying),
            None => inside.copy_from_slice(packet),
        }
    }
    send_each(port, shared, picture, parts.buffers(batch), parts.messages())?;
    parts.clear();
    Ok(())
}

fn is_tcp(packet: &[u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => packet.get(9) == Some(&protocol::TCP),
        Some(6) => packet.get(6) == Some(&protocol::TCP),
        _ => false,
    }
}

/// Notes what the system knows of the way to the message's destination, if that is too narrow for its packets.
fn learn_path<P: PacketPort>(port: &mut P, picture: &Picture, message: &Message, now: u64) {
    let Some(known) = picture.peers.get(message.peer) else {
        return;
    };
    let Some(payload) = message.endpoint.and_then(|endpoint| port.path_payload(endpoint)) else {
        return;
    };
    if payload < message.segment {
        let outside = picture.tables.header(message.peer).len();
        #[allow(clippy::cast_possible_truncation, reason = "ten minutes")]
        let lasts = PATH_MTU_LASTS.as_millis() as u64;
        known
            .path_mtu
            .learn(payload.saturating_sub(outside).max(1), now + lasts);
    }
}

#[allow(clippy::cast_possible_truncation, reason = "584 million years")]
fn milliseconds(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}

/// Whether an error may go away when packets go one by one: it is about how they were put together.
fn is_about_size(error: i32) -> bool {
    matches!(
        error,
        libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP
    )
}

/// Notes that the kernel refused `message`: next time there are fewer packets in one, or never again several.
fn give_up(offloads: &Offloads, message: &Message, error: i32, segments: &mut usize) {
    let offload = match (message.endpoint, message.vnet.gso) {
        // The segments do not fit the path to this one peer.
        (Some(_), _) if error == libc::EMSGSIZE => return,
        // Linux before 6.9 takes 64 (UDP_MAX_SEGMENTS in include/linux/udp.h), to send as to deliver.
        (Some(_), _) | (None, Gso::Udp) if error == libc::EINVAL && message.packets > SEGMENTS => {
            *segments = SEGMENTS;
            return;
        }
        (Some(_), _) => Offload::Gso,
        // The device is down, and takes nothing at all.
        (None, _) if error == libc::EIO => return,
        (None, Gso::Udp) => Offload::Uso,
        (None, _) => Offload::Tso,
    };
    offloads.give_up(offload, error);
}

fn count(shared: &Shared, picture: &Picture, message: &Message) {
    let peer = picture.peers.get(message.peer).map(|peer| &peer.traffic);
    for traffic in [Some(shared.traffic()), peer].into_iter().flatten() {
        if message.endpoint.is_some() {
            traffic.sent(message.packets, message.inner);
        } else {
            traffic.delivered(message.packets, message.inner);
        }
    }
}

fn drop_message(shared: &Shared, picture: &Picture, message: &Message) {
    let reason = if message.endpoint.is_some() {
        DropReason::SendFailed
    } else {
        DropReason::DeliverFailed
    };
    shared.drop_packets(picture.peers.get(message.peer), reason, message.packets);
}

/// The way in, with the packets that continue each other joined to one.
struct Joining<'a, P> {
    way: Way<'a, P>,
    open: Option<Open>,
}

/// A run that may still grow, and is the outbox's last message.
struct Open {
    run: Run,
    first: Range<usize>,
    peer: usize,
}

impl<P: PacketPort> Joining<'_, P> {
    /// Puts a packet of the batch into the outbox, joined to the one before if it continues its flow.
    fn deliver(&mut self, peer: usize, packet: Range<usize>) -> io::Result<()> {
        let batch = self.way.batch;
        let bytes = &batch[packet.clone()];
        if let Some(open) = &mut self.open
            && open.peer == peer
            && open.run.len()
                < if open.run.kind() == Gso::Udp {
                    self.way.sending.segments
                } else {
                    JOINED
                }
            && self.way.sending.outbox.has_room(2, MAX_HEADERS_BYTES)
            && open
                .run
                .take(&batch[open.first.clone()], bytes, self.way.sending.plus)
        {
            let outbox = &mut self.way.sending.outbox;
            let header_len = open.run.header_len();
            if open.run.len() == 2 {
                let (header, _) = outbox.header(header_len);
                outbox.open_run(header);
            }
            let payload = Piece {
                place: Place::Batch,
                start: packet.start + header_len,
                len: packet.len() - header_len,
            };
            outbox.continue_run(payload, packet.len());
            return Ok(());
        }
        self.close();
        self.way.make_room(3, MAX_HEADERS_BYTES)?;
        let piece = Piece {
            place: Place::Batch,
            start: packet.start,
            len: packet.len(),
        };
        if packet.len() > self.way.picture.tables.mtu()
            && let Some(vnet) = uncut(bytes)
        {
            return self.deliver_uncut(peer, vnet, piece);
        }
        self.way.sending.outbox.add_packet(peer, piece);
        let offloads = self.way.shared.offloads();
        let (tcp, udp) = (offloads.has(Offload::Tso), offloads.has(Offload::Uso));
        if tcp || udp {
            self.open = Run::begin(bytes, self.way.sending.plus)
                .filter(|run| if run.kind() == Gso::Udp { udp } else { tcp })
                .map(|run| Open {
                    run,
                    first: packet,
                    peer,
                });
        }
        Ok(())
    }

    /// Puts a super-packet into the outbox that came as one; where the TUN takes none, its packets.
    fn deliver_uncut(&mut self, peer: usize, vnet: VnetHeader, piece: Piece) -> io::Result<()> {
        if self.way.shared.offloads().has(Offload::Tso) {
            self.way.sending.outbox.add_super(peer, vnet, piece);
            return Ok(());
        }
        let packet = &self.way.batch[piece.start..piece.start + piece.len];
        let Ok(split) = Split::new(&vnet, packet) else {
            self.way.shared.drop_packets(None, DropReason::Malformed, 1);
            return Ok(());
        };
        for index in 0..split.len() {
            self.way.make_room(1, split.packet_len(index))?;
            let Sending { outbox, copying, .. } = &mut *self.way.sending;
            let (piece, bytes) = outbox.header(split.packet_len(index));
            split.emit(index, bytes, *copying);
            outbox.add_packet(peer, piece);
        }
        Ok(())
    }

    /// Ends the run that is open, if one is.
    fn close(&mut self) {
        let Some(Open { run, first, .. }) = self.open.take() else {
            return;
        };
        let first = &self.way.batch[first];
        self.way.sending.outbox.close_run(|header| match header {
            Some(header) => run.emit(first, header),
            None => Run::alone(),
        });
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod whole;

//! From one port to the other: packets become messages, and what the kernel refuses of them goes again packet by packet.
use std::io;
use std::ops::Range;
use std::time::Instant;

use overlaynet_core::offload::{Gso, Split, VnetHeader};
use overlaynet_core::stats::DropReason;
use overlaynet_core::wire::checksum::{Copying, Summing};
use overlaynet_core::wire::protocol;

use crate::offload::{Offload, Offloads};
use crate::outbox::{Destination, MORE_SEGMENTS, Outbox, SEGMENTS, Singles};
use crate::port::{Buffers, Message, PacketPort, Piece, Place};
use crate::shared::{PATH_MTU_LASTS, Picture, Shared};
use crate::summing;

/// What is kept between sends: the buffers, and what the kernel takes.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) outbox: Outbox,
    singles: Singles,
    /// For what was to leave in one piece, and was not taken.
    parts: Outbox,
    pub(super) segments: usize,
    pub(super) plus: Summing,
    pub(super) copying: Copying,
    /// From when on moments are counted.
    pub(super) begun: Instant,
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
pub(super) struct Way<'a, P> {
    pub(super) port: &'a mut P,
    pub(super) batch: &'a [u8],
    pub(super) sending: &'a mut Sending,
    pub(super) shared: &'a Shared,
    pub(super) picture: &'a Picture,
}

impl<P: PacketPort> Way<'_, P> {
    /// Puts a packet of the batch, or each part of a super-packet, into the outbox as a datagram.
    pub(super) fn encapsulate(
        &mut self,
        to: Destination,
        vnet: VnetHeader,
        packet: Range<usize>,
    ) -> io::Result<()> {
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

    pub(super) fn make_room(&mut self, pieces: usize, headers: usize) -> io::Result<()> {
        if self.sending.outbox.has_room(pieces, headers) {
            return Ok(());
        }
        self.flush()
    }

    /// Sends what is in the outbox. A message that the kernel does not take in one piece goes packet by packet; what it does not
    /// take at all is counted.
    pub(super) fn flush(&mut self) -> io::Result<()> {
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
pub(super) fn milliseconds(since: Instant) -> u64 {
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

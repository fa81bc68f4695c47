//! What is about to be sent: messages, their pieces, and the bytes made for them, in buffers that are allocated once.
//!
//! Datagrams are laid out one behind the other, so that a send is one piece however many datagrams it has: the kernel takes a third
//! longer for 88 pieces of headers and payloads, which is more than the copy costs that the checksum's pass makes on its way.
use std::net::SocketAddr;

use overlaynet_core::offload::VnetHeader;

use crate::port::{Buffers, Message, Piece, Place};

/// Pieces in one outbox: twice what a super-packet of 64 KiB in segments of 128 bytes takes.
pub const PIECES: usize = 1024;

/// Messages in one outbox.
pub const MESSAGES: usize = 256;

/// The most payload of one UDP datagram over IPv4, and so of one send, in bytes.
pub const SEND_BYTES: usize = 65_507;

/// Bytes made for messages in one outbox: two whole sends, which stay in the second-level cache beside what they are made of.
const BYTES: usize = 2 * SEND_BYTES;

/// Datagrams in one send that every kernel with `UDP_SEGMENT` takes; Linux 6.9 and later take [`MORE_SEGMENTS`].
pub const SEGMENTS: usize = 63;

/// Datagrams in one send on Linux 6.9 and later.
pub const MORE_SEGMENTS: usize = 127;

/// A peer, and where its datagrams go.
#[derive(Clone, Copy, Debug)]
pub struct Destination {
    /// The peer's index in the tables.
    pub peer: usize,
    /// Its address and port.
    pub endpoint: SocketAddr,
    /// What the source port depends on.
    pub lane: usize,
}

/// Messages in the order in which they are to leave.
#[derive(Debug)]
pub struct Outbox {
    bytes: Box<[u8]>,
    used: usize,
    pieces: Vec<Piece>,
    messages: Vec<Message>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            bytes: vec![0; BYTES].into_boxed_slice(),
            used: 0,
            pieces: Vec::with_capacity(PIECES),
            messages: Vec::with_capacity(MESSAGES),
        }
    }
}

impl Outbox {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.used = 0;
        self.pieces.clear();
        self.messages.clear();
    }

    /// The messages.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The buffers of the messages, with the batch that they point into.
    #[must_use]
    pub fn buffers<'a>(&'a self, batch: &'a [u8]) -> Buffers<'a> {
        Buffers {
            made: &self.bytes,
            batch,
            pieces: &self.pieces,
        }
    }

    /// Whether another packet of `pieces` pieces and `headers` more bytes of headers fit.
    #[must_use]
    pub fn has_room(&self, pieces: usize, headers: usize) -> bool {
        self.messages.len() < MESSAGES
            && self.pieces.len() + pieces <= PIECES
            && self.used + headers <= self.bytes.len()
    }

    /// Takes `len` bytes; where they lie, and the bytes.
    pub fn header(&mut self, len: usize) -> (Piece, &mut [u8]) {
        let start = self.used;
        self.used += len;
        let piece = Piece {
            place: Place::Made,
            start,
            len,
        };
        (piece, &mut self.bytes[start..start + len])
    }

    /// Whether another datagram of `len` bytes fits, and all those that may yet join it.
    #[must_use]
    pub fn has_room_for(&self, to: Destination, most: usize, len: usize) -> bool {
        // A message that is cut short is a send more.
        let whole = if most > 1 { len.max(SEND_BYTES) } else { len };
        self.messages
            .last()
            .is_some_and(|last| joins(last, to, most, len))
            || self.has_room(1, whole)
    }

    /// Adds a datagram for which there is room, that of `outside` and a packet of `inner` bytes, which the caller writes into what
    /// is returned: to the last message if that has the same destination, datagrams as long as this one (which may be shorter, and
    /// then is the last) and fewer than `most`; otherwise as a message of its own.
    pub fn datagram(&mut self, to: Destination, most: usize, outside: &[u8], inner: usize) -> &mut [u8] {
        let len = outside.len() + inner;
        let start = self.used;
        self.used += len;
        match self.messages.last_mut() {
            Some(last) if joins(last, to, most, len) => {
                last.len += len;
                last.packets += 1;
                last.inner += inner;
                self.pieces[last.pieces.start].len += len;
            }
            _ => {
                let first = self.pieces.len();
                self.pieces.push(Piece {
                    place: Place::Made,
                    start,
                    len,
                });
                self.messages.push(Message {
                    pieces: first..first + 1,
                    len,
                    packets: 1,
                    segment: len,
                    endpoint: Some(to.endpoint),
                    lane: to.lane,
                    whole: false,
                    vnet: VnetHeader::default(),
                    peer: to.peer,
                    inner,
                });
            }
        }
        let (before, inside) = self.bytes[start..start + len].split_at_mut(outside.len());
        before.copy_from_slice(outside);
        inside
    }

    /// Adds a packet that leaves in one piece as a message of its own; it stands for `packets` of `inner` bytes together.
    pub fn add_whole(
        &mut self,
        to: Destination,
        vnet: VnetHeader,
        packets: usize,
        inner: usize,
        piece: Piece,
    ) {
        let first = self.pieces.len();
        self.pieces.push(piece);
        self.messages.push(Message {
            pieces: first..first + 1,
            len: piece.len,
            packets,
            segment: piece.len,
            endpoint: Some(to.endpoint),
            lane: to.lane,
            whole: true,
            vnet,
            peer: to.peer,
            inner,
        });
    }

    /// Adds a packet that goes to a TUN as a message of its own.
    pub fn add_packet(&mut self, peer: usize, piece: Piece) {
        let first = self.pieces.len();
        self.pieces.push(piece);
        self.messages.push(Message {
            pieces: first..first + 1,
            len: piece.len,
            packets: 1,
            segment: piece.len,
            endpoint: None,
            lane: 0,
            whole: false,
            vnet: VnetHeader::default(),
            peer,
            inner: piece.len,
        });
    }

    /// Adds a super-packet that goes to a TUN as it is.
    pub fn add_super(&mut self, peer: usize, vnet: VnetHeader, piece: Piece) {
        self.add_packet(peer, piece);
        if let Some(last) = self.messages.last_mut() {
            last.vnet = vnet;
        }
    }

    /// The first piece of the message at `at`.
    #[must_use]
    pub fn piece(&self, at: usize) -> Piece {
        self.pieces[self.messages[at].pieces.start]
    }

    /// Puts `header` before the payload of the last message's only packet, whose own headers are as long.
    pub fn open_run(&mut self, header: Piece) {
        let Some(last) = self.messages.last_mut() else {
            return;
        };
        let packet = &mut self.pieces[last.pieces.start];
        packet.start += header.len;
        packet.len -= header.len;
        let payload = *packet;
        *packet = header;
        self.pieces.push(payload);
        last.pieces.end += 1;
    }

    /// Adds the payload of a packet of `inner` bytes to the last message.
    pub fn continue_run(&mut self, payload: Piece, inner: usize) {
        self.pieces.push(payload);
        if let Some(last) = self.messages.last_mut() {
            last.pieces.end += 1;
            last.len += payload.len;
            last.packets += 1;
            last.inner += inner;
        }
    }

    /// Ends the run that is the last message: `emit` gets room for the super-packet's headers, which a run of several packets has,
    /// and tells what stands before them.
    pub fn close_run(&mut self, emit: impl FnOnce(Option<&mut [u8]>) -> VnetHeader) {
        let Some(last) = self.messages.last_mut() else {
            return;
        };
        let header = self.pieces[last.pieces.start];
        let room = (last.packets > 1).then(|| &mut self.bytes[header.start..header.start + header.len]);
        last.vnet = emit(room);
    }

    /// Turns a message into one for each of its packets, in `singles`, which is cleared before.
    ///
    /// A joined packet is found whole again in the batch: its own headers still stand before its payload.
    pub fn single(&self, at: usize, singles: &mut Singles) {
        let message = &self.messages[at];
        singles.clear();
        let pieces = &self.pieces[message.pieces.clone()];
        if message.endpoint.is_none() {
            let Some((header, payloads)) = pieces.split_first() else {
                return;
            };
            for payload in payloads {
                let whole = Piece {
                    start: payload.start - header.len,
                    len: payload.len + header.len,
                    ..*payload
                };
                singles.push(message, whole.len, whole);
            }
            return;
        }
        let outside = (message.len - message.inner) / message.packets;
        for piece in pieces {
            for start in (0..piece.len).step_by(message.segment) {
                let datagram = Piece {
                    start: piece.start + start,
                    len: message.segment.min(piece.len - start),
                    ..*piece
                };
                singles.push(message, datagram.len - outside, datagram);
            }
        }
    }
}

/// Whether a datagram of `len` bytes may be part of `last`, the message before it.
fn joins(last: &Message, to: Destination, most: usize, len: usize) -> bool {
    !last.whole
        && last.peer == to.peer
        && last.lane == to.lane
        && last.packets < most
        && last.len == last.packets * last.segment
        && len <= last.segment
        && last.len + len <= SEND_BYTES
}

/// The packets of one message, each as a message of its own.
#[derive(Debug)]
pub struct Singles {
    pieces: Vec<Piece>,
    messages: Vec<Message>,
}

impl Default for Singles {
    fn default() -> Self {
        Self {
            pieces: Vec::with_capacity(PIECES),
            messages: Vec::with_capacity(PIECES),
        }
    }
}

impl Singles {
    fn clear(&mut self) {
        self.pieces.clear();
        self.messages.clear();
    }

    fn push(&mut self, of: &Message, inner: usize, piece: Piece) {
        let first = self.pieces.len();
        self.pieces.push(piece);
        self.messages.push(Message {
            pieces: first..first + 1,
            len: piece.len,
            packets: 1,
            segment: piece.len,
            vnet: VnetHeader::default(),
            inner,
            ..of.clone()
        });
    }

    /// The messages.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The buffers of the messages: those of the message that was turned into them.
    #[must_use]
    pub fn buffers<'a>(&'a self, of: Buffers<'a>) -> Buffers<'a> {
        Buffers {
            pieces: &self.pieces,
            ..of
        }
    }
}

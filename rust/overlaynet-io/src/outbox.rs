//! What is about to be sent: messages, their pieces, and the headers made for them, in buffers that are allocated once.
use std::net::SocketAddr;

use overlaynet_core::offload::VnetHeader;

use crate::port::{Buffers, Message, Piece, Place};

/// Pieces in one outbox: twice what a super-packet of 64 KiB in segments of 128 bytes takes.
pub const PIECES: usize = 1024;

/// Messages in one outbox.
pub const MESSAGES: usize = 256;

/// Bytes of headers in one outbox.
const HEADERS_BYTES: usize = 64 << 10;

/// The most payload of one UDP datagram over IPv4, and so of one send, in bytes.
pub const SEND_BYTES: usize = 65_507;

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
    headers: Box<[u8]>,
    used: usize,
    pieces: Vec<Piece>,
    messages: Vec<Message>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            headers: vec![0; HEADERS_BYTES].into_boxed_slice(),
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
            headers: &self.headers,
            batch,
            pieces: &self.pieces,
        }
    }

    /// Whether another message, `pieces` more pieces and `headers` more bytes of headers fit.
    #[must_use]
    pub fn has_room(&self, pieces: usize, headers: usize) -> bool {
        self.messages.len() < MESSAGES
            && self.pieces.len() + pieces <= PIECES
            && self.used + headers <= HEADERS_BYTES
    }

    /// Takes `len` bytes for headers; where they lie, and the bytes.
    pub fn header(&mut self, len: usize) -> (Piece, &mut [u8]) {
        let start = self.used;
        self.used += len;
        let piece = Piece {
            place: Place::Headers,
            start,
            len,
        };
        (piece, &mut self.headers[start..start + len])
    }

    /// Adds a packet that leaves as a datagram: to the last message if that has the same destination, packets as long as this one
    /// (which may be shorter, and then is the last) and fewer than `most`; otherwise as a message of its own. `inner` is its length
    /// without encapsulation.
    pub fn add_datagram(&mut self, to: Destination, most: usize, inner: usize, pieces: &[Piece]) {
        let len = pieces.iter().map(|piece| piece.len).sum();
        let first = self.pieces.len();
        self.pieces.extend_from_slice(pieces);
        if let Some(last) = self.messages.last_mut() {
            let is_open = !last.whole
                && last.peer == to.peer
                && last.lane == to.lane
                && last.packets < most
                && last.len == last.packets * last.segment
                && len <= last.segment
                && last.len + len <= SEND_BYTES;
            if is_open {
                last.pieces.end = self.pieces.len();
                last.len += len;
                last.packets += 1;
                last.inner += inner;
                return;
            }
        }
        self.messages.push(Message {
            pieces: first..self.pieces.len(),
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

    /// Adds a packet that goes to a TUN, in two pieces.
    pub fn add_parts(&mut self, peer: usize, [header, payload]: [Piece; 2]) {
        self.add_packet(peer, header);
        self.pieces.push(payload);
        if let Some(last) = self.messages.last_mut() {
            last.pieces.end += 1;
            last.len += payload.len;
            last.segment = last.len;
            last.inner = last.len;
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
        let room = (last.packets > 1).then(|| &mut self.headers[header.start..header.start + header.len]);
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
                singles.push(message, whole.len, &[whole]);
            }
            return;
        }
        let outside = (message.len - message.inner) / message.packets;
        let mut start = 0;
        let mut len = 0;
        for (index, piece) in pieces.iter().enumerate() {
            len += piece.len;
            if len >= message.segment || index + 1 == pieces.len() {
                singles.push(message, len - outside, &pieces[start..=index]);
                (start, len) = (index + 1, 0);
            }
        }
    }
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

    fn push(&mut self, of: &Message, inner: usize, pieces: &[Piece]) {
        let first = self.pieces.len();
        self.pieces.extend_from_slice(pieces);
        let len = pieces.iter().map(|piece| piece.len).sum();
        self.messages.push(Message {
            pieces: first..self.pieces.len(),
            len,
            packets: 1,
            segment: len,
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

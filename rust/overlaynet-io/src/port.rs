//! A place where packets come from and go to, batch first: a TUN device, a UDP socket, or a queue in memory.
//!
//! What is received lies in a [`Batch`]. What is sent is told as [`Message`]s, each a list of [`Piece`]s of that batch and of a
//! buffer of bytes that were made for it.
use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use overlaynet_core::forward::Tables;
use overlaynet_core::offload::VnetHeader;

use crate::outbox::Destination;

/// The longest packet, in bytes: the most that an IPv4 length field can say, and one more so that nothing is cut unseen.
pub const PACKET_BYTES: usize = 65_536;

/// Bytes before each received packet that may be overwritten: a virtio header on the way in, an encapsulation on the way out.
pub const HEADROOM_BYTES: usize = 64;

/// Packets in one buffer that is allocated once. Pages that no packet touches take no memory.
#[derive(Debug)]
pub struct Batch {
    bytes: Box<[u8]>,
    slots: Box<[Slot]>,
    len: usize,
    used: usize,
}

/// Where one packet lies, or several of one datagram sender that arrived together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot {
    /// Where it begins.
    pub start: usize,
    /// Its length in bytes.
    pub len: usize,
    /// The length of each datagram but the last, if there are several (`UDP_GRO`); otherwise 0.
    pub segment: usize,
    /// Where the datagram came from; None in a batch of a TUN.
    pub sender: Option<SocketAddr>,
    /// What the TUN says of checksum and segments; None for a super-packet of an unknown kind.
    pub vnet: Option<VnetHeader>,
}

impl Batch {
    /// An empty batch of at most `packets` packets and about `bytes` bytes; at least one packet always fits.
    #[must_use]
    pub fn new(packets: usize, bytes: usize) -> Self {
        let bytes = bytes.max(HEADROOM_BYTES + PACKET_BYTES);
        Self {
            bytes: vec![0; bytes].into_boxed_slice(),
            slots: vec![Slot::default(); packets].into_boxed_slice(),
            len: 0,
            used: 0,
        }
    }

    /// How many packets it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many packets it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// The length of all packets together, in bytes.
    #[must_use]
    pub fn total(&self) -> usize {
        self.slots[..self.len].iter().map(|slot| slot.len).sum()
    }

    /// How many datagrams its packets are.
    #[must_use]
    pub fn datagrams(&self) -> usize {
        let of = |slot: &Slot| {
            if slot.segment == 0 {
                1
            } else {
                slot.len.div_ceil(slot.segment)
            }
        };
        self.slots[..self.len].iter().map(of).sum()
    }

    /// Forgets every packet.
    pub fn clear(&mut self) {
        (self.len, self.used) = (0, 0);
    }

    /// The room for the next packet, [`HEADROOM_BYTES`] and at least [`PACKET_BYTES`]; None if the batch is full.
    pub fn room(&mut self) -> Option<&mut [u8]> {
        let room = self.used..self.used + HEADROOM_BYTES + PACKET_BYTES;
        if self.len == self.slots.len() {
            return None;
        }
        self.bytes.get_mut(room)
    }

    /// Takes `len` bytes of [`room`](Self::room) behind the headroom for a packet.
    pub fn push(&mut self, len: usize, sender: Option<SocketAddr>, vnet: Option<VnetHeader>) {
        let start = self.used + HEADROOM_BYTES;
        self.put(Slot {
            start,
            len,
            segment: 0,
            sender,
            vnet,
        });
        // Packets begin at even places, as checksums like them.
        self.used = (start + len).next_multiple_of(8);
    }

    /// Takes what `slot` says for a packet, wherever it lies in the buffer.
    pub fn put(&mut self, slot: Slot) {
        self.slots[self.len] = slot;
        self.len += 1;
    }

    /// Says that the last packet is several datagrams, each but the last of `segment` bytes.
    pub fn set_segment(&mut self, segment: usize) {
        self.slots[self.len - 1].segment = segment;
    }

    /// The slot at `at`.
    #[must_use]
    pub fn slot(&self, at: usize) -> Slot {
        self.slots[at]
    }

    /// The bytes of the buffer; slots tell where packets lie in it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of the buffer, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// Which buffer a piece lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The bytes that were made for what is sent.
    Made,
    /// The batch that was received.
    Batch,
}

/// Some bytes of what is sent.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Which buffer they lie in.
    pub place: Place,
    /// Where they begin.
    pub start: usize,
    /// How many they are.
    pub len: usize,
}

/// What goes in one piece to the kernel: one packet, or several equally long ones (the last may be shorter), or one super-packet.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its pieces, in order, as a range of the list.
    pub pieces: Range<usize>,
    /// The length of all pieces, in bytes.
    pub len: usize,
    /// How many packets it stands for.
    pub packets: usize,
    /// The length of each packet but the last, if they are to leave as datagrams of their own.
    pub segment: usize,
    /// Where the datagrams go; None towards a TUN.
    pub endpoint: Option<SocketAddr>,
    /// A number that is equal for all packets of a flow: what the datagrams' source port depends on.
    pub lane: usize,
    /// Whether it goes out in one piece, to be cut below as `vnet` says.
    pub whole: bool,
    /// What the TUN is told.
    pub vnet: VnetHeader,
    /// Whose packets they are: an index of the tables.
    pub peer: usize,
    /// The length of the packets as they are inside the overlay, in bytes, for the counters.
    pub inner: usize,
}

/// The buffers that messages point into.
#[derive(Clone, Copy, Debug)]
pub struct Buffers<'a> {
    /// Bytes made for what is sent.
    pub made: &'a [u8],
    /// The batch that was received.
    pub batch: &'a [u8],
    /// The pieces of all messages.
    pub pieces: &'a [Piece],
}

impl<'a> Buffers<'a> {
    /// The bytes of a piece.
    #[must_use]
    pub fn of(&self, piece: Piece) -> &'a [u8] {
        let buffer = match piece.place {
            Place::Made => self.made,
            Place::Batch => self.batch,
        };
        &buffer[piece.start..piece.start + piece.len]
    }

    /// The bytes of each piece of a message, in order.
    pub fn pieces_of(&self, message: &Message) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let buffers = *self;
        self.pieces[message.pieces.clone()]
            .iter()
            .map(move |piece| buffers.of(*piece))
    }
}

/// How many messages, from the first on, were sent, and what stopped the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// So many were taken.
    pub messages: usize,
    /// The error number that the system refused the next one with; None if there was no next one.
    pub refused: Option<i32>,
}

/// Where packets come from and go to. Nothing here blocks.
pub trait PacketPort {
    /// Adds what is there to the empty `batch`, as far as there is room. An error means that the port is of no more use.
    ///
    /// # Errors
    /// The port's end: the device is gone, the socket is broken.
    fn receive(&mut self, batch: &mut Batch) -> io::Result<()>;

    /// The longest datagram that reaches `endpoint` in one piece, as far as is known, in bytes of payload.
    fn path_payload(&mut self, endpoint: SocketAddr) -> Option<usize> {
        let _ = endpoint;
        None
    }

    /// Whether `packet`, which has its encapsulation before it, may be sent to the peer in one piece: a TCP super-packet, or a single
    /// packet of TCP. Only for what is sent at once.
    fn takes(&mut self, tables: &Tables, to: Destination, packet: &[u8], is_super: bool) -> bool {
        let _ = (tables, to, packet, is_super);
        false
    }

    /// Sends `messages` in order, up to the first that the system refuses.
    ///
    /// # Errors
    /// The port's end.
    fn send(&mut self, buffers: Buffers<'_>, messages: &[Message]) -> io::Result<Sent>;
}

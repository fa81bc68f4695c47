//! A place where packets come from and go to, batch first: a TUN device, a UDP socket, or a queue in memory.
use std::io;
use std::net::SocketAddr;

/// How many packets one batch holds.
pub const BATCH_PACKETS: usize = 64;

/// The longest packet, in bytes: the most that an IPv4 length field can say, and one more so that nothing is cut unseen.
pub const PACKET_BYTES: usize = 65_536;

/// Packets in one buffer that is allocated once. Pages that no packet touches take no memory.
#[derive(Debug)]
pub struct Batch {
    bytes: Box<[u8]>,
    slots: Box<[Slot]>,
    len: usize,
}

/// One packet's place: its length, and the other end of its datagram.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// The packet's length in bytes.
    pub len: usize,
    /// Where the datagram came from or goes to; None in a batch of a TUN, and for a packet that is not to be sent.
    pub endpoint: Option<SocketAddr>,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        let empty = Slot {
            len: 0,
            endpoint: None,
        };
        Self {
            bytes: vec![0; BATCH_PACKETS * PACKET_BYTES].into_boxed_slice(),
            slots: vec![empty; BATCH_PACKETS].into_boxed_slice(),
            len: 0,
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

    /// Forgets every packet.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// The room for the next packet, or None if the batch is full.
    pub fn room(&mut self) -> Option<&mut [u8]> {
        let start = self.len * PACKET_BYTES;
        self.bytes.get_mut(start..start + PACKET_BYTES)
    }

    /// Takes the first `len` bytes of [`room`](Self::room) for a packet.
    pub fn push(&mut self, len: usize, endpoint: Option<SocketAddr>) {
        self.slots[self.len] = Slot { len, endpoint };
        self.len += 1;
    }

    /// The packet at `at` and its slot.
    pub fn packet_mut(&mut self, at: usize) -> (&mut [u8], &mut Slot) {
        let slot = &mut self.slots[at];
        let start = at * PACKET_BYTES;
        (&mut self.bytes[start..start + slot.len], slot)
    }

    /// The packet at `at`.
    #[must_use]
    pub fn packet(&self, at: usize) -> &[u8] {
        let start = at * PACKET_BYTES;
        &self.bytes[start..start + self.slots[at].len]
    }

    /// The slot at `at`.
    #[must_use]
    pub fn slot(&self, at: usize) -> Slot {
        self.slots[at]
    }

    /// All of the buffer, for system calls that fill several packets at once.
    pub(crate) fn rooms(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// Where packets come from and go to. Nothing here blocks.
pub trait PacketPort {
    /// Adds what is there to the empty `batch`, as far as there is room. An error means that the port is of no more use.
    ///
    /// # Errors
    /// The port's end: the device is gone, the socket is broken.
    fn receive(&mut self, batch: &mut Batch) -> io::Result<()>;

    /// Sends the packet at `at`; whether the system took it.
    ///
    /// # Errors
    /// The port's end.
    fn send(&mut self, packet: &[u8]) -> io::Result<bool>;

    /// Sends each packet of `batch` that has an endpoint, in order, and calls `refused` with the place of each that the system
    /// did not take.
    ///
    /// # Errors
    /// The port's end.
    fn send_batch(&mut self, batch: &Batch, refused: &mut dyn FnMut(usize)) -> io::Result<()>;
}

/// A port over queues in memory, for tests: what a test puts into `inbox` is received, what is sent lands in `outbox`.
#[derive(Debug, Default)]
pub struct MemoryPort {
    /// Packets to be received, each with its sender.
    pub inbox: std::collections::VecDeque<(Vec<u8>, Option<SocketAddr>)>,
    /// Packets that were sent, each with its destination.
    pub outbox: Vec<(Vec<u8>, Option<SocketAddr>)>,
    /// Whether the port refuses what is sent.
    pub refuses: bool,
}

impl PacketPort for MemoryPort {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
        while let Some(room) = batch.room() {
            let Some((packet, sender)) = self.inbox.pop_front() else {
                break;
            };
            room[..packet.len()].copy_from_slice(&packet);
            batch.push(packet.len(), sender);
        }
        Ok(())
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<bool> {
        if !self.refuses {
            self.outbox.push((packet.to_vec(), None));
        }
        Ok(!self.refuses)
    }

    fn send_batch(&mut self, batch: &Batch, refused: &mut dyn FnMut(usize)) -> io::Result<()> {
        for at in 0..batch.len() {
            let Some(endpoint) = batch.slot(at).endpoint else {
                continue;
            };
            if self.refuses {
                refused(at);
            } else {
                self.outbox.push((batch.packet(at).to_vec(), Some(endpoint)));
            }
        }
        Ok(())
    }
}

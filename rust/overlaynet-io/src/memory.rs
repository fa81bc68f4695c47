//! A port over queues in memory, for tests: two whole nodes run in one process without privileges.
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use overlaynet_core::forward::Tables;
use overlaynet_core::offload::VnetHeader;

use crate::outbox::Destination;
use crate::port::{Batch, Buffers, HEADROOM_BYTES, Message, PacketPort, Sent};

/// What a test puts in to be received.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// The packet, or several of one sender.
    pub bytes: Vec<u8>,
    /// The length of each datagram but the last; 0 for one.
    pub segment: usize,
    /// Where it came from.
    pub sender: Option<SocketAddr>,
    /// What a TUN says of it.
    pub vnet: VnetHeader,
}

/// What was sent.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// The bytes of all pieces.
    pub bytes: Vec<u8>,
    /// What was told with them.
    pub message: Message,
}

impl Delivered {
    /// The packets, one by one, as the system would let datagrams go.
    #[must_use]
    pub fn datagrams(&self) -> Vec<Vec<u8>> {
        let segment = self.message.segment.max(1);
        self.bytes.chunks(segment).map(<[u8]>::to_vec).collect()
    }
}

/// Refuses a message with an error number, or takes it.
pub type Refusal = Box<dyn FnMut(&Message) -> Option<i32> + Send>;

/// What a test puts into `inbox` is received, what is sent lands in `outbox`.
#[derive(Default)]
pub struct MemoryPort {
    /// What is to be received.
    pub inbox: VecDeque<Received>,
    /// What was sent, in order.
    pub outbox: Vec<Delivered>,
    /// The longest datagram that reaches anybody in one piece.
    pub path_payload: Option<usize>,
    /// Whether it takes TCP packets in one piece.
    pub takes_whole: bool,
    /// Decides about each message that is sent.
    pub refusal: Option<Refusal>,
}

impl PacketPort for MemoryPort {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
        while let Some(room) = batch.room() {
            let Some(received) = self.inbox.pop_front() else {
                break;
            };
            let len = received.bytes.len();
            room[HEADROOM_BYTES..HEADROOM_BYTES + len].copy_from_slice(&received.bytes);
            batch.push(len, received.sender, Some(received.vnet));
            batch.set_segment(received.segment);
        }
        Ok(())
    }

    fn path_payload(&mut self, _: SocketAddr) -> Option<usize> {
        self.path_payload
    }

    fn takes(&mut self, _: &Tables, _: Destination, _: &[u8], _: bool) -> bool {
        self.takes_whole
    }

    fn send(&mut self, buffers: Buffers<'_>, messages: &[Message]) -> io::Result<Sent> {
        for (at, message) in messages.iter().enumerate() {
            if let Some(error) = self.refusal.as_mut().and_then(|refusal| refusal(message)) {
                return Ok(Sent {
                    messages: at,
                    refused: Some(error),
                });
            }
            self.outbox.push(Delivered {
                bytes: buffers.pieces_of(message).flatten().copied().collect(),
                message: message.clone(),
            });
        }
        Ok(Sent {
            messages: messages.len(),
            refused: None,
        })
    }
}

//! Once it runs, the engine allocates nothing, whatever it carries.
use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use overlaynet_core::forward::{IpPrefix, Tables};
use overlaynet_core::offload::{Gso, VnetHeader};
use overlaynet_core::wire::{ipv4, tcp, udp};
use overlaynet_io::engine::Engine;
use overlaynet_io::port::{Batch, Buffers, HEADROOM_BYTES, Message, PacketPort, Sent};
use overlaynet_io::shared::Shared;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A port that always has the same packets, and takes everything but what it is told to refuse.
struct Endless {
    packets: Vec<(Vec<u8>, VnetHeader)>,
    sender: Option<SocketAddr>,
    refused: Option<i32>,
    packets_sent: usize,
}

impl PacketPort for Endless {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
        for (bytes, vnet) in &self.packets {
            let Some(room) = batch.room() else { break };
            room[HEADROOM_BYTES..HEADROOM_BYTES + bytes.len()].copy_from_slice(bytes);
            batch.push(bytes.len(), self.sender, Some(*vnet));
        }
        Ok(())
    }

    fn send(&mut self, buffers: Buffers<'_>, messages: &[Message]) -> io::Result<Sent> {
        for (at, message) in messages.iter().enumerate() {
            if message.packets > 1 && self.refused.is_some() {
                return Ok(Sent {
                    messages: at,
                    refused: self.refused,
                });
            }
            assert_eq!(
                buffers.pieces_of(message).map(<[u8]>::len).sum::<usize>(),
                message.len
            );
            self.packets_sent += message.packets;
        }
        Ok(Sent {
            messages: messages.len(),
            refused: None,
        })
    }
}

fn datagram(from: Ipv4Addr, to: Ipv4Addr, identification: u16) -> Vec<u8> {
    let inner = udp::Repr {
        source_port: 1,
        destination_port: 2,
        payload_len: 100,
    };
    let mut ip = ipv4::Repr::new(from, to, 17, inner.buffer_len());
    ip.identification = identification;
    let mut bytes = vec![0; 128];
    ip.emit(&mut bytes[..20]);
    inner.emit(&mut bytes[20..], Some(ip.pseudo_header()));
    bytes
}

fn stream(from: Ipv4Addr, to: Ipv4Addr) -> (Vec<u8>, VnetHeader) {
    let inner = tcp::Repr {
        source_port: 1,
        destination_port: 2,
        sequence: 3,
        acknowledgement: 4,
        flags: tcp::Flags::ACK,
        window: 5,
        urgent: 0,
        options: ipv4::Options::NONE,
        payload_len: 60_000,
    };
    let ip = ipv4::Repr::new(from, to, 6, inner.buffer_len());
    let mut bytes = vec![0; 60_040];
    ip.emit(&mut bytes[..20]);
    inner.emit(&mut bytes[20..], ip.pseudo_header());
    let vnet = VnetHeader {
        needs_checksum: true,
        gso: Gso::TcpV4,
        segment_bytes: 1400,
        checksum_start: 20,
        checksum_offset: 16,
        ..VnetHeader::default()
    };
    (bytes, vnet)
}

#[test]
fn a_running_engine_allocates_nothing() {
    let (here, there) = (Ipv4Addr::new(10, 1, 0, 2), Ipv4Addr::new(10, 1, 1, 2));
    let peer = SocketAddr::from(([192, 0, 2, 2], 8285));
    let prefix = |text: &str| IpPrefix::V4(text.parse().unwrap());
    let mut tables = Tables::new(1472);
    tables.add_local(prefix("10.1.0.0/24"));
    tables.set_address(here.into());
    tables.add_peer(peer, &[prefix("10.1.1.0/24")]);
    let shared = Arc::new(Shared::default());
    shared.exchange(tables);

    let plain = VnetHeader::default();
    let nowhere = (datagram(here, Ipv4Addr::new(10, 1, 9, 9), 0), plain);
    let mut leaving: Vec<_> = (0..60).map(|at| (datagram(here, there, at), plain)).collect();
    leaving.extend([stream(here, there), nowhere, stream(here, there)]);
    let mut arriving: Vec<_> = (0..40).map(|at| (datagram(there, here, at), plain)).collect();
    arriving.push((datagram(here, here, 0), plain));
    // Sends of several packets are refused, so that the way without them is walked as well.
    let port = |packets, sender| Endless {
        packets,
        sender,
        refused: Some(libc::EMSGSIZE),
        packets_sent: 0,
    };
    run(port(leaving, None), port(arriving, Some(peer)), &shared).unwrap();
}

fn run(tun: Endless, udp: Endless, shared: &Arc<Shared>) -> io::Result<()> {
    let mut engine = Engine::new(tun, udp, Batch::new(64, 4 << 20), Arc::clone(shared));
    // The first turn may make what a thread keeps for itself.
    engine.turn()?;
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..100 {
        engine.turn()?;
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
    let traffic = shared.traffic();
    assert_eq!(traffic.tx_packets.value(), 101 * (60 + 2 * 43));
    assert_eq!(traffic.rx_packets.value(), 101 * 40);
    Ok(())
}

//! The way in, on which packets that continue each other are joined to one.
use std::io;
use std::ops::Range;

use overlaynet_core::offload::{Gso, MAX_HEADERS_BYTES, Run, Split, VnetHeader, uncut};
use overlaynet_core::stats::DropReason;

use super::way::{Sending, Way};
use crate::offload::Offload;
use crate::port::{PacketPort, Piece, Place};

/// The most TCP packets that are joined to one: what one write(2) can take in pieces, with room for headers. Of UDP packets the
/// kernel takes as many as in one send (`virtio_net_hdr_to_skb` in include/linux/virtio_net.h), and the engine as many as it sends.
const JOINED: usize = 1000;

/// The way in, with the packets that continue each other joined to one.
pub(super) struct Joining<'a, P> {
    pub(super) way: Way<'a, P>,
    pub(super) open: Option<Open>,
}

/// A run that may still grow, and is the outbox's last message.
pub(super) struct Open {
    run: Run,
    first: Range<usize>,
    peer: usize,
}

impl<P: PacketPort> Joining<'_, P> {
    /// Puts a packet of the batch into the outbox, joined to the one before if it continues its flow.
    pub(super) fn deliver(&mut self, peer: usize, packet: Range<usize>) -> io::Result<()> {
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
    pub(super) fn close(&mut self) {
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

//! The way out of the host: UDP sockets, and beside them a TAP for what may leave whole.
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use overlaynet_core::forward::Tables;

use crate::outbox::Destination;
use crate::port::{Batch, Buffers, Message, PacketPort, Sent};
use crate::shortcut::{Report, Shortcut};
use crate::udp::Udp;

/// Sockets, with a TAP or without.
pub struct Underlay {
    udp: Udp,
    shortcut: Option<Shortcut>,
}

impl Underlay {
    /// The sockets `udp`, and with `tap` the device of that name.
    #[must_use]
    pub fn new(udp: Udp, tap: Option<String>) -> Self {
        Self {
            udp,
            shortcut: tap.map(Shortcut::new),
        }
    }

    /// The sockets to wait for.
    pub fn listening(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.udp.listening()
    }

    /// What an operator is told of the TAP, if there is to be one.
    #[must_use]
    pub fn report(&self) -> Option<&Arc<Report>> {
        self.shortcut.as_ref().map(Shortcut::report)
    }
}

impl PacketPort for Underlay {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
        self.udp.receive(batch)?;
        if let Some(shortcut) = &mut self.shortcut {
            shortcut.hear(batch);
        }
        Ok(())
    }

    fn path_payload(&mut self, endpoint: SocketAddr) -> Option<usize> {
        self.udp.path_payload(endpoint)
    }

    fn takes(&mut self, tables: &Tables, to: Destination, packet: &[u8], is_super: bool) -> bool {
        let Some(shortcut) = &mut self.shortcut else {
            return false;
        };
        let Some(source) = self.udp.source(to.endpoint, to.lane) else {
            return false;
        };
        let taken = shortcut.takes(tables, to, source, packet, is_super);
        if let Some(datagram) = taken.datagram {
            self.udp.send_one(datagram, to.endpoint, to.lane);
        }
        taken.take
    }

    fn send(&mut self, buffers: Buffers<'_>, messages: &[Message]) -> io::Result<Sent> {
        let mut sent = 0;
        while let Some(first) = messages.get(sent) {
            let refused = if first.whole {
                let source = first
                    .endpoint
                    .and_then(|endpoint| self.udp.source(endpoint, first.lane));
                match (&mut self.shortcut, source) {
                    (Some(shortcut), Some(source)) => shortcut
                        .send(&buffers, first, source)
                        .err()
                        .map(|error| error.raw_os_error().unwrap_or(libc::EIO)),
                    _ => Some(libc::ENODEV),
                }
            } else {
                let rest = &messages[sent..];
                let run = rest.iter().take_while(|message| !message.whole).count();
                let done = self.udp.send(buffers, &rest[..run])?;
                sent += done.messages;
                if done.refused.is_none() {
                    continue;
                }
                done.refused
            };
            if refused.is_some() {
                return Ok(Sent {
                    messages: sent,
                    refused,
                });
            }
            sent += 1;
        }
        Ok(Sent {
            messages: sent,
            refused: None,
        })
    }
}

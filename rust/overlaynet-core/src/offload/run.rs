//! Wire packets of one flow, one after the other, as the super-packet that they came from.
use super::layout::{
    ACK, Below, CWR, FIN, Layout, PSH, RST, SYN, TCP_FLAGS, Transport, URG, long, set_word, word, word_of,
};
use super::vnet::{Gso, VnetHeader};
use crate::wire::checksum::{Summing, is_valid};

/// The longest super-packet, in bytes: what the length field of IPv4 can say.
const MOST_BYTES: usize = 65_535;

/// How the identifications of IPv4 packets follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identification {
    /// There are none (IPv6), or there is one packet so far.
    Open,
    /// Each is one more than the one before.
    Counts,
    /// All are equal, and mean nothing, as the packets may not be fragmented.
    Equal,
}

/// A packet, and those that came after it and continue its flow.
///
/// The run remembers no bytes: the first packet is given again at each step.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    layout: Layout,
    /// The payload of each packet but the last.
    segment: usize,
    payload: usize,
    count: usize,
    flags: u8,
    identification: Identification,
    is_over: bool,
}

impl Run {
    /// A run that begins with `packet`; None if nothing can follow: it has no payload, is a fragment, has options below the
    /// transport, opens or breaks a connection, or its checksum is wrong or missing.
    #[must_use]
    pub fn begin(packet: &[u8], plus: Summing) -> Option<Self> {
        let layout = Layout::of(packet)?;
        let flags = joinable(&layout, packet)?;
        if !checksum_is_right(&layout, packet, plus) {
            return None;
        }
        Some(Self {
            layout,
            segment: layout.payload_len(),
            payload: layout.payload_len(),
            count: 1,
            flags,
            identification: Identification::Open,
            is_over: flags & (PSH | FIN) != 0,
        })
    }

    /// Takes `packet`, if it continues the flow of `first`, with which the run began; whether it did. Its payload begins at
    /// [`header_len`](Self::header_len) and goes on to where its IP header says that it ends.
    pub fn take(&mut self, first: &[u8], packet: &[u8], plus: Summing) -> bool {
        if self.is_over {
            return false;
        }
        let Some(layout) = Layout::of(packet) else {
            return false;
        };
        let len = layout.payload_len();
        if layout.payload != self.layout.payload
            || layout.transport != self.layout.transport
            || layout.below != self.layout.below
            || len > self.segment
            || self.layout.payload + self.payload + len > MOST_BYTES
        {
            return false;
        }
        let Some(flags) = joinable(&layout, packet) else {
            return false;
        };
        let Some(identification) = self.follows(first, packet) else {
            return false;
        };
        if !checksum_is_right(&layout, packet, plus) {
            return false;
        }
        self.identification = identification;
        self.payload += len;
        self.count += 1;
        self.flags |= flags & (PSH | FIN);
        self.is_over = len < self.segment || flags & (PSH | FIN) != 0;
        true
    }

    /// Whether the headers of `packet` are those of `first` but for what a split changes, and change as a split changes it.
    fn follows(&self, first: &[u8], packet: &[u8]) -> Option<Identification> {
        let at = self.layout.at;
        let same = |range: core::ops::Range<usize>| first[range.clone()] == packet[range];
        let identification = match self.layout.below {
            Below::V4 => {
                if !(same(0..2) && same(6..10) && same(12..20)) {
                    return None;
                }
                self.next_identification(first, packet)?
            }
            Below::V6 if same(0..4) && same(6..40) => Identification::Open,
            Below::V6 => return None,
        };
        let goes_on = match self.layout.transport {
            Transport::Tcp => {
                #[allow(clippy::cast_possible_truncation, reason = "packets are shorter than 64 KiB")]
                let sequence = long(first, at + 4).wrapping_add(self.payload as u32);
                let flags = (first[at + TCP_FLAGS] ^ packet[at + TCP_FLAGS]) & !(CWR | PSH | FIN);
                same(at..at + 4)
                    && same(at + 8..at + TCP_FLAGS)
                    && flags == 0
                    && packet[at + TCP_FLAGS] & CWR == 0
                    && same(at + 14..at + 16)
                    && same(at + 18..self.layout.payload)
                    && long(packet, at + 4) == sequence
            }
            Transport::Udp => same(at..at + 4),
        };
        goes_on.then_some(identification)
    }

    fn next_identification(&self, first: &[u8], packet: &[u8]) -> Option<Identification> {
        const DONT_FRAGMENT: u8 = 0x40;
        let distance = word(packet, 4).wrapping_sub(word(first, 4));
        let counts = distance == word_of(self.count);
        let equal = distance == 0 && first[6] & DONT_FRAGMENT != 0;
        match self.identification {
            Identification::Open if counts => Some(Identification::Counts),
            Identification::Open if equal => Some(Identification::Equal),
            Identification::Counts if counts => Some(Identification::Counts),
            Identification::Equal if equal => Some(Identification::Equal),
            _ => None,
        }
    }

    /// What kind of super-packet it becomes once it has a second packet.
    #[must_use]
    pub fn kind(&self) -> Gso {
        match (self.layout.transport, self.layout.below) {
            (Transport::Tcp, Below::V4) => Gso::TcpV4,
            (Transport::Tcp, Below::V6) => Gso::TcpV6,
            (Transport::Udp, _) => Gso::Udp,
        }
    }

    /// How many packets the run has.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether no packet can follow any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Where the payload of each of its packets begins, in bytes.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.layout.payload
    }

    /// What is to stand before the only packet of a run: its checksum was found right.
    #[must_use]
    pub fn alone() -> VnetHeader {
        VnetHeader {
            checksum_known: true,
            ..VnetHeader::default()
        }
    }

    /// Writes the super-packet's headers to `header`, which has room for [`header_len`](Self::header_len) bytes; what is to stand
    /// before them. After them comes the payload of each packet in order. `first` is the packet that the run began with, not the
    /// only one.
    pub fn emit(&self, first: &[u8], header: &mut [u8]) -> VnetHeader {
        let Layout { at, payload, .. } = self.layout;
        let header = &mut header[..payload];
        header.copy_from_slice(&first[..payload]);
        self.layout.set_lengths(header, self.payload);
        self.layout.set_ip_checksum(header);
        let transport = self.layout.transport;
        if transport == Transport::Tcp {
            header[at + TCP_FLAGS] |= self.flags;
        }
        let pseudo = self
            .layout
            .addresses(first)
            .plus_word(word_of(payload - at + self.payload));
        set_word(header, at + transport.checksum(), pseudo.fold());
        VnetHeader {
            needs_checksum: true,
            checksum_known: false,
            gso: self.kind(),
            ecn: transport == Transport::Tcp && header[at + TCP_FLAGS] & CWR != 0,
            header_len: word_of(payload),
            segment_bytes: word_of(self.segment),
            checksum_start: word_of(at),
            checksum_offset: word_of(transport.checksum()),
        }
    }
}

/// The TCP flags of a packet that may be part of a run (0 for UDP).
fn joinable(layout: &Layout, packet: &[u8]) -> Option<u8> {
    if layout.has_extras || layout.payload_len() == 0 {
        return None;
    }
    let at = layout.at;
    match layout.transport {
        Transport::Tcp => {
            let flags = packet[at + TCP_FLAGS];
            let header_len = usize::from(packet[at + 12] >> 4) * 4;
            let is_plain =
                flags & (SYN | RST | URG) == 0 && flags & ACK != 0 && header_len == layout.payload - at;
            is_plain.then_some(flags)
        }
        Transport::Udp => {
            let is_whole = usize::from(word(packet, at + 4)) == layout.end - at;
            (is_whole && word(packet, at + 6) != 0).then_some(0)
        }
    }
}

/// Whether both checksums of the packet fit: that of an IPv4 header, and that of the transport.
fn checksum_is_right(layout: &Layout, packet: &[u8], plus: Summing) -> bool {
    if layout.below == Below::V4 && !is_valid(&packet[..layout.at]) {
        return false;
    }
    let pseudo = layout
        .addresses(packet)
        .plus_word(word_of(layout.end - layout.at));
    plus(pseudo, &packet[layout.at..layout.end]).is_valid()
}

//! One super-packet as the wire packets that it stands for.
use core::ops::Range;

use super::layout::{
    Below, CWR, FIN, Layout, PSH, TCP_FLAGS, Transport, UDP_CHECKSUM, long, set_word, word, word_of,
};
use super::vnet::{Gso, VnetHeader};
use crate::wire::checksum::{Copying, Sum, Summing};

/// Why a packet contradicts the header before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SplitError {
    /// It is no whole TCP or UDP packet of the kind that the header names.
    Kind,
    /// The segment size is zero.
    SegmentSize,
    /// The checksum is not where the packet's own headers say that it is.
    ChecksumPlace,
    /// The packet is shorter or longer than its IP header says.
    Length,
}

/// A super-packet that is about to leave as wire packets.
#[derive(Clone, Copy, Debug)]
pub struct Split<'a> {
    packet: &'a [u8],
    layout: Layout,
    segment: usize,
    count: usize,
    /// The sum of the pseudo header, but for the length, and of the transport's header with what changes taken as zero.
    constant: Sum,
}

impl<'a> Split<'a> {
    /// The wire packets of `packet`, before which `vnet` stood; at least one.
    ///
    /// # Errors
    /// The two contradict each other.
    pub fn new(vnet: &VnetHeader, packet: &'a [u8]) -> Result<Self, SplitError> {
        let layout = Layout::of(packet).ok_or(SplitError::Kind)?;
        match (vnet.gso, layout.below, layout.transport) {
            (Gso::TcpV4, Below::V4, Transport::Tcp)
            | (Gso::TcpV6, Below::V6, Transport::Tcp)
            | (Gso::Udp, _, Transport::Udp) => {}
            _ => return Err(SplitError::Kind),
        }
        if layout.end != packet.len() {
            return Err(SplitError::Length);
        }
        if vnet.segment_bytes == 0 {
            return Err(SplitError::SegmentSize);
        }
        let at = usize::from(vnet.checksum_start);
        let offset = usize::from(vnet.checksum_offset);
        if !vnet.needs_checksum || at != layout.at || offset != layout.transport.checksum() {
            return Err(SplitError::ChecksumPlace);
        }
        let segment = usize::from(vnet.segment_bytes);
        let header = &packet[at..layout.payload];
        // The checksum's field holds the sum of the pseudo header, which a routing header makes hard to know otherwise, with the
        // length of the whole. What changes from packet to packet is taken out (adding the complement) and put in for each.
        let mut constant = Sum::ZERO.plus(header).plus_word(!word_of(packet.len() - at));
        match layout.transport {
            Transport::Tcp => {
                constant = constant
                    .plus_word(!word(header, 4))
                    .plus_word(!word(header, 6))
                    .plus_word(!word(header, 12));
            }
            Transport::Udp => constant = constant.plus_word(!word(header, 4)),
        }
        Ok(Self {
            packet,
            layout,
            segment,
            count: layout.payload_len().div_ceil(segment).max(1),
            constant,
        })
    }

    /// How many wire packets there are.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.count
    }

    /// The length of the longest wire packet, in bytes.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.layout.payload + self.segment.min(self.layout.payload_len())
    }

    /// The length of the headers of every wire packet, in bytes; at most [`MAX_HEADERS_BYTES`](super::MAX_HEADERS_BYTES).
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.layout.payload
    }

    /// The length of wire packet `index`, in bytes.
    #[must_use]
    pub fn packet_len(&self, index: usize) -> usize {
        self.layout.payload + self.part(index).len()
    }

    /// Where the payload of wire packet `index` lies in the super-packet.
    fn part(&self, index: usize) -> Range<usize> {
        let start = self.layout.payload + index * self.segment;
        start..(start + self.segment).min(self.layout.end)
    }

    /// Writes wire packet `index` to `to`, which has room for its [length](Self::packet_len).
    pub fn emit(&self, index: usize, to: &mut [u8], copying: Copying) {
        let Layout { at, payload, .. } = self.layout;
        let part = self.part(index);
        let (header, to) = to.split_at_mut(payload);
        header.copy_from_slice(&self.packet[..payload]);
        self.layout.set_lengths(header, part.len());
        if self.layout.below == Below::V4 {
            set_word(header, 4, word(self.packet, 4).wrapping_add(word_of(index)));
            self.layout.set_ip_checksum(header);
        }
        let length = word_of(payload - at + part.len());
        let mut sum = copying(self.constant.plus_word(length), &self.packet[part.clone()], to);
        match self.layout.transport {
            Transport::Tcp => {
                #[allow(clippy::cast_possible_truncation, reason = "packets are shorter than 64 KiB")]
                let sequence = long(self.packet, at + 4).wrapping_add((part.start - payload) as u32);
                header[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
                if index > 0 {
                    header[at + TCP_FLAGS] &= !CWR;
                }
                if index + 1 < self.count {
                    header[at + TCP_FLAGS] &= !(FIN | PSH);
                }
                sum = sum
                    .plus_word(word(header, at + 4))
                    .plus_word(word(header, at + 6))
                    .plus_word(word(header, at + 12));
            }
            Transport::Udp => sum = sum.plus_word(length),
        }
        set_word(
            header,
            at + self.layout.transport.checksum(),
            finished(sum, self.layout.transport),
        );
    }
}

/// The checksum as its field holds it: UDP has no zero (RFC 768).
fn finished(sum: Sum, transport: Transport) -> u16 {
    match (sum.complement(), transport) {
        (0, Transport::Udp) => 0xffff,
        (checksum, _) => checksum,
    }
}

/// Completes the checksum of an ordinary packet that `vnet` says is half done.
///
/// # Errors
/// The checksum would not lie inside the packet.
pub fn complete_checksum(vnet: &VnetHeader, packet: &mut [u8], plus: Summing) -> Result<(), SplitError> {
    if !vnet.needs_checksum {
        return Ok(());
    }
    let start = usize::from(vnet.checksum_start);
    let at = start + usize::from(vnet.checksum_offset);
    if at + 2 > packet.len() {
        return Err(SplitError::ChecksumPlace);
    }
    let mut checksum = plus(Sum::ZERO, &packet[start..]).complement();
    // Only UDP has its checksum there, and for it zero means none.
    if checksum == 0 && usize::from(vnet.checksum_offset) == UDP_CHECKSUM {
        checksum = 0xffff;
    }
    set_word(packet, at, checksum);
    Ok(())
}

//! The header that stands before each packet of a TUN device opened with `IFF_VNET_HDR` (include/uapi/linux/virtio_net.h).

/// The header's length in bytes: `struct virtio_net_hdr`, without the number of buffers.
pub const VNET_HEADER_BYTES: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What kind of super-packet follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gso {
    /// An ordinary packet.
    #[default]
    None,
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over either, whose parts are datagrams of their own.
    Udp,
}

/// What is known of a packet's checksum and segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// The checksum at `checksum_start` + `checksum_offset` holds the pseudo header's sum only; the rest is to be added.
    pub needs_checksum: bool,
    /// The checksum was found right: there is no need to look again.
    pub checksum_known: bool,
    /// What kind of super-packet it is.
    pub gso: Gso,
    /// The super-packet's first part has CWR set (RFC 3168 section 6.1.2).
    pub ecn: bool,
    /// The length of all headers, in bytes. Only a hint: wrong for packets that were forwarded.
    pub header_len: u16,
    /// The payload of every wire packet but the last, in bytes.
    pub segment_bytes: u16,
    /// Where the checksummed bytes begin.
    pub checksum_start: u16,
    /// Where the checksum lies, from there.
    pub checksum_offset: u16,
}

impl VnetHeader {
    /// The header in `bytes`, in the machine's byte order; None for kinds of super-packet that nobody has asked for.
    #[must_use]
    pub fn parse(bytes: [u8; VNET_HEADER_BYTES]) -> Option<Self> {
        let [flags, kind, rest @ ..] = bytes;
        let word = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
        let gso = match kind & !GSO_ECN {
            0 => Gso::None,
            GSO_TCPV4 => Gso::TcpV4,
            GSO_TCPV6 => Gso::TcpV6,
            GSO_UDP_L4 => Gso::Udp,
            _ => return None,
        };
        Some(Self {
            needs_checksum: flags & NEEDS_CHECKSUM != 0,
            checksum_known: flags & DATA_VALID != 0,
            gso,
            ecn: kind & GSO_ECN != 0,
            header_len: word(0),
            segment_bytes: word(2),
            checksum_start: word(4),
            checksum_offset: word(6),
        })
    }

    /// The header's bytes, in the machine's byte order.
    #[must_use]
    pub fn emit(&self) -> [u8; VNET_HEADER_BYTES] {
        let mut bytes = [0; VNET_HEADER_BYTES];
        bytes[0] =
            u8::from(self.needs_checksum) * NEEDS_CHECKSUM + u8::from(self.checksum_known) * DATA_VALID;
        bytes[1] = match self.gso {
            Gso::None => 0,
            Gso::TcpV4 => GSO_TCPV4,
            Gso::TcpV6 => GSO_TCPV6,
            Gso::Udp => GSO_UDP_L4,
        };
        bytes[1] |= u8::from(self.ecn) * GSO_ECN;
        let words = [
            self.header_len,
            self.segment_bytes,
            self.checksum_start,
            self.checksum_offset,
        ];
        for (to, word) in bytes[2..].chunks_exact_mut(2).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

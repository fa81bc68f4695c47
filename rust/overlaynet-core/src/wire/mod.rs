//! Headers, one protocol a module, in two forms.
//!
//! A **view** (`Packet`, `Frame`) wraps any bytes. `new_checked` says whether the header and, where the header carries a
//! length, all that it announces are there; after it every accessor is panic-free and reads only inside the bytes. Views do
//! not check checksums; `checksum_ok` does.
//!
//! A **`Repr`** is a small value that can always be written: `parse` takes it from a view, `buffer_len` says how many bytes it
//! needs, `emit` writes them (and panics if the buffer is shorter than that). Parsing what was emitted gives the same value.
//! Transport headers are emitted in front of a payload that is already in place, so that the checksum can cover it.
//!
//! All numbers on the wire are big-endian.
pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod pretty;
pub mod scan;
pub mod stack;
pub mod summary;
pub mod tcp;
pub mod template;
pub mod udp;
pub mod vlan;
pub mod vxlan;

use core::fmt;

/// The IP protocol numbers that overlaynet knows by name (IANA, "Protocol Numbers").
pub mod protocol {
    /// ICMP for IPv4 (RFC 792).
    pub const ICMP: u8 = 1;
    /// An IPv4 packet (RFC 2003).
    pub const IPV4: u8 = 4;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// An IPv6 packet (RFC 2473).
    pub const IPV6: u8 = 41;
    /// ICMP for IPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
}

/// The kinds of header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layer {
    /// Ethernet II.
    Ethernet,
    /// A VLAN tag.
    Vlan,
    /// ARP for IPv4 over Ethernet.
    Arp,
    /// IPv4.
    Ipv4,
    /// IPv6 with its extension headers.
    Ipv6,
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// ICMP for IPv4.
    Icmp,
    /// ICMP for IPv6.
    Icmpv6,
    /// VXLAN.
    Vxlan,
}

impl Layer {
    /// The name in lower case, as error texts and Python use it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ethernet => "ethernet",
            Self::Vlan => "vlan",
            Self::Arp => "arp",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Icmp => "icmp",
            Self::Icmpv6 => "icmpv6",
            Self::Vxlan => "vxlan",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Bytes are missing.
    Truncated,
    /// The version field is not the layer's: `need` is the right one, `have` the found one.
    BadVersion,
    /// A length field is below the least that the layer allows, which is `need`.
    BadLength,
    /// The checksum is `have`; `need` would be right.
    BadChecksum,
    /// A flag that must be set is not.
    BadFlags,
}

impl Reason {
    /// The reason in words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::BadVersion => "wrong version",
            Self::BadLength => "length field too small",
            Self::BadChecksum => "wrong checksum",
            Self::BadFlags => "required flag not set",
        }
    }
}

/// Bytes are not a header of `layer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DecodeError {
    /// The header that was looked for.
    pub layer: Layer,
    /// Where the fault is, in bytes from the start of what was decoded.
    pub offset: usize,
    /// How many bytes, or which value, would be right.
    pub need: usize,
    /// How many bytes, or which value, is there.
    pub have: usize,
    /// What is wrong.
    pub reason: Reason,
}

impl DecodeError {
    /// The same error, seen from `base` bytes further out.
    #[must_use]
    pub const fn within(mut self, base: usize) -> Self {
        self.offset += base;
        self
    }

    const fn truncated(layer: Layer, need: usize, have: usize) -> Self {
        Self {
            layer,
            offset: 0,
            need,
            have,
            reason: Reason::Truncated,
        }
    }

    const fn bad(layer: Layer, offset: usize, need: usize, have: usize, reason: Reason) -> Self {
        Self {
            layer,
            offset,
            need,
            have,
            reason,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at byte {}: {}: need {}, have {}",
            self.layer,
            self.offset,
            self.reason.text(),
            self.need,
            self.have
        )
    }
}

impl core::error::Error for DecodeError {}

/// Error unless `bytes` has at least `need` bytes.
const fn require(layer: Layer, bytes: &[u8], need: usize) -> Result<(), DecodeError> {
    if bytes.len() < need {
        return Err(DecodeError::truncated(layer, need, bytes.len()));
    }
    Ok(())
}

/// `N` bytes at `offset`, which the caller knows to be there.
fn array<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[offset..offset + N]);
    array
}

fn be16(bytes: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes(array(bytes, offset))
}

fn be32(bytes: &[u8], offset: usize) -> u32 {
    u32::from_be_bytes(array(bytes, offset))
}

/// The length of a part of a packet as a 16-bit field; what does not fit is a caller's mistake.
fn len16(len: usize) -> u16 {
    u16::try_from(len).expect("a packet's parts are at most 65535 bytes")
}

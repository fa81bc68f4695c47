//! ARP for IPv4 over Ethernet (RFC 826). Other hardware and protocols are not read: [`is_ipv4_over_ethernet`] tells them apart.
use core::fmt;
use core::net::Ipv4Addr;

use super::ethernet::{MacAddress, ether_type};
use super::{DecodeError, Layer, Reason, array, be16, require};

/// The length of a message, in bytes.
pub const MESSAGE_LEN: usize = 28;

/// Hardware type Ethernet, protocol type IPv4, and the lengths of their addresses.
const KIND: [u8; 6] = {
    let [high, low] = ether_type::IPV4.to_be_bytes();
    [0, 1, high, low, 6, 4]
};

/// The operations (RFC 826; IANA, "ARP Parameters").
pub mod operation {
    /// Who has the target's protocol address?
    pub const REQUEST: u16 = 1;
    /// The sender has it.
    pub const REPLY: u16 = 2;
}

/// Whether `bytes` start as a message for IPv4 over Ethernet does, as far as they go.
#[must_use]
pub fn is_ipv4_over_ethernet(bytes: &[u8]) -> bool {
    bytes.iter().zip(KIND).all(|(byte, want)| *byte == want)
}

/// A view of a message.
#[derive(Clone, Copy, Debug)]
pub struct Packet<B: AsRef<[u8]>> {
    buffer: B,
}

impl<B: AsRef<[u8]>> Packet<B> {
    /// The view, if the message is there and about IPv4 over Ethernet.
    ///
    /// # Errors
    /// [`DecodeError`] with [`Reason::Truncated`] or [`Reason::BadVersion`], then with the two types.
    pub fn new_checked(buffer: B) -> Result<Self, DecodeError> {
        let bytes = buffer.as_ref();
        require(Layer::Arp, bytes, MESSAGE_LEN)?;
        if !is_ipv4_over_ethernet(bytes) {
            let types = |bytes: &[u8]| usize::from(be16(bytes, 0)) << 16 | usize::from(be16(bytes, 2));
            return Err(DecodeError::bad(
                Layer::Arp,
                0,
                types(&KIND),
                types(bytes),
                Reason::BadVersion,
            ));
        }
        Ok(Self { buffer })
    }

    fn bytes(&self) -> &[u8] {
        self.buffer.as_ref()
    }

    /// What is asked or said ([`operation`]).
    pub fn operation(&self) -> u16 {
        be16(self.bytes(), 6)
    }

    /// The sender's Ethernet address.
    pub fn sender_mac(&self) -> MacAddress {
        MacAddress(array(self.bytes(), 8))
    }

    /// The sender's IPv4 address.
    pub fn sender(&self) -> Ipv4Addr {
        Ipv4Addr::from(array::<4>(self.bytes(), 14))
    }

    /// The target's Ethernet address; all zero in a request.
    pub fn target_mac(&self) -> MacAddress {
        MacAddress(array(self.bytes(), 18))
    }

    /// The target's IPv4 address.
    pub fn target(&self) -> Ipv4Addr {
        Ipv4Addr::from(array::<4>(self.bytes(), 24))
    }
}

/// The message as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// What is asked or said ([`operation`]).
    pub operation: u16,
    /// The sender's Ethernet address.
    pub sender_mac: MacAddress,
    /// The sender's IPv4 address.
    pub sender: Ipv4Addr,
    /// The target's Ethernet address; all zero in a request.
    pub target_mac: MacAddress,
    /// The target's IPv4 address.
    pub target: Ipv4Addr,
}

impl Repr {
    /// The value of a view's message.
    pub fn parse<B: AsRef<[u8]>>(packet: &Packet<B>) -> Self {
        Self {
            operation: packet.operation(),
            sender_mac: packet.sender_mac(),
            sender: packet.sender(),
            target_mac: packet.target_mac(),
            target: packet.target(),
        }
    }

    /// How many bytes [`emit`](Self::emit) writes.
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        MESSAGE_LEN
    }

    /// Writes the message.
    ///
    /// # Panics
    /// If `buffer` is shorter than [`buffer_len`](Self::buffer_len).
    pub fn emit(&self, buffer: &mut [u8]) {
        buffer[..6].copy_from_slice(&KIND);
        buffer[6..8].copy_from_slice(&self.operation.to_be_bytes());
        buffer[8..14].copy_from_slice(&self.sender_mac.0);
        buffer[14..18].copy_from_slice(&self.sender.octets());
        buffer[18..24].copy_from_slice(&self.target_mac.0);
        buffer[24..28].copy_from_slice(&self.target.octets());
    }
}

impl fmt::Display for Repr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation {
            operation::REQUEST => write!(f, "who has {} tell {}", self.target, self.sender),
            operation::REPLY => write!(f, "{} is at {}", self.sender, self.sender_mac),
            other => write!(f, "operation {other} {} > {}", self.sender, self.target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    const BYTES: [u8; 28] = [
        0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2,
    ];

    #[test]
    fn known_bytes_both_ways() {
        let repr = Repr::parse(&Packet::new_checked(&BYTES).unwrap());
        assert_eq!(repr.to_string(), "who has 10.0.0.2 tell 10.0.0.1");
        let reply = Repr {
            operation: operation::REPLY,
            ..repr
        };
        assert_eq!(reply.to_string(), "10.0.0.1 is at 02:00:00:00:00:02");
        let mut bytes = [0xff; MESSAGE_LEN];
        repr.emit(&mut bytes);
        assert_eq!(bytes, BYTES);
    }

    #[test]
    fn other_hardware_and_missing_bytes_are_told_apart() {
        let mut bytes = BYTES;
        bytes[1] = 6;
        let error = Packet::new_checked(&bytes).unwrap_err();
        assert_eq!(
            (error.reason, error.need, error.have),
            (Reason::BadVersion, 0x0001_0800, 0x0006_0800)
        );
        assert_eq!(
            Packet::new_checked(&BYTES[..27]).unwrap_err().reason,
            Reason::Truncated
        );
    }

    proptest! {
        #[test]
        fn any_addresses_survive(mut bytes: [u8; MESSAGE_LEN]) {
            bytes[..6].copy_from_slice(&KIND);
            let mut again = [0; MESSAGE_LEN];
            Repr::parse(&Packet::new_checked(&bytes).unwrap()).emit(&mut again);
            prop_assert_eq!(again, bytes);
        }
    }
}

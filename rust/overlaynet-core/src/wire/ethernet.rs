//! Ethernet II frames (IEEE 802.3 section 3, RFC 894), without the frame check sequence.
use core::fmt;
use core::str::FromStr;

use super::{DecodeError, Layer, array, be16, require};

/// The length of the header, in bytes.
pub const HEADER_LEN: usize = 14;

/// The ether types that overlaynet knows by name (IANA, "IEEE 802 Numbers").
pub mod ether_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// A VLAN tag follows (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// A provider's VLAN tag follows, and mostly another one inside (IEEE 802.1ad).
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// A 48-bit Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address of all stations.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether this is one station's address: the group bit is clear and not all bits are zero.
    #[must_use]
    pub const fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && (self.0[0] | self.0[1] | self.0[2] | self.0[3] | self.0[4] | self.0[5]) != 0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text is not six hexadecimal pairs joined by colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacAddressError;

impl fmt::Display for MacAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("want six hexadecimal pairs joined by colons")
    }
}

impl core::error::Error for MacAddressError {}

impl FromStr for MacAddress {
    type Err = MacAddressError;

    fn from_str(text: &str) -> Result<Self, MacAddressError> {
        let mut octets = [0; 6];
        let mut pairs = text.split(':');
        for octet in &mut octets {
            let pair = pairs.next().ok_or(MacAddressError)?;
            if pair.len() != 2 || !pair.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(MacAddressError);
            }
            *octet = u8::from_str_radix(pair, 16).map_err(|_| MacAddressError)?;
        }
        if pairs.next().is_some() {
            return Err(MacAddressError);
        }
        Ok(Self(octets))
    }
}

/// A view of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<B: AsRef<[u8]>> {
    buffer: B,
}

impl<B: AsRef<[u8]>> Frame<B> {
    /// The view, if the header is there.
    ///
    /// # Errors
    /// [`Reason::Truncated`](super::Reason::Truncated).
    pub fn new_checked(buffer: B) -> Result<Self, DecodeError> {
        require(Layer::Ethernet, buffer.as_ref(), HEADER_LEN)?;
        Ok(Self { buffer })
    }

    /// The station that the frame is for.
    pub fn destination(&self) -> MacAddress {
        MacAddress(array(self.buffer.as_ref(), 0))
    }

    /// The station that sent the frame.
    pub fn source(&self) -> MacAddress {
        MacAddress(array(self.buffer.as_ref(), 6))
    }

    /// What the payload is; below 1536 it would be an 802.3 length.
    pub fn ether_type(&self) -> u16 {
        be16(self.buffer.as_ref(), 12)
    }

    /// What follows the header, padding included.
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..]
    }

    /// The bytes that the view was made of.
    pub fn into_inner(self) -> B {
        self.buffer
    }
}

/// The header as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// The station that the frame is for.
    pub destination: MacAddress,
    /// The station that sends the frame.
    pub source: MacAddress,
    /// What the payload is.
    pub ether_type: u16,
}

impl Repr {
    /// The value of a view's header.
    pub fn parse<B: AsRef<[u8]>>(frame: &Frame<B>) -> Self {
        Self {
            destination: frame.destination(),
            source: frame.source(),
            ether_type: frame.ether_type(),
        }
    }

    /// How many bytes [`emit`](Self::emit) writes.
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the header.
    ///
    /// # Panics
    /// If `buffer` is shorter than [`buffer_len`](Self::buffer_len).
    pub fn emit(&self, buffer: &mut [u8]) {
        buffer[..6].copy_from_slice(&self.destination.0);
        buffer[6..12].copy_from_slice(&self.source.0);
        buffer[12..14].copy_from_slice(&self.ether_type.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;
    use std::vec::Vec;

    const BYTES: [u8; 16] = [
        0x02, 0, 0, 0, 0, 0x01, 0x0e, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0x08, 0x00, 0x45, 0x00,
    ];

    const REPR: Repr = Repr {
        destination: MacAddress([0x02, 0, 0, 0, 0, 0x01]),
        source: MacAddress([0x0e, 0xaa, 0xbb, 0xcc, 0xdd, 0xee]),
        ether_type: ether_type::IPV4,
    };

    #[test]
    fn known_bytes_both_ways() {
        let frame = Frame::new_checked(&BYTES).unwrap();
        assert_eq!(Repr::parse(&frame), REPR);
        assert_eq!(frame.payload(), [0x45, 0x00]);
        let mut buffer = [0; HEADER_LEN];
        REPR.emit(&mut buffer);
        assert_eq!(buffer, BYTES[..HEADER_LEN]);
    }

    #[test]
    fn a_short_frame_says_what_is_missing() {
        let error = Frame::new_checked(&BYTES[..13]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ethernet at byte 0: truncated: need 14, have 13"
        );
    }

    #[test]
    fn text_of_a_mac_address_both_ways() {
        assert_eq!(REPR.source.to_string(), "0e:aa:bb:cc:dd:ee");
        assert_eq!("0E:aa:bb:cc:dd:ee".parse(), Ok(REPR.source));
        for text in [
            "",
            "0e:aa:bb:cc:dd",
            "0e:aa:bb:cc:dd:ee:ff",
            "0e-aa-bb-cc-dd-ee",
            "+e:aa:bb:cc:dd:ee",
            "é:aa:bb:cc:dd:ee",
        ] {
            assert_eq!(text.parse::<MacAddress>(), Err(MacAddressError), "{text}");
        }
        assert!(REPR.source.is_unicast());
        assert!(!MacAddress::BROADCAST.is_unicast());
        assert!(!MacAddress::default().is_unicast());
    }

    proptest! {
        #[test]
        fn any_bytes_survive(bytes: Vec<u8>) {
            if let Ok(frame) = Frame::new_checked(&bytes) {
                let mut again = [0; HEADER_LEN];
                Repr::parse(&frame).emit(&mut again);
                prop_assert_eq!(&again, &bytes[..HEADER_LEN]);
            }
        }
    }
}

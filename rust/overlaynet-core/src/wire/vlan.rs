//! VLAN tags (IEEE 802.1Q section 9.6): what stands between an Ethernet header's ether type 0x8100 or 0x88a8 and the payload.
use super::{DecodeError, Layer, be16, require};

/// The length of a tag behind its ether type, in bytes: the control word, and the ether type of what follows.
pub const HEADER_LEN: usize = 4;

const DROP_ELIGIBLE: u16 = 0x1000;

/// The largest VLAN identifier that 12 bits hold. (0 and 4095 are reserved; they are read and written all the same.)
pub const MAX_ID: u16 = 0x0fff;

/// The largest priority that 3 bits hold.
pub const MAX_PRIORITY: u8 = 7;

/// A view of a tag and what follows it.
#[derive(Clone, Copy, Debug)]
pub struct Tag<B: AsRef<[u8]>> {
    buffer: B,
}

impl<B: AsRef<[u8]>> Tag<B> {
    /// The view, if the tag is there.
    ///
    /// # Errors
    /// [`Reason::Truncated`](super::Reason::Truncated).
    pub fn new_checked(buffer: B) -> Result<Self, DecodeError> {
        require(Layer::Vlan, buffer.as_ref(), HEADER_LEN)?;
        Ok(Self { buffer })
    }

    fn control(&self) -> u16 {
        be16(self.buffer.as_ref(), 0)
    }

    /// The VLAN identifier, 12 bits.
    pub fn id(&self) -> u16 {
        self.control() & MAX_ID
    }

    /// The priority code point, 3 bits.
    pub fn priority(&self) -> u8 {
        self.control().to_be_bytes()[0] >> 5
    }

    /// Whether the frame may be dropped first when there is congestion.
    pub fn drop_eligible(&self) -> bool {
        self.control() & DROP_ELIGIBLE != 0
    }

    /// What the payload is.
    pub fn ether_type(&self) -> u16 {
        be16(self.buffer.as_ref(), 2)
    }

    /// What follows the tag, padding included.
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..]
    }
}

/// The tag as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// The VLAN identifier; 12 bits are used.
    pub id: u16,
    /// The priority code point; 3 bits are used.
    pub priority: u8,
    /// Whether the frame may be dropped first when there is congestion.
    pub drop_eligible: bool,
    /// What the payload is.
    pub ether_type: u16,
}

impl Repr {
    /// The value of a view's tag.
    pub fn parse<B: AsRef<[u8]>>(tag: &Tag<B>) -> Self {
        Self {
            id: tag.id(),
            priority: tag.priority(),
            drop_eligible: tag.drop_eligible(),
            ether_type: tag.ether_type(),
        }
    }

    /// How many bytes [`emit`](Self::emit) writes.
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the tag.
    ///
    /// # Panics
    /// If `buffer` is shorter than [`buffer_len`](Self::buffer_len).
    pub fn emit(&self, buffer: &mut [u8]) {
        let control = u16::from(self.priority & MAX_PRIORITY) << 13
            | if self.drop_eligible { DROP_ELIGIBLE } else { 0 }
            | self.id & MAX_ID;
        buffer[..2].copy_from_slice(&control.to_be_bytes());
        buffer[2..4].copy_from_slice(&self.ether_type.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_bytes_both_ways() {
        let bytes = [0xb0, 0x64, 0x08, 0x00, 0x45];
        let tag = Tag::new_checked(&bytes).unwrap();
        let repr = Repr {
            id: 100,
            priority: 5,
            drop_eligible: true,
            ether_type: 0x0800,
        };
        assert_eq!((Repr::parse(&tag), tag.payload()), (repr, &bytes[4..]));
        let mut again = [0xff; HEADER_LEN];
        repr.emit(&mut again);
        assert_eq!(again, bytes[..4]);
        assert_eq!(
            Tag::new_checked(&bytes[..3]).unwrap_err(),
            DecodeError::truncated(Layer::Vlan, 4, 3)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_survive(bytes: [u8; HEADER_LEN]) {
            let mut again = [0; HEADER_LEN];
            Repr::parse(&Tag::new_checked(&bytes).unwrap()).emit(&mut again);
            prop_assert_eq!(again, bytes);
        }
    }
}

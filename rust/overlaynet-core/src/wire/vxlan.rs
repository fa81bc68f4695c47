//! VXLAN headers (RFC 7348 section 5), with the group policy extension (draft-smith-vxlan-group-policy section 2.1), as Linux's
//! `gbp` devices write it.
use core::fmt;

use super::{DecodeError, Layer, Reason, array, be16, require};

/// The length of the header, in bytes.
pub const HEADER_LEN: usize = 8;

/// The UDP port that IANA assigned. (Linux and flannel use 8472 by default.)
pub const PORT: u16 = 4789;

const VNI_VALID: u8 = 0x08;

// In the first and the second byte (struct vxlanhdr_gbp in include/net/vxlan.h).
const GROUP_VALID: u8 = 0x80;
const DONT_LEARN: u8 = 0x40;
const POLICY_APPLIED: u8 = 0x08;

/// A network identifier: 24 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

impl Vni {
    /// The largest identifier.
    pub const MAX: Self = Self(0x00ff_ffff);

    /// The identifier with this number; `None` if it needs more than 24 bits.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number > Self::MAX.0 {
            None
        } else {
            Some(Self(number))
        }
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A view of a header and the frame in it.
#[derive(Clone, Copy, Debug)]
pub struct Packet<B: AsRef<[u8]>> {
    buffer: B,
}

impl<B: AsRef<[u8]>> Packet<B> {
    /// The view, if the header is there and says that it carries an identifier. Other flags and reserved bits are ignored.
    ///
    /// # Errors
    /// [`DecodeError`] with [`Reason::Truncated`] or [`Reason::BadFlags`].
    pub fn new_checked(buffer: B) -> Result<Self, DecodeError> {
        let bytes = buffer.as_ref();
        require(Layer::Vxlan, bytes, HEADER_LEN)?;
        if bytes[0] & VNI_VALID == 0 {
            let (need, have) = (usize::from(VNI_VALID), usize::from(bytes[0]));
            return Err(DecodeError::bad(Layer::Vxlan, 0, need, have, Reason::BadFlags));
        }
        Ok(Self { buffer })
    }

    /// The flags byte.
    pub fn flags(&self) -> u8 {
        self.buffer.as_ref()[0]
    }

    /// The network identifier.
    pub fn vni(&self) -> Vni {
        let [a, b, c] = array(self.buffer.as_ref(), 4);
        Vni(u32::from_be_bytes([0, a, b, c]))
    }

    /// The group policy, if the header says that it carries one.
    pub fn group(&self) -> Option<Group> {
        let bytes = self.buffer.as_ref();
        (bytes[0] & GROUP_VALID != 0).then(|| Group {
            id: be16(bytes, 2),
            dont_learn: bytes[1] & DONT_LEARN != 0,
            policy_applied: bytes[1] & POLICY_APPLIED != 0,
        })
    }

    /// The inner Ethernet frame.
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..]
    }

    /// The bytes that the view was made of.
    pub fn into_inner(self) -> B {
        self.buffer
    }
}

/// What the group policy extension adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// The group that the sender belongs to.
    pub id: u16,
    /// Whether the receiver must not learn the inner source address from this packet.
    pub dont_learn: bool,
    /// Whether the policy was applied already, so that the receiver must not apply it again.
    pub policy_applied: bool,
}

/// The header as a value; reserved bits are sent as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// The network identifier.
    pub vni: Vni,
    /// The group policy, if there is one.
    pub group: Option<Group>,
}

impl Repr {
    /// The value of a view's header.
    pub fn parse<B: AsRef<[u8]>>(packet: &Packet<B>) -> Self {
        Self {
            vni: packet.vni(),
            group: packet.group(),
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
        let mut first = [VNI_VALID, 0, 0, 0];
        if let Some(group) = self.group {
            first[0] |= GROUP_VALID;
            first[1] |= if group.dont_learn { DONT_LEARN } else { 0 };
            first[1] |= if group.policy_applied { POLICY_APPLIED } else { 0 };
            first[2..].copy_from_slice(&group.id.to_be_bytes());
        }
        buffer[..4].copy_from_slice(&first);
        buffer[4..8].copy_from_slice(&(self.vni.0 << 8).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const BYTES: [u8; 9] = [0x08, 0, 0, 0, 0x12, 0x34, 0x56, 0, 0xaa];

    #[test]
    fn known_bytes_both_ways() {
        let packet = Packet::new_checked(&BYTES).unwrap();
        assert_eq!(packet.vni(), Vni::new(0x12_3456).unwrap());
        assert_eq!(packet.payload(), [0xaa]);
        let mut header = [0xff; HEADER_LEN];
        Repr::parse(&packet).emit(&mut header);
        assert_eq!(header, BYTES[..HEADER_LEN]);
    }

    #[test]
    fn reserved_bits_are_ignored_and_the_flag_is_not() {
        let reserved = [0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0xff];
        assert_eq!(Packet::new_checked(&reserved).unwrap().vni(), Vni(1));
        assert_eq!(
            Packet::new_checked(&[0xf7, 0, 0, 0, 0, 0, 1, 0])
                .unwrap_err()
                .reason,
            Reason::BadFlags
        );
        assert_eq!(
            Packet::new_checked(&BYTES[..7]).unwrap_err(),
            DecodeError::truncated(Layer::Vxlan, 8, 7)
        );
    }

    #[test]
    fn the_group_policy_is_there_only_if_it_says_so() {
        let bytes = [0x88, 0x48, 0x12, 0x34, 0, 0, 1, 0];
        let repr = Repr::parse(&Packet::new_checked(&bytes).unwrap());
        let group = Group {
            id: 0x1234,
            dont_learn: true,
            policy_applied: true,
        };
        assert_eq!(repr.group, Some(group));
        let mut again = [0xff; HEADER_LEN];
        repr.emit(&mut again);
        assert_eq!(again, bytes);
        assert_eq!(
            Packet::new_checked(&[0x08, 0x48, 0x12, 0x34, 0, 0, 1, 0])
                .unwrap()
                .group(),
            None
        );
    }

    #[test]
    fn an_identifier_has_24_bits() {
        assert_eq!(Vni::new(0x00ff_ffff), Some(Vni::MAX));
        assert_eq!(Vni::new(0x0100_0000), None);
    }

    proptest! {
        #[test]
        fn any_bytes_survive(bytes: Vec<u8>) {
            if let Ok(packet) = Packet::new_checked(&bytes) {
                let mut again = [0; HEADER_LEN];
                Repr::parse(&packet).emit(&mut again);
                prop_assert_eq!(Packet::new_checked(&again).unwrap().vni(), packet.vni());
            }
        }
    }
}

//! Addresses as strings of bits: what a prefix table walks.
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::ops::{BitAnd, BitOr, BitXor};

/// The addresses of one family.
pub trait Address: Copy + Ord + fmt::Debug {
    /// The address as a number, its first bit the highest.
    type Bits: Bits;

    /// The address as a number.
    fn bits(self) -> Self::Bits;

    /// The address that `bits` are.
    fn of_bits(bits: Self::Bits) -> Self;
}

/// An address of family `A` as it lies in a buffer: itself, a number in the machine's byte order, or bytes in network order.
pub trait Packed<A: Address>: Copy {
    /// The address as a number.
    fn bits(self) -> A::Bits;

    /// Byte `at`, counted from the first.
    #[inline]
    fn byte_at(&self, at: u8) -> u8 {
        self.bits().byte(at)
    }
}

/// The bits of an address. Bit 0 is the first, the most significant one.
pub trait Bits:
    Copy + Ord + fmt::Debug + BitAnd<Output = Self> + BitOr<Output = Self> + BitXor<Output = Self>
{
    /// No bit is set.
    const ZERO: Self;
    /// Every bit is set.
    const MAX: Self;

    /// The bits before bit `len`: the mask of a prefix of that length.
    fn mask(len: u8) -> Self;

    /// How many of the first bits are the same in both.
    fn common(self, other: Self) -> u8;

    /// The number in the `count` bits that begin at bit `from`. At most 32; none give 0.
    fn field(self, from: u8, count: u8) -> usize;

    /// `index` in the bits that end before bit `end`, zeros around it; the other way round than [`field`](Self::field).
    fn placed(index: usize, end: u8) -> Self;

    /// Byte `at`, counted from the first.
    fn byte(self, at: u8) -> u8;

    /// The next higher address.
    fn after(self) -> Option<Self>;

    /// The next lower address.
    fn before(self) -> Option<Self>;

    /// The bits from bit `len` on.
    fn host_mask(len: u8) -> Self {
        Self::mask(len) ^ Self::MAX
    }
}

/// The 64 bits of `bits` from bit `from` on, zeros behind the last. What the table walks goes through here in one word, since a
/// shift of 128 bits takes as many instructions as all the rest of a step.
#[inline]
const fn word_of_32(bits: u32, from: u8) -> u64 {
    ((bits as u64) << 32).wrapping_shl(from as u32)
}

/// As above.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the halves are wanted")]
const fn word_of_128(bits: u128, from: u8) -> u64 {
    let (high, low, from) = ((bits >> 64) as u64, bits as u64, from as u32);
    match from {
        0 => high,
        1..64 => high << from | low >> (64 - from),
        64..128 => low << (from - 64),
        _ => 0,
    }
}

macro_rules! address {
    ($address:ty, $bits:ty, $word:ident) => {
        impl Bits for $bits {
            const ZERO: Self = 0;
            const MAX: Self = Self::MAX;

            #[inline]
            fn mask(len: u8) -> Self {
                Self::MAX
                    .checked_shl(Self::BITS.saturating_sub(u32::from(len)))
                    .unwrap_or(0)
            }

            #[inline]
            #[allow(clippy::cast_possible_truncation, reason = "at most 128")]
            fn common(self, other: Self) -> u8 {
                (self ^ other).leading_zeros() as u8
            }

            #[inline]
            #[allow(clippy::cast_possible_truncation, reason = "32 bits at most")]
            fn field(self, from: u8, count: u8) -> usize {
                // In two steps, since a shift by all bits is none.
                ($word(self, from) >> 1 >> (63 - u32::from(count))) as usize
            }

            #[inline]
            fn placed(index: usize, end: u8) -> Self {
                (index as Self)
                    .checked_shl(Self::BITS.saturating_sub(u32::from(end)))
                    .unwrap_or(0)
            }

            #[inline]
            #[allow(clippy::cast_possible_truncation, reason = "the byte is wanted")]
            fn byte(self, at: u8) -> u8 {
                ($word(self, 8 * at) >> 56) as u8
            }

            #[inline]
            fn after(self) -> Option<Self> {
                self.checked_add(1)
            }

            #[inline]
            fn before(self) -> Option<Self> {
                self.checked_sub(1)
            }
        }

        impl Address for $address {
            type Bits = $bits;

            #[inline]
            fn bits(self) -> $bits {
                self.to_bits()
            }

            #[inline]
            fn of_bits(bits: $bits) -> Self {
                Self::from_bits(bits)
            }
        }

        impl Packed<$address> for $address {
            #[inline]
            fn bits(self) -> $bits {
                self.to_bits()
            }
        }

        impl Packed<$address> for $bits {
            #[inline]
            fn bits(self) -> $bits {
                self
            }
        }

        impl Packed<$address> for [u8; size_of::<$bits>()] {
            #[inline]
            fn bits(self) -> $bits {
                <$bits>::from_be_bytes(self)
            }

            #[inline]
            fn byte_at(&self, at: u8) -> u8 {
                self[usize::from(at)]
            }
        }
    };
}

address!(Ipv4Addr, u32, word_of_32);
address!(Ipv6Addr, u128, word_of_128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_any_bits_is_what_stands_there() {
        let bits = 0x1234_5678_u32;
        assert_eq!(bits.field(0, 0), 0);
        assert_eq!(bits.field(0, 16), 0x1234);
        assert_eq!(bits.field(4, 8), 0x23);
        assert_eq!(bits.field(31, 1), 0);
        assert_eq!(bits.field(32, 0), 0);
        assert_eq!(u32::placed(0x23, 12), 0x0230_0000);
        assert_eq!((bits.byte(0), bits.byte(3)), (0x12, 0x78));
        assert_eq!(
            (u32::mask(0), u32::mask(8), u32::mask(32)),
            (0, 0xff00_0000, u32::MAX)
        );
        assert_eq!((u128::host_mask(0), u128::host_mask(128)), (u128::MAX, 0));
        assert_eq!((1_u128 << 127 | 5).field(64, 32), 0);
        assert_eq!(0x0a01_0000_u32.common(0x0a02_0000), 14);
        assert_eq!(Packed::<Ipv4Addr>::bits([10, 1, 2, 3]), 0x0a01_0203);
    }
}

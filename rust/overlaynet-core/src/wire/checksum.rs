//! The Internet checksum (RFC 1071), pseudo headers (RFC 768, RFC 8200 section 8.1) and the incremental update (RFC 1624).
//!
//! A checksum is computed by adding parts to a [`Sum`] and taking its [`complement`](Sum::complement). All parts but the last
//! must have an even number of bytes.
use core::net::{Ipv4Addr, Ipv6Addr};

/// A way to add words to a sum: [`Sum::plus`], or the same compiled for what the processor has.
pub type Summing = fn(Sum, &[u8]) -> Sum;

/// A way to copy bytes and add their words to a sum: [`Sum::plus_copied`], or the same compiled for what the processor has.
pub type Copying = fn(Sum, &[u8], &mut [u8]) -> Sum;

/// Bytes that are added at once: four of the widest vectors in common use, so that no addition waits for the one before it.
const BLOCK_BYTES: usize = 128;

/// Adds the words of a block to as many sums of 32-bit words in the machine's own byte order, which the compiler turns into
/// vectors: carries and byte order do not matter until the end (RFC 1071 section 2).
#[inline(always)]
#[allow(clippy::inline_always, reason = "for the caller's target features")]
fn add_block(sums: &mut [u64; BLOCK_BYTES / 8], block: &[u8]) {
    for (sum, word) in sums.iter_mut().zip(block.chunks_exact(8)) {
        let word = u64::from_ne_bytes([
            word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7],
        ]);
        *sum += (word & 0xffff_ffff) + (word >> 32);
    }
}

/// A one's complement sum of 16-bit big-endian words, not yet folded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// This sum and the words of `bytes`; an odd last byte is followed by a zero byte.
    ///
    /// Always inline, so that a caller that is compiled for wider vectors has this loop in them.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "for the caller's target features")]
    pub fn plus(self, bytes: &[u8]) -> Self {
        let mut sums = [0; BLOCK_BYTES / 8];
        let mut blocks = bytes.chunks_exact(BLOCK_BYTES);
        for block in &mut blocks {
            add_block(&mut sums, block);
        }
        self.plus_native(sums, blocks.remainder())
    }

    /// As [`plus`](Self::plus), and `to`, which has room for them, begins with these bytes then: reading them once for both takes
    /// no longer than copying alone.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "for the caller's target features")]
    pub fn plus_copied(self, bytes: &[u8], to: &mut [u8]) -> Self {
        let to = &mut to[..bytes.len()];
        let mut sums = [0; BLOCK_BYTES / 8];
        let mut blocks = bytes.chunks_exact(BLOCK_BYTES);
        let mut copies = to.chunks_exact_mut(BLOCK_BYTES);
        for (block, copy) in (&mut blocks).zip(&mut copies) {
            copy.copy_from_slice(block);
            add_block(&mut sums, block);
        }
        let rest = blocks.remainder();
        copies.into_remainder().copy_from_slice(rest);
        self.plus_native(sums, rest)
    }

    /// This sum, those of words in the machine's own byte order, and the bytes that were left of them, fewer than a block.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "for the caller's target features")]
    fn plus_native(self, sums: [u64; BLOCK_BYTES / 8], rest: &[u8]) -> Self {
        // Each is below 2^33 times the number of blocks, so that all together fit for less than 2^29 bytes.
        let mut native: u64 = sums.iter().sum();
        let mut words = rest.chunks_exact(4);
        for word in &mut words {
            native += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
        let rest = match *words.remainder() {
            [a] => [a, 0, 0, 0],
            [a, b] => [a, b, 0, 0],
            [a, b, c] => [a, b, c, 0],
            _ => [0; 4],
        };
        native += u64::from(u32::from_ne_bytes(rest));
        Self(self.0 + u64::from(u16::from_be(Self(native).fold())))
    }

    /// This sum and one word.
    #[must_use]
    pub const fn plus_word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// The sum folded to 16 bits.
    #[must_use]
    pub const fn fold(self) -> u16 {
        // What each step leaves is below 2^33, below 2^18, at most 0x10002, and below 2^16.
        let sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        sum as u16
    }

    /// The checksum: what makes the whole sum up to 0xffff.
    #[must_use]
    pub const fn complement(self) -> u16 {
        !self.fold()
    }

    /// Whether the parts, their checksum included, sum up as they must.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        // Folding keeps the remainder by 0xffff, and leaves 0 of nothing but 0: this asks whether 0xffff is left, by one
        // multiplication instead of four dependent folds.
        self.0 != 0 && self.0.is_multiple_of(0xffff)
    }
}

/// The checksum of `bytes`, whose own checksum field is zero; 0 if the field is set and right.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::ZERO.plus(bytes).complement()
}

/// Whether `header`, its checksum included, sums up as it must. Headers of 20 bytes, which nearly all are, take the short way.
#[must_use]
#[inline]
pub fn is_valid(header: &[u8]) -> bool {
    let Ok(bytes) = <&[u8; 20]>::try_from(header) else {
        return Sum::ZERO.plus(header).is_valid();
    };
    let word = |at: usize| {
        u64::from(u32::from_ne_bytes([
            bytes[at],
            bytes[at + 1],
            bytes[at + 2],
            bytes[at + 3],
        ]))
    };
    // Carries and byte order do not matter until the end (RFC 1071 section 2), and what is all ones is so in either order.
    Sum(word(0) + word(4) + word(8) + word(12) + word(16)).is_valid()
}

/// The checksum of a header after its 16-bit word `old` became `new` (RFC 1624, equation 3).
#[must_use]
pub const fn updated(checksum: u16, old: u16, new: u16) -> u16 {
    Sum(0)
        .plus_word(!checksum)
        .plus_word(!old)
        .plus_word(new)
        .complement()
}

/// The addresses that a transport checksum covers besides the transport's own bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PseudoHeader {
    /// RFC 768, RFC 9293 section 3.1.
    V4 {
        /// The packet's source.
        source: Ipv4Addr,
        /// The packet's destination.
        destination: Ipv4Addr,
    },
    /// RFC 8200 section 8.1.
    V6 {
        /// The packet's source.
        source: Ipv6Addr,
        /// The packet's final destination.
        destination: Ipv6Addr,
    },
}

impl PseudoHeader {
    /// The pseudo header's part of the sum, for a transport `protocol` of `len` bytes, header included.
    #[must_use]
    pub fn sum(self, protocol: u8, len: usize) -> Sum {
        let addresses = match self {
            Self::V4 { source, destination } => Sum::ZERO.plus(&source.octets()).plus(&destination.octets()),
            Self::V6 { source, destination } => Sum::ZERO.plus(&source.octets()).plus(&destination.octets()),
        };
        #[allow(clippy::cast_possible_truncation, reason = "packets are shorter than 4 GiB")]
        let len = (len as u32).to_be_bytes();
        addresses.plus(&len).plus_word(u16::from(protocol))
    }

    /// The checksum of a transport `protocol`'s `bytes`, whose checksum field is zero.
    #[must_use]
    pub fn checksum(self, protocol: u8, bytes: &[u8]) -> u16 {
        self.sum(protocol, bytes.len()).plus(bytes).complement()
    }

    /// Whether the checksum inside a transport `protocol`'s `bytes` is right.
    #[must_use]
    pub fn is_valid(self, protocol: u8, bytes: &[u8]) -> bool {
        self.sum(protocol, bytes.len()).plus(bytes).is_valid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn sum_of_the_example_of_rfc_1071_section_3() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::ZERO.plus(&bytes).fold(), 0xddf2);
        assert_eq!(checksum(&bytes), !0xddf2);
    }

    #[test]
    fn update_of_the_example_of_rfc_1624_section_4() {
        assert_eq!(updated(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn the_short_way_says_what_the_sum_says(mut header: [u8; 20], right: bool) {
            if right {
                let sum = checksum(&[&[0, 0], &header[2..]].concat());
                header[..2].copy_from_slice(&sum.to_be_bytes());
            }
            prop_assert_eq!(is_valid(&header), Sum::ZERO.plus(&header).is_valid());
            prop_assert!(is_valid(&header) || !right);
        }

        #[test]
        fn a_sum_is_valid_that_folds_to_all_ones(sum: u64, times in 0..=u64::MAX / 0xffff) {
            for sum in [sum, times * 0xffff, 0, 0xffff, u64::MAX] {
                prop_assert_eq!(Sum(sum).is_valid(), Sum(sum).fold() == 0xffff, "{}", sum);
            }
        }

        #[test]
        fn sum_agrees_with_the_plain_definition(bytes: Vec<u8>) {
            let mut plain = 0u64;
            for pair in bytes.chunks(2) {
                plain += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
            }
            while plain > 0xffff {
                plain = (plain & 0xffff) + (plain >> 16);
            }
            prop_assert_eq!(u64::from(Sum::ZERO.plus(&bytes).fold()), plain);
        }

        #[test]
        fn what_is_copied_is_the_same_and_summed(bytes in proptest::collection::vec(any::<u8>(), 0..600), more in 0usize..40) {
            let mut copy = vec![0xee; bytes.len() + more];
            let begun = Sum::ZERO.plus_word(0x1234);
            prop_assert_eq!(begun.plus_copied(&bytes, &mut copy).fold(), begun.plus(&bytes).fold());
            prop_assert_eq!(&copy[..bytes.len()], &bytes[..]);
            prop_assert!(copy[bytes.len()..].iter().all(|byte| *byte == 0xee));
        }

        #[test]
        fn an_updated_checksum_is_valid(mut bytes in proptest::collection::vec(any::<u8>(), 20), new: u16, word in 1usize..10) {
            bytes[0] |= 1; // An all-zero header has two right checksums.
            let at = word * 2;
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            let before = checksum(&bytes);
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            prop_assert!(Sum::ZERO.plus(&bytes).plus_word(updated(before, old, new)).is_valid());
        }
    }
}

//! IP prefixes as small values: [`Ipv4Prefix`] and [`Ipv6Prefix`].
//!
//! A prefix is canonical by construction: the bits behind its length are zero, so two prefixes that hold the same addresses
//! are equal. They are ordered by address, then by length, so a prefix comes directly before those that it covers.
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use crate::address::Address;

/// Why something is not a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrefixError {
    /// The text is not an address, a slash and a decimal length.
    Syntax,
    /// The length is more than the family's addresses have bits.
    Length,
    /// Bits behind the length are set.
    HostBits,
}

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "want an address, a slash and a length",
            Self::Length => "the length is more than an address has bits",
            Self::HostBits => "host bits are set",
        })
    }
}

impl core::error::Error for PrefixError {}

/// What a table needs to know of a prefix, whatever its family.
///
/// `truncated` and `covers` must agree: `p.covers(&q)` exactly if `p.len() <= q.len()` and `q` cut to `p`'s length is `p`.
#[allow(clippy::len_without_is_empty, reason = "a length in bits; no prefix is empty")]
pub trait Prefix: Copy + Ord + fmt::Debug + fmt::Display {
    /// The family's addresses.
    type Address: Address;

    /// How many bits an address has.
    const BITS: u8;

    /// The prefix that holds every address.
    const ALL: Self;

    /// The prefix of `len` bits that holds `address`; a `len` above [`Self::BITS`] counts as that many.
    fn truncated(address: Self::Address, len: u8) -> Self;

    /// The lowest address, which names the prefix.
    fn address(&self) -> Self::Address;

    /// The highest address.
    fn last_address(&self) -> Self::Address;

    /// The length in bits.
    fn len(&self) -> u8;

    /// Whether `address` lies in the prefix.
    fn contains(&self, address: Self::Address) -> bool;

    /// Whether every address of `other` lies in the prefix.
    fn covers(&self, other: &Self) -> bool {
        self.len() <= other.len() && self.contains(other.address())
    }

    /// Whether the two share an address; then one covers the other.
    fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }
}

macro_rules! prefix {
    ($(#[$doc:meta])* $name:ident, $address:ty, $bits:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            bits: $bits,
            len: u8,
        }

        #[allow(clippy::len_without_is_empty, reason = "a length in bits; no prefix is empty")]
        impl $name {
            /// How many bits an address has.
            pub const BITS: u8 = <$bits>::BITS as u8;

            /// The prefix that holds every address.
            pub const ALL: Self = Self { bits: 0, len: 0 };

            const fn mask(len: u8) -> $bits {
                match <$bits>::MAX.checked_shl((Self::BITS - len) as u32) {
                    Some(mask) => mask,
                    None => 0,
                }
            }

            /// The prefix of `len` bits at `address`.
            ///
            /// # Errors
            /// [`PrefixError::Length`] if `len` is too large, [`PrefixError::HostBits`] if bits behind it are set.
            pub const fn new(address: $address, len: u8) -> Result<Self, PrefixError> {
                let bits = address.to_bits();
                if len > Self::BITS {
                    Err(PrefixError::Length)
                } else if bits & !Self::mask(len) != 0 {
                    Err(PrefixError::HostBits)
                } else {
                    Ok(Self { bits, len })
                }
            }

            /// The prefix of `len` bits that holds `address`; host bits are cleared.
            ///
            /// # Errors
            /// [`PrefixError::Length`] if `len` is too large.
            pub const fn new_truncated(address: $address, len: u8) -> Result<Self, PrefixError> {
                if len > Self::BITS {
                    return Err(PrefixError::Length);
                }
                Ok(Self { bits: address.to_bits() & Self::mask(len), len })
            }

            /// The prefix that holds this one address.
            #[must_use]
            pub const fn host(address: $address) -> Self {
                Self { bits: address.to_bits(), len: Self::BITS }
            }

            /// The lowest address, which names the prefix.
            #[must_use]
            pub const fn address(&self) -> $address {
                <$address>::from_bits(self.bits)
            }

            /// The highest address; in an IPv4 subnet, its broadcast address.
            #[must_use]
            pub const fn last_address(&self) -> $address {
                <$address>::from_bits(self.bits | !Self::mask(self.len))
            }

            /// The length in bits.
            #[must_use]
            pub const fn len(&self) -> u8 {
                self.len
            }

            /// Whether `address` lies in the prefix.
            #[must_use]
            pub const fn contains(&self, address: $address) -> bool {
                address.to_bits() & Self::mask(self.len) == self.bits
            }

            /// Whether every address of `other` lies in the prefix; a prefix covers itself.
            #[must_use]
            pub const fn covers(&self, other: &Self) -> bool {
                self.len <= other.len && other.bits & Self::mask(self.len) == self.bits
            }

            /// Whether the two share an address; then one covers the other.
            #[must_use]
            pub const fn overlaps(&self, other: &Self) -> bool {
                self.covers(other) || other.covers(self)
            }
        }

        impl Prefix for $name {
            type Address = $address;
            const BITS: u8 = Self::BITS;
            const ALL: Self = Self::ALL;

            fn truncated(address: $address, len: u8) -> Self {
                let len = len.min(Self::BITS);
                Self { bits: address.to_bits() & Self::mask(len), len }
            }

            fn address(&self) -> $address {
                self.address()
            }

            fn last_address(&self) -> $address {
                self.last_address()
            }

            fn len(&self) -> u8 {
                self.len
            }

            fn contains(&self, address: $address) -> bool {
                self.contains(address)
            }
        }

        impl From<$address> for $name {
            fn from(address: $address) -> Self {
                Self::host(address)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.address(), self.len)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = PrefixError;

            fn from_str(text: &str) -> Result<Self, PrefixError> {
                let (address, len) = text.split_once('/').ok_or(PrefixError::Syntax)?;
                let address = address.parse().map_err(|_| PrefixError::Syntax)?;
                Self::new(address, parse_len(len)?)
            }
        }
    };
}

prefix! {
    /// An IPv4 prefix, such as 10.1.0.0/16.
    Ipv4Prefix, Ipv4Addr, u32
}

prefix! {
    /// An IPv6 prefix, such as fd00:1::/64.
    Ipv6Prefix, Ipv6Addr, u128
}

/// A decimal length without sign or leading zeros.
fn parse_len(text: &str) -> Result<u8, PrefixError> {
    let digits = text.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) || (digits[0] == b'0' && digits.len() > 1)
    {
        return Err(PrefixError::Syntax);
    }
    text.parse().map_err(|_| PrefixError::Length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    #[test]
    fn text_of_a_prefix_is_its_address_and_length() {
        let prefix: Ipv4Prefix = "10.1.2.0/24".parse().unwrap();
        assert_eq!(prefix, Ipv4Prefix::new(Ipv4Addr::new(10, 1, 2, 0), 24).unwrap());
        assert_eq!(prefix.to_string(), "10.1.2.0/24");
        assert_eq!(prefix.last_address(), Ipv4Addr::new(10, 1, 2, 255));
        let prefix: Ipv6Prefix = "fd00:1::/64".parse().unwrap();
        assert_eq!(prefix.to_string(), "fd00:1::/64");
    }

    #[test]
    fn what_is_not_a_prefix_is_refused_with_its_reason() {
        for (text, why) in [
            ("10.0.0.0/33", PrefixError::Length),
            ("10.0.0.0/300", PrefixError::Length),
            ("10.0.0.1/31", PrefixError::HostBits),
            ("10.0.0.0", PrefixError::Syntax),
            ("10.0.0.0/", PrefixError::Syntax),
            ("10.0.0.0/+8", PrefixError::Syntax),
            ("10.0.0.0/08", PrefixError::Syntax),
            ("10.0.0/8", PrefixError::Syntax),
            ("::/8", PrefixError::Syntax),
        ] {
            assert_eq!(text.parse::<Ipv4Prefix>(), Err(why), "{text}");
        }
        assert_eq!("::1/127".parse::<Ipv6Prefix>(), Err(PrefixError::HostBits));
        assert_eq!("::/129".parse::<Ipv6Prefix>(), Err(PrefixError::Length));
    }

    #[test]
    fn the_longest_and_the_shortest_prefix_hold_what_they_say() {
        assert!(Ipv4Prefix::ALL.contains(Ipv4Addr::BROADCAST));
        assert_eq!(Ipv4Prefix::ALL.last_address(), Ipv4Addr::BROADCAST);
        let host = Ipv6Prefix::host(Ipv6Addr::LOCALHOST);
        assert!(host.contains(Ipv6Addr::LOCALHOST));
        assert!(!host.contains(Ipv6Addr::UNSPECIFIED));
        assert!(Ipv6Prefix::ALL.covers(&host));
        assert!(!host.covers(&Ipv6Prefix::ALL));
    }

    proptest! {
        #[test]
        fn any_prefix_survives_its_text(bits: u128, len in 0u8..=128) {
            let prefix = Ipv6Prefix::new_truncated(Ipv6Addr::from_bits(bits), len).unwrap();
            prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
            prop_assert!(prefix.contains(Ipv6Addr::from_bits(bits)));
        }

        #[test]
        fn covering_is_containing_both_ends(a: u32, b: u32, la in 0u8..=32, lb in 0u8..=32) {
            let outer = Ipv4Prefix::new_truncated(Ipv4Addr::from_bits(a), la).unwrap();
            let inner = Ipv4Prefix::new_truncated(Ipv4Addr::from_bits(b), lb).unwrap();
            let both = outer.contains(inner.address()) && outer.contains(inner.last_address());
            prop_assert_eq!(outer.covers(&inner), both);
        }
    }
}

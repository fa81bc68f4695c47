//! IPv4 addresses out of their text, by hand: a table is asked by text so often that the standard library's parser would be
//! most of the time.

/// The address in four decimal numbers at the start of `text`, as a number, and what is behind it. As everywhere in this
/// project a number has no leading zeros, which some programs take for octal.
#[must_use]
#[inline]
pub fn ipv4(text: &[u8]) -> Option<(u32, &[u8])> {
    let (mut bits, mut rest) = octet(text)?;
    for _ in 0..3 {
        let [b'.', behind @ ..] = rest else {
            return None;
        };
        let (number, behind) = octet(behind)?;
        bits = bits << 8 | number;
        rest = behind;
    }
    Some((bits, rest))
}

/// The number up to 255 at the start of `text`, and what is behind its three digits at most.
#[inline]
fn octet(text: &[u8]) -> Option<(u32, &[u8])> {
    let digit = |at: usize| {
        let digit = text.get(at)?.wrapping_sub(b'0');
        (digit < 10).then_some(u32::from(digit))
    };
    let first = digit(0)?;
    let Some(second) = digit(1) else {
        return Some((first, &text[1..]));
    };
    if first == 0 {
        return None;
    }
    let Some(third) = digit(2) else {
        return Some((first * 10 + second, &text[2..]));
    };
    let number = first * 100 + second * 10 + third;
    (number <= 255).then(|| (number, &text[3..]))
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;
    use proptest::prelude::*;
    use std::string::{String, ToString};

    use super::*;

    fn address(text: &str) -> Option<Ipv4Addr> {
        let (bits, rest) = ipv4(text.as_bytes())?;
        rest.is_empty().then(|| Ipv4Addr::from_bits(bits))
    }

    #[test]
    fn what_is_behind_an_address_is_handed_back() {
        assert_eq!(ipv4(b"10.1.0.0/16"), Some((0x0a01_0000, &b"/16"[..])));
        assert_eq!(ipv4(b"1.2.3.2001"), Some((0x0102_03c8, &b"1"[..])));
        assert_eq!(ipv4(b"1.2.3.456"), None);
    }

    proptest! {
        #[test]
        fn any_address_comes_out_of_its_text(bits: u32) {
            let text = Ipv4Addr::from_bits(bits).to_string();
            prop_assert_eq!(ipv4(text.as_bytes()), Some((bits, &[][..])));
        }

        #[test]
        fn any_text_is_what_the_standard_library_takes_it_for(text in "[0-9./]{0,17}|([0-9]{1,4}[.]){3}[0-9]{1,4}") {
            let text: String = text;
            prop_assert_eq!(address(&text), text.parse().ok());
        }
    }
}

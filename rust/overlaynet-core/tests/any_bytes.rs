//! What the fuzz targets hold to be true, on random bytes and on bytes near to packets, without a fuzzer.
#[path = "../../fuzz/src/lib.rs"]
pub mod targets;

use proptest::collection::vec;
use proptest::prelude::*;

/// Bytes of packets that decode, from the vectors that all codecs are held to, with some of them changed.
fn near_packets() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<Vec<u8>> = include_str!("../../../tests/vectors/packets.txt")
        .split(|letter: char| !letter.is_ascii_hexdigit())
        .filter(|word| word.len() >= 40 && word.len() % 2 == 0)
        .map(|word| {
            (0..word.len())
                .step_by(2)
                .filter_map(|at| u8::from_str_radix(&word[at..at + 2], 16).ok())
                .collect()
        })
        .collect();
    assert!(known.len() > 5, "the vectors have another form now");
    (
        prop::sample::select(known),
        vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        vec(any::<u8>(), 0..16),
    )
        .prop_map(|(mut bytes, changes, more)| {
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes.extend(more);
            bytes
        })
}

/// A message of which the lengths are nearly right.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let attribute = (
        0_u16..34,
        vec(any::<u8>(), 0..20),
        prop::sample::select(vec![0_u16, 0, 0, 0, 1, 200]),
    );
    (
        any::<u16>(),
        any::<u16>(),
        vec(any::<u8>(), 12..=12),
        vec(attribute, 0..8),
        prop::sample::select(vec![0_u32, 0, 0, 0, 1, 70]),
    )
        .prop_map(|(kind, flags, fixed, attributes, wrong)| {
            let mut body = fixed;
            for (kind, value, wrong) in attributes {
                let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX) + wrong;
                body.extend(length.to_ne_bytes());
                body.extend(kind.to_ne_bytes());
                body.extend(value);
                body.resize(body.len().next_multiple_of(4), 0);
            }
            let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX) + wrong;
            [
                &length.to_ne_bytes()[..],
                &kind.to_ne_bytes(),
                &flags.to_ne_bytes(),
                &[0; 8],
                &body,
            ]
            .concat()
        })
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..2000), near_packets()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn forwarding_gives_a_verdict_that_holds_on_any_bytes(tables in vec(any::<u8>(), 0..160), packet in bytes()) {
        targets::forward::check(&[tables, packet].concat());
    }

    #[test]
    fn decoding_walks_any_bytes(bytes in bytes()) {
        targets::packet::check(&bytes);
    }

    #[test]
    fn netlink_messages_are_walked_in_any_bytes(messages in vec(message(), 0..6), more in vec(any::<u8>(), 0..40)) {
        targets::netlink::check(&[messages.concat(), more].concat());
    }

    #[test]
    fn tunnel_headers_are_stripped_from_any_bytes(bytes in bytes()) {
        targets::forward::strip(&bytes);
    }

    #[test]
    fn offloads_take_any_header_and_packets(header in any::<[u8; 10]>(), first in bytes(), second in bytes()) {
        targets::offload::check(header, first, &second);
    }
}

proptest! {
    // Each case compares up to a hundred tables with lists.
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn table_has_the_answers_of_a_list_after_any_steps(bytes in vec(any::<u8>(), 0..600)) {
        targets::table::check(&bytes);
    }
}

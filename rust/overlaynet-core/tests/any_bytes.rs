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
    fn table_has_the_answers_of_a_list_after_any_steps(bytes in vec(any::<u8>(), 0..600)) {
        targets::table::check(&bytes);
    }

    #[test]
    fn offloads_take_any_header_and_packets(header in any::<[u8; 10]>(), first in bytes(), second in bytes()) {
        targets::offload::check(header, first, &second);
    }
}

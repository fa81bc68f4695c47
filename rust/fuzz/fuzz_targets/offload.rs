//! Any header and packets: no panic, and what was joined splits into what it was made of.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: ([u8; 10], Vec<u8>, Vec<u8>)| {
    let (header, first, second) = input;
    overlaynet_fuzz::offload::check(header, first, &second);
});

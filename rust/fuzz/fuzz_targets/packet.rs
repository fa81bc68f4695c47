//! Any bytes are walked, shown and written again; what is written twice is the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| overlaynet_fuzz::packet::check(bytes));

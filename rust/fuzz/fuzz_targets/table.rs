//! Any insertions and removals leave the table with the list's answers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| overlaynet_fuzz::table::check(bytes));

//! Any tables and any packet: a verdict that holds, in both directions.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    overlaynet_fuzz::forward::check(bytes);
    overlaynet_fuzz::forward::strip(bytes);
});

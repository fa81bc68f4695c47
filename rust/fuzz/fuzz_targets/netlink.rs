//! Any bytes as messages of the kernel: a walk that ends, values that can be written, and one message for each.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| overlaynet_fuzz::netlink::check(bytes));

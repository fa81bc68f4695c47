//! Headers, prefixes, the prefix table and the forwarding decision.
//!
//! Nothing here performs I/O, reads a clock or contains `unsafe`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

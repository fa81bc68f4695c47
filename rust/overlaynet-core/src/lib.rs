//! Headers, prefixes, the prefix table, the forwarding decision, and netlink messages.
//!
//! Nothing here performs I/O, reads a clock or contains `unsafe`. No bytes that are handed in make anything here panic.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(test)]
extern crate std;

pub mod address;
pub mod encapsulation;
pub mod forward;
pub mod netlink;
pub mod offload;
pub mod prefix;
pub mod probe;
pub mod stats;
pub mod table;
pub mod text;
pub mod wire;

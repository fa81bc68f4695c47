//! The TUN device, UDP sockets and the pump that carries packets between them (Linux).
//!
//! `unsafe` stands in [`tun`], [`tap`], [`udp`] and [`traffic`], around system calls, and in [`summing`], each with its reason.
pub mod engine;
pub mod memory;
pub mod offload;
pub mod outbox;
pub mod port;
pub mod pump;
pub mod reach;
pub mod shared;
pub mod shortcut;
pub mod summing;
pub mod tap;
pub mod traffic;
pub mod tun;
pub mod udp;
pub mod underlay;

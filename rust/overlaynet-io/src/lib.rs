//! The TUN device, UDP sockets and the pump that carries packets between them (Linux).
//!
//! `unsafe` stands in [`tun`], [`tap`], [`udp`], [`traffic`] and [`pages`], around system calls, and in [`summing`] and [`cpu`], which call
//! what is compiled for a processor that is there, each with its reason.
pub mod cpu;
pub mod engine;
pub mod live;
pub mod memory;
pub mod offload;
pub mod outbox;
pub mod pages;
pub mod port;
pub mod proof;
pub mod pump;
pub mod reach;
mod seats;
pub mod shared;
pub mod shortcut;
pub mod summing;
pub mod tap;
pub mod traffic;
pub mod tun;
pub mod udp;
pub mod underlay;

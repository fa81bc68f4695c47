//! Segmentation and checksum offload in software: super-packets to wire packets, and wire packets to super-packets.
//!
//! A TUN device with a virtio header (`virtio_net_hdr`, virtio 1.2 section 5.1.6) hands over TCP and UDP packets of up to 64 KiB,
//! whose checksums are half done, and takes such packets. [`Split`] says what the wire packets of one are; [`Run`] grows while
//! packets continue one flow, and says what the super-packet of them is. A split writes whole packets, since the pass that sums a
//! payload can as well copy it; a run moves no payload.
//!
//! Splitting is what the kernel does itself (net/ipv4/tcp_offload.c, udp_offload.c): sequence numbers and IPv4 identifications
//! count on; FIN and PSH stay with the last packet and CWR with the first. A packet joins a run only if splitting the result would
//! give the same packets again (except for the identifications of IPv4 packets that may not be fragmented, which mean nothing by
//! RFC 6864), and only if its own checksum is right: a wrong one is never replaced by a right one.
//!
//! [`Outer`] is what stands before a super-packet that leaves in a UDP tunnel uncut, and [`uncut`] knows one that came so.
mod layout;
mod run;
mod split;
mod tunnel;
mod uncut;
mod vnet;

pub use layout::MAX_HEADERS_BYTES;
pub use run::Run;
pub use split::{Split, SplitError, complete_checksum};
pub use tunnel::{OUTER_BYTES, Outer, TUNNEL_HEADER_BYTES};
pub use uncut::uncut;
pub use vnet::{Gso, VNET_HEADER_BYTES, VnetHeader};

#[cfg(test)]
mod tests;

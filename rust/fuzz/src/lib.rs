//! What each fuzz target holds to be true, apart from the fuzzer, so that the tests of `overlaynet-core` run it as well.
pub mod forward;
pub mod netlink;
pub mod offload;
pub mod packet;
pub mod table;

//! The forwarding decision: a packet goes in, what to do with it comes out.

//! Counters, and the reasons for which a packet is dropped.

//! Packets as text.

//! The Python module `overlaynet._core`: conversions between Python values and the Rust crates, and nothing else.
//!
//! Nothing here holds state of its own but `PrefixTable` and `Pump`, behind their locks; so the module needs no global interpreter lock.
mod batch;
mod buffer;
mod error;
mod netlink;
mod prefix;
mod pump;
mod table;
mod traffic;
mod wire;

use pyo3::prelude::*;

/// The compiled core of overlaynet.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use crate::batch::{decode_array, decode_many, encode_many};
    #[pymodule_export]
    use crate::netlink::{netlink_answers, netlink_dump, netlink_dumped, netlink_events, netlink_pack};
    #[pymodule_export]
    use crate::pump::Pump;
    #[pymodule_export]
    use crate::table::PrefixTable;
    #[pymodule_export]
    use crate::traffic::{count, flood, probe, reflect};
    #[pymodule_export]
    use crate::wire::{decode, encode, pretty};
}

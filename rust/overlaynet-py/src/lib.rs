//! The Python module `overlaynet._core`: conversions between Python values and the Rust crates, and nothing else.
//!
//! Nothing here holds state of its own but `PrefixTable` and `Pump`, behind their locks; so the module needs no global interpreter lock.
mod addresses;
mod batch;
mod buffer;
mod error;
mod layers;
mod netlink;
mod packet;
mod prefix;
mod pump;
mod table;
mod traffic;
mod tun;
mod tunnel;

use pyo3::prelude::*;

/// The compiled core of overlaynet.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use crate::batch::{Columns, decode_many};
    #[pymodule_export]
    use crate::layers::{Arp, Ethernet, Icmp, Icmpv6, Ipv4, Ipv6, Tcp, Udp, Vlan, Vxlan};
    #[pymodule_export]
    use crate::netlink::{netlink_answers, netlink_dump, netlink_dumped, netlink_events, netlink_pack};
    #[pymodule_export]
    use crate::packet::{Packet, decode, pretty};
    #[pymodule_export]
    use crate::pump::Pump;
    #[pymodule_export]
    use crate::table::{PrefixTable, iterate};
    #[pymodule_export]
    use crate::traffic::{count, flood, probe, reflect};
    #[pymodule_export]
    use crate::tun::Tun;
    #[pymodule_export]
    use crate::tunnel::{Tunnel, encode, encode_many};
}

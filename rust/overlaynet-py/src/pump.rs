//! `overlaynet._core.Pump`: the packet engine, started, changed, read and stopped from Python.
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use overlaynet_core::encapsulation::{Encapsulation, Vtep};
use overlaynet_core::forward::{IpPrefix, SourceCheck, Tables};
use overlaynet_core::stats::{Drops, Traffic};
use overlaynet_core::wire::ethernet::MacAddress;
use overlaynet_core::wire::vxlan::Vni;
use overlaynet_io::engine::LANES;
use overlaynet_io::offload::{Offload, Offloads};
use overlaynet_io::pump;
use overlaynet_io::tun::Tun;
use overlaynet_io::udp::Udp;
use overlaynet_io::underlay::Underlay;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error;

/// A peer as Python gives it: its subnets, its public address, its port, and its VTEP's link-layer address.
type Peer = (Vec<String>, String, u16, Option<String>);

/// This host's VTEPs as Python gives them: the VNI, and the link-layer addresses for IPv4 and IPv6 inside.
type Vteps = (u32, String, String);

#[pyclass(frozen, module = "overlaynet._core")]
pub(crate) struct Pump {
    pump: Mutex<pump::Pump>,
    mtu: usize,
}

impl Pump {
    fn locked(&self) -> MutexGuard<'_, pump::Pump> {
        self.pump.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Pump {
    #[new]
    #[pyo3(signature = (*, tun, bind, mtu, offloads, spread=false, tap=None))]
    fn new(
        py: Python<'_>,
        tun: &str,
        bind: Vec<(String, u16)>,
        mtu: usize,
        offloads: Vec<String>,
        spread: bool,
        tap: Option<String>,
    ) -> PyResult<Self> {
        let addresses = bind
            .iter()
            .map(|(host, port)| Ok(SocketAddr::new(address(host)?, *port)))
            .collect::<PyResult<Vec<_>>>()?;
        let lanes = if spread { LANES } else { 0 };
        let wanted = offloads.iter().map(|name| {
            Offload::of_name(name)
                .ok_or_else(|| error::dataplane("open", &format!("{name:?}: there is no such offload")))
        });
        let offloads = Arc::new(Offloads::new(&wanted.collect::<PyResult<Vec<_>>>()?));
        let device = py
            .detach(|| Tun::open(tun, &offloads))
            .map_err(|why| error::dataplane("open", &format!("TUN device {tun}: {why}")))?;
        let socket = py
            .detach(|| Udp::bind(&addresses, lanes, &offloads))
            .map_err(|why| error::dataplane("bind", &format!("UDP {why}")))?;
        let underlay = py.detach(|| Underlay::new(socket, tap));
        let pump = pump::Pump::new(device, underlay, offloads)
            .map_err(|why| error::dataplane("open", &format!("eventfd: {why}")))?;
        Ok(Self {
            pump: Mutex::new(pump),
            mtu,
        })
    }

    #[pyo3(signature = (*, local, addresses, peers, vteps=None, source_check="strict"))]
    fn configure(
        &self,
        py: Python<'_>,
        local: Vec<String>,
        addresses: Vec<String>,
        peers: Vec<Peer>,
        vteps: Option<Vteps>,
        source_check: &str,
    ) -> PyResult<()> {
        let check = match source_check {
            "strict" => SourceCheck::Strict,
            "inner" => SourceCheck::Inner,
            "off" => SourceCheck::Off,
            _ => {
                let why = format!("{source_check:?}: must be strict, inner or off");
                return Err(error::dataplane("configure", &why));
            }
        };
        py.detach(|| {
            let mut tables = tables(self.mtu, &local, &addresses, &peers, vteps.as_ref())?;
            tables.set_source_check(check);
            // Under the lock: of two exchanges at once, the later one must see the peers of the earlier.
            self.locked().shared().exchange(tables);
            Ok(())
        })
    }

    fn start(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.locked().start())
            .map_err(|why| error::dataplane("start", &why.to_string()))
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.locked().stop());
    }

    #[getter]
    fn running(&self, py: Python<'_>) -> bool {
        py.detach(|| self.locked().is_running())
    }

    #[getter]
    fn failure(&self, py: Python<'_>) -> Option<String> {
        py.detach(|| self.locked().shared().failure())
    }

    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let shared = py.detach(|| self.locked().shared().clone());
        let counters = PyDict::new(py);
        traffic(&counters, shared.traffic())?;
        counters.set_item("drops", drops(py, shared.drops())?)?;
        let peers = PyDict::new(py);
        for (address, stats) in shared.peers() {
            let peer = PyDict::new(py);
            traffic(&peer, &stats.traffic)?;
            peer.set_item("drops", drops(py, &stats.drops)?)?;
            peers.set_item(address.to_string(), peer)?;
        }
        counters.set_item("peers", peers)?;
        if let Some(report) = py.detach(|| self.locked().report().cloned()) {
            let tap = PyDict::new(py);
            tap.set_item("super_packets", report.frames.value())?;
            tap.set_item("fallbacks", report.fallbacks.value())?;
            counters.set_item("tap", tap)?;
        }
        Ok(counters)
    }

    fn offloads<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let shared = py.detach(|| self.locked().shared().clone());
        let states = PyDict::new(py);
        for offload in Offload::ALL {
            states.set_item(offload.name(), shared.offloads().state(offload).to_string())?;
        }
        let report = py.detach(|| self.locked().report().cloned());
        let peers = shared.peers();
        let tap = report.map_or_else(
            || "off".to_owned(),
            |report| report.state(|peer| peers.contains_key(peer)),
        );
        states.set_item("tap", tap)?;
        Ok(states)
    }
}

fn tables(
    mtu: usize,
    local: &[String],
    addresses: &[String],
    peers: &[Peer],
    vteps: Option<&Vteps>,
) -> PyResult<Tables> {
    let mut tables = Tables::new(mtu);
    if let Some((vni, v4, v6)) = vteps {
        tables.set_encapsulation(Encapsulation::Vxlan(Vtep {
            vni: Vni::new(*vni).ok_or_else(|| error::dataplane("configure", &format!("{vni}: not a VNI")))?,
            v4: mac(v4)?,
            v6: mac(v6)?,
        }));
    }
    for text in local {
        tables.add_local(ip_prefix(text)?);
    }
    for text in addresses {
        tables.set_address(address(text)?);
    }
    for (subnets, host, port, vtep) in peers {
        let subnets = subnets
            .iter()
            .map(|text| ip_prefix(text))
            .collect::<PyResult<Vec<_>>>()?;
        let endpoint = SocketAddr::new(address(host)?, *port);
        match vtep {
            Some(vtep) => tables.add_vtep(endpoint, mac(vtep)?, &subnets),
            None => tables.add_peer(endpoint, &subnets),
        };
    }
    Ok(tables)
}

fn address(text: &str) -> PyResult<IpAddr> {
    text.parse()
        .map_err(|_| error::dataplane("configure", &format!("{text:?}: not an IP address")))
}

fn mac(text: &str) -> PyResult<MacAddress> {
    text.parse()
        .map_err(|_| error::dataplane("configure", &format!("{text:?}: not a link-layer address")))
}

fn ip_prefix(text: &str) -> PyResult<IpPrefix> {
    let prefix = if text.contains(':') {
        text.parse().map(IpPrefix::V6)
    } else {
        text.parse().map(IpPrefix::V4)
    };
    prefix.map_err(|why| error::dataplane("configure", &format!("{text:?}: {why}")))
}

fn traffic(counters: &Bound<'_, PyDict>, traffic: &Traffic) -> PyResult<()> {
    counters.set_item("tx_packets", traffic.tx_packets.value())?;
    counters.set_item("tx_bytes", traffic.tx_bytes.value())?;
    counters.set_item("rx_packets", traffic.rx_packets.value())?;
    counters.set_item("rx_bytes", traffic.rx_bytes.value())
}

fn drops<'py>(py: Python<'py>, drops: &Drops) -> PyResult<Bound<'py, PyDict>> {
    let counts = PyDict::new(py);
    for (reason, count) in drops.iter() {
        counts.set_item(reason.name(), count)?;
    }
    Ok(counts)
}

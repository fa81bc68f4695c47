//! `overlaynet._core.Ethernet`, `Ipv4`, ...: one header each, as a frozen value whose fields become Python objects when they are
//! asked for.
use core::net::{Ipv4Addr, Ipv6Addr};

use overlaynet_core::prefix::{Ipv4Prefix, Ipv6Prefix};
use overlaynet_core::wire::ethernet::{self, MacAddress};
use overlaynet_core::wire::ipv4::{self, Options};
use overlaynet_core::wire::stack::Header;
use overlaynet_core::wire::tcp::Flags;
use overlaynet_core::wire::vxlan::{self, Group, Vni};
use overlaynet_core::wire::{arp, icmp, icmpv6, ipv6, tcp, udp, vlan};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{IntoPyObjectExt, intern};

use crate::prefix;

/// A frozen class for one header: its state, its constructor, its fields in the constructor's order.
macro_rules! layer {
    (
        $(#[$meta:meta])*
        $name:ident { $($state:ident: $state_type:ty),* }
        new ($($signature:tt)*) ($($parameter:ident: $parameter_type:ty),*) $build:block
        fields { $($field:ident: $type:ty = |$this:ident| $value:expr;)* }
    ) => {
        $(#[$meta])*
        #[pyclass(frozen, module = "overlaynet._core")]
        #[derive(Clone, PartialEq, Eq)]
        pub(crate) struct $name { $(pub(crate) $state: $state_type),* }

        #[pymethods]
        impl $name {
            #[classattr]
            fn __match_args__() -> ($(layer!(@text $field),)*) {
                ($(stringify!($field),)*)
            }

            #[new]
            #[pyo3(signature = ($($signature)*))]
            #[allow(clippy::too_many_arguments, reason = "one for each field of the header, by name")]
            fn new($($parameter: $parameter_type),*) -> PyResult<Self> $build

            $(#[getter]
            fn $field(&self) -> $type {
                let $this = self;
                $value
            })*

            fn __getnewargs__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
                PyTuple::new(py, [$(self.$field().into_bound_py_any(py)?),*])
            }

            fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
                other.cast_exact::<Self>().is_ok_and(|other| self == other.get())
            }

            fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
                self.__getnewargs__(py)?.hash()
            }

            fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
                let mut text = String::from(concat!(stringify!($name), "("));
                $(
                    text.push_str(concat!(stringify!($field), "="));
                    text.push_str(self.$field().into_bound_py_any(py)?.repr()?.to_str()?);
                    text.push_str(", ");
                )*
                text.truncate(text.len() - 2);
                text.push(')');
                Ok(text)
            }

            #[pyo3(signature = (**changes))]
            fn __replace__<'py>(slf: &Bound<'py, Self>, changes: Option<&Bound<'py, PyDict>>) -> PyResult<Bound<'py, PyAny>> {
                let fields = PyDict::new(slf.py());
                $(fields.set_item(intern!(slf.py(), stringify!($field)), slf.get().$field())?;)*
                if let Some(changes) = changes {
                    fields.update(changes.as_mapping())?;
                }
                slf.get_type().call((), Some(&fields))
            }
        }
    };
    (@text $field:ident) => { &'static str };
}

layer! {
    Ethernet { destination: MacAddress, source: MacAddress, ether_type: Option<u16> }
    new (destination, source, ether_type = None) (destination: &str, source: &str, ether_type: Option<u16>) {
        Ok(Self { destination: mac(destination)?, source: mac(source)?, ether_type })
    }
    fields {
        destination: String = |this| this.destination.to_string();
        source: String = |this| this.source.to_string();
        ether_type: Option<u16> = |this| this.ether_type;
    }
}

layer! {
    Vlan { vid: u16, priority: u8, drop_eligible: bool, ether_type: Option<u16> }
    new (vid, priority = 0, drop_eligible = false, ether_type = None)
    (vid: u16, priority: u8, drop_eligible: bool, ether_type: Option<u16>) {
        within("Vlan.vid", vid.into(), vlan::MAX_ID.into())?;
        within("Vlan.priority", priority.into(), vlan::MAX_PRIORITY.into())?;
        Ok(Self { vid, priority, drop_eligible, ether_type })
    }
    fields {
        vid: u16 = |this| this.vid;
        priority: u8 = |this| this.priority;
        drop_eligible: bool = |this| this.drop_eligible;
        ether_type: Option<u16> = |this| this.ether_type;
    }
}

layer! {
    Arp { repr: arp::Repr }
    new (operation, sender_mac, sender, target_mac, target)
    (operation: u16, sender_mac: &str, sender: &Bound<'_, PyAny>, target_mac: &str, target: &Bound<'_, PyAny>) {
        let (sender_mac, target_mac) = (mac(sender_mac)?, mac(target_mac)?);
        let (sender, target) = (ipv4_address(sender)?, ipv4_address(target)?);
        Ok(Self { repr: arp::Repr { operation, sender_mac, sender, target_mac, target } })
    }
    fields {
        operation: u16 = |this| this.repr.operation;
        sender_mac: String = |this| this.repr.sender_mac.to_string();
        sender: Ipv4Addr = |this| this.repr.sender;
        target_mac: String = |this| this.repr.target_mac.to_string();
        target: Ipv4Addr = |this| this.repr.target;
    }
}

layer! {
    Ipv4 { repr: ipv4::Repr, protocol: Option<u8> }
    new (
        source, destination, protocol = None, ttl = 64, tos = 0, identification = 0, dont_fragment = false,
        more_fragments = false, fragment_offset = 0, options = Vec::new()
    ) (
        source: &Bound<'_, PyAny>, destination: &Bound<'_, PyAny>, protocol: Option<u8>, ttl: u8, tos: u8,
        identification: u16, dont_fragment: bool, more_fragments: bool, fragment_offset: u16, options: Vec<u8>
    ) {
        within("Ipv4.fragment_offset", fragment_offset.into(), 0x1fff)?;
        let (source, destination) = (ipv4_address(source)?, ipv4_address(destination)?);
        let options = options_of("Ipv4.options", &options)?;
        let repr = ipv4::Repr {
            ttl, tos, identification, dont_fragment, more_fragments, fragment_offset, options,
            ..ipv4::Repr::new(source, destination, 0, 0)
        };
        Ok(Self { repr, protocol })
    }
    fields {
        source: Ipv4Addr = |this| this.repr.source;
        destination: Ipv4Addr = |this| this.repr.destination;
        protocol: Option<u8> = |this| this.protocol;
        ttl: u8 = |this| this.repr.ttl;
        tos: u8 = |this| this.repr.tos;
        identification: u16 = |this| this.repr.identification;
        dont_fragment: bool = |this| this.repr.dont_fragment;
        more_fragments: bool = |this| this.repr.more_fragments;
        fragment_offset: u16 = |this| this.repr.fragment_offset;
        options: &[u8] = |this| this.repr.options.as_bytes();
    }
}

layer! {
    Ipv6 { repr: ipv6::Repr, next_header: Option<u8>, extensions: Box<[u8]> }
    new (source, destination, next_header = None, hop_limit = 64, traffic_class = 0, flow_label = 0, extensions = Vec::new())
    (
        source: &Bound<'_, PyAny>, destination: &Bound<'_, PyAny>, next_header: Option<u8>, hop_limit: u8, traffic_class: u8,
        flow_label: u32, extensions: Vec<u8>
    ) {
        within("Ipv6.flow_label", flow_label, 0xf_ffff)?;
        if !extensions.is_empty() && next_header.is_none() {
            return Err(PyValueError::new_err("Ipv6.next_header: must name the first of the extension headers"));
        }
        let (source, destination) = (ipv6_address(source)?, ipv6_address(destination)?);
        let repr = ipv6::Repr { hop_limit, traffic_class, flow_label, ..ipv6::Repr::new(source, destination, 0, 0) };
        Ok(Self { repr, next_header, extensions: extensions.into() })
    }
    fields {
        source: Ipv6Addr = |this| this.repr.source;
        destination: Ipv6Addr = |this| this.repr.destination;
        next_header: Option<u8> = |this| this.next_header;
        hop_limit: u8 = |this| this.repr.hop_limit;
        traffic_class: u8 = |this| this.repr.traffic_class;
        flow_label: u32 = |this| this.repr.flow_label;
        extensions: &[u8] = |this| &this.extensions;
    }
}

layer! {
    Udp { source_port: u16, destination_port: u16, checksum: bool }
    new (source_port, destination_port, checksum = true) (source_port: u16, destination_port: u16, checksum: bool) {
        Ok(Self { source_port, destination_port, checksum })
    }
    fields {
        source_port: u16 = |this| this.source_port;
        destination_port: u16 = |this| this.destination_port;
        checksum: bool = |this| this.checksum;
    }
}

layer! {
    Tcp { repr: tcp::Repr }
    new (source_port, destination_port, sequence = 0, acknowledgement = 0, flags = 0, window = 0, urgent = 0, options = Vec::new())
    (
        source_port: u16, destination_port: u16, sequence: u32, acknowledgement: u32, flags: u8, window: u16, urgent: u16,
        options: Vec<u8>
    ) {
        let (flags, options) = (Flags(flags), options_of("Tcp.options", &options)?);
        let payload_len = 0;
        Ok(Self { repr: tcp::Repr {
            source_port, destination_port, sequence, acknowledgement, flags, window, urgent, options, payload_len
        } })
    }
    fields {
        source_port: u16 = |this| this.repr.source_port;
        destination_port: u16 = |this| this.repr.destination_port;
        sequence: u32 = |this| this.repr.sequence;
        acknowledgement: u32 = |this| this.repr.acknowledgement;
        flags: u8 = |this| this.repr.flags.0;
        window: u16 = |this| this.repr.window;
        urgent: u16 = |this| this.repr.urgent;
        options: &[u8] = |this| this.repr.options.as_bytes();
    }
}

layer! {
    Icmp { kind: u8, code: u8, rest: [u8; 4] }
    new (kind, code = 0, rest = [0; 4]) (kind: u8, code: u8, rest: [u8; 4]) { Ok(Self { kind, code, rest }) }
    fields {
        kind: u8 = |this| this.kind;
        code: u8 = |this| this.code;
        rest: &[u8] = |this| &this.rest;
    }
}

layer! {
    Icmpv6 { kind: u8, code: u8, rest: [u8; 4] }
    new (kind, code = 0, rest = [0; 4]) (kind: u8, code: u8, rest: [u8; 4]) { Ok(Self { kind, code, rest }) }
    fields {
        kind: u8 = |this| this.kind;
        code: u8 = |this| this.code;
        rest: &[u8] = |this| &this.rest;
    }
}

layer! {
    Vxlan { repr: vxlan::Repr }
    new (vni, group = None, dont_learn = false, policy_applied = false)
    (vni: u32, group: Option<u16>, dont_learn: bool, policy_applied: bool) {
        let Some(vni) = Vni::new(vni) else {
            return Err(PyValueError::new_err(format!("Vxlan.vni {vni}: at most {}", Vni::MAX)));
        };
        if group.is_none() && (dont_learn || policy_applied) {
            return Err(PyValueError::new_err("Vxlan.dont_learn, Vxlan.policy_applied: only with a group"));
        }
        Ok(Self { repr: vxlan::Repr { vni, group: group.map(|id| Group { id, dont_learn, policy_applied }) } })
    }
    fields {
        vni: u32 = |this| this.repr.vni.number();
        group: Option<u16> = |this| this.repr.group.map(|group| group.id);
        dont_learn: bool = |this| this.repr.group.is_some_and(|group| group.dont_learn);
        policy_applied: bool = |this| this.repr.group.is_some_and(|group| group.policy_applied);
    }
}

/// The Python value of a header that was decoded.
pub(crate) fn value<'py>(py: Python<'py>, header: Header<'_>) -> PyResult<Bound<'py, PyAny>> {
    match header {
        Header::Ethernet(repr) => Ethernet {
            destination: repr.destination,
            source: repr.source,
            ether_type: Some(repr.ether_type),
        }
        .into_bound_py_any(py),
        Header::Vlan(repr) => Vlan {
            vid: repr.id,
            priority: repr.priority,
            drop_eligible: repr.drop_eligible,
            ether_type: Some(repr.ether_type),
        }
        .into_bound_py_any(py),
        Header::Arp(repr) => Arp { repr }.into_bound_py_any(py),
        Header::Ipv4(repr) => Ipv4 {
            protocol: Some(repr.protocol),
            repr: ipv4::Repr {
                protocol: 0,
                payload_len: 0,
                ..repr
            },
        }
        .into_bound_py_any(py),
        Header::Ipv6(repr, extensions) => Ipv6 {
            next_header: Some(repr.next_header),
            repr: ipv6::Repr {
                next_header: 0,
                payload_len: 0,
                ..repr
            },
            extensions: extensions.into(),
        }
        .into_bound_py_any(py),
        Header::Udp(repr, checksum) => Udp {
            source_port: repr.source_port,
            destination_port: repr.destination_port,
            checksum,
        }
        .into_bound_py_any(py),
        Header::Tcp(repr) => Tcp {
            repr: tcp::Repr {
                payload_len: 0,
                ..repr
            },
        }
        .into_bound_py_any(py),
        Header::Icmp(icmp::Repr { kind, code, rest, .. }) => Icmp { kind, code, rest }.into_bound_py_any(py),
        Header::Icmpv6(icmpv6::Repr { kind, code, rest, .. }) => {
            Icmpv6 { kind, code, rest }.into_bound_py_any(py)
        }
        Header::Vxlan(repr) => Vxlan { repr }.into_bound_py_any(py),
    }
}

/// The headers of `layers`, each of which is announced by the one before it unless it says otherwise itself.
pub(crate) fn headers<'a>(layers: &'a [Bound<'_, PyAny>]) -> PyResult<Vec<Header<'a>>> {
    let mut after = None;
    let mut headers = Vec::with_capacity(layers.len());
    for layer in layers.iter().rev() {
        let header = header(layer, after.as_ref())?;
        headers.push(header);
        after = Some(header);
    }
    headers.reverse();
    Ok(headers)
}

fn header<'a>(layer: &'a Bound<'_, PyAny>, after: Option<&Header<'_>>) -> PyResult<Header<'a>> {
    let payload_len = 0;
    if let Ok(layer) = layer.cast_exact::<Ipv4>() {
        let Ipv4 { repr, protocol } = layer.get();
        let protocol = announced("Ipv4.protocol", *protocol, after.and_then(protocol_of))?;
        return Ok(Header::Ipv4(ipv4::Repr { protocol, ..*repr }));
    }
    if let Ok(layer) = layer.cast_exact::<Udp>() {
        let &Udp {
            source_port,
            destination_port,
            checksum,
        } = layer.get();
        let repr = udp::Repr {
            source_port,
            destination_port,
            payload_len,
        };
        return Ok(Header::Udp(repr, checksum));
    }
    if let Ok(layer) = layer.cast_exact::<Ethernet>() {
        let &Ethernet {
            destination,
            source,
            ether_type,
        } = layer.get();
        let ether_type = announced("Ethernet.ether_type", ether_type, after.and_then(ether_type_of))?;
        return Ok(Header::Ethernet(ethernet::Repr {
            destination,
            source,
            ether_type,
        }));
    }
    if let Ok(layer) = layer.cast_exact::<Vxlan>() {
        return Ok(Header::Vxlan(layer.get().repr));
    }
    if let Ok(layer) = layer.cast_exact::<Ipv6>() {
        let Ipv6 {
            repr,
            next_header,
            extensions,
        } = layer.get();
        let next_header = announced("Ipv6.next_header", *next_header, after.and_then(protocol_of))?;
        return Ok(Header::Ipv6(ipv6::Repr { next_header, ..*repr }, extensions));
    }
    if let Ok(layer) = layer.cast_exact::<Tcp>() {
        return Ok(Header::Tcp(layer.get().repr));
    }
    if let Ok(layer) = layer.cast_exact::<Icmp>() {
        let &Icmp { kind, code, rest } = layer.get();
        return Ok(Header::Icmp(icmp::Repr {
            kind,
            code,
            rest,
            payload_len,
        }));
    }
    if let Ok(layer) = layer.cast_exact::<Icmpv6>() {
        let &Icmpv6 { kind, code, rest } = layer.get();
        return Ok(Header::Icmpv6(icmpv6::Repr {
            kind,
            code,
            rest,
            payload_len,
        }));
    }
    if let Ok(layer) = layer.cast_exact::<Vlan>() {
        let &Vlan {
            vid: id,
            priority,
            drop_eligible,
            ether_type,
        } = layer.get();
        let ether_type = announced("Vlan.ether_type", ether_type, after.and_then(ether_type_of))?;
        return Ok(Header::Vlan(vlan::Repr {
            id,
            priority,
            drop_eligible,
            ether_type,
        }));
    }
    if let Ok(layer) = layer.cast_exact::<Arp>() {
        return Ok(Header::Arp(layer.get().repr));
    }
    Err(PyTypeError::new_err(format!(
        "{} is no layer",
        layer.get_type().name()?
    )))
}

fn announced<T>(field: &str, given: Option<T>, said: Option<T>) -> PyResult<T> {
    given.or(said).ok_or_else(|| {
        PyValueError::new_err(format!(
            "{field}: must be given, since the next layer does not say it"
        ))
    })
}

const fn ether_type_of(header: &Header<'_>) -> Option<u16> {
    match header {
        Header::Ipv4(_) => Some(ethernet::ether_type::IPV4),
        Header::Ipv6(..) => Some(ethernet::ether_type::IPV6),
        Header::Arp(_) => Some(ethernet::ether_type::ARP),
        Header::Vlan(_) => Some(ethernet::ether_type::VLAN),
        _ => None,
    }
}

const fn protocol_of(header: &Header<'_>) -> Option<u8> {
    use overlaynet_core::wire::protocol;
    match header {
        Header::Icmp(_) => Some(protocol::ICMP),
        Header::Ipv4(_) => Some(protocol::IPV4),
        Header::Tcp(_) => Some(protocol::TCP),
        Header::Udp(..) => Some(protocol::UDP),
        Header::Ipv6(..) => Some(protocol::IPV6),
        Header::Icmpv6(_) => Some(protocol::ICMPV6),
        _ => None,
    }
}

fn mac(text: &str) -> PyResult<MacAddress> {
    text.parse()
        .map_err(|why| PyValueError::new_err(format!("MAC address {text:?}: {why}")))
}

fn ipv4_address(value: &Bound<'_, PyAny>) -> PyResult<Ipv4Addr> {
    prefix::address::<Ipv4Prefix>(value)
}

fn ipv6_address(value: &Bound<'_, PyAny>) -> PyResult<Ipv6Addr> {
    prefix::address::<Ipv6Prefix>(value)
}

fn options_of(field: &str, options: &[u8]) -> PyResult<Options> {
    Options::new(options).ok_or_else(|| {
        let len = options.len();
        PyValueError::new_err(format!("{field}: {len} bytes: want a multiple of 4, at most 40"))
    })
}

fn within(field: &str, value: u32, most: u32) -> PyResult<()> {
    if value > most {
        return Err(PyValueError::new_err(format!("{field} {value}: at most {most}")));
    }
    Ok(())
}

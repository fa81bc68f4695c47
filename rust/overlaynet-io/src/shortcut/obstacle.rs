//! What keeps packets from the TAP, in words for an operator.
use std::fs;
use std::io;
use std::net::IpAddr;

/// Why the device cannot be attached to.
pub(super) fn of_device(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EINVAL) => "somebody else's device of another kind has this name".to_owned(),
        Some(libc::EBUSY) => "another program holds it".to_owned(),
        _ => error.to_string(),
    }
}

/// The setting of this host that keeps it from forwarding what comes from the device, if one is found.
pub(super) fn of_forwarding(device: &str, peer: IpAddr) -> Option<String> {
    let value = |path: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/{path}")).ok()?;
        text.trim().parse::<u32>().ok()
    };
    let name = |path: &str| format!("net.{}", path.replace('/', "."));
    if peer.is_ipv6() {
        let path = "ipv6/conf/all/forwarding";
        let forced = value(&format!("ipv6/conf/{device}/force_forwarding")).unwrap_or(0);
        return (value(path) == Some(0) && forced == 0).then(|| format!("{} is 0", name(path)));
    }
    for setting in ["forwarding", "accept_local"] {
        let path = format!("ipv4/conf/{device}/{setting}");
        if value(&path) == Some(0) && value(&format!("ipv4/conf/all/{setting}")) == Some(0) {
            return Some(format!("{} is 0", name(&path)));
        }
    }
    for of in ["all", device] {
        let path = format!("ipv4/conf/{of}/rp_filter");
        if value(&path) == Some(1) {
            return Some(format!("{} is 1 (strict): set it to 0", name(&path)));
        }
    }
    None
}

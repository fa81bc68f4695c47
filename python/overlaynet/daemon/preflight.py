"""What can be found out before anything is touched: the process's rights, and whether this host can serve the stored network.

A daemon that could do no work says so in one line and ends, before it holds a lease or has written to the kernel. All of it is
looked at once, at the start: what goes wrong later is reported and waited out.
"""

from __future__ import annotations

import errno
import platform
import re
from pathlib import Path

from overlaynet.backend import backend_for, for_host
from overlaynet.backend.host import forwarding
from overlaynet.backend.plan import Place
from overlaynet.backend.udp import UdpBackend
from overlaynet.errors import ConfigError, KernelPermissionError
from overlaynet.kernel import Kernel
from overlaynet.kernel.obstacles import check_obstacles
from overlaynet.model.host import HostSettings
from overlaynet.model.kernel import Scope
from overlaynet.model.network import parse_network
from overlaynet.reconcile.serving import check_servable

_CAP_NET_ADMIN = 12  # include/uapi/linux/capability.h
_TAP_LINUX = (6, 17)


def check_rights(status: Path = Path("/proc/self/status")) -> None:
    """KernelPermissionError: this process lacks CAP_NET_ADMIN (`CapEff` in proc(5))."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status.read_text(), re.MULTILINE)
    if found is not None and not int(found[1], 16) >> _CAP_NET_ADMIN & 1:
        why = "the process needs CAP_NET_ADMIN: run it as root, or by a service unit that grants it"
        raise KernelPermissionError(errno.EPERM, "change", "this network namespace", why)


def tap_obstacles(release: str = platform.release(), sysctls: Path = Path("/proc/sys/net")) -> list[str]:
    """What on this host keeps whole super-packets from leaving through a TAP, as far as it can be told beforehand."""
    found = []
    version = re.match(r"([0-9]+)\.([0-9]+)", release)
    if version is not None and (int(version[1]), int(version[2])) < _TAP_LINUX:
        found.append(f"UDP tunnel segmentation needs Linux {_TAP_LINUX[0]}.{_TAP_LINUX[1]}, this is {release}")
    try:
        if (sysctls / "ipv4/conf/all/rp_filter").read_text().strip() == "1":
            found.append("net.ipv4.conf.all.rp_filter is 1 (strict), which drops what a TAP forwards: set it to 0 or 2")
    except OSError:
        pass  # without IPv4 it drops nothing
    return found


async def check_network(text: bytes | None, settings: HostSettings, kernel: Kernel) -> None:
    """Return if this host can serve the network whose configuration is `text`, or there is none yet.

    ConfigError: the configuration is not valid, or not on this host. KernelError: something is missing or in the way.
    """
    if text is None:
        return
    try:
        config = parse_network(text)[0]
        check_servable(config, settings, (await kernel.observe(Scope(settings.underlay, ours=False))).underlay)
    except ConfigError as error:
        raise ConfigError(f"network configuration in {settings.store}: {error.field}", error.value, error.why) from None
    backend = backend_for(config, settings)
    listen = backend.listen if isinstance(backend, UdpBackend) else settings.local_ipv4 or settings.local_ipv6
    if listen is not None:
        await check_obstacles(for_host(config, settings), listen, forwarding(Place(config, settings)))

"""What of others stands in the way of a network's backend on this host, found before anything is made.

It looks and changes nothing. What comes in the way later is the reconciler's to report; here a daemon that could do no work
learns it before it takes a lease.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from overlaynet.backend import link_names
from overlaynet.errors import KernelError
from overlaynet.kernel import messages
from overlaynet.kernel.messages import LinkView
from overlaynet.kernel.names import is_our_link
from overlaynet.kernel.namespace import NamespaceThread, read_sysctl
from overlaynet.kernel.observation import names_of
from overlaynet.kernel.refusals import as_kernel_error
from overlaynet.kernel.rtnetlink import Message, RouteSocket
from overlaynet.model.addresses import Address, Family
from overlaynet.model.kernel import Sysctl
from overlaynet.model.network import HostGwOptions, NetworkConfig, UdpOptions, VxlanOptions

_TUN_DEVICE: Final = "/dev/net/tun"
_FAMILIES: Final[Mapping[Family, int]] = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class _Vxlan:
    """A VXLAN device, ours or not."""

    name: str
    vni: int
    port: int
    family: Family


async def check_obstacles(
    config: NetworkConfig, listen: Address, sysctls: Sequence[Sysctl] = (), namespace: str | None = None
) -> None:
    """Return if the backend of `config` and `sysctls` can be made here; `listen` is where the packet engine would.

    KernelError names what is in the way, or what is missing: another's link with our name, another's VXLAN device with the same
    VNI and port, a UDP port that is held, /dev/net/tun. KernelPermissionError: /dev/net/tun or /proc/sys must not be opened.
    """
    thread = NamespaceThread(namespace)
    try:
        connection = await RouteSocket.open(thread)
        try:
            views = [messages.read_link(record) for record in await connection.dump(Message("link"))]
        except OSError as error:
            raise as_kernel_error(error, "read", "links") from error
        finally:
            connection.close()
        _check_names(config, views)
        await thread.call(lambda: _check_sysctls(sysctls, link_names(config)))
        match config.backend:
            case VxlanOptions() as options:
                devices = [device for view in views if (device := _vxlan(view)) is not None]
                for half in config.families:
                    if options.mode == "kernel":
                        _check_vni(options, half.family, devices)
                    there = [device.name for device in devices if (device.port, device.family) == (options.port, half.family)]
                    # VXLAN devices share a port with one another, and with the packet engine once ours has made room for it.
                    if not (there and options.mode == "kernel") and not any(map(is_our_link, there)):
                        unspecified = "0.0.0.0" if half.family is Family.IPV4 else "::"  # noqa: S104  # as the device will
                        await thread.call(lambda: _check_port(half.family, unspecified, options.port, there))  # noqa: B023  # awaited here
                if options.mode == "user":
                    await thread.call(_check_tun)
            case UdpOptions() as options:
                await thread.call(_check_tun)
                await thread.call(lambda: _check_port(Family.of(listen), str(listen), options.port))
            case HostGwOptions():
                pass
            case _:
                assert_never(config.backend)
    finally:
        thread.close()


def _check_names(config: NetworkConfig, views: list[LinkView]) -> None:
    names = names_of(views)
    for view in views:
        if view.name in link_names(config) and messages.link_object(view, names) is None:
            why = f"a link of this name is there and is not overlaynet's (kind {view.kind or 'unknown'}): rename or remove it"
            raise KernelError(errno.EEXIST, "create", f"link {view.name}", why)


def _vxlan(view: LinkView) -> _Vxlan | None:
    if view.kind != "vxlan":
        return None
    data = view.data
    wide = any(data.find(name) not in (None, "::") for name in ("IFLA_VXLAN_LOCAL6", "IFLA_VXLAN_GROUP6"))
    family = Family.IPV6 if wide else Family.IPV4
    return _Vxlan(view.name, int(data.find("IFLA_VXLAN_ID", -1)), int(data.find("IFLA_VXLAN_PORT", 0)), family)


def _check_vni(options: VxlanOptions, family: Family, devices: list[_Vxlan]) -> None:
    """The kernel takes one device for each VNI, port and family (vxlan_vni_in_use in drivers/net/vxlan/vxlan_core.c)."""
    for device in devices:
        same = (device.vni, device.port, device.family) == (options.vni, options.port, family)
        if same and not is_our_link(device.name):
            raise KernelError(
                errno.EEXIST,
                "create",
                "the VXLAN device",
                f"link {device.name} has VNI {options.vni} on UDP port {options.port} already: stop what holds it and remove it, "
                "or give the network another Backend.VNI or Backend.Port",
            )


def _check_sysctls(wanted: Sequence[Sysctl], links: Sequence[str]) -> None:
    """In many containers /proc/sys is read-only, whatever rights they have. Opening a file of it to write changes nothing."""
    paths = [one.path for one in wanted if read_sysctl(one.path) not in (None, one.value)]
    if links:
        paths.append("ipv6/conf/default/addr_gen_mode")  # each link has its own
    for path in paths:
        try:
            os.close(os.open(f"/proc/sys/net/{path}", os.O_WRONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise as_kernel_error(error, "write", f"sysctl net/{path}") from None


def _check_port(family: Family, address: str, port: int, devices: Sequence[str] = ()) -> None:
    with socket.socket(_FAMILIES[family], socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        if family is Family.IPV6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            shown = f"[{address}]:{port}" if family is Family.IPV6 else f"{address}:{port}"
            if error.errno == errno.EADDRINUSE:
                held = "another program holds it: stop that (ss -ulpn shows it)"
                if devices:
                    held = f"link {devices[0]} holds it: remove that"
                why = f"{held}, or give the network another Backend.Port"
                raise KernelError(errno.EADDRINUSE, "open", f"UDP port {shown}", why) from None
            raise as_kernel_error(error, "open", f"UDP port {shown}") from None


def _check_tun() -> None:
    try:
        os.close(os.open(_TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise as_kernel_error(error, "open", _TUN_DEVICE) from None

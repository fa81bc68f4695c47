"""Between links and addresses and their rtnetlink messages, both ways; pure.

What is sent is what flannel sends where there is no reason for another choice (the same device attributes, permanent neighbour
and forwarding entries). What is read back is written exactly as a desired value would be, so that a comparison by value works.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from overlaynet.kernel.rtnetlink import Message, Record
from overlaynet.model.addresses import Address, Family, LinkIndex, MacAddress, Mtu, Vni
from overlaynet.model.kernel import (
    Link,
    LinkAddress,
    TunLink,
    VxlanLink,
)

AF_INET: Final = 2
AF_INET6: Final = 10
AF_BRIDGE: Final = 7
FAMILIES: Final[Mapping[Family, int]] = {Family.IPV4: AF_INET, Family.IPV6: AF_INET6}

TABLE_MAIN: Final = 254
SCOPE_UNIVERSE: Final = 0
RTN_UNICAST: Final = 1

IFF_UP: Final = 0x1
IFF_LOOPBACK: Final = 0x8
IFA_F_NODAD: Final = 0x02
NUD_PERMANENT: Final = 0x80
_TUN_TYPE_TUN: Final = 1
_TUN_TYPE_TAP: Final = 2

_ROOT: Final = 0xFFFFFFFF  # TC_H_ROOT, include/uapi/linux/pkt_sched.h
_NO_MAC: Final = MacAddress(bytes(6))


@dataclass(frozen=True, slots=True)
class LinkView:
    """A link as the kernel shows it. `kind` is empty for hardware; `below` is the index of the link under a VXLAN device."""

    index: LinkIndex
    name: str
    kind: str
    flags: int
    mtu: Mtu
    mac: MacAddress
    queue_length: int
    below: LinkIndex
    data: Record

    @property
    def up(self) -> bool:
        """Whether it is set up (not whether it has a carrier)."""
        return bool(self.flags & IFF_UP)


def no_queue_message(link: LinkIndex) -> Message:
    """The link's packets go to it at once, past any queueing discipline (net/sched/sch_generic.c, noqueue)."""
    return Message("qdisc", {"index": int(link), "parent": _ROOT}, (("TCA_KIND", "noqueue"),))


def read_link(record: Record) -> LinkView:
    """The link in an answer to RTM_GETLINK."""
    info = record.find("IFLA_LINKINFO")
    kind = info.find("IFLA_INFO_KIND", "") if isinstance(info, Record) else ""
    data = info.find("IFLA_INFO_DATA") if isinstance(info, Record) else None
    if not isinstance(data, Record):
        data = Record({})
    address = str(record.find("IFLA_ADDRESS") or "")
    return LinkView(
        index=LinkIndex(record["index"]),
        name=str(record.find("IFLA_IFNAME", "")),
        kind=kind,
        flags=record["flags"],
        mtu=Mtu(record.find("IFLA_MTU", 0)),
        mac=MacAddress.parse(address) if len(address) == 17 else _NO_MAC,
        queue_length=record.find("IFLA_TXQLEN", 0),
        below=LinkIndex(data.find("IFLA_VXLAN_LINK", 0)),
        data=data,
    )


def link_object(view: LinkView, names: Mapping[LinkIndex, str]) -> Link | None:
    """A link with one of our names as the value that would have made it; None if it is of a kind that we never make.

    What we would never ask for (no local address, no link below) shows as an unspecified address or an empty name.
    """
    if view.name in ("ovl-udp", "ovl-vxlan", "ovl-tap"):
        wanted = _TUN_TYPE_TAP if view.name == "ovl-tap" else _TUN_TYPE_TUN
        if view.kind != "tun" or view.data.find("IFLA_TUN_TYPE", wanted) != wanted:
            return None
        return TunLink(view.name, view.mtu, view.queue_length, view.up, ethernet=wanted == _TUN_TYPE_TAP)
    if view.kind != "vxlan":
        return None
    local = view.data.find("IFLA_VXLAN_LOCAL") or view.data.find("IFLA_VXLAN_LOCAL6") or "0.0.0.0"  # noqa: S104 - says "none"
    return VxlanLink(
        name=view.name,
        vni=Vni(view.data.find("IFLA_VXLAN_ID", 0)),
        underlay=names.get(view.below, ""),
        local=ip_address(local),
        port=view.data.find("IFLA_VXLAN_PORT", 0),
        mtu=view.mtu,
        mac=view.mac,
        learning=bool(view.data.find("IFLA_VXLAN_LEARNING", 0)),
        gbp="IFLA_VXLAN_GBP" in view.data.values,
        up=view.up,
    )


def vxlan_message(link: VxlanLink, below: LinkIndex) -> Message:
    """The request that makes the device, not yet up. The MAC is given at once, so that no other program sets one."""
    local = "IFLA_VXLAN_LOCAL" if isinstance(link.local, IPv4Address) else "IFLA_VXLAN_LOCAL6"
    data: tuple[tuple[str, object], ...] = (
        ("IFLA_VXLAN_ID", int(link.vni)),
        ("IFLA_VXLAN_LINK", int(below)),
        (local, str(link.local)),
        ("IFLA_VXLAN_TTL", 0),
        ("IFLA_VXLAN_TOS", 0),
        ("IFLA_VXLAN_LEARNING", int(link.learning)),
        ("IFLA_VXLAN_PORT", link.port),
    )
    if link.gbp:
        data = (*data, ("IFLA_VXLAN_GBP", None))
    return Message(
        "link",
        {},
        (
            ("IFLA_IFNAME", link.name),
            ("IFLA_MTU", int(link.mtu)),
            ("IFLA_ADDRESS", str(link.mac)),
            ("IFLA_LINKINFO", (("IFLA_INFO_KIND", "vxlan"), ("IFLA_INFO_DATA", data))),
        ),
    )


def address_message(item: LinkAddress, index: LinkIndex) -> Message:
    """The request for an address. IPv6 ones skip duplicate detection (RFC 4862 section 5.4): nobody else is on our links."""
    family = Family.of(item.address)
    return Message(
        "address",
        {
            "family": FAMILIES[family],
            "prefixlen": family.bits if item.length is None else item.length,
            "index": int(index),
            "scope": SCOPE_UNIVERSE,
            "flags": IFA_F_NODAD if family is Family.IPV6 else 0,
        },
        (("IFA_LOCAL", str(item.address)), ("IFA_ADDRESS", str(item.address))),
    )


def read_address(record: Record) -> Address:
    """The address in an answer to RTM_GETADDR (on a point-to-point link its near end)."""
    return ip_address(record.find("IFA_LOCAL") or record["IFA_ADDRESS"])


def link_address(record: Record, link: str) -> LinkAddress | None:
    """The address as ours; None for the kernel's own link-local ones."""
    address = read_address(record)
    if isinstance(address, IPv6Address) and address.is_link_local:
        return None
    length = record["prefixlen"]
    return LinkAddress(link, address, None if length == Family.of(address).bits else length)

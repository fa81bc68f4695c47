"""Between kernel objects and rtnetlink messages, both ways; pure.

What is sent is what flannel sends where there is no reason for another choice (the same device attributes, permanent neighbour
and forwarding entries). What is read back is written exactly as a desired value would be, so that a comparison by value works.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from overlaynet.kernel.rtnetlink import Message, Record
from overlaynet.model.addresses import Address, Family, LinkIndex, MacAddress, Mtu, Prefix, Vni
from overlaynet.model.kernel import (
    ROUTE_PROTOCOL,
    FdbEntry,
    Link,
    LinkAddress,
    Neighbour,
    Route,
    TunLink,
    VxlanLink,
)

AF_INET: Final = 2
AF_INET6: Final = 10
AF_BRIDGE: Final = 7
FAMILIES: Final[Mapping[Family, int]] = {Family.IPV4: AF_INET, Family.IPV6: AF_INET6}

TABLE_MAIN: Final = 254
SCOPE_UNIVERSE: Final = 0
SCOPE_LINK: Final = 253
SCOPE_NOWHERE: Final = 255
RTN_UNICAST: Final = 1
RTN_UNREACHABLE: Final = 7
RTNH_F_ONLINK: Final = 4
PROTOCOL_KERNEL: Final = 2

IFF_UP: Final = 0x1
IFF_LOOPBACK: Final = 0x8
IFA_F_NODAD: Final = 0x02
NUD_PERMANENT: Final = 0x80
NTF_SELF: Final = 0x02
_TUN_TYPE_TUN: Final = 1

_NO_MAC: Final = MacAddress(bytes(6))
_ROUTE_TYPES: Final = ("unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit")
_PROTOCOLS: Final[Mapping[int, str]] = {1: "redirect", 2: "kernel", 3: "boot", 4: "static", 9: "ra", 16: "dhcp", 186: "bgp"}


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
    if view.name == "ovl-udp":
        if view.kind != "tun" or view.data.find("IFLA_TUN_TYPE", _TUN_TYPE_TUN) != _TUN_TYPE_TUN:
            return None
        return TunLink(view.name, view.mtu, view.queue_length, view.up)
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


def neighbour_message(item: Neighbour, index: LinkIndex) -> Message:
    """The request for a permanent neighbour entry."""
    return Message(
        "neighbour",
        {"family": FAMILIES[Family.of(item.address)], "ifindex": int(index), "state": NUD_PERMANENT},
        (("NDA_DST", str(item.address)), ("NDA_LLADDR", str(item.mac))),
    )


def fdb_message(item: FdbEntry, index: LinkIndex) -> Message:
    """The request for a permanent forwarding entry of the device itself (NTF_SELF)."""
    return Message(
        "neighbour",
        {"family": AF_BRIDGE, "ifindex": int(index), "state": NUD_PERMANENT, "flags": NTF_SELF},
        (("NDA_LLADDR", str(item.mac)), ("NDA_DST", str(item.destination))),
    )


def route_message(item: Route, index: LinkIndex | None, *, delete: bool = False) -> Message:
    """The request for a route with our protocol number.

    To delete, the scope is left open, and protocol, link and gateway must match: somebody else's route in its place stays.
    """
    attributes: list[tuple[str, object]] = []
    if item.prefix.prefixlen:
        attributes.append(("RTA_DST", str(item.prefix.network_address)))
    if index is not None:
        attributes.append(("RTA_OIF", int(index)))
    if item.gateway is not None:
        attributes.append(("RTA_GATEWAY", str(item.gateway)))
    if item.metric:
        attributes.append(("RTA_PRIORITY", item.metric))
    if item.source is not None and not delete:
        attributes.append(("RTA_PREFSRC", str(item.source)))
    direct = item.type == "unicast" and item.gateway is None and item.prefix.version == 4
    return Message(
        "route",
        {
            "family": FAMILIES[Family.of(item.prefix)],
            "dst_len": item.prefix.prefixlen,
            "table": TABLE_MAIN,
            "proto": ROUTE_PROTOCOL,
            "scope": SCOPE_NOWHERE if delete else SCOPE_LINK if direct else SCOPE_UNIVERSE,
            "type": RTN_UNICAST if item.type == "unicast" else RTN_UNREACHABLE,
            "flags": RTNH_F_ONLINK if item.onlink and not delete else 0,
        },
        tuple(attributes),
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


def neighbour(record: Record, link: str) -> Neighbour | None:
    """The permanent neighbour entry in an answer, or None."""
    mac = record.find("NDA_LLADDR")
    if not record["state"] & NUD_PERMANENT or mac is None or record.find("NDA_DST") is None:
        return None
    return Neighbour(link, ip_address(record["NDA_DST"]), MacAddress.parse(mac))


def fdb_entry(record: Record, link: str) -> FdbEntry | None:
    """The permanent forwarding entry for one station in an answer, or None."""
    mac = record.find("NDA_LLADDR")
    if not record["state"] & NUD_PERMANENT or mac is None or record.find("NDA_DST") is None:
        return None
    entry = FdbEntry(link, MacAddress.parse(mac), ip_address(record["NDA_DST"]))
    return entry if entry.mac.is_unicast else None


def route_prefix(record: Record) -> Prefix:
    """The destination of the route in an answer to RTM_GETROUTE."""
    length = record["dst_len"]
    if record["family"] == AF_INET:
        return IPv4Network((record.find("RTA_DST", "0.0.0.0"), length))  # noqa: S104 - the default route's prefix
    return IPv6Network((record.find("RTA_DST", "::"), length))


def route(record: Record, names: Mapping[LinkIndex, str]) -> Route:
    """The route in an answer as a value; what we never make (several gateways, say) shows as a route without any."""
    unreachable = record["type"] == RTN_UNREACHABLE
    gateway = record.find("RTA_GATEWAY")
    source = record.find("RTA_PREFSRC")
    return Route(
        prefix=route_prefix(record),
        # IPv6 shows the loopback link for unreachable routes (net/ipv6/route.c, ip6_route_info_create).
        link=None if unreachable else names.get(LinkIndex(record.find("RTA_OIF", 0)), ""),
        gateway=None if gateway is None else ip_address(gateway),
        onlink=bool(record["flags"] & RTNH_F_ONLINK),
        metric=record.find("RTA_PRIORITY", 0),
        source=None if source is None else ip_address(source),
        type="unreachable" if unreachable else "unicast",
    )


def route_text(record: Record, names: Mapping[LinkIndex, str]) -> str:
    """The route in an answer as `ip route` prints it."""
    kind = record["type"]
    parts = [] if kind == RTN_UNICAST else [_ROUTE_TYPES[kind] if kind < len(_ROUTE_TYPES) else str(kind)]
    parts.append(str(route_prefix(record)))
    if record.find("RTA_GATEWAY") is not None:
        parts.append(f"via {record['RTA_GATEWAY']}")
    if record.find("RTA_OIF"):
        parts.append(f"dev {names.get(LinkIndex(record['RTA_OIF']), record['RTA_OIF'])}")
    parts.append(f"proto {_PROTOCOLS.get(record['proto'], record['proto'])}")
    if record.find("RTA_PREFSRC") is not None:
        parts.append(f"src {record['RTA_PREFSRC']}")
    if record.find("RTA_PRIORITY"):
        parts.append(f"metric {record['RTA_PRIORITY']}")
    return " ".join(parts)

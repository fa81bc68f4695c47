"""Kernel objects as values: what a host's kernel should hold, and what it was seen to hold.

Every object has a `key`, which says which object it is, and its fields, which say what it is like: two values with one key and
other fields are one object that has changed. Links are named, never numbered, since a link that is made again has a new index.
Those that come by the thousand make their keys once, and are hashed by them, which is cheaper and tells as much.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from overlaynet.model.addresses import Address, Family, LinkIndex, MacAddress, Mtu, Prefix, Vni

__all__ = [
    "NEXT_HOP_IDS",
    "ROUTE_PROTOCOL",
    "UNREACHABLE_METRIC",
    "Delete",
    "FdbEntry",
    "KernelObject",
    "Link",
    "LinkAddress",
    "Neighbour",
    "NextHop",
    "ObjectKind",
    "Observation",
    "Operation",
    "Put",
    "Route",
    "Scope",
    "Sysctl",
    "TunLink",
    "Underlay",
    "VxlanLink",
    "describe",
    "in_order",
    "route_key",
]

ROUTE_PROTOCOL = 79
"""The route protocol number (`rtm_protocol`) of every route that is ours."""

UNREACHABLE_METRIC = 1_048_576
"""The metric of the route that ends packets to subnets which nobody leases; any route of a peer is preferred to it."""


NEXT_HOP_IDS = range(0x4F00_0000, 0x5000_0000)
"""The numbers of the next hops that are ours."""


class ObjectKind(enum.IntEnum):
    """The kinds of kernel object in the order in which they are made; they are removed in reverse."""

    SYSCTL = 0
    LINK = 1
    ADDRESS = 2
    NEIGHBOUR = 3
    FDB = 4
    NEXT_HOP = 5
    ROUTE = 6

    # As the number that it equals; an enum's own is of its name, by a call of Python for each key that holds a kind.
    __hash__ = int.__hash__


def route_key(prefix: Prefix, metric: int) -> Hashable:
    """The key of a route. It is of plain numbers: hashing those of `ipaddress` costs more than all the rest of a comparison."""
    return (ObjectKind.ROUTE, prefix.version, int(prefix.network_address), prefix.prefixlen, metric)


@dataclass(frozen=True, slots=True)
class VxlanLink:
    """A kernel VXLAN device (RFC 7348; drivers/net/vxlan/vxlan_core.c), up, without learning unless asked for.

    `local` is the outer source address, `port` the UDP destination port; the MTU counts inner IP bytes. `underlay` is the name
    of the link below.
    """

    kind: ClassVar[ObjectKind] = ObjectKind.LINK
    name: str
    vni: Vni
    underlay: str
    local: Address
    port: int
    mtu: Mtu
    mac: MacAddress
    learning: bool = False
    gbp: bool = False
    up: bool = True

    @property
    def key(self) -> Hashable:
        """Links are known by name."""
        return (self.kind, self.name)


@dataclass(frozen=True, slots=True)
class TunLink:
    """A persistent TUN device, up, without packet information header (Documentation/networking/tuntap.rst).

    With `ethernet` it is a TAP device, which carries frames.
    """

    kind: ClassVar[ObjectKind] = ObjectKind.LINK
    name: str
    mtu: Mtu
    queue_length: int = 500
    up: bool = True
    ethernet: bool = False

    @property
    def key(self) -> Hashable:
        """Links are known by name."""
        return (self.kind, self.name)


Link: TypeAlias = VxlanLink | TunLink


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """An address on a link of ours: a host address (/32 or /128), or with `length` one of another prefix length.

    We never want the latter; they are seen so that they can be removed.
    """

    kind: ClassVar[ObjectKind] = ObjectKind.ADDRESS
    link: str
    address: Address
    length: int | None = None

    @property
    def key(self) -> Hashable:
        """An address is known by its link, itself and its prefix length."""
        return (self.kind, self.link, self.address, self.length)

    def __str__(self) -> str:
        return f"{self.address}/{Family.of(self.address).bits if self.length is None else self.length}"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent neighbour entry on a link of ours: the link-layer address of an IP address."""

    kind: ClassVar[ObjectKind] = ObjectKind.NEIGHBOUR
    link: str
    address: Address
    mac: MacAddress
    key: Hashable = field(init=False, repr=False, compare=False)
    """A neighbour is known by its link and IP address."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", (self.kind, self.link, self.address.version, int(self.address)))

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """A permanent forwarding entry of a VXLAN device of ours: frames to `mac` go to the VTEP at `destination`."""

    kind: ClassVar[ObjectKind] = ObjectKind.FDB
    link: str
    mac: MacAddress
    destination: Address
    key: Hashable = field(init=False, repr=False, compare=False)
    """A forwarding entry is known by its link and MAC address."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", (self.kind, self.link, self.mac.octets))

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True, slots=True)
class NextHop:
    """A next-hop object (Linux 5.3) with our protocol number: a gateway that is on the link whatever its addresses.

    Routes point to it by its number, one of `NEXT_HOP_IDS`. Each of thousands of routes over gateways of their own costs the
    kernel a search among all others (net/ipv4/fib_semantics.c, fib_find_info); a route over a next hop does not. It vanishes
    without a message when its link loses its carrier, so it is of use only on links that never do: VXLAN devices.
    """

    kind: ClassVar[ObjectKind] = ObjectKind.NEXT_HOP
    id: int
    link: str
    gateway: Address
    key: Hashable = field(init=False, repr=False, compare=False)
    """Next hops are known by number."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", (self.kind, self.id))

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True, slots=True)
class Route:
    """A route in the main table with our protocol number.

    `link` is None only for an unreachable route. `onlink` takes the gateway for reachable on the link whatever its addresses
    (RTNH_F_ONLINK). `source` is the preferred source address of packets that this host itself sends. `next_hop` is the number
    of the next hop, which then stands in the place of the gateway; its link is the route's.
    """

    kind: ClassVar[ObjectKind] = ObjectKind.ROUTE
    prefix: Prefix
    link: str | None
    gateway: Address | None = None
    onlink: bool = False
    metric: int = 0
    source: Address | None = None
    type: Literal["unicast", "unreachable"] = "unicast"
    next_hop: int | None = None
    key: Hashable = field(init=False, repr=False, compare=False)
    """A route is known by its prefix and metric (the kernel's own notion within a table and type of service).

    IPv6 routes without a metric get 1024 from the kernel (include/uapi/linux/ipv6_route.h, IP6_RT_PRIO_USER), so desired
    IPv6 routes always carry a metric.
    """

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", route_key(self.prefix, self.metric))

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A value below /proc/sys/net. Sysctls of a link vanish with it; others are set and never taken back."""

    kind: ClassVar[ObjectKind] = ObjectKind.SYSCTL
    path: str
    value: str
    link: str | None = None

    @property
    def key(self) -> Hashable:
        """A sysctl is known by its path, such as `ipv4/ip_forward`."""
        return (self.kind, self.path)


KernelObject: TypeAlias = VxlanLink | TunLink | LinkAddress | Neighbour | FdbEntry | NextHop | Route | Sysctl


@dataclass(frozen=True, slots=True)
class Underlay:
    """The link that carries encapsulated packets, as the kernel shows it.

    `onlink` are the prefixes that main-table routes without a gateway reach through this link, `addresses` the link's own, and
    `usable` those of them to send from that reach beyond the link, the best first.
    """

    link: str
    index: LinkIndex
    mtu: Mtu
    up: bool
    addresses: tuple[Address, ...] = ()
    onlink: tuple[Prefix, ...] = ()
    usable: tuple[Address, ...] = ()

    def reaches_directly(self, address: Address) -> bool:
        """Whether `address` is a neighbour on this link, so that no router stands between."""
        return any(Family.of(prefix) is Family.of(address) and address in prefix for prefix in self.onlink)


@dataclass(frozen=True, slots=True)
class Scope:
    """What may be ours in a kernel: the names of our links, and the networks inside which our routes lie.

    Routes count as ours only with our protocol number in the main table, and only on our links or inside `networks`. Without
    `ours` nothing is: only the underlay is looked at.
    """

    underlay: str
    networks: tuple[Prefix, ...] = ()
    sysctls: tuple[str, ...] = ()
    ours: bool = True


@dataclass(frozen=True, slots=True)
class Observation:
    """What the kernel held at one moment: what is ours, what is foreign and in the way, and the underlay.

    `foreign` maps the key of an object that we might want to a text that shows somebody else's entry there: a route of another
    protocol at the same prefix and metric, a link of another kind with our name. Links with our names count as ours whatever is
    desired, so that stale ones can be removed. `warnings` are settings that would drop the overlay's packets.
    """

    objects: frozenset[KernelObject]
    underlay: Underlay | None
    foreign: tuple[tuple[Hashable, str], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Put:
    """Make `object` exist as given.

    `replaces` is the object that was seen with the same key, or None to create exclusively (NLM_F_EXCL).
    """

    object: KernelObject
    replaces: KernelObject | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove `object`, which was seen as ours."""

    object: KernelObject


Operation: TypeAlias = Put | Delete


def describe(item: KernelObject) -> str:
    """One line in the words of iproute2 that names the object, for messages and golden texts."""
    match item:
        case VxlanLink():
            flags = (" gbp" if item.gbp else "") + (" learning" if item.learning else " nolearning")
            return (
                f"link {item.name} vxlan id {item.vni} local {item.local} dev {item.underlay} "
                f"dstport {item.port}{flags} mtu {item.mtu} address {item.mac}{'' if item.up else ' down'}"
            )
        case TunLink():
            kind = "tap" if item.ethernet else "tun"
            return f"link {item.name} {kind} mtu {item.mtu} txqueuelen {item.queue_length}{'' if item.up else ' down'}"
        case LinkAddress():
            return f"address {item} dev {item.link}"
        case Neighbour():
            return f"neighbour {item.address} lladdr {item.mac} dev {item.link} permanent"
        case FdbEntry():
            return f"fdb {item.mac} dst {item.destination} dev {item.link} self permanent"
        case NextHop():
            return f"nexthop id {item.id} via {item.gateway} dev {item.link} onlink"
        case Route():
            parts = [f"route {'unreachable ' if item.type == 'unreachable' else ''}{item.prefix}"]
            if item.next_hop is not None:
                parts.append(f"nhid {item.next_hop}")
            if item.gateway is not None:
                parts.append(f"via {item.gateway}")
            if item.link is not None:
                parts.append(f"dev {item.link}")
            if item.source is not None:
                parts.append(f"src {item.source}")
            if item.metric:
                parts.append(f"metric {item.metric}")
            if item.onlink:
                parts.append("onlink")
            return " ".join(parts)
        case Sysctl():
            return f"sysctl net/{item.path} = {item.value}"


def in_order(items: Iterable[KernelObject]) -> list[KernelObject]:
    """The objects in the order in which they can be made: by kind, then by their text."""
    return sorted(items, key=lambda item: (item.kind, describe(item)))

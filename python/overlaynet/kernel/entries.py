"""Between kernel objects that come by the thousand and the fields of their netlink messages, both ways; pure.

These are neighbours, forwarding entries, next hops and routes. What is sent is what flannel sends where there is no reason for
another choice. What is read back is written exactly as a desired value would be, so that a comparison by value works. Fields are
tuples in the order that `overlaynet._core` documents: numbers as the kernel has them, addresses packed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Final, TypeAlias, assert_never

from overlaynet.kernel.messages import AF_BRIDGE, AF_INET, AF_INET6, NUD_PERMANENT, TABLE_MAIN
from overlaynet.model.addresses import Address, LinkIndex, MacAddress, Prefix
from overlaynet.model.kernel import (
    NEXT_HOP_IDS,
    ROUTE_PROTOCOL,
    Delete,
    FdbEntry,
    KernelObject,
    Neighbour,
    NextHop,
    ObjectKind,
    Operation,
    Route,
)

Fields: TypeAlias = tuple[Any, ...]
"""A message's fields: of a route (`destination` and so on, below), a neighbour or a next hop."""

Entry: TypeAlias = Neighbour | FdbEntry | NextHop | Route
"""An object of a kind that is written in batches."""

RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_GETROUTE: Final = 26
RTM_NEWNEIGH: Final = 28
RTM_DELNEIGH: Final = 29
RTM_GETNEIGH: Final = 30
RTM_NEWNEXTHOP: Final = 104
RTM_DELNEXTHOP: Final = 105
RTM_GETNEXTHOP: Final = 106

_CREATE: Final = 0x400 | 0x200  # NLM_F_CREATE | NLM_F_EXCL
_REPLACE: Final = 0x400 | 0x100  # NLM_F_CREATE | NLM_F_REPLACE

RTN_UNICAST: Final = 1
RTN_UNREACHABLE: Final = 7
_SCOPE_UNIVERSE: Final = 0
_SCOPE_LINK: Final = 253
_SCOPE_NOWHERE: Final = 255
_RTNH_F_ONLINK: Final = 4
_NTF_SELF: Final = 0x02

_ROUTE_TYPES: Final = ("unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit")
_PROTOCOLS: Final[Mapping[int, str]] = {1: "redirect", 2: "kernel", 3: "boot", 4: "static", 9: "ra", 16: "dhcp", 186: "bgp"}


def request(operation: Operation, item: Entry, index_of: Callable[[str], LinkIndex]) -> tuple[int, int, Fields]:
    """Kind, flags and fields of the request that carries the operation on `item` out.

    To delete a route, the scope is left open, and protocol, link, gateway and next hop must match: somebody else's route in its
    place stays. OSError: as `index_of` raises it.
    """
    delete = isinstance(operation, Delete)
    flags = 0 if isinstance(operation, Delete) else _CREATE if operation.replaces is None else _REPLACE
    match item:
        case Neighbour():
            address = item.address
            family = AF_INET if address.version == 4 else AF_INET6
            fields: Fields = (family, index_of(item.link), NUD_PERMANENT, 0, address.packed, item.mac.octets)
            return RTM_DELNEIGH if delete else RTM_NEWNEIGH, flags, fields
        case FdbEntry():
            fields = (AF_BRIDGE, index_of(item.link), NUD_PERMANENT, _NTF_SELF, item.destination.packed, item.mac.octets)
            return RTM_DELNEIGH if delete else RTM_NEWNEIGH, flags, fields
        case NextHop():
            if delete:
                return RTM_DELNEXTHOP, flags, (item.id, 0, 0, 0, 0, None)
            family = AF_INET if item.gateway.version == 4 else AF_INET6
            fields = (item.id, family, ROUTE_PROTOCOL, _RTNH_F_ONLINK, index_of(item.link), item.gateway.packed)
            return RTM_NEWNEXTHOP, flags, fields
        case Route():
            hop = item.next_hop or 0
            direct = item.type == "unicast" and item.gateway is None and not hop and item.prefix.version == 4
            fields = (
                item.prefix.network_address.packed,
                item.prefix.prefixlen,
                TABLE_MAIN,
                ROUTE_PROTOCOL,
                _SCOPE_NOWHERE if delete else _SCOPE_LINK if direct else _SCOPE_UNIVERSE,
                RTN_UNICAST if item.type == "unicast" else RTN_UNREACHABLE,
                _RTNH_F_ONLINK if item.onlink and not delete else 0,
                # The next hop stands for the link too: the kernel takes one or the other.
                0 if item.link is None or hop else index_of(item.link),
                None if item.gateway is None else item.gateway.packed,
                item.metric,
                None if item.source is None or delete else item.source.packed,
                hop,
            )
            return RTM_DELROUTE if delete else RTM_NEWROUTE, flags, fields
        case _:
            assert_never(item)


def neighbour_at(kind: int, flags: int, fields: Fields) -> tuple[int, int, bytes] | None:  # noqa: ARG001 - a request's parts
    """Family, link and packed address of the neighbour that a request makes; None for any other request."""
    if kind != RTM_NEWNEIGH or fields[0] == AF_BRIDGE:
        return None
    return fields[0], fields[1], fields[4]


def places(requests: Iterable[tuple[int, int, Fields]]) -> Iterator[tuple[tuple[int, bytes], bytes | None]]:
    """Link and address of each neighbour and forwarding entry that is written, with where it leads; None where it is deleted.

    The address is an IP address with a MAC address for its end, or a MAC address with an IP address for its.
    """
    for kind, _, fields in requests:
        if kind in (RTM_NEWNEIGH, RTM_DELNEIGH):
            address, end = (fields[5], fields[4]) if fields[0] == AF_BRIDGE else (fields[4], fields[5])
            yield (fields[1], address), end if kind == RTM_NEWNEIGH else None


def passing(found: Iterable[Fields]) -> set[bytes]:
    """The packed addresses of the neighbours that are not permanent: the kernel made them and lets them go."""
    return {fields[4] for fields in found if not fields[2] & NUD_PERMANENT}


def replacing(request: tuple[int, int, Fields]) -> tuple[int, int, Fields]:
    """The request, to be carried out over what is there."""
    kind, _, fields = request
    return kind, _REPLACE, fields


class Values:
    """Where tables are read: one value for each that is named twice, and those that are `expected`, by their keys.

    Ten thousand peers are known without making a value of any: an entry is compared with the expected one field by field, as the
    kernel shows them. Nothing is taken for what it is not; what differs is read in full.
    """

    def __init__(self, expected: Mapping[Hashable, KernelObject]) -> None:
        self.address: Callable[[bytes], Address] = cache(address)
        self.mac: Callable[[bytes], MacAddress] = cache(MacAddress)
        self._expected = expected

    def expects(self, item: KernelObject | None) -> bool:
        """Whether this very value is an expected one, which will be found again and need not be remembered."""
        return item is not None and self._expected.get(item.key) is item

    def expected_neighbour(self, link: str, packed: bytes, mac: bytes) -> Neighbour | None:
        """The expected neighbour that reads so, or None."""
        key = (ObjectKind.NEIGHBOUR, link, 4 if len(packed) == 4 else 6, int.from_bytes(packed, "big"))
        there = self._expected.get(key)
        return there if isinstance(there, Neighbour) and there.mac.octets == mac else None

    def expected_fdb_entry(self, link: str, mac: bytes, packed: bytes) -> FdbEntry | None:
        """The expected forwarding entry that reads so, or None."""
        there = self._expected.get((ObjectKind.FDB, link, mac))
        return there if isinstance(there, FdbEntry) and there.destination.packed == packed else None

    def expected_next_hop(self, number: int, link: str, packed: bytes) -> NextHop | None:
        """The expected next hop that reads so, or None."""
        there = self._expected.get((ObjectKind.NEXT_HOP, number))
        return there if isinstance(there, NextHop) and there.link == link and there.gateway.packed == packed else None

    def expected_route(self, fields: Fields, names: Mapping[LinkIndex, str]) -> Route | None:
        """The expected route over a next hop that reads so, or None."""
        destination, length, _, protocol, _, action, _, link, _, metric, source, hop, _ = fields
        if not hop or protocol != ROUTE_PROTOCOL or action != RTN_UNICAST or source is not None:
            return None
        version = 4 if len(destination) == 4 else 6
        there = self._expected.get((ObjectKind.ROUTE, version, int.from_bytes(destination, "big"), length, metric))
        if (
            isinstance(there, Route)
            and there.next_hop == hop
            and there.link == names.get(link)
            and there.source is None
            and there.gateway is None
            and not there.onlink
            and there.type == "unicast"
        ):
            return there
        return None


def neighbour(fields: Fields, link: str, values: Values) -> Neighbour | None:
    """The permanent neighbour entry in a dump, or None."""
    _, _, state, _, destination, mac = fields
    if not state & NUD_PERMANENT or destination is None or mac is None:
        return None
    there = values.expected_neighbour(link, destination, mac)
    return Neighbour(link, values.address(destination), values.mac(mac)) if there is None else there


def fdb_entry(fields: Fields, link: str, values: Values) -> FdbEntry | None:
    """The permanent forwarding entry for one station in a dump, or None."""
    _, _, state, _, destination, mac = fields
    if not state & NUD_PERMANENT or destination is None or mac is None:
        return None
    if (there := values.expected_fdb_entry(link, mac, destination)) is not None:
        return there
    station = values.mac(mac)
    return FdbEntry(link, station, values.address(destination)) if station.is_unicast else None


def next_hop(fields: Fields, ours: Mapping[LinkIndex, str], values: Values) -> NextHop | tuple[Hashable, str] | None:
    """The next hop in a dump: ours (on one of `ours`), somebody else's with a number of ours (its key and text), or another."""
    number, _, protocol, flags, link, gateway, other = fields
    if number not in NEXT_HOP_IDS:
        return None
    if protocol == ROUTE_PROTOCOL and LinkIndex(link) in ours and gateway is not None and not other and flags & _RTNH_F_ONLINK:
        name = ours[LinkIndex(link)]
        there = values.expected_next_hop(number, name, gateway)
        return NextHop(number, name, values.address(gateway)) if there is None else there
    parts = [f"nexthop id {number}"]
    if gateway is not None:
        parts.append(f"via {address(gateway)}")
    if link:
        parts.append(f"dev {ours.get(LinkIndex(link), link)}")
    parts.append(f"proto {_PROTOCOLS.get(protocol, protocol)}")
    return (ObjectKind.NEXT_HOP, number), " ".join(parts)


def route_prefix(fields: Fields) -> Prefix:
    """The destination of a route."""
    return _network(fields[0], fields[1])


def is_ours(fields: Fields) -> bool:
    """Whether a route is of our protocol and of a type that we make."""
    return fields[3] == ROUTE_PROTOCOL and fields[5] in (RTN_UNICAST, RTN_UNREACHABLE)


def onlink_prefix(fields: Fields, link: LinkIndex) -> Prefix | None:
    """The prefix that a route without a gateway reaches through the link; None for any other route."""
    plain = fields[5] == RTN_UNICAST and fields[7] == link and fields[8] is None and not fields[12]
    return route_prefix(fields) if plain and fields[1] > 0 else None


def is_default(fields: Fields) -> bool:
    """Whether a route leads everywhere else, over one link."""
    return fields[1] == 0 and fields[5] == RTN_UNICAST and bool(fields[7])


def route_link(fields: Fields) -> LinkIndex:
    """The link of a route, or 0."""
    return LinkIndex(fields[7])


def route_metric(fields: Fields) -> int:
    """The metric of a route."""
    return int(fields[9])


def route(fields: Fields, prefix: Prefix, names: Mapping[LinkIndex, str], values: Values) -> Route:
    """The route to `prefix` in a dump as a value; what we never make (several gateways, say) shows as a route without any."""
    _, _, _, _, _, action, flags, link, gateway, metric, source, hop, _ = fields
    unreachable = action == RTN_UNREACHABLE
    return Route(
        prefix=prefix,
        # IPv6 shows the loopback link for unreachable routes (net/ipv6/route.c, ip6_route_info_create).
        link=None if unreachable else names.get(LinkIndex(link), ""),
        # For programs that know no next hops the kernel repeats what they stand for, unless told not to (nexthop_compat_mode).
        gateway=None if gateway is None or hop else values.address(gateway),
        onlink=bool(flags & _RTNH_F_ONLINK) and not hop,
        metric=metric,
        source=None if source is None else values.address(source),
        type="unreachable" if unreachable else "unicast",
        next_hop=hop or None,
    )


def route_text(fields: Fields, names: Mapping[LinkIndex, str]) -> str:
    """The route in a dump as `ip route` prints it."""
    _, _, _, protocol, _, action, _, link, gateway, metric, source, _, _ = fields
    parts = [] if action == RTN_UNICAST else [_ROUTE_TYPES[action] if action < len(_ROUTE_TYPES) else str(action)]
    parts.append(str(route_prefix(fields)))
    if gateway is not None:
        parts.append(f"via {address(gateway)}")
    if link:
        parts.append(f"dev {names.get(LinkIndex(link), link)}")
    parts.append(f"proto {_PROTOCOLS.get(protocol, protocol)}")
    if source is not None:
        parts.append(f"src {address(source)}")
    if metric:
        parts.append(f"metric {metric}")
    return " ".join(parts)


def address(packed: bytes) -> Address:
    """The address in 4 or 16 bytes."""
    number = int.from_bytes(packed, "big")
    return IPv4Address(number) if len(packed) == 4 else IPv6Address(number)


def _network(packed: bytes, length: int) -> Prefix:
    number = int.from_bytes(packed, "big")
    return IPv4Network((number, length)) if len(packed) == 4 else IPv6Network((number, length))

"""The state of a kernel in memory, and how it changes: the refusals and the silent deletions of the real one.

Each rule that surprises names the place in the kernel's source that makes it so; the contract tests check them all.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable, Container, Hashable, MutableMapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import TypeVar, assert_never

from overlaynet.kernel.route_table import RouteTable
from overlaynet.model.addresses import Address, Family, LinkIndex, Mtu, Prefix
from overlaynet.model.kernel import (
    FdbEntry,
    KernelObject,
    Link,
    LinkAddress,
    Neighbour,
    NextHop,
    ObjectKind,
    Route,
    Sysctl,
    TunLink,
    Underlay,
    VxlanLink,
)

_T = TypeVar("_T", LinkAddress, Neighbour, FdbEntry, NextHop, Route)

SYSCTLS = (
    ("ipv4/ip_forward", "0"),
    ("ipv6/conf/all/forwarding", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
)
_LINK_SYSCTLS = (
    ("ipv4/conf/{}/rp_filter", "0"),
    ("ipv4/conf/{}/forwarding", "0"),
    ("ipv4/conf/{}/accept_local", "0"),
    ("ipv6/conf/{}/accept_ra", "1"),
    ("ipv6/conf/{}/addr_gen_mode", "1"),
)


class RefusedError(Exception):
    """The kernel's answer to an operation that it does not carry out."""

    def __init__(self, number: int, detail: str = "") -> None:
        super().__init__(number, detail)
        self.number = number
        self.detail = detail


@dataclass(slots=True)
class Lower:
    """A link that is not ours: an underlay, or one of another kind with one of our names."""

    index: LinkIndex
    mtu: Mtu
    up: bool
    kind: str
    addresses: list[tuple[Address, int]] = field(default_factory=list)


class Tables:
    """Links, addresses, neighbours, forwarding entries, routes and sysctls. `lost` is called when something went by itself."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self.lower: dict[str, Lower] = {}
        self.links: dict[str, Link] = {}
        self.addresses: dict[Hashable, LinkAddress] = {}
        self.neighbours: dict[Hashable, Neighbour] = {}
        self.fdb: dict[Hashable, FdbEntry] = {}
        self.next_hops: dict[Hashable, NextHop] = {}
        self.foreign_next_hops: dict[Hashable, str] = {}
        self.routes = RouteTable()
        self.foreign_routes: dict[Hashable, tuple[Route, str]] = {}
        self.sysctls: dict[str, str] = dict(SYSCTLS)
        self._lost = lost
        self._indices = 1

    def put(self, item: KernelObject, replaces: bool) -> None:
        """Make the object; without `replaces` only if nothing is there. RefusedError: the kernel would refuse it."""
        match item:
            case VxlanLink() | TunLink():
                self._put_link(item, replaces)
            case LinkAddress():
                self._require_link(item.link)
                _require_new(item, self.addresses, replaces)
                if Family.of(item.address) is Family.IPV6 and not replaces:
                    # IPv6 knows an address on a link once, whatever its prefix length (net/ipv6/addrconf.c, ipv6_add_addr).
                    for other in self.addresses.values():
                        if (other.link, other.address) == (item.link, item.address):
                            raise RefusedError(errno.EEXIST)
                self.addresses[item.key] = item
            case Neighbour():
                self._require_link(item.link)
                _require_new(item, self.neighbours, replaces)
                self.neighbours[item.key] = item
            case FdbEntry():
                self._require_fdb_link(item)
                _require_new(item, self.fdb, replaces)
                self.fdb[item.key] = item
            case NextHop():
                self._put_next_hop(item, replaces)
            case Route():
                self._put_route(item, replaces)
            case Sysctl():
                if item.path not in self.sysctls:
                    raise RefusedError(errno.ENOENT, f"/proc/sys/net/{item.path} is missing")
                self.sysctls[item.path] = item.value
            case _:
                assert_never(item)

    def delete(self, item: KernelObject) -> None:
        """Remove the object; what is gone already is no error."""
        match item:
            case VxlanLink() | TunLink():
                self._require_our_link(item.name)
                if item.name in self.links:
                    self._drop_link(item.name)
                    self._lost()
            case LinkAddress():
                if self.addresses.pop(item.key, None) is not None:
                    self._lost_address(item)
            case Neighbour():
                self.neighbours.pop(item.key, None)
            case FdbEntry():
                there = self.fdb.get(item.key)
                # The kernel looks for this destination, and finds none if it is another (drivers/net/vxlan, vxlan_fdb_delete).
                if there is not None and there.destination == item.destination:
                    del self.fdb[item.key]
            case NextHop():
                if self.next_hops.pop(item.key, None) is not None:
                    # Its routes go with it, silently (net/ipv4/nexthop.c, remove_nexthop).
                    if self.routes.over[item.id]:
                        _drop(self.routes, lambda route: route.next_hop == item.id)
                    del self.routes.over[item.id]
                    self._lost()
            case Route():
                there_route = self.routes.get(item.key)
                if there_route is not None and _way(there_route) == _way(item):
                    del self.routes[item.key]
            case Sysctl():
                pass
            case _:
                assert_never(item)

    def _put_link(self, item: Link, replaces: bool) -> None:
        self._require_our_link(item.name)
        there = self.links.get(item.name)
        if there is not None and not replaces:
            raise RefusedError(errno.EEXIST)
        if there is not None and _changes_in_place(there, item):
            self._require_mtu(item)
            self.links[item.name] = item
            if isinstance(there, VxlanLink) and isinstance(item, VxlanLink) and there.mac != item.mac:
                # Another link-layer address ends every neighbour entry (net/core/neighbour.c, neigh_changeaddr).
                _drop(self.neighbours, lambda entry: entry.link == item.name)
                self._lost()
            if there.up and not item.up:
                self._went_down(item.name)
            return
        if there is not None:
            self._drop_link(item.name)
            self._lost()
        if isinstance(item, VxlanLink):
            self._require_vxlan(item)
        self.links[item.name] = item
        self._indices += 1
        self._add_link_sysctls(item.name)
        if isinstance(item, VxlanLink) and item.mtu > self._largest_mtu(item):
            # The real kernel makes the device with the largest MTU that fits and then refuses to raise it.
            self.links[item.name] = dataclasses.replace(item, mtu=self._largest_mtu(item), up=False)
            raise RefusedError(errno.EINVAL, f"MTU {item.mtu} is more than the link below can carry, or too little")

    def _require_vxlan(self, item: VxlanLink) -> None:
        if item.underlay not in self.lower:
            raise RefusedError(errno.ENODEV, f"there is no link {item.underlay}")
        for other in self.links.values():
            if not isinstance(other, VxlanLink):
                continue
            same = (other.vni, other.port, other.local.version, other.gbp) == (item.vni, item.port, item.local.version, item.gbp)
            if same and other.name != item.name:
                raise RefusedError(errno.EEXIST, f"link {other.name} has VNI {item.vni} on UDP port {item.port} already")

    def _require_mtu(self, item: Link) -> None:
        if isinstance(item, VxlanLink) and item.mtu > self._largest_mtu(item):
            raise RefusedError(errno.EINVAL, f"MTU {item.mtu} is more than the link below can carry, or too little")

    def _largest_mtu(self, item: VxlanLink) -> Mtu:
        # Outer IP header, UDP, VXLAN and inner Ethernet header (include/net/vxlan.h, VXLAN_HEADROOM, VXLAN6_HEADROOM).
        return Mtu(self.lower[item.underlay].mtu - (50 if item.local.version == 4 else 70))

    def _put_next_hop(self, item: NextHop, replaces: bool) -> None:
        self._require_link(item.link)
        if not self.links[item.link].up:
            raise RefusedError(errno.ENETDOWN, "Nexthop device is not up")
        if not replaces and (item.key in self.next_hops or item.key in self.foreign_next_hops):
            raise RefusedError(errno.EEXIST)
        self.foreign_next_hops.pop(item.key, None)
        self.next_hops[item.key] = item

    def _put_route(self, item: Route, replaces: bool) -> None:
        if item.type == "unicast":
            self._require_reachable(item)
        if item.source is not None and not self._is_local(item.source):
            raise RefusedError(errno.EINVAL, "Invalid prefsrc address")
        if not replaces and (item.key in self.foreign_routes or item.key in self.routes):
            raise RefusedError(errno.EEXIST)
        # As the real one, a replacement takes whatever stands there: whoever asks for it must have seen that it is ours.
        self.foreign_routes.pop(item.key, None)
        self.routes[item.key] = item

    def _require_reachable(self, item: Route) -> None:
        if item.next_hop is not None:
            key = (ObjectKind.NEXT_HOP, item.next_hop)
            if key not in self.next_hops and key not in self.foreign_next_hops:
                raise RefusedError(errno.EINVAL, "Nexthop id does not exist")
            return
        name = item.link
        if name is None or (name not in self.links and name not in self.lower):
            raise RefusedError(errno.ENODEV, f"there is no link {name}")
        up = self.links[name].up if name in self.links else self.lower[name].up
        if item.gateway is None or item.onlink:
            if not up:
                raise RefusedError(errno.ENETDOWN)
            return
        lower = self.lower.get(name)
        near = [] if lower is None or not up else [_prefix(*entry) for entry in lower.addresses]
        if not any(Family.of(prefix) is Family.of(item.gateway) and item.gateway in prefix for prefix in near):
            unreachable = errno.ENETUNREACH if item.prefix.version == 4 else errno.EHOSTUNREACH
            raise RefusedError(unreachable, "the gateway is not a neighbour on that link")

    def _is_local(self, address: Address) -> bool:
        return any(entry.address == address for entry in self.addresses.values()) or any(
            own == address for lower in self.lower.values() for own, _ in lower.addresses
        )

    def _require_link(self, name: str) -> None:
        if name not in self.links:
            raise RefusedError(errno.ENODEV, f"there is no link {name}")

    def _require_our_link(self, name: str) -> None:
        lower = self.lower.get(name)
        if lower is not None:
            raise RefusedError(errno.EEXIST, f"link {name} is of kind {lower.kind}, not ours")

    def _require_fdb_link(self, item: FdbEntry) -> None:
        self._require_link(item.link)
        link = self.links[item.link]
        if isinstance(link, TunLink):
            raise RefusedError(errno.EOPNOTSUPP)
        if link.local.version != item.destination.version:
            raise RefusedError(errno.EAFNOSUPPORT)

    def _drop_link(self, name: str) -> None:
        del self.links[name]
        _drop(self.addresses, lambda entry: entry.link == name)
        _drop(self.neighbours, lambda entry: entry.link == name)
        _drop(self.fdb, lambda entry: entry.link == name)
        _drop(self.next_hops, lambda hop: hop.link == name)
        _drop(self.routes, lambda route: route.link == name)
        self._drop_link_sysctls(name)

    def _went_down(self, name: str) -> None:
        """Routes and neighbours go, and IPv6 addresses; IPv4 addresses and permanent forwarding entries stay."""
        _drop(self.next_hops, lambda hop: hop.link == name)
        _drop(self.routes, lambda route: route.link == name)
        _drop(self.neighbours, lambda entry: entry.link == name)
        _drop(self.addresses, lambda entry: entry.link == name and Family.of(entry.address) is Family.IPV6)
        self._lost()

    def _lost_address(self, item: LinkAddress) -> None:
        family = Family.of(item.address)
        left = [entry for entry in self.addresses.values() if entry.link == item.link and Family.of(entry.address) is family]
        if family is Family.IPV4:
            # Without its last IPv4 address a link is disabled for IPv4 (net/ipv4/fib_frontend.c, fib_inetaddr_event).
            if not left:
                # Routes over next-hop objects are not among those that it looks at.
                _drop(
                    self.routes,
                    lambda route: route.link == item.link and route.next_hop is None and Family.of(route.prefix) is family,
                )
                _drop(self.neighbours, lambda entry: entry.link == item.link and Family.of(entry.address) is family)
            if not self._is_local(item.address):
                _drop(self.routes, lambda route: route.source == item.address)
        elif not self._is_local(item.address):
            # IPv6 keeps the route and forgets the source (net/ipv6/route.c, fib6_remove_prefsrc).
            for key, route in self.routes.items():
                if route.source == item.address:
                    self.routes[key] = dataclasses.replace(route, source=None)
        self._lost()

    def remove_link(self, name: str) -> None:
        """Take a link away. With one that is not ours go the routes over it, and the VXLAN devices."""
        if name in self.links:
            self._drop_link(name)
            return
        for link in [link for link in self.links.values() if isinstance(link, VxlanLink) and link.underlay == name]:
            self._drop_link(link.name)
        del self.lower[name]
        self._drop_link_sysctls(name)
        _drop(self.routes, lambda route: route.link == name)

    def change_lower(self, name: str, up: bool | None, mtu: int | None) -> None:
        """Set a link that is not ours up or down, or its MTU."""
        lower = self.lower[name]
        lower.mtu = lower.mtu if mtu is None else Mtu(mtu)
        if up is not None and up != lower.up:
            lower.up = up
            if not up:
                _drop(self.routes, lambda route: route.link == name)

    def readdress_lower(self, name: str, addresses: list[tuple[Address, int]]) -> None:
        """Give a link that is not ours other addresses."""
        self.lower[name].addresses = addresses

    def change_link(self, name: str, up: bool | None, mtu: int | None) -> None:
        """Set a link of ours up or down, or its MTU."""
        link = self.links[name]
        changed = dataclasses.replace(link, up=link.up if up is None else up, mtu=link.mtu if mtu is None else Mtu(mtu))
        self.links[name] = changed
        if link.up and not changed.up:
            self._went_down(name)

    def underlay(self, name: str) -> Underlay | None:
        """The link as an underlay, or None if it is not there."""
        lower = self.lower.get(name)
        if lower is None:
            return None
        prefixes = dict.fromkeys(_prefix(address, length) for address, length in lower.addresses if lower.up)
        return Underlay(
            link=name,
            index=lower.index,
            mtu=lower.mtu,
            up=lower.up,
            addresses=tuple(address for address, _ in lower.addresses),
            onlink=tuple(prefix for prefix in prefixes if not prefix.is_link_local),
            usable=tuple(address for address, _ in lower.addresses if not address.is_link_local),
        )

    def add_lower(self, name: str, kind: str, mtu: int, up: bool, addresses: list[tuple[Address, int]]) -> None:
        """Put a link there that is not ours."""
        self._indices += 1
        self.lower[name] = Lower(LinkIndex(self._indices), Mtu(mtu), up, kind, addresses)
        self._add_link_sysctls(name)

    def _add_link_sysctls(self, name: str) -> None:
        self.sysctls.update({path.format(name): value for path, value in _LINK_SYSCTLS})

    def _drop_link_sysctls(self, name: str) -> None:
        for path, _ in _LINK_SYSCTLS:
            self.sysctls.pop(path.format(name), None)


def _require_new(item: KernelObject, table: Container[Hashable], replaces: bool) -> None:
    if not replaces and item.key in table:
        raise RefusedError(errno.EEXIST)


def _drop(table: MutableMapping[Hashable, _T], picks: Callable[[_T], bool]) -> None:
    for key in [key for key, entry in table.items() if picks(entry)]:
        del table[key]


def _way(route: Route) -> tuple[object, ...]:
    return (route.link, route.gateway, route.next_hop, route.type)


def _changes_in_place(there: Link, wanted: Link) -> bool:
    match there, wanted:
        case VxlanLink(), VxlanLink():
            return dataclasses.replace(there, mtu=wanted.mtu, mac=wanted.mac, up=wanted.up) == wanted
        case TunLink(), TunLink():
            return True
        case _:
            return False


def _prefix(address: Address, length: int) -> Prefix:
    return ip_network((address, length), strict=False)

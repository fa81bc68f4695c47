"""A kernel in memory that refuses, replaces and silently deletes as the real one does.

The contract tests hold it against the real kernel: the same operations give the same errno and leave the same state. Tests (and
a simulation of many hosts) put foreign things in it, take ours away behind our back, and let chosen operations fail. It never
waits and has no clock.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
from collections.abc import AsyncIterator, Callable, Container, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import TypeVar, assert_never

from overlaynet.errors import KernelBusyError, KernelError, KernelPermissionError
from overlaynet.kernel.names import is_our_link, is_within
from overlaynet.model.addresses import Address, Family, LinkIndex, Mtu, Prefix
from overlaynet.model.kernel import (
    Delete,
    FdbEntry,
    KernelObject,
    Link,
    LinkAddress,
    Neighbour,
    ObjectKind,
    Observation,
    Operation,
    Put,
    Route,
    Scope,
    Sysctl,
    TunLink,
    Underlay,
    VxlanLink,
    describe,
)

_T = TypeVar("_T", LinkAddress, Neighbour, FdbEntry, Route)

_SYSCTLS = (
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


class _Refused(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, number: int, detail: str = "") -> None:
        super().__init__(number, detail)
        self.number = number
        self.detail = detail


@dataclass(slots=True)
class Fault:
    """A refusal to come: the operations that `matches` picks, after `skip` of them, are refused with `errno`, `times` times."""

    errno: int
    matches: Callable[[Operation], bool]
    skip: int
    times: int


@dataclass(slots=True)
class _Lower:
    """A link that is not ours: an underlay, or one of another kind with one of our names."""

    index: LinkIndex
    mtu: Mtu
    up: bool
    kind: str
    addresses: list[tuple[Address, int]] = field(default_factory=list)


class FakeKernel:
    """A `Kernel` without a kernel. Its underlays and foreign entries are put there by `add_underlay`, `add_foreign_*`."""

    def __init__(self) -> None:
        self._lower: dict[str, _Lower] = {}
        self._links: dict[str, Link] = {}
        self._addresses: dict[Hashable, LinkAddress] = {}
        self._neighbours: dict[Hashable, Neighbour] = {}
        self._fdb: dict[Hashable, FdbEntry] = {}
        self._routes: dict[Hashable, Route] = {}
        self._foreign_routes: dict[Hashable, tuple[Route, str]] = {}
        self._sysctls: dict[str, str] = dict(_SYSCTLS)
        self._faults: list[Fault] = []
        self._observe_faults: list[int] = []
        self._listeners: set[asyncio.Event] = set()
        self._indices = 1
        self._writes = 0

    # What a `Kernel` does.

    @property
    def writes(self) -> int:
        """How many operations were sent."""
        return self._writes

    async def aclose(self) -> None:
        """Nothing to close."""

    async def observe(self, scope: Scope) -> Observation:
        """Everything in `scope` that is ours, and what is in its way. KernelError: an injected one."""
        if self._observe_faults:
            number = self._observe_faults.pop(0)
            raise _error(_Refused(number), "observe", f"network of {scope.underlay}")
        objects: list[KernelObject] = [*self._links.values(), *self._addresses.values()]
        objects += [*self._neighbours.values(), *self._fdb.values()]
        objects += [
            route for route in self._routes.values() if route.link in self._links or is_within(route.prefix, scope.networks)
        ]
        objects += [_seen_sysctl(path, self._sysctls[path], self._links) for path in scope.sysctls if path in self._sysctls]
        foreign = [(key, text) for key, (route, text) in self._foreign_routes.items() if is_within(route.prefix, scope.networks)]
        foreign += [
            ((ObjectKind.LINK, name), f"link {name} of kind {lower.kind}")
            for name, lower in self._lower.items()
            if is_our_link(name)
        ]
        return Observation(
            objects=frozenset(objects),
            underlay=self._underlay(scope.underlay),
            foreign=tuple(sorted(foreign, key=lambda pair: pair[1])),
            warnings=self._warnings(scope),
        )

    async def perform(self, operations: Sequence[Operation]) -> list[KernelError | None]:
        """Perform the operations in order; the result has, at each one's place, its refusal or None."""
        results: list[KernelError | None] = []
        for operation in operations:
            self._writes += 1
            action = "delete" if isinstance(operation, Delete) else "create" if operation.replaces is None else "replace"
            try:
                self._inject(operation)
                match operation:
                    case Put(object=item, replaces=seen):
                        self._put(item, seen is not None)
                    case Delete(object=item):
                        self._delete(item)
                    case _:
                        assert_never(operation)
                results.append(None)
            except _Refused as refused:
                results.append(_error(refused, action, describe(operation.object)))
        return results

    async def changes(self, scope: Scope) -> AsyncIterator[None]:
        """One item after something was changed by another hand than `perform`; bursts are one item."""
        del scope
        event = asyncio.Event()
        self._listeners.add(event)
        try:
            while True:
                await event.wait()
                event.clear()
                yield
        finally:
            self._listeners.discard(event)

    # What tests and simulations do to it.

    def add_underlay(self, name: str, addresses: Iterable[tuple[Address, int]], *, mtu: int = 1500, up: bool = True) -> None:
        """A link with addresses and their prefix lengths; the prefixes are its neighbours'."""
        self._lower[name] = _Lower(self._next_index(), Mtu(mtu), up, "veth", list(addresses))
        self._add_link_sysctls(name)
        self._notify()

    def add_foreign_link(self, name: str, kind: str = "bridge") -> None:
        """Somebody else's link."""
        self._lower[name] = _Lower(self._next_index(), Mtu(1500), up=True, kind=kind)
        self._add_link_sysctls(name)
        self._notify()

    def add_foreign_route(self, route: Route, protocol: str = "static") -> None:
        """Somebody else's route, of another protocol than ours; it takes the place of ours with the same key."""
        self._routes.pop(route.key, None)
        self._foreign_routes[route.key] = (route, f"{describe(route).removeprefix('route ')} proto {protocol}")
        self._notify()

    def remove_foreign_route(self, route: Route) -> None:
        """Take somebody else's route away."""
        self._foreign_routes.pop(route.key, None)
        self._notify()

    def remove_link(self, name: str) -> None:
        """Delete a link behind our back: ours, or an underlay, which takes the VXLAN devices over it along."""
        if name in self._lower:
            for link in [link for link in self._links.values() if isinstance(link, VxlanLink) and link.underlay == name]:
                self._drop_link(link.name)
            del self._lower[name]
            self._drop_link_sysctls(name)
            _drop(self._routes, lambda route: route.link == name)
        elif name in self._links:
            self._drop_link(name)
        self._notify()

    def set_link(self, name: str, *, up: bool | None = None, mtu: int | None = None) -> None:
        """Set a link up or down, or its MTU, behind our back."""
        if name in self._lower:
            lower = self._lower[name]
            lower.mtu = lower.mtu if mtu is None else Mtu(mtu)
            if up is not None and up != lower.up:
                lower.up = up
                if not up:
                    _drop(self._routes, lambda route: route.link == name)
        else:
            link = self._links[name]
            changed = dataclasses.replace(link, up=link.up if up is None else up, mtu=link.mtu if mtu is None else Mtu(mtu))
            self._links[name] = changed
            if link.up and not changed.up:
                self._went_down(name)
        self._notify()

    def remove(self, *items: KernelObject) -> None:
        """Remove objects behind our back, as `perform` would, but uncounted and announced."""
        for item in items:
            self._delete(item)
        self._notify()

    def put(self, *items: KernelObject) -> None:
        """Put objects there behind our back (leftovers of an earlier run, say), whatever was there."""
        for item in items:
            self._put(item, replaces=True)
        self._notify()

    def flush_routes(self) -> None:
        """Remove every route of ours behind our back."""
        _drop(self._routes, lambda _: True)
        self._notify()

    def fail(
        self,
        number: int,
        *,
        kind: ObjectKind | None = None,
        skip: int = 0,
        times: int = 1,
        matches: Callable[[Operation], bool] | None = None,
    ) -> None:
        """Refuse operations to come with errno `number`: those of `kind` that `matches` picks, after `skip` of them."""

        def picks(operation: Operation) -> bool:
            return (kind is None or operation.object.kind is kind) and (matches is None or matches(operation))

        self._faults.append(Fault(number, picks, skip, times))

    def fail_observe(self, number: int, times: int = 1) -> None:
        """Let the next `times` observations fail with errno `number`."""
        self._observe_faults += [number] * times

    def heal(self) -> None:
        """Forget all faults that have not happened yet."""
        self._faults.clear()
        self._observe_faults.clear()

    @property
    def objects(self) -> frozenset[KernelObject]:
        """Every object of ours, sysctls apart."""
        return frozenset(
            [
                *self._links.values(),
                *self._addresses.values(),
                *self._neighbours.values(),
                *self._fdb.values(),
                *self._routes.values(),
            ]
        )

    def text(self) -> str:
        """What is there that is ours or foreign, a line each, sorted."""
        lines = [describe(item) for item in self.objects]
        lines += [f"foreign route {text}" for _, text in self._foreign_routes.values()]
        lines += [f"foreign link {name} {lower.kind}" for name, lower in self._lower.items() if is_our_link(name)]
        lines += [
            f"sysctl net/{path} = {value}" for path, value in self._sysctls.items() if value != dict(_SYSCTLS).get(path, value)
        ]
        return "".join(f"{line}\n" for line in sorted(lines))

    # How it behaves.

    def _inject(self, operation: Operation) -> None:
        for fault in self._faults:
            if not fault.times or not fault.matches(operation):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.times -= 1
            raise _Refused(fault.errno, "injected")

    def _put(self, item: KernelObject, replaces: bool) -> None:
        match item:
            case VxlanLink() | TunLink():
                self._put_link(item, replaces)
            case LinkAddress():
                self._require_link(item.link)
                _require_new(item, self._addresses, replaces)
                if Family.of(item.address) is Family.IPV6 and not replaces:
                    # IPv6 knows an address on a link once, whatever its prefix length (net/ipv6/addrconf.c, ipv6_add_addr).
                    for other in self._addresses.values():
                        if (other.link, other.address) == (item.link, item.address):
                            raise _Refused(errno.EEXIST)
                self._addresses[item.key] = item
            case Neighbour():
                self._require_link(item.link)
                _require_new(item, self._neighbours, replaces)
                self._neighbours[item.key] = item
            case FdbEntry():
                self._require_fdb_link(item)
                _require_new(item, self._fdb, replaces)
                self._fdb[item.key] = item
            case Route():
                self._put_route(item, replaces)
            case Sysctl():
                if item.path not in self._sysctls:
                    raise _Refused(errno.ENOENT, f"/proc/sys/net/{item.path} is missing")
                self._sysctls[item.path] = item.value
            case _:
                assert_never(item)

    def _delete(self, item: KernelObject) -> None:
        match item:
            case VxlanLink() | TunLink():
                self._require_our_link(item.name)
                if item.name in self._links:
                    self._drop_link(item.name)
                    self._notify()
            case LinkAddress():
                if self._addresses.pop(item.key, None) is not None:
                    self._lost_address(item)
            case Neighbour():
                self._neighbours.pop(item.key, None)
            case FdbEntry():
                there = self._fdb.get(item.key)
                # The kernel looks for this destination, and finds none if it is another (drivers/net/vxlan, vxlan_fdb_delete).
                if there is not None and there.destination == item.destination:
                    del self._fdb[item.key]
            case Route():
                there_route = self._routes.get(item.key)
                if there_route is not None and (there_route.link, there_route.gateway, there_route.type) == (
                    item.link,
                    item.gateway,
                    item.type,
                ):
                    del self._routes[item.key]
            case Sysctl():
                pass
            case _:
                assert_never(item)

    def _put_link(self, item: Link, replaces: bool) -> None:
        self._require_our_link(item.name)
        there = self._links.get(item.name)
        if there is not None and not replaces:
            raise _Refused(errno.EEXIST)
        if there is not None and _changes_in_place(there, item):
            self._require_mtu(item)
            self._links[item.name] = item
            if isinstance(there, VxlanLink) and isinstance(item, VxlanLink) and there.mac != item.mac:
                # Another link-layer address ends every neighbour entry (net/core/neighbour.c, neigh_changeaddr).
                _drop(self._neighbours, lambda entry: entry.link == item.name)
                self._notify()
            if there.up and not item.up:
                self._went_down(item.name)
            return
        if there is not None:
            self._drop_link(item.name)
            self._notify()
        if isinstance(item, VxlanLink):
            self._require_vxlan(item)
        self._links[item.name] = item
        self._indices += 1
        self._add_link_sysctls(item.name)
        if isinstance(item, VxlanLink) and item.mtu > self._largest_mtu(item):
            # The real kernel makes the device with the largest MTU that fits and then refuses to raise it.
            self._links[item.name] = dataclasses.replace(item, mtu=self._largest_mtu(item), up=False)
            raise _Refused(errno.EINVAL, f"MTU {item.mtu} is more than the link below can carry, or too little")

    def _require_vxlan(self, item: VxlanLink) -> None:
        if item.underlay not in self._lower:
            raise _Refused(errno.ENODEV, f"there is no link {item.underlay}")
        for other in self._links.values():
            if not isinstance(other, VxlanLink):
                continue
            same = (other.vni, other.port, other.local.version, other.gbp) == (item.vni, item.port, item.local.version, item.gbp)
            if same and other.name != item.name:
                raise _Refused(errno.EEXIST, f"link {other.name} has VNI {item.vni} on UDP port {item.port} already")

    def _require_mtu(self, item: Link) -> None:
        if isinstance(item, VxlanLink) and item.mtu > self._largest_mtu(item):
            raise _Refused(errno.EINVAL, f"MTU {item.mtu} is more than the link below can carry, or too little")

    def _largest_mtu(self, item: VxlanLink) -> Mtu:
        # Outer IP header, UDP, VXLAN and inner Ethernet header (include/net/vxlan.h, VXLAN_HEADROOM, VXLAN6_HEADROOM).
        return Mtu(self._lower[item.underlay].mtu - (50 if item.local.version == 4 else 70))

    def _put_route(self, item: Route, replaces: bool) -> None:
        if item.type == "unicast":
            self._require_reachable(item)
        if item.source is not None and not self._is_local(item.source):
            raise _Refused(errno.EINVAL, "Invalid prefsrc address")
        if not replaces and (item.key in self._foreign_routes or item.key in self._routes):
            raise _Refused(errno.EEXIST)
        # As the real one, a replacement takes whatever stands there: whoever asks for it must have seen that it is ours.
        self._foreign_routes.pop(item.key, None)
        self._routes[item.key] = item

    def _require_reachable(self, item: Route) -> None:
        name = item.link
        if name is None or (name not in self._links and name not in self._lower):
            raise _Refused(errno.ENODEV, f"there is no link {name}")
        up = self._links[name].up if name in self._links else self._lower[name].up
        if item.gateway is None or item.onlink:
            if not up:
                raise _Refused(errno.ENETDOWN)
            return
        lower = self._lower.get(name)
        near = [] if lower is None or not up else [_prefix(*entry) for entry in lower.addresses]
        if not any(Family.of(prefix) is Family.of(item.gateway) and item.gateway in prefix for prefix in near):
            unreachable = errno.ENETUNREACH if item.prefix.version == 4 else errno.EHOSTUNREACH
            raise _Refused(unreachable, "the gateway is not a neighbour on that link")

    def _is_local(self, address: Address) -> bool:
        return any(entry.address == address for entry in self._addresses.values()) or any(
            own == address for lower in self._lower.values() for own, _ in lower.addresses
        )

    def _require_link(self, name: str) -> None:
        if name not in self._links:
            raise _Refused(errno.ENODEV, f"there is no link {name}")

    def _require_our_link(self, name: str) -> None:
        lower = self._lower.get(name)
        if lower is not None:
            raise _Refused(errno.EEXIST, f"link {name} is of kind {lower.kind}, not ours")

    def _require_fdb_link(self, item: FdbEntry) -> None:
        self._require_link(item.link)
        link = self._links[item.link]
        if isinstance(link, TunLink):
            raise _Refused(errno.EOPNOTSUPP)
        if link.local.version != item.destination.version:
            raise _Refused(errno.EAFNOSUPPORT)

    def _drop_link(self, name: str) -> None:
        del self._links[name]
        _drop(self._addresses, lambda entry: entry.link == name)
        _drop(self._neighbours, lambda entry: entry.link == name)
        _drop(self._fdb, lambda entry: entry.link == name)
        _drop(self._routes, lambda route: route.link == name)
        self._drop_link_sysctls(name)

    def _went_down(self, name: str) -> None:
        """Routes and neighbours go, and IPv6 addresses; IPv4 addresses and permanent forwarding entries stay."""
        _drop(self._routes, lambda route: route.link == name)
        _drop(self._neighbours, lambda entry: entry.link == name)
        _drop(self._addresses, lambda entry: entry.link == name and Family.of(entry.address) is Family.IPV6)
        self._notify()

    def _lost_address(self, item: LinkAddress) -> None:
        family = Family.of(item.address)
        left = [entry for entry in self._addresses.values() if entry.link == item.link and Family.of(entry.address) is family]
        if family is Family.IPV4:
            # Without its last IPv4 address a link is disabled for IPv4 (net/ipv4/fib_frontend.c, fib_inetaddr_event).
            if not left:
                _drop(self._routes, lambda route: route.link == item.link and Family.of(route.prefix) is family)
                _drop(self._neighbours, lambda entry: entry.link == item.link and Family.of(entry.address) is family)
            if not self._is_local(item.address):
                _drop(self._routes, lambda route: route.source == item.address)
        elif not self._is_local(item.address):
            # IPv6 keeps the route and forgets the source (net/ipv6/route.c, fib6_remove_prefsrc).
            for key, route in self._routes.items():
                if route.source == item.address:
                    self._routes[key] = dataclasses.replace(route, source=None)
        self._notify()

    def _underlay(self, name: str) -> Underlay | None:
        lower = self._lower.get(name)
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
        )

    def _warnings(self, scope: Scope) -> tuple[str, ...]:
        names = [name for name in (scope.underlay, *self._links) if self._sysctls.get(f"ipv4/conf/{name}/rp_filter") == "1"]
        return tuple(f"net.ipv4.conf.{name}.rp_filter is 1 (strict)" for name in names)

    def _add_link_sysctls(self, name: str) -> None:
        self._sysctls.update({path.format(name): value for path, value in _LINK_SYSCTLS})

    def _drop_link_sysctls(self, name: str) -> None:
        for path, _ in _LINK_SYSCTLS:
            self._sysctls.pop(path.format(name), None)

    def _next_index(self) -> LinkIndex:
        self._indices += 1
        return LinkIndex(self._indices)

    def _notify(self) -> None:
        for listener in self._listeners:
            listener.set()


def _error(refused: _Refused, action: str, key: str) -> KernelError:
    match refused.number:
        case errno.EBUSY | errno.ENOBUFS | errno.EAGAIN | errno.EINTR:
            return KernelBusyError(refused.number, action, key, refused.detail)
        case errno.EPERM | errno.EACCES | errno.EROFS:
            return KernelPermissionError(refused.number, action, key, refused.detail)
        case number:
            return KernelError(number, action, key, refused.detail)


def _require_new(item: KernelObject, table: Container[Hashable], replaces: bool) -> None:
    if not replaces and item.key in table:
        raise _Refused(errno.EEXIST)


def _drop(table: dict[Hashable, _T], picks: Callable[[_T], bool]) -> None:
    for key in [key for key, entry in table.items() if picks(entry)]:
        del table[key]


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


def _seen_sysctl(path: str, value: str, links: Iterable[str]) -> Sysctl:
    parts = path.split("/")
    return Sysctl(path, value, parts[2] if len(parts) > 3 and parts[2] in links else None)

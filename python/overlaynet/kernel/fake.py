"""A kernel in memory that refuses, replaces and silently deletes as the real one does.

The contract tests hold it against the real kernel: the same operations give the same errno and leave the same state. Tests (and
a simulation of many hosts) put foreign things in it, take ours away behind our back, and let chosen operations fail. It never
waits and has no clock.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from overlaynet.errors import KernelBusyError, KernelError, KernelPermissionError
from overlaynet.kernel.names import is_our_link, is_within
from overlaynet.kernel.sysctls import rp_filter_warnings, seen_sysctl
from overlaynet.kernel.tables import SYSCTLS, RefusedError, Tables
from overlaynet.model.addresses import Address
from overlaynet.model.kernel import (
    Delete,
    KernelObject,
    NextHop,
    ObjectKind,
    Observation,
    Operation,
    Put,
    Route,
    Scope,
    describe,
)

__all__ = ["FakeKernel", "Fault"]


@dataclass(slots=True)
class Fault:
    """A refusal to come: the operations that `matches` picks, after `skip` of them, are refused with `errno`, `times` times."""

    errno: int
    matches: Callable[[Operation], bool]
    skip: int
    times: int


class FakeKernel:
    """A `Kernel` without a kernel. Its underlays and foreign entries are put there by `add_underlay`, `add_foreign_*`."""

    def __init__(self, *, next_hops: bool = True) -> None:
        """`next_hops` False makes it one from before Linux 5.3."""
        self._next_hops = next_hops
        self._tables = Tables(self._notify)
        self._faults: list[Fault] = []
        self._observe_faults: list[int] = []
        self._listeners: set[asyncio.Event] = set()
        self._writes = 0

    # What a `Kernel` does.

    @property
    def writes(self) -> int:
        """How many operations were sent."""
        return self._writes

    @property
    def next_hops(self) -> bool:
        """Whether it knows next-hop objects."""
        return self._next_hops

    async def aclose(self) -> None:
        """Nothing to close."""

    async def observe(self, scope: Scope, expected: Mapping[Hashable, KernelObject] | None = None) -> Observation:  # noqa: ARG002
        """Everything in `scope` that is ours, and what is in its way. KernelError: an injected one."""
        if self._observe_faults:
            number = self._observe_faults.pop(0)
            raise _error(RefusedError(number), "observe", f"what is ours around {scope.underlay}")
        objects: list[KernelObject] = [*self._tables.links.values(), *self._tables.addresses.values()]
        objects += [*self._tables.neighbours.values(), *self._tables.fdb.values()]
        objects += self._tables.next_hops.values()
        objects += [
            route
            for route in self._tables.routes.values()
            if route.link in self._tables.links or is_within(route.prefix, scope.networks)
        ]
        objects += [seen_sysctl(path, self._tables.sysctls[path]) for path in scope.sysctls if path in self._tables.sysctls]
        foreign = [
            (key, text) for key, (route, text) in self._tables.foreign_routes.items() if is_within(route.prefix, scope.networks)
        ]
        foreign += self._tables.foreign_next_hops.items()
        foreign += [
            ((ObjectKind.LINK, name), f"link {name} of kind {lower.kind}")
            for name, lower in self._tables.lower.items()
            if is_our_link(name)
        ]
        return Observation(
            objects=frozenset(objects if scope.ours else ()),
            underlay=self._tables.underlay(scope.underlay),
            foreign=tuple(sorted(foreign if scope.ours else (), key=lambda pair: pair[1])),
            warnings=rp_filter_warnings(
                {
                    name: self._tables.sysctls.get(f"ipv4/conf/{name}/rp_filter")
                    for name in ("all", scope.underlay, *self._tables.links)
                }
            ),
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
                    case Put(object=NextHop()) if not self._next_hops:
                        raise RefusedError(errno.EOPNOTSUPP)
                    case Put(object=item, replaces=seen):
                        self._tables.put(item, seen is not None)
                    case Delete(object=item):
                        self._tables.delete(item)
                    case _:
                        assert_never(operation)
                results.append(None)
            except RefusedError as refused:
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
        self._tables.add_lower(name, "veth", mtu, up, list(addresses))
        self._notify()

    def readdress_underlay(self, name: str, addresses: Iterable[tuple[Address, int]]) -> None:
        """Give an underlay other addresses, behind our back."""
        self._tables.readdress_lower(name, list(addresses))
        self._notify()

    def add_foreign_link(self, name: str, kind: str = "bridge") -> None:
        """Somebody else's link."""
        self._tables.add_lower(name, kind, 1500, up=True, addresses=[])
        self._notify()

    def add_foreign_route(self, route: Route, protocol: str = "static") -> None:
        """Somebody else's route, of another protocol than ours; it takes the place of ours with the same key."""
        if route.key in self._tables.routes:
            del self._tables.routes[route.key]
        self._tables.foreign_routes[route.key] = (route, f"{describe(route).removeprefix('route ')} proto {protocol}")
        self._notify()

    def add_foreign_next_hop(self, hop: NextHop, protocol: str = "static") -> None:
        """Somebody else's next hop with a number of ours; it takes the place of ours with that number."""
        self._tables.next_hops.pop(hop.key, None)
        self._tables.foreign_next_hops[hop.key] = f"{describe(hop).removesuffix(' onlink')} proto {protocol}"
        self._notify()

    def flush_next_hops(self) -> None:
        """Remove every next hop behind our back, and with them their routes."""
        for hop in list(self._tables.next_hops.values()):
            self._tables.delete(hop)
        self._notify()

    def remove_foreign_route(self, route: Route) -> None:
        """Take somebody else's route away."""
        self._tables.foreign_routes.pop(route.key, None)
        self._notify()

    def remove_link(self, name: str) -> None:
        """Delete a link behind our back: ours, or an underlay, which takes the VXLAN devices over it along."""
        self._tables.remove_link(name)
        self._notify()

    def set_link(self, name: str, *, up: bool | None = None, mtu: int | None = None) -> None:
        """Set a link up or down, or its MTU, behind our back."""
        if name in self._tables.lower:
            self._tables.change_lower(name, up, mtu)
        else:
            self._tables.change_link(name, up, mtu)
        self._notify()

    def remove(self, *items: KernelObject) -> None:
        """Remove objects behind our back, as `perform` would, but uncounted and announced."""
        for item in items:
            self._tables.delete(item)
        self._notify()

    def put(self, *items: KernelObject) -> None:
        """Put objects there behind our back (leftovers of an earlier run, say), whatever was there."""
        for item in items:
            self._tables.put(item, replaces=True)
        self._notify()

    def flush_routes(self) -> None:
        """Remove every route of ours behind our back."""
        for key in list(self._tables.routes):
            del self._tables.routes[key]
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
                *self._tables.links.values(),
                *self._tables.addresses.values(),
                *self._tables.neighbours.values(),
                *self._tables.fdb.values(),
                *self._tables.next_hops.values(),
                *self._tables.routes.values(),
            ]
        )

    def text(self) -> str:
        """What is there that is ours or foreign, a line each, sorted."""
        lines = [describe(item) for item in self.objects]
        lines += [f"foreign route {text}" for _, text in self._tables.foreign_routes.values()]
        lines += [f"foreign {text}" for text in self._tables.foreign_next_hops.values()]
        lines += [f"foreign link {name} {lower.kind}" for name, lower in self._tables.lower.items() if is_our_link(name)]
        lines += [
            f"sysctl net/{path} = {value}"
            for path, value in self._tables.sysctls.items()
            if value != dict(SYSCTLS).get(path, value)
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
            raise RefusedError(fault.errno, "injected")

    def _notify(self) -> None:
        for listener in self._listeners:
            listener.set()


def _error(refused: RefusedError, action: str, key: str) -> KernelError:
    match refused.number:
        case errno.EBUSY | errno.ENOBUFS | errno.EAGAIN | errno.EINTR:
            return KernelBusyError(refused.number, action, key, refused.detail)
        case errno.EPERM | errno.EACCES | errno.EROFS:
            return KernelPermissionError(refused.number, action, key, refused.detail)
        case number:
            return KernelError(number, action, key, refused.detail)

"""The kernel's large tables on its namespace's thread: written in batches, read whole, and turned into values there.

The event loop stays free however many entries there are. What was read before and reads the same again is the same value, so that
comparing it with what is wanted is cheap.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar, assert_never, cast

from overlaynet.errors import KernelError
from overlaynet.kernel import entries
from overlaynet.kernel.bulk import BulkSocket
from overlaynet.kernel.entries import Entry, Fields
from overlaynet.kernel.messages import FAMILIES, LinkView
from overlaynet.kernel.names import is_our_link, is_within
from overlaynet.kernel.namespace import NamespaceThread
from overlaynet.kernel.refusals import as_kernel_error
from overlaynet.model.addresses import LinkIndex, Prefix
from overlaynet.model.kernel import Delete, FdbEntry, KernelObject, Neighbour, Operation, Put, Route, Scope, describe, route_key

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Reading:
    """What the tables hold: ours, foreign entries in our places, and the prefixes that are reached through the underlay."""

    objects: list[KernelObject] = field(default_factory=list)
    foreign: list[tuple[Hashable, str]] = field(default_factory=list)
    onlink: list[Prefix] = field(default_factory=list)


class EntryTables:
    """Neighbours, forwarding entries, next hops and routes, over a socket that is opened again after any failure of it."""

    def __init__(self, thread: NamespaceThread) -> None:
        self._thread = thread
        self._socket: BulkSocket | None = None
        self.next_hops = False
        self._known: dict[Fields, KernelObject | None] = {}
        self._known_in: Hashable = None
        self._places: dict[tuple[int, bytes], bytes | None] = {}

    async def open(self) -> None:
        """Open the socket, and find out whether this kernel knows next hops. OSError: it cannot be had."""
        self.next_hops = await self._thread.call(lambda: self._use(_knows_next_hops))

    async def aclose(self) -> None:
        """Close the socket, when what is under way is done."""
        await self._thread.call(self._close)

    @property
    def port(self) -> int:
        """The socket's netlink address, which events that its requests cause carry; 0 while it is closed."""
        return 0 if self._socket is None else self._socket.port

    def knows(self, link: int, address: bytes, end: bytes | None) -> bool:
        """Whether the neighbour or forwarding entry of this address leads to `end`, or to None nowhere, as far as is known here.

        The kernel announces these without saying whose request it was: changes of a VXLAN device's entries
        (drivers/net/vxlan, vxlan_fdb_notify), and the end of a neighbour (net/core/neighbour.c, neigh_cleanup_and_release).
        """
        return (link, address) in self._places and self._places[link, address] == end

    async def write(self, operations: Sequence[Operation]) -> list[KernelError | None]:
        """Carry out operations on entries in order; the result has, at each one's place, its refusal or None."""
        return await self._thread.call(lambda: self._write(operations))

    async def read(
        self,
        ours: Collection[LinkView],
        underlay: LinkIndex,
        names: Mapping[LinkIndex, str],
        scope: Scope,
        expected: Mapping[Hashable, KernelObject],
    ) -> Reading:
        """What is on the links of ours, and the main table's routes as far as `scope` goes. OSError as the kernel gives it.

        What reads like one of the `expected`, which may change meanwhile, is that very value.
        """
        if not scope.ours:
            return await self._thread.call(lambda: self._use(lambda bulk: _look_below(bulk, underlay)))
        return await self._thread.call(lambda: self._use(lambda bulk: self._read(bulk, ours, underlay, names, scope, expected)))

    def _use(self, work: Callable[[BulkSocket], _T]) -> _T:
        if self._socket is None:
            self._socket = BulkSocket.open()
        try:
            return work(self._socket)
        except OSError:
            # Answers of what has failed may still come: no later request is to take them for its own.
            self._close()
            raise

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _write(self, operations: Sequence[Operation]) -> list[KernelError | None]:
        results: list[KernelError | None] = [None] * len(operations)
        indices: dict[str, LinkIndex | None] = {}

        def index_of(name: str) -> LinkIndex:
            if name not in indices:
                indices[name] = _index(name)
            index = indices[name]
            if index is None:
                raise OSError(errno.ENODEV, f"there is no link {name}")
            return index

        requests: list[tuple[int, int, Fields]] = []
        places: list[int] = []
        for place, operation in enumerate(operations):
            try:
                requests.append(entries.request(operation, cast("Entry", operation.object), index_of))
                places.append(place)
            except OSError as error:
                results[place] = _refusal(operation, error)
        # Before they are sent, since the kernel announces them at once.
        self._places.update(entries.places(requests))
        try:
            refusals = self._use(lambda bulk: _write_over_unresolved(bulk, requests))
        except OSError as error:
            # Nobody knows which of them were carried out; whoever asked looks again.
            refusals = dict.fromkeys(range(len(requests)), error)
        for number, refusal in refusals.items():
            place = places[number]
            results[place] = _refusal(operations[place], refusal)
        return results

    def _read(
        self,
        bulk: BulkSocket,
        ours: Collection[LinkView],
        underlay: LinkIndex,
        names: Mapping[LinkIndex, str],
        scope: Scope,
        expected: Mapping[Hashable, KernelObject],
    ) -> Reading:
        # What a message says depends on these; the links of others only show in the texts of foreign routes.
        known_in = (scope, underlay, frozenset((view.index, view.name) for view in ours))
        known = self._known if self._known_in == known_in else {}
        fresh: dict[Fields, KernelObject | None] = {}
        places: dict[tuple[int, bytes], bytes | None] = {}
        found, values = Reading(), entries.Values(expected)
        for view in ours:
            for fields, kind in _entries_of(bulk, view):
                item = known[fields] if fields in known else kind(fields, view.name, values)
                if not values.expects(item):
                    fresh[fields] = item
                if isinstance(item, FdbEntry):
                    places[fields[1], fields[5]] = fields[4]
                elif isinstance(item, Neighbour):
                    places[fields[1], fields[4]] = fields[5]
                if item is not None:
                    found.objects.append(item)
        if self.next_hops:
            on = {view.index: view.name for view in ours}
            for fields in bulk.next_hops():
                hop = known[fields] if fields in known else entries.next_hop(fields, on, values)
                if isinstance(hop, tuple):
                    found.foreign.append(hop)
                    continue
                if not values.expects(hop):
                    fresh[fields] = hop
                if hop is not None:
                    found.objects.append(hop)
        for family in FAMILIES.values():
            for fields in bulk.routes(family):
                item = known.get(fields)
                if item is None:
                    onlink = entries.onlink_prefix(fields, underlay)
                    if onlink is not None:
                        found.onlink.append(onlink)
                    sorted_out = _sort_route(fields, scope, names, values)
                    if isinstance(sorted_out, tuple):
                        found.foreign.append(sorted_out)
                        continue
                    if sorted_out is None:
                        continue
                    item = sorted_out
                    if onlink is None and not values.expects(item):
                        fresh[fields] = item
                else:
                    fresh[fields] = item
                found.objects.append(item)
        self._known, self._known_in, self._places = fresh, known_in, places
        return found


def _look_below(bulk: BulkSocket, underlay: LinkIndex) -> Reading:
    """Only the prefixes that are reached through the underlay."""
    onlink = (entries.onlink_prefix(fields, underlay) for family in FAMILIES.values() for fields in bulk.routes(family))
    return Reading(onlink=[prefix for prefix in onlink if prefix is not None])


_Reader: TypeAlias = Callable[[Fields, str, entries.Values], KernelObject | None]


def _entries_of(bulk: BulkSocket, view: LinkView) -> Iterator[tuple[Fields, _Reader]]:
    for family in FAMILIES.values():
        for fields in bulk.neighbours(family, int(view.index)):
            yield fields, entries.neighbour
    if view.kind == "vxlan":
        for fields in bulk.forwarding(int(view.index)):
            yield fields, entries.fdb_entry


def _sort_route(
    fields: Fields, scope: Scope, names: Mapping[LinkIndex, str], values: entries.Values
) -> KernelObject | tuple[Hashable, str] | None:
    """A route of the main table: ours, foreign where one of ours could be wanted (its key and text), or no concern of ours."""
    if (as_expected := values.expected_route(fields, names)) is not None:
        return as_expected
    prefix = entries.route_prefix(fields)
    within = is_within(prefix, scope.networks)
    if entries.is_ours(fields):
        ours = within or is_our_link(names.get(entries.route_link(fields), ""))
        return entries.route(fields, prefix, names, values) if ours else None
    if within:
        return (route_key(prefix, entries.route_metric(fields)), entries.route_text(fields, names))
    return None


def _write_over_unresolved(bulk: BulkSocket, requests: Sequence[tuple[int, int, Fields]]) -> dict[int, OSError]:
    """Write the requests. A neighbour that the kernel is resolving by itself, for want of an entry, is replaced."""
    refusals = bulk.write(requests)
    unresolved: dict[tuple[int, int], set[bytes]] = {}
    again: list[int] = []
    for place in sorted(place for place, refusal in refusals.items() if refusal.errno == errno.EEXIST):
        where = entries.neighbour_at(*requests[place])
        if where is None:
            continue
        family, link, address = where
        if (family, link) not in unresolved:
            unresolved[family, link] = entries.passing(bulk.neighbours(family, link))
        if address in unresolved[family, link]:
            again.append(place)
    second = bulk.write([entries.replacing(requests[place]) for place in again])
    for number, place in enumerate(again):
        del refusals[place]
        if number in second:
            refusals[place] = second[number]
    return refusals


def _knows_next_hops(bulk: BulkSocket) -> bool:
    try:
        bulk.next_hops()
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
            return False
        raise
    return True


def _index(name: str) -> LinkIndex | None:
    try:
        return LinkIndex(socket.if_nametoindex(name))
    except OSError:
        return None


def _refusal(operation: Operation, error: OSError) -> KernelError | None:
    """The error as ours; None if what was to be deleted is gone already."""
    match operation:
        case Delete(object=Route(next_hop=int())) if error.errno == errno.EINVAL:
            # With its next hop the route has gone (net/ipv4/fib_frontend.c, inet_rtm_delroute).
            return None
        case Delete():
            return None if error.errno in GONE else as_kernel_error(error, "delete", describe(operation.object))
        case Put(replaces=None):
            return as_kernel_error(error, "create", describe(operation.object))
        case Put():
            return as_kernel_error(error, "replace", describe(operation.object))
        case _:
            assert_never(operation)


GONE = frozenset({errno.ENODEV, errno.ESRCH, errno.ENOENT, errno.EADDRNOTAVAIL, errno.ENXIO})
"""What the kernel answers to the deletion of what is not there."""

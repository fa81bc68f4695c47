"""The real kernel: one network namespace over rtnetlink, /proc/sys/net and /dev/net/tun.

Nothing is remembered between calls: what is there is read when it is needed. Nothing that is not ours by its name or by its
protocol number is ever changed; a link is looked at again before it is deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from itertools import groupby
from typing import Self, TypeAlias, assert_never

from overlaynet.errors import KernelError, KernelVanishedError
from overlaynet.kernel import messages
from overlaynet.kernel.entries import Entry
from overlaynet.kernel.entry_tables import GONE, EntryTables
from overlaynet.kernel.messages import LinkView
from overlaynet.kernel.monitor import Filter, Monitor
from overlaynet.kernel.namespace import NamespaceThread, create_tun, read_sysctl, write_sysctl
from overlaynet.kernel.observation import names_of, see_underlay, sort_links
from overlaynet.kernel.refusals import as_kernel_error
from overlaynet.kernel.rtnetlink import ASK, CREATE, REPLACE, Message, Record, RouteSocket
from overlaynet.kernel.sysctls import rp_filter_warnings, seen_sysctl
from overlaynet.model.addresses import LinkIndex
from overlaynet.model.kernel import (
    Delete,
    KernelObject,
    Link,
    LinkAddress,
    Observation,
    Operation,
    Put,
    Scope,
    Sysctl,
    TunLink,
    VxlanLink,
    describe,
)

__all__ = ["NetlinkKernel"]

_ADDR_GEN_MODE_NONE = "1"

_Single: TypeAlias = VxlanLink | TunLink | LinkAddress | Sysctl
"""What is written one by one."""


class NetlinkKernel:
    """A `Kernel` over netlink. Made by `open`; an asynchronous context manager that closes its sockets."""

    def __init__(self, thread: NamespaceThread, route_socket: RouteSocket, tables: EntryTables) -> None:
        self._thread = thread
        self._socket = route_socket
        self._tables = tables
        self._lock = asyncio.Lock()
        self._writes = 0
        self._subscribing: set[asyncio.Future[None]] = set()

    @classmethod
    async def open(cls, namespace: str | None = None) -> Self:
        """The kernel of the named network namespace, or of the process's own. KernelError: it cannot be entered."""
        thread = NamespaceThread(namespace)
        try:
            route_socket = await RouteSocket.open(thread)
            try:
                tables = EntryTables(thread)
                await tables.open()
            except BaseException:
                route_socket.close()
                raise
            return cls(thread, route_socket, tables)
        except OSError as error:
            thread.close()
            raise as_kernel_error(error, "open", "netlink sockets") from error
        except BaseException:
            thread.close()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the sockets."""
        self._socket.close()
        await self._tables.aclose()
        self._thread.close()

    @property
    def writes(self) -> int:
        """How many operations this process has sent to the kernel."""
        return self._writes

    @property
    def next_hops(self) -> bool:
        """Whether this kernel knows next-hop objects (Linux 5.3)."""
        return self._tables.next_hops

    async def observe(self, scope: Scope, expected: Mapping[Hashable, KernelObject] | None = None) -> Observation:
        """Everything in `scope` that is ours, and what is in its way. KernelError: the dump failed.

        It begins when every `changes` that was started before it is subscribed: no change falls between the two.
        """
        if self._subscribing:
            await asyncio.wait(self._subscribing)
        try:
            async with self._lock:
                return await self._observe(scope, {} if expected is None else expected)
        except OSError as error:
            raise as_kernel_error(error, "observe", _what(scope)) from error

    async def perform(self, operations: Sequence[Operation]) -> list[KernelError | None]:
        """Perform the operations in order; the result has, at each one's place, its refusal or None."""
        results: list[KernelError | None] = []
        async with self._lock:
            links: dict[str, LinkView] | None = None
            for in_bulk, group in groupby(operations, key=lambda one: isinstance(one.object, Entry)):
                several = list(group)
                self._writes += len(several)
                if in_bulk:
                    results += await self._tables.write(several)
                    continue
                for operation in several:
                    links = await self._links() if links is None else links
                    results.append(await self._try(operation, links))
                    if isinstance(operation.object, VxlanLink | TunLink):
                        links = None
        return results

    async def _try(self, operation: Operation, links: dict[str, LinkView]) -> KernelError | None:
        try:
            await self._perform(operation, links)
        except KernelError as error:
            return error
        except OSError as error:
            return as_kernel_error(error, _action(operation), describe(operation.object))
        return None

    async def changes(self, scope: Scope) -> AsyncIterator[None]:
        """One item soon after something in `scope` has changed; bursts and overflows are one item."""
        overflowed = False
        while True:
            monitor = await self._subscribe(scope)
            try:
                if overflowed:
                    yield
                while await monitor.changed():
                    yield
                overflowed = True
            finally:
                monitor.close()

    async def _subscribe(self, scope: Scope) -> Monitor:
        subscribed = asyncio.get_running_loop().create_future()
        self._subscribing.add(subscribed)
        try:
            monitor = await Monitor.open(self._thread)
            try:
                names = {int(view.index): name for name, view in (await self._links()).items()}
            except BaseException:
                monitor.close()
                raise
            chosen = Filter(scope, lambda: (self._socket.port, self._tables.port), names, self._tables.knows)
            monitor.use(chosen, self._tables.port)
            return monitor
        except OSError as error:
            raise as_kernel_error(error, "follow", _what(scope)) from error
        finally:
            self._subscribing.discard(subscribed)
            subscribed.set_result(None)

    async def _links(self) -> dict[str, LinkView]:
        views = [messages.read_link(record) for record in await self._socket.dump(Message("link"))]
        return {view.name: view for view in views}

    async def _observe(self, scope: Scope, expected: Mapping[Hashable, KernelObject]) -> Observation:
        links = await self._links()
        names = names_of(links.values())
        objects, foreign = sort_links(links) if scope.ours else ([], [])
        ours = [links[item.name] for item in objects if isinstance(item, VxlanLink | TunLink)]
        by_index = {view.index: view.name for view in ours}

        addresses = await self._dump(Message("address"))
        on_ours = [(record, by_index[record["index"]]) for record in addresses if record["index"] in by_index]
        found: list[KernelObject | None] = [messages.link_address(record, name) for record, name in on_ours]
        below = links.get(scope.underlay)
        reading = await self._tables.read(ours, LinkIndex(0) if below is None else below.index, names, scope, expected)
        found += reading.objects
        foreign += reading.foreign
        found += await self._thread.call(lambda: [_seen_sysctl(path) for path in scope.sysctls])
        watched = ("all", scope.underlay, *by_index.values())
        filters = await self._thread.call(lambda: {name: read_sysctl(f"ipv4/conf/{name}/rp_filter") for name in watched})
        everything = [*objects, *(item for item in found if item is not None)]
        return Observation(
            # Hashing them all takes as long as reading them.
            objects=await self._thread.call(lambda: frozenset(everything)),
            underlay=see_underlay(scope.underlay, links, addresses, reading.onlink),
            foreign=_sorted(foreign),
            warnings=rp_filter_warnings(filters),
        )

    async def _dump(self, message: Message) -> list[Record]:
        try:
            return await self._socket.dump(message)
        except OSError as error:
            # The link has just gone, or the table was never used: nothing there.
            if error.errno in (errno.ENODEV, errno.ENOENT):
                return []
            raise

    async def _perform(self, operation: Operation, links: dict[str, LinkView]) -> None:
        item = operation.object
        if isinstance(item, Entry):
            raise TypeError(f"not written one by one: {describe(item)}")
        match operation:
            case Put(replaces=seen):
                await self._put(item, seen is not None, links)
            case Delete():
                try:
                    await self._delete(item, links)
                except OSError as error:
                    if error.errno not in GONE:
                        raise
            case _:
                assert_never(operation)

    async def _put(self, item: _Single, replaces: bool, links: dict[str, LinkView]) -> None:
        flags = REPLACE if replaces else CREATE
        match item:
            case VxlanLink() | TunLink():
                await self._put_link(item, replaces, links)
            case LinkAddress():
                await self._socket.request(messages.address_message(item, _index(links, item.link)), flags)
            case Sysctl():
                await self._thread.call(lambda: write_sysctl(item.path, item.value))
            case _:
                assert_never(item)

    async def _delete(self, item: _Single, links: dict[str, LinkView]) -> None:
        match item:
            case VxlanLink() | TunLink():
                view = links.get(item.name)
                if view is not None:
                    _require_ours(item, view, links, "delete")
                    await self._socket.delete(Message("link", {"index": int(view.index)}))
            case LinkAddress():
                await self._socket.delete(messages.address_message(item, _index(links, item.link)))
            case Sysctl():
                pass
            case _:
                assert_never(item)

    async def _put_link(self, item: Link, replaces: bool, links: dict[str, LinkView]) -> None:
        view = links.get(item.name)
        if replaces and view is not None:
            there = _require_ours(item, view, links, "replace")
            if _changes_in_place(there, item):
                await self._settle(item, view, there)
                return
            await self._socket.delete(Message("link", {"index": int(view.index)}))
        match item:
            case VxlanLink():
                below = _index(links, item.underlay)
                try:
                    await self._socket.request(messages.vxlan_message(item, below), CREATE)
                except OSError as error:
                    raise self._taken(error, item, links) from error
            case TunLink():
                await self._thread.call(lambda: create_tun(item.name, ethernet=item.ethernet))
            case _:
                assert_never(item)
        try:
            await self._finish(item)
        except OSError as error:
            if error.errno == errno.ENODEV:
                raise KernelVanishedError(error.errno, "make", describe(item), "removed before it was set up") from error
            raise

    async def _finish(self, item: Link) -> None:
        """Give a link that was just made what it is not made with."""
        # A link without IPv6 has no such sysctl, and no link-local address either.
        await self._thread.call(lambda: _silence_link_local(item.name))
        made, names = await self._look(item.name)
        there_now = messages.link_object(made, names)
        if there_now is not None:
            await self._settle(item, made, there_now)
        if isinstance(item, TunLink):
            # The device has a queue of its own: one before it costs time for each packet and holds none back. Where the kernel
            # does not take it, packets are as well off, but for that time.
            with contextlib.suppress(OSError):
                await self._socket.request(messages.no_queue_message(made.index), REPLACE)

    async def _settle(self, item: Link, view: LinkView, there: Link) -> None:
        """Give the link what can be changed in place, set it up, and look whether it took everything."""
        attributes: list[tuple[str, object]] = []
        if there.mtu != item.mtu:
            attributes.append(("IFLA_MTU", int(item.mtu)))
        if isinstance(item, VxlanLink) and isinstance(there, VxlanLink) and there.mac != item.mac:
            attributes.append(("IFLA_ADDRESS", str(item.mac)))
        if isinstance(item, TunLink) and isinstance(there, TunLink) and there.queue_length != item.queue_length:
            attributes.append(("IFLA_TXQLEN", item.queue_length))
        if attributes:
            try:
                await self._socket.request(Message("link", {"index": int(view.index)}, tuple(attributes)), ASK)
            except OSError as error:
                if error.errno == errno.EINVAL and there.mtu != item.mtu:
                    raise OSError(errno.EINVAL, f"MTU {item.mtu} is more than the link below can carry, or too little") from error
                raise
        if there.up != item.up:
            state = messages.IFF_UP if item.up else 0
            await self._socket.request(
                Message("link", {"index": int(view.index), "flags": state, "change": messages.IFF_UP}), ASK
            )
        made, names = await self._look(item.name)
        now = messages.link_object(made, names)
        if now != item:
            shown = "gone" if now is None else describe(now)
            raise KernelError(errno.EINVAL, "make", describe(item), f"the kernel has made it {shown}")

    async def _look(self, name: str) -> tuple[LinkView, dict[LinkIndex, str]]:
        links = await self._links()
        if name not in links:
            raise OSError(errno.ENODEV, f"link {name} has vanished")
        return links[name], names_of(links.values())

    def _taken(self, error: OSError, item: VxlanLink, links: dict[str, LinkView]) -> OSError:
        if error.errno != errno.EEXIST or item.name in links:
            return error
        for view in links.values():
            if (view.kind, view.data.find("IFLA_VXLAN_ID"), view.data.find("IFLA_VXLAN_PORT")) == ("vxlan", item.vni, item.port):
                return OSError(error.errno, f"link {view.name} has VNI {item.vni} on UDP port {item.port} already")
        return error


def _what(scope: Scope) -> str:
    return f"what is ours around {scope.underlay}"


def _action(operation: Operation) -> str:
    match operation:
        case Put(replaces=None):
            return "create"
        case Put():
            return "replace"
        case Delete():
            return "delete"
        case _:
            assert_never(operation)


def _index(links: dict[str, LinkView], name: str) -> LinkIndex:
    view = links.get(name)
    if view is None:
        raise OSError(errno.ENODEV, f"there is no link {name}")
    return view.index


def _require_ours(item: Link, view: LinkView, links: dict[str, LinkView], action: str) -> Link:
    there = messages.link_object(view, names_of(links.values()))
    if there is None:
        raise KernelError(errno.EEXIST, action, describe(item), f"link {view.name} is of kind {view.kind or 'unknown'}, not ours")
    return there


def _changes_in_place(there: Link, wanted: Link) -> bool:
    match there, wanted:
        case VxlanLink(), VxlanLink():
            return dataclasses.replace(there, mtu=wanted.mtu, mac=wanted.mac, up=wanted.up) == wanted
        case TunLink(), TunLink():
            return True
        case _:
            return False


def _silence_link_local(name: str) -> None:
    path = f"ipv6/conf/{name}/addr_gen_mode"
    if read_sysctl(path) is not None:
        write_sysctl(path, _ADDR_GEN_MODE_NONE)


def _seen_sysctl(path: str) -> Sysctl | None:
    value = read_sysctl(path)
    return None if value is None else seen_sysctl(path, value)


def _sorted(foreign: list[tuple[Hashable, str]]) -> tuple[tuple[Hashable, str], ...]:
    return tuple(sorted(dict.fromkeys(foreign), key=lambda pair: pair[1]))

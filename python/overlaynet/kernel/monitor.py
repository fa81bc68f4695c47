"""The kernel's own announcements of changes, told apart cheaply: which of them concern us.

The socket is apart from the one that asks and writes, so that a flood of events never stands in an answer's way. Messages are
read only as far as the decision needs; what a message says is never believed, since an observation follows.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, Self, TypeAlias

from overlaynet import _core
from overlaynet.kernel import entries
from overlaynet.kernel.messages import AF_BRIDGE, NUD_PERMANENT, TABLE_MAIN
from overlaynet.kernel.names import is_our_link, is_within
from overlaynet.kernel.namespace import NamespaceThread, route_socket
from overlaynet.model.kernel import NEXT_HOP_IDS, ROUTE_PROTOCOL, Scope

_NETLINK_ADD_MEMBERSHIP: Final = 1
_SO_ATTACH_FILTER: Final = 26
_PORT_OFFSET: Final = 12
_SOL_NETLINK: Final = 270
_RTNLGRP_LINK: Final = 1
_RTNLGRP_NEIGH: Final = 3
_RTNLGRP_IPV4_IFADDR: Final = 5
_RTNLGRP_IPV4_ROUTE: Final = 7
_RTNLGRP_IPV6_IFADDR: Final = 9
_RTNLGRP_IPV6_ROUTE: Final = 11
_RTNLGRP_NEXTHOP: Final = 32
_GROUPS: Final = (
    _RTNLGRP_LINK,
    _RTNLGRP_NEIGH,
    _RTNLGRP_IPV4_IFADDR,
    _RTNLGRP_IPV4_ROUTE,
    _RTNLGRP_IPV6_IFADDR,
    _RTNLGRP_IPV6_ROUTE,
    _RTNLGRP_NEXTHOP,
)

_LINKS: Final = (16, 17)
_ADDRESSES: Final = (20, 21)
_ROUTES: Final = (24, 25)
_NEIGHBOURS: Final = (28, 29)
_DELLINK: Final = 17
_DELNEIGH: Final = 29
_IFLA_IFNAME: Final = 3
_IFLA_ADDRESS: Final = 1
_IFLA_MTU: Final = 4
_IFLA_TXQLEN: Final = 13

_LINK: Final = struct.Struct("=BxHiII")  # ifinfomsg
_ADDRESS: Final = struct.Struct("=BBBBI")  # ifaddrmsg
_ATTRIBUTE: Final = struct.Struct("=HH")  # rtattr
_ATTRIBUTE_TYPE: Final = 0x3FFF

_BUFFER_BYTES: Final = 1 << 18
# One burst of changes is one item: what follows within this span would be seen by the same observation.
_SETTLE_S: Final = 0.02
# How much is read before other tasks have their turn.
_READS_AT_ONCE: Final = 32


Knows: TypeAlias = Callable[[int, bytes, bytes | None], bool]
"""Whether a neighbour or forwarding entry, by link, address and where it leads (None: gone), is as we know it."""


class Filter:
    """Decides whether messages concern us. It knows the links by number, as far as they are ours or the underlay."""

    def __init__(self, scope: Scope, own_ports: Callable[[], tuple[int, ...]], links: dict[int, str], knows: Knows) -> None:
        self._scope = scope
        self._own_ports = own_ports
        self._knows = knows
        self._links = {index: name for index, name in links.items() if self._matters(name)}
        self._underlay_state: dict[int, tuple[object, ...]] = {}

    def concerns_us(self, data: bytes) -> bool:
        """Whether any message in the buffer does. What our own requests caused directly does not: we know of it."""
        # Every message is looked at, since each may teach the filter a link's number.
        concerned = False
        own = self._own_ports()
        for kind, port, told in _core.netlink_events(data, own):
            concerned = self._one(kind, told, by_us=port in own) or concerned
        return concerned

    def _matters(self, name: str) -> bool:
        return is_our_link(name) or name == self._scope.underlay

    def _one(self, kind: int, told: tuple[Any, ...] | bytes, *, by_us: bool) -> bool:
        if isinstance(told, tuple):
            if kind in _ROUTES:
                return self._route(told)
            if kind in _NEIGHBOURS:
                return self._neighbour(kind, told)
            return told[0] in NEXT_HOP_IDS
        if kind in _LINKS:
            return self._link(kind, told) and not by_us
        if kind in _ADDRESSES and not by_us:
            return _ADDRESS.unpack_from(told)[4] in self._links
        return False

    def _neighbour(self, kind: int, fields: tuple[Any, ...]) -> bool:
        family, index, state, _, destination, mac = fields
        ours = is_our_link(self._links.get(index, ""))
        address, end = (mac, destination) if family == AF_BRIDGE else (destination, mac)
        if address is not None and self._knows(index, address, None if kind == _DELNEIGH else end):
            return False
        # A neighbour that the kernel resolves by itself is no concern; a permanent one that vanishes may be shown as failed.
        return ours and (kind == _DELNEIGH or family == AF_BRIDGE or bool(state & NUD_PERMANENT))

    def _link(self, kind: int, body: bytes) -> bool:
        family, _, index, flags, _ = _LINK.unpack_from(body)
        if family == AF_BRIDGE:
            return False
        attributes = dict(_attributes(body, _LINK.size))
        name = attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "replace")
        known = index in self._links
        if not self._matters(name):
            # A link that was ours and has another name now is gone to us.
            self._links.pop(index, None)
            return known
        if kind == _DELLINK:
            self._links.pop(index, None)
            self._underlay_state.pop(index, None)
            return True
        self._links[index] = name
        state = (flags, *(attributes.get(number) for number in (_IFLA_MTU, _IFLA_ADDRESS, _IFLA_TXQLEN)))
        if is_our_link(name):
            return True
        # The underlay's links tell of more than we look at (statistics of a wireless link, say).
        changed = self._underlay_state.get(index) != state
        self._underlay_state[index] = state
        return changed

    def _route(self, fields: tuple[Any, ...]) -> bool:
        if fields[2] != TABLE_MAIN:
            return False
        if fields[3] == ROUTE_PROTOCOL or fields[7] in self._links:
            return True
        return is_within(entries.route_prefix(fields), self._scope.networks)


def _attributes(body: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size or offset + length > len(body):
            return
        yield kind & _ATTRIBUTE_TYPE, body[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def subscribed_socket() -> socket.socket:
    """A new socket in the calling thread's namespace that hears of links, addresses, neighbours and routes."""
    made = route_socket()
    try:
        made.bind((0, 0))
        for group in _GROUPS:
            try:
                made.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
            except OSError:
                # A kernel without next hops has no such group.
                if group != _RTNLGRP_NEXTHOP:
                    raise
    except OSError:
        made.close()
        raise
    return made


def turn_away(made: socket.socket, port: int) -> None:
    """Let the kernel drop what the socket with this netlink address causes, before it takes room in the queue of `made`.

    Ten thousand peers written at once would fill any queue with events of which we know. (A classic BPF program, as
    Documentation/networking/filter.rst has it: load the header's port, compare, drop or keep whole.)
    """
    # Loads are big-endian, netlink headers in the machine's byte order.
    seen = int.from_bytes(port.to_bytes(4, sys.byteorder), "big")
    steps = ((0x20, 0, 0, _PORT_OFFSET), (0x15, 0, 1, seen), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    made.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(steps), ctypes.addressof(program)))


class Monitor:
    """A subscribed socket, read on the loop."""

    def __init__(self, made: socket.socket) -> None:
        self._socket = made
        self._filter: Filter | None = None
        self._heard = asyncio.Event()
        self._overflowed = False
        asyncio.get_running_loop().add_reader(made, self._read)

    @classmethod
    async def open(cls, thread: NamespaceThread) -> Self:
        """A monitor in the thread's namespace. Until it has a filter, everything concerns us."""
        return cls(await thread.call(subscribed_socket))

    def use(self, chosen: Filter, unheard: int) -> None:
        """From now on only what the filter picks counts, and nothing that the netlink address `unheard` causes."""
        self._filter = chosen
        turn_away(self._socket, unheard)

    async def changed(self) -> bool:
        """Return when something that concerns us has changed and the burst is over; False: the kernel's queue overflowed.

        After an overflow the socket is of no more use.
        """
        await self._heard.wait()
        if not self._overflowed:
            await asyncio.sleep(_SETTLE_S)
        self._heard.clear()
        return not self._overflowed

    def close(self) -> None:
        """Close the socket."""
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()

    def _read(self) -> None:
        for _ in range(_READS_AT_ONCE):
            try:
                data = self._socket.recv(_BUFFER_BYTES)
            except BlockingIOError:
                return
            except OSError:
                # ENOBUFS: events were lost. Any other error leaves the socket as useless.
                self._overflowed = True
                self._heard.set()
                asyncio.get_running_loop().remove_reader(self._socket)
                return
            if self._filter is None or self._filter.concerns_us(data):
                self._heard.set()

"""The kernel's own announcements of changes, told apart cheaply: which of them concern us.

The socket is apart from the one that asks and writes, so that a flood of events never stands in an answer's way. Messages are
read only as far as the decision needs; what a message says is never believed, since an observation follows.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Final, Self

from overlaynet.kernel.messages import AF_BRIDGE, AF_INET, AF_INET6, NUD_PERMANENT, TABLE_MAIN
from overlaynet.kernel.names import is_our_link, is_within
from overlaynet.kernel.namespace import NamespaceThread, route_socket
from overlaynet.model.kernel import ROUTE_PROTOCOL, Scope

_NETLINK_ADD_MEMBERSHIP: Final = 1
_SOL_NETLINK: Final = 270
_RTNLGRP_LINK: Final = 1
_RTNLGRP_NEIGH: Final = 3
_RTNLGRP_IPV4_IFADDR: Final = 5
_RTNLGRP_IPV4_ROUTE: Final = 7
_RTNLGRP_IPV6_IFADDR: Final = 9
_RTNLGRP_IPV6_ROUTE: Final = 11
_GROUPS: Final = (
    _RTNLGRP_LINK,
    _RTNLGRP_NEIGH,
    _RTNLGRP_IPV4_IFADDR,
    _RTNLGRP_IPV4_ROUTE,
    _RTNLGRP_IPV6_IFADDR,
    _RTNLGRP_IPV6_ROUTE,
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
_RTA_DST: Final = 1
_RTA_OIF: Final = 4

_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr (include/uapi/linux/netlink.h)
_LINK: Final = struct.Struct("=BxHiII")  # ifinfomsg
_ADDRESS: Final = struct.Struct("=BBBBI")  # ifaddrmsg
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # rtmsg
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")  # ndmsg
_ATTRIBUTE: Final = struct.Struct("=HH")  # rtattr
_ATTRIBUTE_TYPE: Final = 0x3FFF

_BUFFER_BYTES: Final = 1 << 18
# One burst of changes is one item: what follows within this span would be seen by the same observation.
_SETTLE_S: Final = 0.02
# How much is read before other tasks have their turn.
_READS_AT_ONCE: Final = 32


class Filter:
    """Decides whether messages concern us. It knows the links by number, as far as they are ours or the underlay."""

    def __init__(self, scope: Scope, own_port: int, links: dict[int, str]) -> None:
        self._scope = scope
        self._own_port = own_port
        self._links = {index: name for index, name in links.items() if self._matters(name)}
        self._underlay_state: dict[int, tuple[object, ...]] = {}

    def concerns_us(self, data: bytes) -> bool:
        """Whether any message in the buffer does. What our own requests caused directly does not: we know of it."""
        # Every message is looked at, since each may teach the filter a link's number.
        concerned = False
        for message in _messages(data):
            concerned = self._one(*message) or concerned
        return concerned

    def _matters(self, name: str) -> bool:
        return is_our_link(name) or name == self._scope.underlay

    def _one(self, kind: int, port: int, body: bytes) -> bool:
        if kind in _LINKS:
            return self._link(kind, body) and port != self._own_port
        if port == self._own_port:
            return False
        if kind in _ADDRESSES:
            return _ADDRESS.unpack_from(body)[4] in self._links
        if kind in _NEIGHBOURS:
            family, index, state, _, _ = _NEIGHBOUR.unpack_from(body)
            ours = is_our_link(self._links.get(index, ""))
            # A neighbour that the kernel resolves by itself is no concern; a permanent one that vanishes may be shown as failed.
            return ours and (kind == _DELNEIGH or family == AF_BRIDGE or bool(state & NUD_PERMANENT))
        if kind in _ROUTES:
            return self._route(body)
        return False

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

    def _route(self, body: bytes) -> bool:
        family, length, _, _, table, protocol, _, _, _ = _ROUTE.unpack_from(body)
        if table != TABLE_MAIN or family not in (AF_INET, AF_INET6):
            return False
        if protocol == ROUTE_PROTOCOL:
            return True
        attributes = dict(_attributes(body, _ROUTE.size))
        link = attributes.get(_RTA_OIF)
        if link is not None and int.from_bytes(link, "little") in self._links:
            return True
        destination = attributes.get(_RTA_DST, bytes(4 if family == AF_INET else 16))
        return is_within(ip_network((destination, length)), self._scope.networks)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, port = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            return
        yield kind, port, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


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
            made.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
    except OSError:
        made.close()
        raise
    return made


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

    def use(self, chosen: Filter) -> None:
        """From now on only what the filter picks counts."""
        self._filter = chosen

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

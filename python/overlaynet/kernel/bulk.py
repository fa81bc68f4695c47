"""A rtnetlink socket for what comes by the ten thousand: writes in batches, and whole tables, packed and parsed by the core.

It blocks, and is made and used in one thread that is not the event loop's. A batch asks for one acknowledgement, on its last
message; errors come back for every message anyway and are told apart by sequence number, as the messages of a batch are carried
out in order whatever becomes of those before (net/netlink/af_netlink.c, netlink_rcv_skb).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final, Self

from overlaynet import _core
from overlaynet.errors import KernelBusyError
from overlaynet.kernel.entries import RTM_GETNEIGH, RTM_GETNEXTHOP, RTM_GETROUTE, Fields
from overlaynet.kernel.messages import AF_BRIDGE, TABLE_MAIN
from overlaynet.kernel.namespace import route_socket

_BATCH: Final = 400
"""Messages a send. Larger ones bring nothing and need more room for their errors."""

_RECEIVE: Final = 1 << 16
_PATIENCE_S: Final = 10.0
_DUMP_ATTEMPTS: Final = 8
_SEQUENCES: Final = 0xFFFFFFFF

_SOL_NETLINK: Final = 270
_NETLINK_CAP_ACK: Final = 10
_NETLINK_EXT_ACK: Final = 11
_NETLINK_GET_STRICT_CHK: Final = 12

_RTA_TABLE: Final = 15
_NDA_IFINDEX: Final = 8


class BulkSocket:
    """The socket. Each call ends with its answers read; after an OSError of the socket itself it is to be closed."""

    def __init__(self, made: socket.socket) -> None:
        self._socket = made
        self._port = int(made.getsockname()[0])
        self._sequence = 0

    @classmethod
    def open(cls) -> Self:
        """A socket in the calling thread's namespace, with extended errors and strict filters."""
        made = route_socket()
        try:
            made.settimeout(_PATIENCE_S)
            made.bind((0, 0))
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
                made.setsockopt(_SOL_NETLINK, option, 1)
        except OSError:
            made.close()
            raise
        return cls(made)

    @property
    def port(self) -> int:
        """The socket's own netlink address, which events that its requests cause carry."""
        return self._port

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def write(self, requests: Sequence[tuple[int, int, Fields]]) -> dict[int, OSError]:
        """Send the requests (kind, flags, fields) in order; the refusals by the places of what they refuse."""
        refusals: dict[int, OSError] = {}
        for start in range(0, len(requests), _BATCH):
            self._write_batch(list(requests[start : start + _BATCH]), start, refusals)
        return refusals

    def routes(self, family: int) -> list[Fields]:
        """The routes of the main table."""
        body = struct.pack("=BxxxBxxxI HHI", family, TABLE_MAIN, 0, 8, _RTA_TABLE, TABLE_MAIN)
        return self._dump(RTM_GETROUTE, body)

    def neighbours(self, family: int, link: int) -> list[Fields]:
        """The neighbours on a link."""
        return self._dump(RTM_GETNEIGH, struct.pack("=Bxxxi4x HHI", family, 0, 8, _NDA_IFINDEX, link))

    def forwarding(self, link: int) -> list[Fields]:
        """The forwarding entries of a device."""
        return self._dump(RTM_GETNEIGH, struct.pack("=Bxxxi4x", AF_BRIDGE, link))

    def next_hops(self) -> list[Fields]:
        """The next-hop objects. OSError with EOPNOTSUPP: the kernel knows none."""
        return self._dump(RTM_GETNEXTHOP, bytes(8))

    def _write_batch(self, requests: list[tuple[int, int, Fields]], start: int, refusals: dict[int, OSError]) -> None:
        first = self._numbers(len(requests))
        self._socket.send(_core.netlink_pack(requests, first))
        while True:
            for sequence, number, words in _core.netlink_answers(self._socket.recv(_RECEIVE)):
                place = sequence - first
                if 0 <= place < len(requests):
                    if number:
                        refusals[start + place] = OSError(number, words or os.strerror(number))
                    if place == len(requests) - 1:
                        return

    def _dump(self, kind: int, body: bytes) -> list[Fields]:
        for _ in range(_DUMP_ATTEMPTS):
            found, interrupted = self._dump_once(kind, body)
            if not interrupted:
                return found
        raise KernelBusyError(errno.EINTR, "dump", f"table of kind {kind}", "it changed while it was read, each time")

    def _dump_once(self, kind: int, body: bytes) -> tuple[list[Fields], bool]:
        sequence = self._numbers(1)
        found: list[Fields] = []
        interrupted = False
        self._socket.send(_core.netlink_dump(kind, sequence, body))
        while True:
            rows, disturbed, end = _core.netlink_dumped(self._socket.recv(_RECEIVE), sequence)
            found += rows
            interrupted = interrupted or disturbed
            if end is not None:
                number, words = end
                # The link has just gone, or the table was never used: nothing there.
                if number in (0, errno.ENODEV, errno.ENOENT):
                    return found, interrupted
                raise OSError(number, words or os.strerror(number))

    def _numbers(self, count: int) -> int:
        """The first of so many sequence numbers; they never wrap within one batch."""
        if self._sequence + count >= _SEQUENCES:
            self._sequence = 0
        first = self._sequence + 1
        self._sequence += count
        return first

"""One rtnetlink conversation at a time: requests and dumps, as plain dictionaries of names and values.

pyroute2 encodes and decodes the messages; it is untyped, and nothing of it leaves this module. Attribute names are those of the
kernel's headers (`RTA_DST`, `IFLA_MTU`), fields those of their structures without the prefix (`ifindex`, `state`).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeAlias

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import (
    NETLINK_EXT_ACK,
    NETLINK_GET_STRICT_CHK,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    SOL_NETLINK,
)
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELNEIGH,
    RTM_DELQDISC,
    RTM_DELROUTE,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETNEIGH,
    RTM_GETQDISC,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWQDISC,
    RTM_NEWROUTE,
)
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from overlaynet.errors import KernelBusyError
from overlaynet.kernel.namespace import NamespaceThread, route_socket

Attributes: TypeAlias = Iterable[tuple[str, object]]

CREATE: Final = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
REPLACE: Final = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE
ASK: Final = NLM_F_REQUEST | NLM_F_ACK

_MESSAGES: Final[Mapping[str, tuple[Any, int, int, int]]] = {
    "link": (ifinfmsg, RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK),
    "address": (ifaddrmsg, RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR),
    "neighbour": (ndmsg, RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH),
    "qdisc": (tcmsg, RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC),
    "route": (rtmsg, RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE),
}

_DUMP_ATTEMPTS = 8
_PAUSE_EVERY = 100


@dataclass(frozen=True, slots=True)
class Message:
    """A message of one topic (`link`, `address`, `neighbour`, `qdisc`, `route`): its structure's fields, and its attributes."""

    topic: str
    fields: Mapping[str, int] = field(default_factory=dict)
    attributes: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """A decoded message: fields and attributes in one mapping, attributes by their kernel names; nested ones are Records."""

    values: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def find(self, name: str, default: Any = None) -> Any:
        """The field or attribute, or `default` where the kernel sent none."""
        return self.values.get(name, default)


class RouteSocket:
    """A rtnetlink socket. Its calls follow one another, whichever task makes them: two dumps at once on one socket give EBUSY."""

    def __init__(self, iproute: Any, made: socket.socket) -> None:
        self._iproute = iproute
        self._socket = made
        self._port = int(made.getsockname()[0])
        self._lock = asyncio.Lock()

    @classmethod
    async def open(cls, thread: NamespaceThread) -> Self:
        """A socket in the thread's namespace, with extended errors and strict filters."""
        made = await thread.call(route_socket)
        made.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        made.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        # Without events: pyroute2 would take one with the number of a request that is under way for its answer.
        iproute = AsyncIPRoute(use_socket=made, groups=0, ext_ack=True, strict_check=True)
        await iproute.bind()
        return cls(iproute, made)

    @property
    def port(self) -> int:
        """The socket's own netlink address, which events that its requests cause carry."""
        return self._port

    async def dump(self, message: Message) -> list[Record]:
        """Everything that matches. KernelBusyError: it changed under each of several readings. OSError as the kernel gives it."""
        async with self._lock:
            for _ in range(_DUMP_ATTEMPTS):
                records: list[Record] = []
                interrupted = False
                async for answer in self._exchange(message, _MESSAGES[message.topic][3], NLM_F_REQUEST | NLM_F_DUMP):
                    interrupted = interrupted or bool(answer["header"]["flags"] & NLM_F_DUMP_INTR)
                    records.append(_record(answer))
                    if len(records) % _PAUSE_EVERY == 0:
                        await asyncio.sleep(0)
                if not interrupted:
                    return records
        raise KernelBusyError(errno.EINTR, "dump", message.topic, "it changed while it was read, each time")

    async def request(self, message: Message, flags: int) -> None:
        """Make or change what the message names. OSError as the kernel gives it."""
        async with self._lock:
            async for _ in self._exchange(message, _MESSAGES[message.topic][1], flags):
                pass

    async def delete(self, message: Message) -> None:
        """Delete what the message names. OSError as the kernel gives it."""
        async with self._lock:
            async for _ in self._exchange(message, _MESSAGES[message.topic][2], ASK):
                pass

    async def ask(self, message: Message) -> list[Record]:
        """The kernel's answer about one object. OSError as the kernel gives it."""
        async with self._lock:
            asked = self._exchange(message, _MESSAGES[message.topic][3], NLM_F_REQUEST)
            return [_record(answer) async for answer in asked]

    def close(self) -> None:
        """Close the socket."""
        self._iproute.close()
        self._socket.close()

    async def _exchange(self, message: Message, number: int, flags: int) -> AsyncIterator[Any]:
        built = _MESSAGES[message.topic][0]()
        for name, value in message.fields.items():
            built[name] = value
        built["attrs"] = [[name, _plain(value)] for name, value in message.attributes]
        try:
            async for answer in await self._iproute.nlm_request(built, msg_type=number, msg_flags=flags):
                yield answer
        except NetlinkError as error:
            # pyroute2 puts the kernel's extended message here, or strerror's where there is none.
            words = str(error.args[1]) if len(error.args) > 1 else os.strerror(error.code)
            raise OSError(error.code, words) from error


def _plain(value: object) -> object:
    match value:
        case tuple():
            return {"attrs": [[name, _plain(inner)] for name, inner in value]}
        case _:
            return value


def _record(answer: Any) -> Record:
    values: dict[str, Any] = {name: answer[name] for name, *_ in answer.fields} if hasattr(answer, "fields") else {}
    for slot in answer.get("attrs", ()):
        name, value = slot[0], slot[1]
        values[name] = _record(value) if hasattr(value, "get") and value.get("attrs") is not None else value
    return Record(values)

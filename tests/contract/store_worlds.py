"""Stores under one set of hands: any number of clients of one store, and time that passes when the test says so.

In memory and file the clock is the test's own. In etcd it is etcd's: there a TTL is short and to let time pass is to wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Protocol

import pytest
from overlaynet.model.lease import Grant, HostId, LeaseAttributes
from overlaynet.model.lease_text import parse_lease_key
from overlaynet.model.snapshot import Change, Changes, Snapshot
from overlaynet.store import Store, StoreAdmin
from overlaynet.store.etcd.settings import parse_etcd_url
from overlaynet.store.etcd.store import EtcdStore
from overlaynet.store.memory import MemoryStore
from overlaynet.store.sqlite import SqliteStore

from tests.contract.etcd_server import EtcdServer

KEPT_CHANGES = 50
"""How many changes the stores under test keep."""

A, B, C = HostId("a" * 32), HostId("b" * 32), HostId("c" * 32)
TTL_S = 60.0


class Client(Store, StoreAdmin, Protocol):
    """One process's hold on the store."""


@dataclass(slots=True)
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class StoreWorld(Protocol):
    ttl_s: float
    slack_s: float
    """How far off a remaining time may be."""

    def connect(self) -> Client: ...

    async def let_pass(self, ttls: float) -> None:
        """Let that many TTLs pass; what ends by then has ended afterwards."""

    async def forget_all_but(self, changes: int) -> None:
        """Keep no more than the last `changes`."""


@dataclass(slots=True)
class MemoryWorld:
    ttl_s: float = TTL_S
    slack_s: float = 0.0
    clock: Clock = field(default_factory=Clock)
    _store: MemoryStore | None = None

    def connect(self) -> Client:
        if self._store is None:
            self._store = MemoryStore(self.clock, keep=KEPT_CHANGES)
        return self._store

    async def let_pass(self, ttls: float) -> None:
        self.clock.now += ttls * self.ttl_s

    async def forget_all_but(self, changes: int) -> None:
        assert changes == KEPT_CHANGES


@dataclass(slots=True)
class SqliteWorld:
    folder: Path
    ttl_s: float = TTL_S
    slack_s: float = 0.0
    clock: Clock = field(default_factory=Clock)
    clients: list[SqliteStore] = field(default_factory=list)

    def connect(self) -> Client:
        client = SqliteStore(self.folder / "store.db", clock=self.clock, boot=lambda: "boot-1", keep=KEPT_CHANGES)
        self.clients.append(client)
        return client

    async def let_pass(self, ttls: float) -> None:
        self.clock.now += ttls * self.ttl_s

    async def forget_all_but(self, changes: int) -> None:
        assert changes == KEPT_CHANGES


@dataclass(slots=True)
class EtcdWorld:
    server: EtcdServer
    prefix: str
    ttl_s: float = 3.0
    slack_s: float = 1.5
    clients: list[EtcdStore] = field(default_factory=list)

    def connect(self) -> Client:
        client = EtcdStore(parse_etcd_url(f"etcd://{self.server.address}{self.prefix}"))
        self.clients.append(client)
        return client

    async def let_pass(self, ttls: float) -> None:
        await asyncio.sleep(ttls * self.ttl_s)
        if ttls < 1:
            return
        # etcd looks for what has expired twice a second, and a busy one later: wait until it has acted.
        async with asyncio.timeout(30):
            observer = self.connect()
            while any(not lease.reserved for lease in (await observer.load()).leases):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def forget_all_but(self, changes: int) -> None:
        revision = (await self.clients[0].load()).revision
        await asyncio.to_thread(self.server.ctl, "compact", str(revision - changes))


@asynccontextmanager
async def store_world(kind: str, folder: Path, request: pytest.FixtureRequest) -> AsyncIterator[StoreWorld]:
    """A new store of the `kind`: memory, sqlite or etcd."""
    match kind:
        case "memory":
            yield MemoryWorld()
            return
        case "sqlite":
            world: SqliteWorld | EtcdWorld = SqliteWorld(folder)
        case "etcd":
            world = EtcdWorld(request.getfixturevalue("etcd"), request.getfixturevalue("prefix"))
        case _:
            raise ValueError(kind)
    try:
        yield world
    finally:
        for client in world.clients:
            await client.aclose()


def attributes(last: int) -> LeaseAttributes:
    """What the host 192.0.2.`last` publishes."""
    return LeaseAttributes(IPv4Address(f"192.0.2.{last}"), IPv6Address(f"fd00::{last:x}"), "vxlan", b'{"VNI":1}')


async def claim(
    client: Client, host: HostId, key: str, last: int, *, ttl_s: float = TTL_S, seen: Snapshot | None = None
) -> Grant:
    """A claim without anything to take over."""
    snapshot = seen or await client.load()
    return await client.claim(host, parse_lease_key(key), attributes(last), ttl_s=ttl_s, seen=snapshot, features=("x",))


class Watcher:
    """A watch that runs beside the test; `until` waits for what it hears."""

    def __init__(self, client: Client, after: int) -> None:
        self.heard: list[Change] = []
        self.revisions: list[int] = []
        self._news = asyncio.Event()
        self.task = asyncio.create_task(self._listen(client.watch(after)))

    async def _listen(self, changes: AsyncIterator[Changes]) -> None:
        async for batch in changes:
            self.revisions.append(batch.revision)
            self.heard += batch.changes
            self._news.set()

    async def until_heard(self, change: Change, within_s: float = 20.0) -> list[Change]:
        """What was heard, once `change` is among it."""
        deadline = asyncio.get_running_loop().time() + within_s
        while change not in self.heard:
            await self.until(len(self.heard) + 1, deadline - asyncio.get_running_loop().time())
        return self.heard

    async def until(self, count: int, within_s: float = 20.0) -> list[Change]:
        """What was heard, once it is `count` changes."""
        async with asyncio.timeout(within_s):
            while len(self.heard) < count:
                self._news.clear()
                news = asyncio.create_task(self._news.wait())
                await asyncio.wait({news, self.task}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                if self.task.done():
                    self.task.result()
                    break
        return self.heard

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})

"""Stores under one set of hands: any number of clients of one store, and a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Protocol

from overlaynet.model.lease import Grant, HostId, LeaseAttributes
from overlaynet.model.lease_text import parse_lease_key
from overlaynet.model.snapshot import Change, Changes, Snapshot
from overlaynet.store import Store, StoreAdmin
from overlaynet.store.memory import MemoryStore
from overlaynet.store.sqlite import SqliteStore

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
    clock: Clock

    def connect(self) -> Client: ...


@dataclass(slots=True)
class MemoryWorld:
    clock: Clock = field(default_factory=Clock)
    _store: MemoryStore | None = None

    def connect(self) -> Client:
        if self._store is None:
            self._store = MemoryStore(self.clock, keep=KEPT_CHANGES)
        return self._store


@dataclass(slots=True)
class SqliteWorld:
    folder: Path
    clock: Clock = field(default_factory=Clock)
    clients: list[SqliteStore] = field(default_factory=list)

    def connect(self) -> Client:
        client = SqliteStore(self.folder / "store.db", clock=self.clock, boot=lambda: "boot-1", keep=KEPT_CHANGES)
        self.clients.append(client)
        return client


@asynccontextmanager
async def store_world(kind: str, folder: Path) -> AsyncIterator[StoreWorld]:
    """A new store of the `kind`: memory or sqlite."""
    match kind:
        case "memory":
            yield MemoryWorld()
        case "sqlite":
            world = SqliteWorld(folder)
            try:
                yield world
            finally:
                for client in world.clients:
                    await client.aclose()
        case _:
            raise ValueError(kind)


def attributes(last: int) -> LeaseAttributes:
    """What the host 192.0.2.`last` publishes."""
    return LeaseAttributes(IPv4Address(f"192.0.2.{last}"), IPv6Address(f"fd00::{last:x}"), "vxlan", b'{"VNI":1}')


async def claim(
    client: Client, host: HostId, key: str, last: int, *, ttl_s: float = TTL_S, seen: Snapshot | None = None
) -> Grant:
    """A claim without anything to take over."""
    snapshot = seen or Snapshot(0, None, ())
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

    async def until(self, count: int, within_s: float = 5.0) -> list[Change]:
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

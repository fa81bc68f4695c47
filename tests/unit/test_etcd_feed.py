"""The order in which three watchers of one stream may speak, and what a claim may rest on in each: no etcd is needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest
from overlaynet.model.lease import HostId
from overlaynet.model.lease_text import parse_lease_key
from overlaynet.model.snapshot import Changes, ConfigPut, LeaseGone, LeasePut, Unreadable, UnreadableGone
from overlaynet.store.etcd import rpc_pb2 as rpc
from overlaynet.store.etcd.client import EtcdClient
from overlaynet.store.etcd.feed import Feed
from overlaynet.store.etcd.keys import Layout, View

CONFIG, LEASES, OWNERS = range(3)
KEY = "10.1.2.0-24"
SUBNETS = parse_lease_key(KEY)
VALUE = b'{"PublicIP":"192.0.2.1","PublicIPv6":null}'
LAYOUT = Layout("/n")


class ScriptedClient:
    """A stream that says what the test put into it."""

    patience = 0

    def __init__(self) -> None:
        self.answers: asyncio.Queue[rpc.WatchResponse] = asyncio.Queue()
        self.asked: list[list[int]] = []

    def say(self, watch_id: int, events: list[rpc.Event], revision: int) -> None:
        header = rpc.ResponseHeader(revision=revision, cluster_id=7)
        self.answers.put_nowait(rpc.WatchResponse(header=header, watch_id=watch_id, events=events))

    async def watch(self, creates: Sequence[rpc.WatchCreateRequest]) -> AsyncIterator[rpc.WatchResponse]:
        self.asked.append([create.start_revision for create in creates])
        for watch_id in range(len(creates)):
            yield rpc.WatchResponse(header=rpc.ResponseHeader(revision=5, cluster_id=7), watch_id=watch_id, created=True)
        while True:
            yield await self.answers.get()


def put(key: bytes, value: bytes, revision: int, lease: int = 0) -> rpc.Event:
    return rpc.Event(kv=rpc.KeyValue(key=key, value=value, mod_revision=revision, create_revision=revision, lease=lease))


def gone(key: bytes, revision: int) -> rpc.Event:
    return rpc.Event(type=rpc.Event.DELETE, kv=rpc.KeyValue(key=key, mod_revision=revision))


async def heard(*answers: tuple[int, list[rpc.Event], int], count: int) -> list[Changes]:
    """What a feed that stands at revision 5 makes of answers: watcher, events, the header's revision."""
    client = ScriptedClient()
    feed = Feed(cast("EtcdClient", client), View(LAYOUT, 5, 7))
    found: list[Changes] = []

    async def listen() -> None:
        async for changes in feed.changes():
            found.append(changes)
            if len(found) == count:
                return

    listening = asyncio.create_task(listen())
    for watch_id, events, revision in answers:
        client.say(watch_id, events, revision)
    await asyncio.wait_for(listening, 10)
    assert client.asked == [[6, 6, 6]]
    return found


def lease(revision: int, lease_id: int = 0) -> rpc.Event:
    return put(LAYOUT.lease(SUBNETS), VALUE, revision, lease_id)


def owner(revision: int, lease_id: int, host: str = "h") -> rpc.Event:
    return put(LAYOUT.owner(SUBNETS), b'{"host":"%s","features":[]}' % host.encode(), revision, lease_id)


def held_by(changes: Changes) -> list[tuple[str, HostId | None]]:
    return [(str(one.lease.subnets), one.lease.owner) for one in changes.changes if isinstance(one, LeasePut)]


async def test_revision_follows_the_leases_however_far_the_other_watchers_are() -> None:
    config = put(LAYOUT.config, b"{}", 40)
    (changes,) = await heard((CONFIG, [config], 40), (OWNERS, [owner(50, 9)], 50), (LEASES, [lease(8, 9)], 60), count=1)
    assert changes.revision == 8
    assert changes.changes[0] == ConfigPut(b"{}")
    assert held_by(changes) == [(KEY, HostId("h"))]


@pytest.mark.parametrize(
    ("further", "revision"),
    [
        ([], 8),
        ([(LEASES, [], 20)], 20),
        ([(OWNERS, [], 25)], 8),
        ([(-1, [], 28)], 8),
    ],
)
async def test_revision_in_a_header_counts_only_as_a_watchers_own_progress(
    further: list[tuple[int, list[rpc.Event], int]], revision: int
) -> None:
    (changes,) = await heard((LEASES, [lease(8)], 30), *further, count=1)
    assert changes.revision == revision


async def test_nothing_is_told_before_what_is_held_back_so_that_no_claim_rests_on_leases_unseen() -> None:
    (changes,) = await heard((LEASES, [lease(8, 9)], 8), (CONFIG, [put(LAYOUT.config, b"{}", 9)], 9), count=1)
    assert changes.changes[0] == ConfigPut(b"{}")
    assert held_by(changes) == [(KEY, None)]


async def test_owner_that_comes_after_its_lease_was_told_is_told_too() -> None:
    later = asyncio.Event()
    client = ScriptedClient()
    feed = Feed(cast("EtcdClient", client), View(LAYOUT, 5, 7))
    client.say(LEASES, [lease(8, 9)], 8)
    found = []
    async with asyncio.timeout(10):
        async for changes in feed.changes():
            found += held_by(changes)
            if later.is_set():
                break
            later.set()
            client.say(OWNERS, [owner(8, 9)], 8)
    assert found == [(KEY, None), (KEY, HostId("h"))]


async def test_owner_key_of_another_etcd_lease_owns_nothing() -> None:
    (changes,) = await heard((OWNERS, [owner(7, 3)], 7), (LEASES, [lease(8, 9)], 8), count=1)
    assert held_by(changes) == [(KEY, None)]


async def test_lease_that_came_and_went_in_one_batch_is_told_both_times() -> None:
    (changes,) = await heard((LEASES, [lease(8), gone(LAYOUT.lease(SUBNETS), 9)], 9), count=1)
    assert [type(one) for one in changes.changes] == [LeasePut, LeaseGone]


async def test_lease_that_cannot_be_read_any_more_is_gone_and_readable_again_is_back() -> None:
    key = LAYOUT.lease(SUBNETS)
    (changes,) = await heard((LEASES, [lease(8), put(key, b"?", 9), lease(10)], 10), count=1)
    kinds = [type(one) for one in changes.changes]
    assert kinds == [LeasePut, Unreadable, LeaseGone, UnreadableGone, LeasePut]


async def test_strange_key_that_is_deleted_is_no_longer_counted() -> None:
    strange = LAYOUT.subnets + b"junk"
    (changes,) = await heard((LEASES, [put(strange, VALUE, 8), gone(strange, 9)], 9), count=1)
    assert [type(one) for one in changes.changes] == [Unreadable, UnreadableGone]

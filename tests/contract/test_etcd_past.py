"""An etcd that was put back to a backup under its old id and written to since: at the same revisions, with another past."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from overlaynet.errors import ConflictError, HistoryGoneError, StaleSnapshotError
from overlaynet.model.lease import Grant, HostId, LeaseAttributes, Subnets
from overlaynet.model.lease_text import parse_lease_key
from overlaynet.store.etcd import client as etcd_client
from overlaynet.store.etcd import rpc_pb2 as rpc
from overlaynet.store.etcd import store as etcd_store
from overlaynet.store.etcd.settings import parse_etcd_url
from overlaynet.store.etcd.store import EtcdStore

from tests.contract.etcd_server import EtcdServer, etcd_server
from tests.contract.tcp_proxy import TcpProxy
from tests.contract.test_etcd_watch import WITHIN_S, Replica, following

A, B, C, D = (HostId(letter * 32) for letter in "abcd")
OLDER, NEWER = parse_lease_key("10.1.8.0-24"), parse_lease_key("10.1.9.0-24")
SUBNET, HALF, ELSEWHERE = (parse_lease_key(key) for key in ("10.1.2.0-24", "10.1.2.128-25", "10.1.3.0-24"))


async def claimed(store: EtcdStore, host: HostId, last: int, key: str) -> Grant:
    attributes = LeaseAttributes(IPv4Address(f"192.0.2.{last}"), None, "host-gw")
    return await store.claim(host, parse_lease_key(key), attributes, ttl_s=60, seen=await store.load())


@contextmanager
def put_back_as_it_was(folder: Path, server: EtcdServer) -> Iterator[EtcdServer]:
    """An etcd with the state that `server` has now, and with its id, which is made of its members' names and addresses."""
    folder.mkdir()
    server.ctl("snapshot", "save", str(folder / "backup"))
    (member,) = json.loads(server.ctl("member", "list", "-w", "json"))["members"]
    name, (url,) = member["name"], member["peerURLs"]
    command = ["etcdctl", "snapshot", "restore", str(folder / "backup"), "--data-dir", str(folder / "data"), "--name", name]
    command += ["--initial-cluster", f"{name}={url}", "--initial-advertise-peer-urls", url]
    subprocess.run(command, check=True, capture_output=True, env={"PATH": "/usr/bin:/bin", "ETCDCTL_API": "3"})
    with etcd_server(folder, fast=True) as restored:
        yield restored


class TwoPasts:
    """One cluster's id, two pasts: `old` writes to the one that was, `near` to the one that was put back, `far` follows both."""

    def __init__(self, server: EtcdServer, restored: EtcdServer, proxy: TcpProxy, prefix: str) -> None:
        self._restored, self._proxy = restored, proxy
        addresses = (server.address, restored.address, proxy.address)
        self.old, self.near, self.far = (EtcdStore(parse_etcd_url(f"etcd://{address}{prefix}")) for address in addresses)

    async def put_back(self) -> None:
        """Lead `far` to the restored cluster, which is further than the old one by then."""
        seen, now = await self.old.load(), await self.near.load()
        assert self.old._view.cluster == self.near._view.cluster
        for n in range(max(0, seen.revision - now.revision) + 5):
            await write_elsewhere(self.near, n)
        assert (await self.near.load()).revision > seen.revision
        self._proxy.lead_to(self._restored.address)

    async def close(self) -> None:
        for store in (self.old, self.near, self.far):
            await store.aclose()


@asynccontextmanager
async def two_pasts(folder: Path, prefix: str) -> AsyncIterator[TwoPasts]:
    """D and then B have a lease in both pasts, and there are keys that are no leases. What else there is, the test writes."""
    progress = ("--experimental-watch-progress-notify-interval", "1s")
    with etcd_server(folder / "old", *progress, fast=True) as server:
        first = EtcdStore(parse_etcd_url(f"etcd://{server.address}{prefix}"))
        await claimed(first, D, 4, str(OLDER))
        for strange in ("subnets/junk", f"subnets/{SUBNET}-", "overlaynet/owner/junk"):
            await first._client.call(etcd_client.PUT, rpc.PutRequest(key=f"{prefix}/{strange}".encode(), value=b"junk"))
        await claimed(first, B, 2, str(NEWER))
        await first.aclose()
        with put_back_as_it_was(folder / "new", server) as restored:
            async with TcpProxy(server.address) as proxy:
                made = TwoPasts(server, restored, proxy, prefix)
                try:
                    yield made
                finally:
                    await made.close()


async def write_elsewhere(store: EtcdStore, number: int) -> None:
    """Another user of etcd writes: a further revision in which nothing of ours has changed."""
    await store._client.call(etcd_client.PUT, rpc.PutRequest(key=b"/elsewhere", value=b"%d" % number))


async def until_told_of_others_writes(pasts: TwoPasts) -> None:
    """Let `far` be told, as it is every ten minutes, how far the old one is: beyond what is new in the other past."""
    revision = (await pasts.near.load()).revision
    for n in range(20):
        await write_elsewhere(pasts.old, n)
    (feed,) = pasts.far._feeds
    async with asyncio.timeout(WITHIN_S):
        while min(feed._next) <= revision:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def until_equal(replica: Replica, pasts: TwoPasts) -> None:
    observer = EtcdStore(pasts.near._settings)
    await replica.until_equal(await observer.load())
    await observer.aclose()


@pytest.mark.parametrize("what", ["put", "put and put", "older gone", "newer gone", "taken over"])
async def test_watch_does_not_go_on_from_another_past(tmp_path: Path, prefix: str, what: str) -> None:
    async with two_pasts(tmp_path, prefix) as pasts, following(pasts.far) as replica:
        if what == "put and put":
            await claimed(pasts.old, A, 1, "10.1.2.0-24")
        match what:
            case "put" | "put and put":
                await claimed(pasts.near, C, 3, "10.1.3.0-24")
            case "older gone":
                await pasts.near.revoke(OLDER, bar=False)
            case "newer gone":
                await pasts.near.revoke(NEWER, bar=False)
            case "taken over":
                await pasts.near.revoke(NEWER, bar=False)
                await claimed(pasts.near, C, 3, str(NEWER))
        await until_told_of_others_writes(pasts)
        await pasts.put_back()
        await until_equal(replica, pasts)
        assert (replica.loads, replica.losses, replica.replaced) == (2, 1, 1)


async def test_watch_goes_on_where_the_past_is_the_same(tmp_path: Path, prefix: str) -> None:
    """A cluster that was put back to what it was is followed on: nothing that was seen is untrue."""
    async with two_pasts(tmp_path, prefix) as pasts, following(pasts.far) as replica:
        await pasts.put_back()
        await claimed(pasts.near, C, 3, "10.1.3.0-24")
        await until_equal(replica, pasts)
        assert (replica.loads, replica.losses) == (1, 0)


@pytest.mark.parametrize("wanted", [SUBNET, HALF])
async def test_claim_does_not_rest_on_another_past(
    tmp_path: Path, prefix: str, monkeypatch: pytest.MonkeyPatch, wanted: Subnets
) -> None:
    """What was written up to the revision that was seen is no news to the range compare, whoever wrote it."""
    monkeypatch.setattr(etcd_store, "_JUST_READ_S", 0.0)
    async with two_pasts(tmp_path, prefix) as pasts:
        held = await claimed(pasts.near, C, 3, "10.1.2.0-24")
        for n in range(8):
            await pasts.old.put_config(b"%d" % n)
        seen = await pasts.far.load()
        assert seen.revision > held.lease.created
        await pasts.put_back()
        attributes = LeaseAttributes(IPv4Address("192.0.2.1"), None, "host-gw")
        with pytest.raises(ConflictError) as caught:
            await pasts.far.claim(A, wanted, attributes, ttl_s=60, seen=seen)
        assert isinstance(caught.value, StaleSnapshotError)
        assert {lease.owner for lease in (await pasts.near.load()).leases} == {B, C, D}
        grant = await pasts.far.claim(A, ELSEWHERE, attributes, ttl_s=60, seen=await pasts.far.load())
        assert grant.lease.owner == A


async def test_claim_that_follows_a_watch_does_not_ask_for_the_past(store: EtcdStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts that start together ask etcd for no more than they need."""
    monkeypatch.setattr(etcd_store, "_JUST_READ_S", 0.0)
    asked = 0

    async def ask(*_: object) -> None:
        nonlocal asked
        asked += 1
        raise HistoryGoneError(1, replaced=True)

    monkeypatch.setattr(etcd_store, "see_that_it_is_the_past", ask)
    async with following(store):
        (feed,) = store._feeds
        async with asyncio.timeout(WITHIN_S):
            while not feed.is_at(store._view):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        seen = store._view.snapshot
        attributes = LeaseAttributes(IPv4Address("192.0.2.1"), None, "host-gw")
        await store.claim(A, SUBNET, attributes, ttl_s=60, seen=seen)
    assert asked == 0

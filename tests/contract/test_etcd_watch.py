"""The etcd store behind a network that fails: whatever was cut, compacted or deleted, what is known ends as a fresh load."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import Any

import pytest
from overlaynet.errors import ConflictError, HistoryGoneError, LeaseLostError, StoreUnavailableError
from overlaynet.model.lease import HostId, Lease, LeaseAttributes, Subnets
from overlaynet.model.lease_text import parse_lease_key
from overlaynet.model.snapshot import Changes, ConfigPut, LeaseGone, LeasePut, Snapshot, Unreadable, UnreadableGone
from overlaynet.store.etcd import client as etcd_client
from overlaynet.store.etcd import rpc_pb2 as rpc
from overlaynet.store.etcd.settings import parse_etcd_url
from overlaynet.store.etcd.store import EtcdStore

from tests.contract.etcd_server import EtcdServer
from tests.contract.tcp_proxy import TcpProxy

A, B = HostId("a" * 32), HostId("b" * 32)
ATTRIBUTES = LeaseAttributes(IPv4Address("192.0.2.1"))
SUBNET, OTHER = parse_lease_key("10.1.2.0-24"), parse_lease_key("10.1.3.0-24")
WITHIN_S = 60.0


class Replica:
    """What a follower of a store knows: a load, the changes since, and a load again where history is gone."""

    def __init__(self, store: EtcdStore) -> None:
        self._store = store
        self.config: bytes | None = None
        self.leases: dict[Subnets, Lease] = {}
        self.unreadable: dict[str, str] = {}
        self.revisions: list[int] = []
        self.loads = 0
        self.losses = self.replaced = 0
        self.batches = 0

    async def follow(self) -> None:
        while True:
            try:
                snapshot = await self._store.load()
                self._take_over(snapshot)
                async for changes in self._store.watch(snapshot.revision):
                    self._apply(changes)
            except HistoryGoneError as gone:
                self.losses += 1
                self.replaced += gone.replaced
            except StoreUnavailableError:
                await asyncio.sleep(0.1)

    def _take_over(self, snapshot: Snapshot) -> None:
        self.loads += 1
        self.config = snapshot.config
        self.leases = {lease.subnets: lease for lease in snapshot.leases}
        self.unreadable = {one.key: one.why for one in snapshot.unreadable}

    def _apply(self, changes: Changes) -> None:
        self.batches += 1
        self.revisions.append(changes.revision)
        for change in changes.changes:
            match change:
                case LeasePut(lease):
                    self.leases[lease.subnets] = lease
                case LeaseGone(subnets):
                    self.leases.pop(subnets, None)
                case ConfigPut(text):
                    self.config = text
                case Unreadable(key, why):
                    self.unreadable[key] = why
                case UnreadableGone(key):
                    self.unreadable.pop(key, None)

    async def until_equal(self, fresh: Snapshot) -> None:
        leases = {lease.subnets: lease for lease in fresh.leases}
        unreadable = {one.key: one.why for one in fresh.unreadable}
        deadline = asyncio.get_running_loop().time() + WITHIN_S
        while (self.config, self.leases, self.unreadable) != (fresh.config, leases, unreadable):
            assert asyncio.get_running_loop().time() < deadline, (len(self.leases), len(leases), self.unreadable)
            await asyncio.sleep(0.05)


@asynccontextmanager
async def following(store: EtcdStore) -> AsyncIterator[Replica]:
    """A replica that has loaded and follows."""
    replica = Replica(store)
    task = asyncio.create_task(replica.follow())
    try:
        async with asyncio.timeout(WITHIN_S):
            while not replica.loads:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        yield replica
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@asynccontextmanager
async def proxied(etcd: EtcdServer, prefix: str) -> AsyncIterator[tuple[TcpProxy, EtcdStore]]:
    """A store that reaches etcd through a proxy."""
    async with TcpProxy(etcd.address) as proxy:
        store = EtcdStore(parse_etcd_url(f"etcd://{proxy.address}{prefix}"))
        try:
            yield proxy, store
        finally:
            await store.aclose()


def own_and_strange_keys(prefix: str, count: int) -> list[tuple[bytes, bytes]]:
    """Writes of leases, some with owner, some that cannot be read, some deleted (an empty value), and configurations."""
    writes: list[tuple[bytes, bytes]] = []
    for n in range(count):
        key = f"{prefix}/subnets/10.{n % 200}.{n % 7}.0-24"
        match n % 10:
            case 0:
                writes.append((key.replace("/subnets/", "/overlaynet/owner/").encode(), b'{"host":"h%d","features":[]}' % n))
            case 1:
                writes.append((key.encode(), b""))
            case 2 if n % 50 == 2:
                writes.append((key.encode(), b"not a lease %d" % n))
            case 3 if n % 100 == 3:
                writes.append((f"{prefix}/config".encode(), b'{"Network":"10.0.0.0/8","n":%d}' % n))
            case _:
                writes.append(
                    (key.encode(), b'{"PublicIP":"192.0.%d.%d","PublicIPv6":null,"Other":"%100d"}' % (n // 250, n % 250, n))
                )
    return writes


async def write_all(store: EtcdStore, writes: list[tuple[bytes, bytes]]) -> None:
    """Each write as a change of its own, many at once."""
    places = asyncio.Semaphore(32)

    async def write(key: bytes, value: bytes) -> None:
        async with places:
            if value:
                await store._client.call(etcd_client.PUT, rpc.PutRequest(key=key, value=value))
            else:
                delete = rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))
                await store._client.call(etcd_client.TXN, rpc.TxnRequest(success=[delete]))

    await asyncio.gather(*(write(key, value) for key, value in writes))


async def test_stream_cut_again_and_again_in_a_burst_of_5000_changes_loses_and_repeats_nothing(
    etcd: EtcdServer, prefix: str, store: EtcdStore
) -> None:
    async with proxied(etcd, prefix) as (proxy, far), following(far) as replica:
        # More than the largest message: etcd sends up to 1,000 revisions in one, and each stream must bring something.
        proxy.cut_every(300_000)
        writes = own_and_strange_keys(prefix, 5_000)
        await write_all(store, writes[:2_000])
        # Held up, the watcher falls behind: what it then gets is cut between messages of one catching-up.
        proxy.hold()
        await write_all(store, writes[2_000:])
        proxy.release()
        await replica.until_equal(await store.load())
        assert proxy.cuts >= 3, "the burst was never cut"
        assert replica.loads == 1, "the watch was not resumed but begun anew"
        assert replica.revisions == sorted(replica.revisions)


async def test_what_was_compacted_while_the_watch_was_cut_ends_in_a_load(etcd: EtcdServer, prefix: str, store: EtcdStore) -> None:
    async with proxied(etcd, prefix) as (proxy, far), following(far) as replica:
        await write_all(store, own_and_strange_keys(prefix, 100))
        await replica.until_equal(await store.load())
        proxy.hold()
        proxy.cut()
        await write_all(store, own_and_strange_keys(prefix, 300)[100:])
        fresh = await store.load()
        await asyncio.to_thread(etcd.ctl, "compact", str(fresh.revision))
        proxy.release()
        await replica.until_equal(fresh)
        assert (replica.loads, replica.losses) == (2, 1)


async def test_compaction_right_under_a_watcher_that_keeps_up_is_not_noticed(
    etcd: EtcdServer, prefix: str, store: EtcdStore
) -> None:
    async with following(store) as replica:
        writer = EtcdStore(store._settings)
        for n in range(5):
            await write_all(writer, own_and_strange_keys(prefix, 100 * (n + 1))[100 * n :])
            fresh = await writer.load()
            await replica.until_equal(fresh)
            await asyncio.to_thread(etcd.ctl, "compact", str(fresh.revision))
        assert replica.loads == 1
        await writer.aclose()


async def test_idle_watch_that_was_compacted_away_resumes_where_progress_was_told(
    etcd: EtcdServer, prefix: str, store: EtcdStore
) -> None:
    """Without periodic progress an idle watcher's position would be compacted by the writes of others."""
    async with proxied(etcd, prefix) as (proxy, far), following(far) as replica:
        other = EtcdStore(parse_etcd_url(f"etcd://{etcd.address}{prefix}-other"))
        await write_all(other, own_and_strange_keys(f"{prefix}-other", 50))
        revision = (await other.load()).revision
        (feed,) = far._feeds
        async with asyncio.timeout(WITHIN_S):
            while min(feed._next) <= revision:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await asyncio.to_thread(etcd.ctl, "compact", str(revision))
        proxy.cut()
        await write_all(store, own_and_strange_keys(prefix, 20))
        await replica.until_equal(await store.load())
        assert (replica.loads, replica.losses) == (1, 0)
        await other.aclose()


async def test_own_key_deleted_by_hand_is_told_lost_and_can_be_claimed_again(
    etcd: EtcdServer, prefix: str, store: EtcdStore
) -> None:
    async with following(store) as replica:
        grant = await store.claim(A, SUBNET, ATTRIBUTES, ttl_s=60, seen=await EtcdStore(store._settings).load())
        await replica.until_equal(await EtcdStore(store._settings).load())
        await asyncio.to_thread(etcd.ctl, "del", f"{prefix}/subnets/{SUBNET}")
        fresh = await EtcdStore(store._settings).load()
        assert fresh.leases == ()
        await replica.until_equal(fresh)
        for lost in (store.renew(grant), store.update(grant, ATTRIBUTES)):
            with pytest.raises(LeaseLostError):
                await lost
        again = await store.claim(A, SUBNET, ATTRIBUTES, ttl_s=60, seen=fresh)
        assert (await store.renew(again)).handle == again.handle
        await replica.until_equal(await EtcdStore(store._settings).load())


async def test_stray_owner_key_of_another_does_not_stand_in_the_way(etcd: EtcdServer, prefix: str, store: EtcdStore) -> None:
    seen = await store.load()
    other = EtcdStore(store._settings)
    await other.claim(B, SUBNET, LeaseAttributes(IPv4Address("192.0.2.2")), ttl_s=60, seen=seen)
    await asyncio.to_thread(etcd.ctl, "del", f"{prefix}/subnets/{SUBNET}")
    grant = await store.claim(A, SUBNET, ATTRIBUTES, ttl_s=60, seen=seen)
    assert [lease.owner for lease in (await other.load()).leases] == [A]
    assert (await store.renew(grant)).handle == grant.handle
    await other.aclose()


def losing_transactions(
    monkeypatch: pytest.MonkeyPatch, store: EtcdStore, proxy: TcpProxy, times: int, *, after: int = 0
) -> None:
    """Let the proxy lose the answers of the store's next transactions after the first `after`, and of nothing else."""
    call = store._client._once
    ahead, left = after, times

    async def armed(method: tuple[str, type[Any]], request: Any, token: str) -> Any:
        nonlocal ahead, left
        if method is etcd_client.TXN and ahead:
            ahead -= 1
        elif method is etcd_client.TXN and left:
            left -= 1
            proxy.lose_answer()
        return await call(method, request, token)

    monkeypatch.setattr(store._client, "_once", armed)


async def test_commit_whose_answer_was_cut_is_recognised_when_sent_again(
    etcd: EtcdServer, prefix: str, store: EtcdStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxied(etcd, prefix) as (proxy, far):
        seen = await far.load()
        losing_transactions(monkeypatch, far, proxy, 1)
        grant = await far.claim(A, SUBNET, ATTRIBUTES, ttl_s=60, seen=seen)
        assert proxy.cuts == 1
        (lease,) = (await store.load()).leases
        assert lease == grant.lease
        assert (await far.renew(grant)).handle == grant.handle


async def test_host_whose_claim_was_never_answered_ends_with_one_lease_wherever_it_claims_next(
    etcd: EtcdServer, prefix: str, store: EtcdStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_client, "TOTAL_TIMEOUT_S", 1.0)
    for wanted in (SUBNET, OTHER):
        async with proxied(etcd, prefix) as (proxy, far):
            seen = await far.load()
            with monkeypatch.context() as patch:
                losing_transactions(patch, far, proxy, 100)
                with pytest.raises(StoreUnavailableError):
                    await far.claim(A, SUBNET, ATTRIBUTES, ttl_s=60, seen=seen)
            assert [lease.owner for lease in (await store.load()).leases] == [A], "the commit did not reach etcd"
            for _ in range(5):
                try:
                    grant = await far.claim(A, wanted, ATTRIBUTES, ttl_s=60, seen=seen)
                    break
                except ConflictError:
                    seen = await far.load()
            assert [lease.subnets for lease in (await store.load()).leases] == [wanted]
            await far.release(grant)


async def test_lost_answers_of_updates_renewals_and_releases_do_no_harm(
    etcd: EtcdServer, prefix: str, store: EtcdStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxied(etcd, prefix) as (proxy, far):
        grant = await far.claim(A, SUBNET, ATTRIBUTES, ttl_s=60, seen=await far.load())
        for n in range(3):
            with monkeypatch.context() as patch:
                losing_transactions(patch, far, proxy, 1)
                grant = await far.update(grant, LeaseAttributes(IPv4Address("192.0.2.1"), None, f"t{n}"))
            with monkeypatch.context() as patch:
                losing_transactions(patch, far, proxy, 1)
                grant = await far.renew(grant)
            assert (await store.load()).leases == (grant.lease,)
        with monkeypatch.context() as patch:
            losing_transactions(patch, far, proxy, 1)
            await far.release(grant)
        assert proxy.cuts == 7
        assert (await store.load()).leases == ()


async def test_watch_of_a_cluster_put_back_to_an_earlier_state_says_that_history_is_gone(
    etcd: EtcdServer, prefix: str, store: EtcdStore
) -> None:
    snapshot = await store.load()
    for cluster, revision in ((store._view.cluster ^ 1, snapshot.revision), (store._view.cluster, snapshot.revision + 1_000_000)):
        store._view.cluster, store._view.revision = cluster, revision
        with pytest.raises(HistoryGoneError):
            await asyncio.wait_for(anext(aiter(store.watch(revision))), WITHIN_S)
        await store.load()


async def test_watch_without_etcd_says_so_and_comes_back(etcd: EtcdServer, prefix: str, store: EtcdStore) -> None:
    async with TcpProxy(etcd.address) as proxy:
        far = EtcdStore(parse_etcd_url(f"etcd://{proxy.address}{prefix}"))
        after = (await far.load()).revision
        watch = aiter(far.watch(after))
        waiting = asyncio.ensure_future(anext(watch))
        await write_all(store, [(f"{prefix}/config".encode(), secrets.token_hex(4).encode())])
        await asyncio.wait_for(waiting, WITHIN_S)
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
    with pytest.raises(StoreUnavailableError):
        await asyncio.wait_for(waiting, WITHIN_S)
    await far.aclose()

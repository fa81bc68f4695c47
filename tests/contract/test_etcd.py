"""The etcd store against a real etcd: claims under contention, flannel's texts in its keys, changes through the watch."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from typing import Any

import pytest
from overlaynet.errors import ConflictError, LeaseLostError, StaleSnapshotError
from overlaynet.model.host import HostSettings
from overlaynet.model.lease import Grant, HostId, LeaseAttributes
from overlaynet.model.lease_text import parse_lease_key
from overlaynet.model.network import parse_network
from overlaynet.model.snapshot import Changes, LeaseGone, LeasePut
from overlaynet.reconcile.allocate import choose
from overlaynet.store.etcd import client as etcd_client
from overlaynet.store.etcd import rpc_pb2 as rpc
from overlaynet.store.etcd.store import EtcdStore

from tests.contract.etcd_server import EtcdServer

A, B = HostId("a" * 32), HostId("b" * 32)
SUBNET = parse_lease_key("10.1.2.0-24")
ATTRIBUTES = LeaseAttributes(IPv4Address("192.0.2.1"), None, "vxlan", b'{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}')


async def claimed(store: EtcdStore, host: HostId = A, ttl_s: float = 60.0) -> Grant:
    return await store.claim(host, SUBNET, ATTRIBUTES, ttl_s=ttl_s, seen=await store.load())


async def test_keys_and_values_are_flannels(store: EtcdStore, etcd: EtcdServer, prefix: str) -> None:
    await claimed(store)

    assert etcd.ctl("get", "--prefix", f"{prefix}/").splitlines() == [
        f"{prefix}/overlaynet/owner/10.1.2.0-24",
        f'{{"host":"{A}","features":[]}}',
        f"{prefix}/subnets/10.1.2.0-24",
        '{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}',
    ]


async def test_flannels_lease_reservation_and_junk_are_read(store: EtcdStore, etcd: EtcdServer, prefix: str) -> None:
    lease = etcd.grant(60)
    etcd.ctl("put", f"--lease={lease}", f"{prefix}/subnets/10.1.7.0-24", '{"PublicIP":"192.0.2.7","PublicIPv6":null}')
    etcd.ctl("put", f"{prefix}/subnets/10.1.8.0-24", '{"PublicIP":"192.0.2.8","PublicIPv6":null,"BackendType":"host-gw"}')
    etcd.ctl("put", f"{prefix}/subnets/junk", "x")

    snapshot = await store.load()

    found = [(str(lease.subnets), lease.reserved, lease.owner, lease.attributes.backend_type) for lease in snapshot.leases]
    assert found == [("10.1.7.0-24", False, None, ""), ("10.1.8.0-24", True, None, "host-gw")]
    assert [bad.key for bad in snapshot.unreadable] == ["junk"]


async def test_claim_from_an_old_snapshot_is_refused_where_it_overlaps_whatever_the_keys_text(store: EtcdStore) -> None:
    old = await store.load()
    blank = EtcdStore(store._settings)
    await claimed(store)
    other = LeaseAttributes(IPv4Address("192.0.2.2"))

    for text in ("10.1.2.0-24", "10.1.2.128-25", "10.1.0.0-16", "10.1.2.0-24&fd00:1::-64"):
        with pytest.raises(ConflictError):
            await blank.claim(B, parse_lease_key(text), other, ttl_s=60, seen=old)
    assert len((await store.load()).leases) == 1

    await blank.claim(B, parse_lease_key("10.1.3.0-24"), other, ttl_s=60, seen=old)
    await blank.aclose()
    assert len((await store.load()).leases) == 2


async def test_own_lease_is_kept_by_the_next_run_without_a_write(store: EtcdStore) -> None:
    first = await claimed(store)
    before = (await store.load()).revision

    again = await claimed(store)

    assert again.handle == first.handle
    assert (await store.load()).revision == before


async def test_watch_brings_put_with_owner_and_gone(store: EtcdStore) -> None:
    after = (await store.load()).revision
    seen: list[Changes] = []

    async def follow() -> None:
        async for changes in store.watch(after):
            seen.append(changes)
            if isinstance(changes.changes[-1], LeaseGone):
                return

    following = asyncio.create_task(follow())
    writer = EtcdStore(store._settings)
    grant = await claimed(writer)
    await writer.release(grant)
    await asyncio.wait_for(following, 10)
    await writer.aclose()

    changes = [change for batch in seen for change in batch.changes]
    puts = [change.lease.owner for change in changes if isinstance(change, LeasePut)]
    assert set(puts) <= {A}
    assert changes[-1] == LeaseGone(SUBNET)


async def test_expired_lease_is_lost_and_free(store: EtcdStore) -> None:
    grant = await claimed(store, ttl_s=2)
    deadline = asyncio.get_running_loop().time() + 30
    while (await store.load()).leases:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.1)

    with pytest.raises(LeaseLostError):
        await store.renew(grant)
    assert (await claimed(store, B)).lease.owner == B


async def test_claim_on_a_lease_that_went_meanwhile_asks_for_a_newer_choice_and_one_on_a_taken_subnet_for_another(
    store: EtcdStore, etcd: EtcdServer, prefix: str
) -> None:
    await claimed(store)
    seen = await store.load()
    etcd.ctl("del", "--prefix", f"{prefix}/subnets/")
    with pytest.raises(StaleSnapshotError):
        await store.claim(A, SUBNET, ATTRIBUTES, ttl_s=90, seen=seen, takes_over=seen.leases[0])
    seen = await store.load()
    etcd.ctl("put", f"{prefix}/subnets/{SUBNET}", "junk")
    with pytest.raises(ConflictError) as caught:
        await store.claim(A, SUBNET, ATTRIBUTES, ttl_s=60, seen=seen)
    assert not isinstance(caught.value, StaleSnapshotError)


async def test_unconditional_write_of_another_ends_ownership(store: EtcdStore, etcd: EtcdServer, prefix: str) -> None:
    grant = await claimed(store)
    lease = etcd.grant(60)
    etcd.ctl("put", f"--lease={lease}", f"{prefix}/subnets/10.1.2.0-24", '{"PublicIP":"192.0.2.9","PublicIPv6":null}')

    with pytest.raises(LeaseLostError):
        await store.renew(grant)
    with pytest.raises(LeaseLostError):
        await store.update(grant, ATTRIBUTES)
    assert (await store.load()).leases[0].owner is None


async def test_reservation_stays_one_after_its_owner_used_it(store: EtcdStore) -> None:
    reserved = await store.reserve(SUBNET, ATTRIBUTES)
    seen = await store.load()
    grant = await store.claim(A, SUBNET, ATTRIBUTES, ttl_s=60, seen=seen, takes_over=reserved)
    grant = await store.renew(grant)
    (held,) = (await store.load()).leases
    assert (held.reserved, held.owner) == (True, A)

    await store.release(grant)

    (left,) = (await store.load()).leases
    assert (left.reserved, left.owner) == (True, None)


async def test_hosts_that_start_together_end_with_subnets_of_their_own(store: EtcdStore) -> None:
    config, _ = parse_network(b'{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"udp"}}')

    async def start(number: int) -> Grant:
        client = EtcdStore(store._settings)
        host, address = HostId(f"{number:032x}"), IPv4Address("192.0.2.0") + number
        settings = HostSettings(host, "eth0", address, None, address, None)
        try:
            for attempt in range(1_000):
                seen = await client.load()
                wanted = choose(config, settings, seen.leases, attempt).subnets
                try:
                    return await client.claim(host, wanted, LeaseAttributes(address), ttl_s=60, seen=seen)
                except ConflictError:
                    await asyncio.sleep(0.002 * ((number * 7 + attempt * 13) % 50))
        finally:
            await client.aclose()
        raise AssertionError("never served")

    grants = await asyncio.gather(*(start(number) for number in range(1, 31)))

    assert len({grant.lease.subnets for grant in grants}) == 30
    assert len((await store.load()).leases) == 30


async def test_claim_rests_on_what_was_known_when_it_was_made_not_on_what_the_watch_brings_meanwhile(
    store: EtcdStore, etcd: EtcdServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await claimed(store)
    seen = await store.load()
    other = EtcdStore(store._settings)
    etcd.ctl("del", f"{prefix}/subnets/{SUBNET}")
    await other.claim(B, SUBNET, LeaseAttributes(IPv4Address("192.0.2.2")), ttl_s=60, seen=await other.load())
    grant = store._grant

    async def grant_while_the_watch_catches_up(ttl_s: float) -> tuple[int, rpc.ResponseHeader]:
        await other.load()
        store._view.leases, store._view.owners = other._view.leases, other._view.owners
        return await grant(ttl_s)

    monkeypatch.setattr(store, "_grant", grant_while_the_watch_catches_up)
    with pytest.raises(ConflictError):
        await store.claim(A, SUBNET, ATTRIBUTES, ttl_s=90, seen=seen)
    assert [lease.owner for lease in (await other.load()).leases] == [B]
    await other.aclose()


async def test_host_does_not_come_back_to_what_was_revoked_from_it_for_one_ttl(
    store: EtcdStore, etcd: EtcdServer, prefix: str
) -> None:
    grant = await claimed(store, ttl_s=3)
    other = EtcdStore(store._settings)
    await other.revoke(SUBNET)
    with pytest.raises(LeaseLostError):
        await store.renew(grant)
    with pytest.raises(ConflictError, match="revoked from this host"):
        await claimed(store)
    elsewhere = parse_lease_key("10.1.3.0-24")
    await store.release(await store.claim(A, elsewhere, ATTRIBUTES, ttl_s=60, seen=await store.load()))
    async with asyncio.timeout(30):
        while etcd.ctl("get", f"{prefix}/overlaynet/revoked/{SUBNET}"):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert (await claimed(store)).lease.subnets == SUBNET
    await other.aclose()


async def test_revoked_subnet_is_free_for_another_host_at_once(store: EtcdStore) -> None:
    await claimed(store)
    await store.revoke(SUBNET)
    assert (await claimed(store, B)).lease.owner == B


async def test_revoked_reservation_leaves_no_mark(store: EtcdStore, etcd: EtcdServer, prefix: str) -> None:
    await store.reserve(SUBNET, ATTRIBUTES)
    await store.revoke(SUBNET)
    assert etcd.ctl("get", "--prefix", f"{prefix}/") == ""
    assert (await claimed(store)).lease.subnets == SUBNET


async def test_renewal_that_a_deposed_leader_may_have_acknowledged_is_sent_again(
    store: EtcdStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = await claimed(store)
    call = store._client.call
    renewals = 0

    async def by_a_deposed_leader_first(method: tuple[str, type[Any]], request: Any) -> Any:
        nonlocal renewals
        answer = await call(method, request)
        if method is etcd_client.KEEP_ALIVE:
            renewals += 1
            answer.header.raft_term -= renewals == 1
        return answer

    monkeypatch.setattr(store._client, "call", by_a_deposed_leader_first)
    assert (await store.renew(grant)).handle == grant.handle
    assert renewals == 2

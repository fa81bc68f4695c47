"""What every store promises, told once and held against each: memory, the SQLite file, and an etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from overlaynet.errors import AddressInUseError, ConflictError, HistoryGoneError, LeaseLostError
from overlaynet.model.lease import Grant, HostId
from overlaynet.model.lease_text import parse_lease_key
from overlaynet.model.snapshot import ConfigPut, LeaseGone, LeasePut

from tests.contract.store_worlds import KEPT_CHANGES, TTL_S, A, B, C, StoreWorld, Watcher, attributes, claim, store_world

KEY, OTHER_KEY = "10.1.1.0-24", "10.1.2.0-24"


@pytest_asyncio.fixture(params=["memory", "sqlite", "etcd"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreWorld]:
    async with store_world(request.param, tmp_path, request) as made:
        yield made


async def test_new_store_is_empty(world: StoreWorld) -> None:
    snapshot = await world.connect().load()
    assert (snapshot.config, snapshot.leases, snapshot.unreadable) == (None, (), ())


async def test_claim_is_seen_by_all_and_carries_what_was_claimed(world: StoreWorld) -> None:
    grant = await claim(world.connect(), A, KEY, 1, ttl_s=world.ttl_s)
    assert (grant.lease.owner, grant.lease.features, grant.ttl_s) == (A, ("x",), world.ttl_s)
    assert grant.lease.attributes == attributes(1)
    assert (await world.connect().load()).leases == (grant.lease,)


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        ("10.1.1.0-24", "10.1.1.0-24"),
        ("10.1.1.0-24", "10.1.1.128-25"),
        ("10.1.1.128-25", "10.1.1.0-24"),
        ("10.1.1.0-24&fd01:0:0:1::-64", "10.1.2.0-24&fd01:0:0:1::-64"),
        ("10.1.1.0-24&fd01:0:0:1::-64", "10.1.1.0-24&fd01:0:0:2::-64"),
        ("0.0.0.0-0&fd01:0:0:1::-64", "10.1.1.0-24&fd01:0:0:1:8000::-65"),
    ],
)
async def test_claim_that_overlaps_anothers_in_any_family_is_a_conflict(world: StoreWorld, held: str, wanted: str) -> None:
    first, second = world.connect(), world.connect()
    grant = await claim(first, A, held, 1)
    with pytest.raises(ConflictError):
        await claim(second, B, wanted, 2)
    assert (await second.load()).leases == (grant.lease,)


async def test_ipv6_only_leases_do_not_overlap_by_their_empty_ipv4_half(world: StoreWorld) -> None:
    client = world.connect()
    await claim(client, A, "0.0.0.0-0&fd01:0:0:1::-64", 1)
    await claim(client, B, "0.0.0.0-0&fd01:0:0:2::-64", 2)
    assert len((await client.load()).leases) == 2


async def test_claim_sent_again_gives_the_same_lease(world: StoreWorld) -> None:
    client = world.connect()
    first, again = await claim(client, A, KEY, 1), await claim(client, A, KEY, 1)
    assert again.lease == first.lease
    assert (await client.load()).leases == (first.lease,)
    assert (await client.renew(again)).lease == first.lease


async def test_host_has_one_lease_and_a_claim_elsewhere_moves_it(world: StoreWorld) -> None:
    client = world.connect()
    old = await claim(client, A, KEY, 1)
    new = await claim(client, A, OTHER_KEY, 1)
    assert (await client.load()).leases == (new.lease,)
    with pytest.raises(LeaseLostError):
        await client.renew(old)


async def test_public_address_of_another_live_owner_is_refused_until_its_lease_ends(world: StoreWorld) -> None:
    client = world.connect()
    await claim(client, A, KEY, 1, ttl_s=world.ttl_s)
    with pytest.raises(AddressInUseError) as caught:
        await claim(client, B, OTHER_KEY, 1, ttl_s=world.ttl_s)
    assert (caught.value.address, caught.value.owner) == ("192.0.2.1", A)
    await world.let_pass(1)
    await claim(client, B, OTHER_KEY, 1, ttl_s=world.ttl_s)


async def test_reservation_goes_to_who_saw_it_and_stays_one(world: StoreWorld) -> None:
    client = world.connect()
    reserved = await client.reserve(parse_lease_key(KEY), attributes(1))
    assert (reserved.reserved, reserved.owner) == (True, None)
    with pytest.raises(ConflictError):
        await claim(client, A, KEY, 1, ttl_s=world.ttl_s)
    seen = await client.load()
    with pytest.raises(ConflictError):
        await client.claim(
            A,
            reserved.subnets,
            attributes(1),
            ttl_s=world.ttl_s,
            seen=seen,
            takes_over=replace(reserved, attributes=attributes(9)),
        )
    grant = await client.claim(A, reserved.subnets, attributes(2), ttl_s=world.ttl_s, seen=seen, takes_over=reserved)
    assert (grant.lease.reserved, grant.lease.owner, grant.lease.created) == (True, A, reserved.created)
    assert (await client.load()).leases == (grant.lease,)
    assert (await client.renew(grant)).lease == grant.lease
    assert await client.remaining([grant.lease]) == [None]
    await world.let_pass(1.5)
    (left,) = (await client.load()).leases
    assert (left.subnets, left.reserved, left.attributes) == (grant.lease.subnets, True, grant.lease.attributes)


async def test_reservation_that_overlaps_a_lease_is_a_conflict(world: StoreWorld) -> None:
    client = world.connect()
    await claim(client, A, KEY, 1)
    for key in (KEY, "10.1.1.128-25"):
        with pytest.raises(ConflictError):
            await client.reserve(parse_lease_key(key), attributes(9))


async def test_renewal_gives_a_full_ttl_and_changes_nothing_that_is_seen(world: StoreWorld) -> None:
    client = world.connect()
    grant = await claim(client, A, KEY, 1, ttl_s=world.ttl_s)
    before = await client.load()
    await world.let_pass(0.6)
    grant = await client.renew(grant)
    await world.let_pass(0.6)
    after = await client.load()
    assert (after.config, after.leases) == (before.config, before.leases)
    assert await client.remaining([grant.lease]) == [pytest.approx(0.4 * world.ttl_s, abs=world.slack_s + 0.001)]


async def test_lease_that_is_not_renewed_ends_and_can_be_claimed(world: StoreWorld) -> None:
    first, second = world.connect(), world.connect()
    grant = await claim(first, A, KEY, 1, ttl_s=world.ttl_s)
    await world.let_pass(1)
    assert (await second.load()).leases == ()
    with pytest.raises(LeaseLostError):
        await first.renew(grant)
    taken = await claim(second, B, KEY, 2, ttl_s=world.ttl_s)
    with pytest.raises(LeaseLostError):
        await first.renew(grant)
    with pytest.raises(LeaseLostError):
        await first.update(grant, attributes(3))
    await first.release(grant)
    assert (await first.load()).leases == (taken.lease,)


async def test_update_shows_other_attributes_and_keeps_the_end(world: StoreWorld) -> None:
    client = world.connect()
    grant = await claim(client, A, KEY, 1, ttl_s=world.ttl_s)
    await world.let_pass(0.3)
    updated = await client.update(grant, attributes(7))
    assert updated.lease == grant.lease.with_attributes(attributes(7))
    assert updated.ttl_s == pytest.approx(0.7 * world.ttl_s, abs=world.slack_s + 0.001)
    assert (await client.load()).leases == (updated.lease,)
    await world.let_pass(1)
    assert (await client.load()).leases == ()


async def test_renewal_after_an_update_gives_the_whole_ttl_again(world: StoreWorld) -> None:
    client = world.connect()
    grant = await claim(client, A, KEY, 1, ttl_s=world.ttl_s)
    await world.let_pass(0.3)
    updated = await client.update(grant, attributes(7))
    assert (await client.renew(updated)).ttl_s == world.ttl_s


async def test_release_gives_the_subnet_back_and_again_is_no_error(world: StoreWorld) -> None:
    client = world.connect()
    grant = await claim(client, A, KEY, 1)
    await client.release(grant)
    await client.release(grant)
    assert (await client.load()).leases == ()
    await claim(client, B, KEY, 2)


async def test_revoke_removes_whoevers_lease_and_says_when_there_is_none(world: StoreWorld) -> None:
    client = world.connect()
    grant = await claim(client, A, KEY, 1)
    assert await client.revoke(grant.lease.subnets) == grant.lease
    with pytest.raises(ConflictError):
        await client.revoke(grant.lease.subnets)
    with pytest.raises(LeaseLostError):
        await client.renew(grant)


async def test_host_does_not_get_a_revoked_subnet_back_for_one_ttl(world: StoreWorld) -> None:
    client, other = world.connect(), world.connect()
    grant = await claim(client, A, KEY, 1, ttl_s=world.ttl_s)
    await other.revoke(grant.lease.subnets)
    with pytest.raises(ConflictError, match=r"subnet .*: was revoked"):
        await claim(client, A, KEY, 1, ttl_s=world.ttl_s)
    await other.release(await claim(other, B, KEY, 2, ttl_s=world.ttl_s))
    with pytest.raises(ConflictError, match=r"subnet .*: was revoked"):
        await claim(client, A, KEY, 1, ttl_s=world.ttl_s)
    await claim(client, A, OTHER_KEY, 1, ttl_s=world.ttl_s)
    await world.let_pass(1)
    deadline = asyncio.get_running_loop().time() + 20
    while True:
        try:
            assert (await claim(client, A, KEY, 1, ttl_s=world.ttl_s)).lease.owner == A
            break
        except ConflictError:
            # The bar ends a moment after the leases, which are looked at first.
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)


async def test_reservation_ends_the_bar_of_a_revocation(world: StoreWorld) -> None:
    client = world.connect()
    grant = await claim(client, A, KEY, 1)
    await client.revoke(grant.lease.subnets)
    reserved = await client.reserve(grant.lease.subnets, attributes(1))
    seen = await client.load()
    taken = await client.claim(A, reserved.subnets, attributes(1), ttl_s=TTL_S, seen=seen, takes_over=reserved)
    assert (taken.lease.owner, taken.lease.reserved) == (A, True)
    await client.revoke(reserved.subnets, bar=False)
    await claim(client, A, KEY, 1)


async def test_lease_that_was_removed_without_a_bar_can_be_claimed_at_once(world: StoreWorld) -> None:
    client = world.connect()
    grant = await claim(client, A, KEY, 1)
    assert await client.revoke(grant.lease.subnets, bar=False) == grant.lease
    assert (await claim(client, A, KEY, 1)).lease.subnets == grant.lease.subnets


async def test_released_reservation_stays_without_owner(world: StoreWorld) -> None:
    client = world.connect()
    reserved = await client.reserve(parse_lease_key(KEY), attributes(1))
    seen = await client.load()
    grant = await client.claim(A, reserved.subnets, attributes(1), ttl_s=TTL_S, seen=seen, takes_over=reserved)
    await client.release(grant)
    (left,) = (await client.load()).leases
    assert (left.reserved, left.owner, left.attributes) == (True, None, attributes(1))
    with pytest.raises(LeaseLostError):
        await client.renew(grant)
    seen = await client.load()
    again = await client.claim(B, reserved.subnets, attributes(1), ttl_s=TTL_S, seen=seen, takes_over=left)
    assert again.lease.owner == B


async def test_watch_tells_every_change_after_its_revision_in_order(world: StoreWorld) -> None:
    writer, reader = world.connect(), world.connect()
    await claim(writer, C, "10.1.9.0-24", 9)
    after = (await reader.load()).revision
    await writer.put_config(b"{}")
    grant = await claim(writer, A, KEY, 1)
    watcher = Watcher(reader, after)
    await watcher.until_heard(ConfigPut(b"{}"))
    await watcher.until_heard(LeasePut(grant.lease))
    updated = await writer.update(grant, attributes(5))
    await watcher.until_heard(LeasePut(updated.lease))
    await writer.release(updated)
    heard = await watcher.until_heard(LeaseGone(grant.lease.subnets))
    await watcher.stop()
    assert [change for change in heard if isinstance(change, ConfigPut)] == [ConfigPut(b"{}")]
    # Where lease and owner are told apart, a lease may be heard of without its owner before it is heard of with it.
    leases = [
        change
        for change in heard
        if isinstance(change, LeaseGone) or (isinstance(change, LeasePut) and change.lease.owner is not None)
    ]
    assert leases == [LeasePut(grant.lease), LeasePut(updated.lease), LeaseGone(grant.lease.subnets)]
    assert watcher.revisions == sorted(watcher.revisions)
    snapshot = await reader.load()
    assert snapshot.revision >= watcher.revisions[-1]
    assert snapshot.config == b"{}"


async def test_own_changes_are_heard_too(world: StoreWorld) -> None:
    client = world.connect()
    watcher = Watcher(client, (await client.load()).revision)
    grant = await claim(client, A, KEY, 1)
    assert await watcher.until(1) == [LeasePut(grant.lease)]
    await watcher.stop()


async def test_renewals_are_no_changes(world: StoreWorld) -> None:
    client, reader = world.connect(), world.connect()
    grant = await claim(client, A, KEY, 1)
    watcher = Watcher(reader, (await reader.load()).revision)
    for _ in range(3):
        grant = await client.renew(grant)
    await client.put_config(b"{}")
    assert await watcher.until(1) == [ConfigPut(b"{}")]
    await watcher.stop()


async def test_every_watcher_hears_of_an_expiry_once(world: StoreWorld) -> None:
    grant = await claim(world.connect(), A, KEY, 1, ttl_s=world.ttl_s)
    readers = [world.connect() for _ in range(3)]
    watchers = [Watcher(reader, (await reader.load()).revision) for reader in readers]
    await world.let_pass(1)
    for watcher in watchers:
        assert await watcher.until(1) == [LeaseGone(grant.lease.subnets)]
    await readers[0].put_config(b"{}")
    for watcher in watchers:
        assert await watcher.until(2) == [LeaseGone(grant.lease.subnets), ConfigPut(b"{}")]
        await watcher.stop()


async def test_claim_over_an_expired_lease_is_told_as_gone_then_put(world: StoreWorld) -> None:
    client = world.connect()
    old = await claim(client, A, KEY, 1, ttl_s=world.ttl_s)
    after = (await client.load()).revision
    await world.let_pass(1)
    new = await claim(client, B, "10.1.0.0-16", 2, ttl_s=world.ttl_s)
    watcher = Watcher(client, after)
    assert await watcher.until(2) == [LeaseGone(old.lease.subnets), LeasePut(new.lease)]
    await watcher.stop()


async def test_watch_from_a_forgotten_or_unknown_revision_says_so(world: StoreWorld) -> None:
    client = world.connect()
    after = (await client.load()).revision
    for n in range(KEPT_CHANGES + 1):
        await client.put_config(b"%d" % n)
    await world.forget_all_but(KEPT_CHANGES)
    for revision in (after, (await client.load()).revision + 1):
        with pytest.raises(HistoryGoneError):
            await asyncio.wait_for(anext(aiter(client.watch(revision))), 5)
    oldest_kept = (await client.load()).revision - KEPT_CHANGES
    watcher = Watcher(client, oldest_kept)
    assert len(await watcher.until(KEPT_CHANGES)) == KEPT_CHANGES
    await watcher.stop()


async def test_only_one_of_many_that_claim_a_subnet_at_once_gets_it(world: StoreWorld) -> None:
    async def attempt(n: int) -> Grant | None:
        try:
            return await claim(world.connect(), HostId(f"{n:032x}"), KEY, n + 1)
        except ConflictError:
            return None

    grants = [grant for grant in await asyncio.gather(*(attempt(n) for n in range(8))) if grant is not None]
    assert len(grants) == 1
    assert (await world.connect().load()).leases == (grants[0].lease,)


async def test_only_one_of_two_with_the_same_public_address_gets_in(world: StoreWorld) -> None:
    outcomes = await asyncio.gather(
        claim(world.connect(), A, KEY, 1), claim(world.connect(), B, OTHER_KEY, 1), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["AddressInUseError", "Grant"]


async def test_cancelled_calls_leave_the_store_usable(world: StoreWorld) -> None:
    client = world.connect()
    await client.load()
    for n in range(20):
        task = asyncio.create_task(claim(client, A, KEY, 1))
        for _ in range(n % 4):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
    grant = await claim(client, A, KEY, 1)
    assert (await client.load()).leases == (grant.lease,)
    assert (await client.renew(grant)).lease == grant.lease


async def test_close_ends_watches(world: StoreWorld) -> None:
    client = world.connect()
    watcher = Watcher(client, (await client.load()).revision)
    await asyncio.sleep(0)
    await client.aclose()
    await asyncio.wait_for(watcher.task, 5)
    await client.aclose()


async def test_leases_are_told_apart_by_age(world: StoreWorld) -> None:
    client = world.connect()
    first, second = await claim(client, B, OTHER_KEY, 2), await claim(client, A, KEY, 1)
    assert first.lease.created < second.lease.created
    again = await claim(client, B, OTHER_KEY, 2)
    assert again.lease.created == first.lease.created

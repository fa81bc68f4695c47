"""What a hold on a lease rests on, how much etcd is asked, and what is written where flannel hosts look."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import signal
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from overlaynet.errors import HostIdInUseError, LeaseLostError, StoreUnavailableError
from overlaynet.model.lease import Grant, HostId, LeaseAttributes
from overlaynet.model.lease_text import parse_lease_key
from overlaynet.store.etcd import client as etcd_client
from overlaynet.store.etcd.settings import parse_etcd_url
from overlaynet.store.etcd.store import _QUESTIONS_AT_ONCE, EtcdStore

from tests.contract.etcd_server import EtcdServer
from tests.contract.test_etcd_hostile import two_members, until_stopped

A, B = HostId("a" * 32), HostId("b" * 32)
SUBNET = parse_lease_key("10.1.2.0-24")
ATTRIBUTES = LeaseAttributes(IPv4Address("192.0.2.1"), None, "host-gw")
FLANNELS_KEY = re.compile(r"(\d+\.\d+.\d+.\d+)-(\d+)(?:&([a-f\d:]+)-(\d+))?")
"""flannel's own expression for a lease key (pkg/subnet/subnet.go)."""


async def held(store: EtcdStore, *, reserved: bool) -> Grant:
    there = await store.reserve(SUBNET, ATTRIBUTES) if reserved else None
    return await store.claim(A, SUBNET, ATTRIBUTES, ttl_s=60, seen=await store.load(), takes_over=there)


@pytest.mark.parametrize("reserved", [False, True])
@pytest.mark.parametrize(
    "meddle",
    [
        "put --lease={other} {owner} {mine}",
        "put --lease={lease} {owner} {another}",
        "put {owner} {mine}",
        "del {owner}",
        "put --lease={other} {key} {value}",
        "del {key}",
    ],
)
async def test_hold_rests_on_both_keys_their_etcd_leases_and_the_owner(
    etcd: EtcdServer, prefix: str, store: EtcdStore, monkeypatch: pytest.MonkeyPatch, reserved: bool, meddle: str
) -> None:
    grant = await held(store, reserved=reserved)
    words = {
        "key": f"{prefix}/subnets/{SUBNET}",
        "owner": f"{prefix}/overlaynet/owner/{SUBNET}",
        "lease": f"{grant.handle:x}",
        "other": etcd.grant(60),
        "mine": f'{{"host":"{A}","features":[]}}',
        "another": f'{{"host":"{B}","features":[]}}',
        "value": '{"PublicIP":"192.0.2.9","PublicIPv6":null}',
    }
    etcd.ctl(*(word.format(**words) if "{" in word else word for word in meddle.split()))
    left = (await store.load()).leases
    for lost in (store.renew(grant), store.update(grant, LeaseAttributes(IPv4Address("192.0.2.7")))):
        with pytest.raises((LeaseLostError, HostIdInUseError)):
            await lost

    async def leave(_: int) -> None:
        """The etcd lease stays: other keys may hang on it now."""

    monkeypatch.setattr(store, "_forget_lease", leave)
    await store.release(grant)
    assert (await store.load()).leases == left


async def test_nothing_but_leases_is_ever_written_where_flannel_hosts_look(
    etcd: EtcdServer, prefix: str, store: EtcdStore
) -> None:
    """One other key below this text, and every flannel host drops all its peers. All that a store and its operators do:"""
    after = (await store.load()).revision
    both = parse_lease_key("10.1.3.0-24&fd01:0:0:3::-64")
    v6 = parse_lease_key("0.0.0.0-0&fd01:0:0:4::-64")
    grant = await held(store, reserved=False)
    grant = await store.update(await store.renew(grant), LeaseAttributes(IPv4Address("192.0.2.7"), None, "vxlan", b'{"VNI":1}'))
    for subnets in (both, v6):
        attributes = LeaseAttributes(IPv4Address("192.0.2.1"), IPv6Address("fd00::1"), "vxlan", b'{"VNI":1}', b'{"VNI":1}')
        grant = await store.claim(A, subnets, attributes, ttl_s=60, seen=await store.load(), features=("udp6",))
    await store.put_config(b"{}")
    await store.revoke(v6)
    grant = await held(store, reserved=True)
    await store.release(grant)
    await store.revoke(SUBNET, bar=False)
    await store.put_config(b"{}")
    last = (await store.load()).revision

    written = []
    for revision in range(after + 1, last + 1):
        for pair in json.loads(etcd.ctl("get", "--rev", str(revision), "--prefix", f"{prefix}/subnets", "-w", "json")).get(
            "kvs", []
        ):
            written.append((base64.b64decode(pair["key"]).decode(), base64.b64decode(pair["value"])))
    assert {key for key, _ in written} == {f"{prefix}/subnets/{subnets}" for subnets in (SUBNET, both, v6)}
    for key, value in written:
        match = FLANNELS_KEY.fullmatch(key.removeprefix(f"{prefix}/subnets/"))
        assert match is not None, key
        assert int(match[2]) < 32
        assert int(match[4] or 0) < 128
        fields = json.loads(value)
        assert list(fields)[:2] == ["PublicIP", "PublicIPv6"]
        assert str(IPv4Address(fields["PublicIP"])) == fields["PublicIP"]


async def test_load_is_one_request_and_remaining_times_are_asked_for_a_bounded_number_at_once(
    store: EtcdStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = EtcdStore(store._settings)
    for n in range(3 * _QUESTIONS_AT_ONCE):
        attributes = LeaseAttributes(IPv4Address("192.0.2.1") + n)
        subnets = parse_lease_key(f"10.1.{n}.0-24")
        await writer.claim(HostId(f"{n:032x}"), subnets, attributes, ttl_s=60, seen=await writer.load())
    await writer.aclose()
    once = store._client._once
    asked: list[Any] = []
    now = most = 0

    async def counted(method: Any, request: Any, token: str) -> Any:
        nonlocal now, most
        asked.append(method)
        now += 1
        most = max(most, now)
        try:
            return await once(method, request, token)
        finally:
            now -= 1

    monkeypatch.setattr(store._client, "_once", counted)
    leases = (await store.load()).leases
    assert asked == [etcd_client.TXN]
    left = await store.remaining(leases)
    assert asked[1:] == [etcd_client.TIME_TO_LIVE] * len(leases)
    assert all(remaining is not None and 0 < remaining <= 60 for remaining in left)
    assert most == _QUESTIONS_AT_ONCE


async def test_watch_at_a_member_without_leader_ends(tmp_path: Path) -> None:
    """Such a member answers, and hears of nothing: a watch there would be silent for as long as it is cut off."""
    with two_members(tmp_path) as (servers, processes):
        store = EtcdStore(parse_etcd_url(f"etcd://{servers[0].address}/n"))
        try:
            waiting = asyncio.ensure_future(anext(aiter(store.watch((await store.load()).revision))))
            writer = EtcdStore(store._settings)
            await writer.put_config(b"{}")
            await asyncio.wait_for(waiting, 60)
            await writer.aclose()
            waiting = asyncio.ensure_future(anext(aiter(store.watch((await store.load()).revision))))
            async with asyncio.timeout(60):
                while not any(feed._is_open for feed in store._feeds):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            processes[1].send_signal(signal.SIGSTOP)
            await asyncio.to_thread(until_stopped, processes[1].pid)
            with pytest.raises(StoreUnavailableError):
                await asyncio.wait_for(waiting, 100)
        finally:
            await store.aclose()

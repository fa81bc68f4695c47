"""The etcd store among keys that are wrong, members that cannot know, clusters that went back, and a disk that is full."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from overlaynet.errors import AddressInUseError, ConflictError, HostIdInUseError, StaleSnapshotError, StoreUnavailableError
from overlaynet.model.host import HostSettings
from overlaynet.model.kept import Kept, decode_kept, encode_kept
from overlaynet.model.lease import Grant, HostId, LeaseAttributes
from overlaynet.model.lease_text import parse_lease_key
from overlaynet.model.network import parse_network
from overlaynet.model.snapshot import LeaseGone, UnreadableGone
from overlaynet.reconcile.allocate import choose
from overlaynet.store.etcd import client as etcd_client
from overlaynet.store.etcd import rpc_pb2 as etcd_rpc
from overlaynet.store.etcd.settings import parse_etcd_url
from overlaynet.store.etcd.store import EtcdStore

from tests.contract.etcd_server import EtcdServer, etcd_server, free_ports, spawn
from tests.contract.store_worlds import Watcher
from tests.contract.tcp_proxy import TcpProxy
from tests.contract.test_etcd_watch import losing_transactions, proxied

A, B = HostId("a" * 32), HostId("b" * 32)
SUBNET, HALF = parse_lease_key("10.1.2.0-24"), parse_lease_key("10.1.2.128-25")
ATTRIBUTES = LeaseAttributes(IPv4Address("192.0.2.1"), None, "host-gw")
VALUE = '{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"host-gw"}'
WITHIN_S = 60.0


async def claimed(store: EtcdStore, host: HostId = A, last: int = 1, ttl_s: float = 60.0) -> Grant:
    attributes = LeaseAttributes(IPv4Address(f"192.0.2.{last}"), None, "host-gw")
    return await store.claim(host, SUBNET, attributes, ttl_s=ttl_s, seen=await store.load())


@contextmanager
def two_members(folder: Path) -> Iterator[tuple[list[EtcdServer], list[subprocess.Popen[bytes]]]]:
    """A cluster of two: without the one the other has no leader and knows nothing for certain."""
    clients, peers = free_ports(2), free_ports(2)
    everyone = ",".join(f"m{n}=http://127.0.0.1:{port}" for n, port in enumerate(peers))
    processes = []
    for n, (client, peer) in enumerate(zip(clients, peers, strict=True)):
        client_url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        command = [
            *("etcd", "--name", f"m{n}", "--data-dir", str(folder / f"m{n}"), "--logger", "zap", "--log-level", "error"),
            *("--listen-client-urls", client_url, "--advertise-client-urls", client_url),
            *("--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url, "--initial-cluster", everyone),
        ]
        processes.append(spawn(command, folder / f"log{n}"))
    servers = [EtcdServer(f"127.0.0.1:{port}") for port in clients]
    try:
        until_serving(servers)
        yield servers, processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def until_stopped(pid: int) -> None:
    """Return when each thread of the process has stopped: SIGSTOP reaches them one by one."""
    deadline = time.monotonic() + WITHIN_S
    while any(stat.read_text().rpartition(")")[2].split()[0] != "T" for stat in Path(f"/proc/{pid}/task").glob("*/stat")):
        assert time.monotonic() < deadline, "the process does not stop"


def until_serving(servers: list[EtcdServer]) -> None:
    for _ in range(120):
        if all(server.answers() for server in servers):
            return
    raise AssertionError("the members do not serve")


async def test_member_that_cannot_know_confirms_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a member cut off from the others holds may be long untrue: a renewal must not rest on it."""
    monkeypatch.setattr(etcd_client, "REQUEST_TIMEOUT_S", 1.0)
    monkeypatch.setattr(etcd_client, "TOTAL_TIMEOUT_S", 2.0)
    with two_members(tmp_path) as (servers, processes):
        store = EtcdStore(parse_etcd_url(f"etcd://{servers[0].address}/n"))
        try:
            grant = await claimed(store)
            assert await store._check_ours(grant) > 0
            processes[1].send_signal(signal.SIGSTOP)
            await asyncio.to_thread(until_stopped, processes[1].pid)
            with pytest.raises(StoreUnavailableError):
                await store._check_ours(grant)
            with pytest.raises(StoreUnavailableError):
                await store.renew(grant)
        finally:
            await store.aclose()


async def etcd_leases(server: EtcdServer) -> set[str]:
    """The ids of the etcd's leases, those of other tests that were put back with it included."""
    return set((await asyncio.to_thread(server.ctl, "lease", "list")).split()[3:])


@contextmanager
def put_back(folder: Path, server: EtcdServer) -> Iterator[EtcdServer]:
    """An etcd with the state that `server` has at this moment, as from a backup."""
    folder.mkdir()
    server.ctl("snapshot", "save", str(folder / "backup"))
    command = ["etcdctl", "snapshot", "restore", str(folder / "backup"), "--data-dir", str(folder / "data")]
    subprocess.run(command, check=True, capture_output=True, env={"PATH": "/usr/bin:/bin", "ETCDCTL_API": "3"})
    with etcd_server(folder) as restored:
        yield restored


@pytest.mark.parametrize("wanted", [SUBNET, HALF])
async def test_claim_from_before_etcd_was_put_back_is_refused(etcd: EtcdServer, prefix: str, tmp_path: Path, wanted: Any) -> None:
    """The revisions of the cluster that was are no measure for the changes in the one that is."""
    backup = put_back(tmp_path / "restored", etcd)
    with backup as restored:
        async with TcpProxy(etcd.address) as proxy:
            far = EtcdStore(parse_etcd_url(f"etcd://{proxy.address}{prefix}"))
            near = EtcdStore(parse_etcd_url(f"etcd://{restored.address}{prefix}"))
            try:
                for n in range(20):
                    await far.put_config(b"%d" % n)
                seen = await far.load()
                proxy.lead_to(restored.address)
                before = await etcd_leases(restored)
                held = await claimed(near, B, 2)
                with pytest.raises(ConflictError):
                    await far.claim(A, wanted, ATTRIBUTES, ttl_s=60, seen=seen)
                assert (await near.load()).leases == (held.lease,)
                assert await etcd_leases(restored) - before == {f"{held.handle:016x}"}, "the claim left an etcd lease behind"
                assert (await far.load()).leases == (held.lease,)
            finally:
                await far.aclose()
                await near.aclose()


async def test_owner_key_that_cannot_be_read_is_another_host(etcd: EtcdServer, prefix: str, store: EtcdStore) -> None:
    """Only what is ours or has no owner is taken over by its public address; a key that says neither belongs to somebody."""
    config, _ = parse_network(b'{"Network":"10.1.0.0/16","Backend":{"Type":"host-gw"}}')
    address = IPv4Address("192.0.2.1")
    settings = HostSettings(A, "eth0", address, None, address, None)
    long = json.dumps({"host": "h" * 5_000})
    for text in ("", "junk", "[]", "{}", '{"host":7}', '{"host":""}', '{"host":"\\ud800"}', '{"host":"a\\nb"}', long):
        lease = etcd.grant(60)
        etcd.ctl("put", f"--lease={lease}", "--", f"{prefix}/subnets/{SUBNET}", VALUE)
        etcd.ctl("put", f"--lease={lease}", "--", f"{prefix}/overlaynet/owner/{SUBNET}", text)
        snapshot = await store.load()
        with pytest.raises(AddressInUseError):
            choose(config, settings, snapshot.leases)
        with pytest.raises(ConflictError) as caught:
            await store.claim(A, SUBNET, ATTRIBUTES, ttl_s=60, seen=snapshot, takes_over=snapshot.leases[0])
        assert not isinstance(caught.value, StaleSnapshotError), "it is tried as if it were free"
        assert "\n" not in str(caught.value)


async def test_owners_of_whatever_name_are_kept_between_runs(etcd: EtcdServer, prefix: str, store: EtcdStore) -> None:
    """What a peer calls itself and what it can do ends in files, logs and terminals of every host."""
    names = ['"\\ud800"', '"\\u001b[2J"', '"future:host/7"', '"x","features":["\\udfff","\\u0007",{"a":[1]},7,"new"]']
    for n, text in enumerate(names):
        lease = etcd.grant(60)
        key = f"10.1.{n}.0-24"
        etcd.ctl("put", f"--lease={lease}", f"{prefix}/subnets/{key}", VALUE)
        etcd.ctl("put", f"--lease={lease}", f"{prefix}/overlaynet/owner/{key}", f'{{"host":{text}}}')
    grant = await store.claim(
        A, parse_lease_key("10.1.77.0-24"), LeaseAttributes(IPv4Address("192.0.2.7")), ttl_s=60, seen=await store.load()
    )
    leases = (await store.load()).leases
    kept = Kept("etcd://x", b'{"Network":"10.1.0.0/16"}', 7, grant.lease, leases)
    assert decode_kept(encode_kept(kept)) == kept
    assert all(text.isprintable() for lease in leases for text in (lease.owner or "", *lease.features))
    assert [lease.features for lease in leases if lease.owner == "x"] == [("new",)]


async def test_administrators_request_whose_answer_was_lost_is_recognised_when_sent_again(
    etcd: EtcdServer, prefix: str, store: EtcdStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxied(etcd, prefix) as (proxy, far):

        def lose_next(after: int) -> None:
            losing_transactions(monkeypatch, far, proxy, 1, after=after)

        lose_next(after=1)
        reserved = await far.reserve(SUBNET, ATTRIBUTES)
        assert (await store.load()).leases == (reserved,)
        lose_next(after=1)
        assert await far.revoke(SUBNET, bar=False) == reserved
        assert (await store.load()).leases == ()
        grant = await claimed(store)
        lose_next(after=1)
        assert await far.revoke(SUBNET) == grant.lease
        assert proxy.cuts == 3
        with pytest.raises(ConflictError, match="revoked from this host"):
            await claimed(store)


@pytest.mark.parametrize("strange", ["\n", "\x1b[2J", "\\x", "é", "k" * 300_000])
async def test_key_that_is_no_lease_is_named_on_one_short_line(
    etcd: EtcdServer, prefix: str, store: EtcdStore, strange: str
) -> None:
    keys = [f"{prefix}/subnets/{strange}{n}".encode() for n in "12"] + [f"{prefix}/subnets/".encode() + b"\xff\xfe"]
    for key in keys:
        await store._client.call(etcd_client.PUT, etcd_rpc.PutRequest(key=key, value=VALUE.encode()))
    unreadable = (await store.load()).unreadable
    assert len({one.key for one in unreadable}) == len(keys)
    assert all(one.key.isprintable() and len(one.key) + len(one.why) < 400 for one in unreadable), unreadable
    watcher = Watcher(store, store._view.revision)
    writer = EtcdStore(store._settings)
    for key in keys:
        delete = etcd_rpc.RequestOp(request_delete_range=etcd_rpc.DeleteRangeRequest(key=key))
        await writer._client.call(etcd_client.TXN, etcd_rpc.TxnRequest(success=[delete]))
    heard = await watcher.until(len(keys))
    assert {one.key for one in heard if isinstance(one, UnreadableGone)} == {one.key for one in unreadable}
    await watcher.stop()
    await writer.aclose()


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "b" * 1_000])
async def test_lease_of_a_backend_whose_name_is_no_word_is_skipped(
    etcd: EtcdServer, prefix: str, store: EtcdStore, text: str
) -> None:
    etcd.ctl("put", f"{prefix}/subnets/10.1.7.0-24", json.dumps({"PublicIP": "192.0.2.7", "BackendType": text}))
    snapshot = await store.load()
    assert (snapshot.leases, [one.key for one in snapshot.unreadable]) == ((), ["10.1.7.0-24"])
    assert snapshot.unreadable[0].why.isprintable()


async def fill(store: EtcdStore) -> None:
    """Write until there is an error."""
    for n in range(100):
        await store._client.call(etcd_client.PUT, etcd_rpc.PutRequest(key=b"/x/%d" % n, value=b"x" * 100_000))


async def test_leases_are_held_given_back_and_followed_in_an_etcd_that_is_full(tmp_path: Path) -> None:
    """A full etcd takes no new keys or leases; what is there can be kept alive, read and deleted."""
    with etcd_server(tmp_path, "--quota-backend-bytes", str(1 << 20)) as server:
        store, other = (EtcdStore(parse_etcd_url(f"etcd://{server.address}/n")) for _ in range(2))
        try:
            grant = await claimed(store)
            watcher = Watcher(other, (await other.load()).revision)
            with pytest.raises(StoreUnavailableError):
                await fill(store)
            grant = await store.renew(grant)
            with pytest.raises(StoreUnavailableError, match="etcd is full: compact"):
                await other.claim(
                    B,
                    parse_lease_key("10.1.3.0-24"),
                    LeaseAttributes(IPv4Address("192.0.2.2")),
                    ttl_s=60,
                    seen=await other.load(),
                )
            await store.release(grant)
            await watcher.until_heard(LeaseGone(SUBNET))
            await watcher.stop()
        finally:
            await store.aclose()
            await other.aclose()


async def test_identity_that_another_host_has_too_is_told_from_a_lease_that_was_lost(
    etcd: EtcdServer, prefix: str, store: EtcdStore
) -> None:
    """A copied state directory gives two hosts one identity: the first hears of it as soon as the second claims."""
    grant = await claimed(store)
    copy = EtcdStore(store._settings)
    elsewhere = LeaseAttributes(IPv4Address("192.0.2.2"), None, "host-gw")
    seen = await copy.load()
    await copy.claim(A, SUBNET, elsewhere, ttl_s=60, seen=seen, takes_over=seen.leases[0])
    for lost in (store.renew(grant), store.update(grant, ATTRIBUTES)):
        with pytest.raises(HostIdInUseError) as caught:
            await lost
        assert (caught.value.host, caught.value.address) == (A, "192.0.2.2")
    await copy.aclose()

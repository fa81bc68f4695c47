"""How the etcd store carries 2,000 leases: a host's start, its memory, and how soon each of 50 watchers hears of a change.

    python benches/lab/etcd_scale.py [REPORT]

Starts Debian's etcd on loopback. Times are of one run on one machine, with everything on it: etcd, the writer, the watchers.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from overlaynet.lab.figures import Figure, at_most, write_report
from overlaynet.model.host import HostSettings
from overlaynet.model.lease import Grant, HostId, LeaseAttributes, Subnets
from overlaynet.model.lease_text import encode_attributes
from overlaynet.model.snapshot import LeasePut
from overlaynet.reconcile.events import SnapshotLoaded, TimerFired
from overlaynet.reconcile.reconciler import Reconciler
from overlaynet.store.etcd import client as etcd_client
from overlaynet.store.etcd import rpc_pb2 as rpc
from overlaynet.store.etcd.keys import Layout, Owner
from overlaynet.store.etcd.settings import parse_etcd_url
from overlaynet.store.etcd.store import EtcdStore
from overlaynet.store.etcd.transactions import put

from tests.contract.etcd_server import etcd_server
from tests.contract.test_etcd_crowd import crowd

LEASES, WATCHERS, CHANGES, STARTS = 2_000, 50, 200, 7
CONFIG = b'{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"vxlan"}}'


def attributes(number: int, mac: int = 2) -> LeaseAttributes:
    address = IPv4Address("172.16.0.0") + number
    data = b'{"VNI":1,"VtepMAC":"%02x:00:00:00:%02x:%02x"}' % (mac, number >> 8, number & 255)
    return LeaseAttributes(address, None, "vxlan", data)


def subnets(number: int) -> Subnets:
    return Subnets(IPv4Network((int(IPv4Address("10.0.0.0")) + (number << 8), 24)))


async def fill(url: str) -> None:
    """The leases and their owners, as hosts would have left them: each pair on an etcd lease of its own."""
    client = etcd_client.EtcdClient(parse_etcd_url(url))
    layout = Layout(parse_etcd_url(url).prefix)
    places = asyncio.Semaphore(50)

    async def one(number: int) -> None:
        async with places:
            lease = (await client.call(etcd_client.GRANT, rpc.LeaseGrantRequest(TTL=86_400))).ID
            pair = [
                put(layout.lease(subnets(number)), encode_attributes(attributes(number)), lease),
                put(layout.owner(subnets(number)), Owner(HostId(f"{number:032x}")).text, lease),
            ]
            await client.call(etcd_client.TXN, rpc.TxnRequest(success=pair))

    await client.call(etcd_client.PUT, rpc.PutRequest(key=layout.config, value=CONFIG))
    await asyncio.gather(*(one(number) for number in range(1, LEASES + 1)))
    await client.aclose()


def resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


async def begin(url: str) -> None:
    """A host's start up to the first picture of its peers, in a process of its own: prints seconds and memory."""
    address = IPv4Address("192.0.2.1")
    reconciler = Reconciler(HostSettings(HostId("f" * 32), "eth0", address, None, address, None))
    reconciler.handle(TimerFired(), 0.0)
    store = EtcdStore(parse_etcd_url(url))
    began = time.monotonic()
    snapshot = await store.load()
    reconciler.handle(SnapshotLoaded(snapshot), 0.0)
    seconds = time.monotonic() - began
    reconciler.take_actions()
    gc.collect()
    sys.stdout.write(json.dumps({"seconds": seconds, "bytes": resident_bytes(), "leases": len(snapshot.leases)}) + "\n")
    await store.aclose()


def start(url: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--begin", url]
    answer: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return answer


async def delays(url: str) -> list[float]:
    """Seconds from the moment at which a change was sent until each watcher handed it over."""
    writer, settings = EtcdStore(parse_etcd_url(url)), parse_etcd_url(url)
    number = LEASES + 1
    grant: Grant = await writer.claim(
        HostId(f"{number:032x}"), subnets(number), attributes(number), ttl_s=3_600, seen=await writer.load()
    )
    found: list[float] = []
    sent_at, heard, all_heard = 0.0, 0, asyncio.Event()
    stores = [EtcdStore(settings) for _ in range(WATCHERS)]

    async def watch(store: EtcdStore, after: int) -> None:
        nonlocal heard
        async for changes in store.watch(after):
            for change in changes.changes:
                if isinstance(change, LeasePut) and change.lease.subnets == subnets(number):
                    found.append(time.monotonic() - sent_at)
                    heard += 1
            if heard == WATCHERS:
                all_heard.set()

    tasks = [asyncio.create_task(watch(store, (await store.load()).revision)) for store in stores]
    await asyncio.sleep(2)
    for n in range(CHANGES):
        heard, sent_at = 0, time.monotonic()
        all_heard.clear()
        grant = await writer.update(grant, attributes(number, mac=2 + 4 * (n % 60)))
        await asyncio.wait_for(all_heard.wait(), 30)
        await asyncio.sleep(0.02)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for store in [writer, *stores]:
        await store.aclose()
    return found


@contextmanager
def server() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="ovt-scale-") as folder, etcd_server(Path(folder)) as made:
        yield made.address


def main(report: Path) -> None:
    with server() as address:
        full, empty = f"etcd://{address}/full", f"etcd://{address}/empty"
        asyncio.run(fill(full))
        asyncio.run(EtcdStore(parse_etcd_url(empty)).put_config(CONFIG))
        starts = [start(full) for _ in range(STARTS)]
        if any(one["leases"] != LEASES for one in starts):
            raise SystemExit(f"not all leases were read: {starts}")
        without = statistics.median(start(empty)["bytes"] for _ in range(STARTS))
        took = sorted(asyncio.run(delays(full)))
    with server() as address:
        seconds = [seconds for one in crowd(address, "/crowd") for seconds in one["seconds"]]
    figures = [
        Figure(
            f"reading {LEASES} leases at a start, median", statistics.median(one["seconds"] for one in starts), "s", at_most(1)
        ),
        Figure(
            f"memory for {LEASES} leases, median",
            (statistics.median(one["bytes"] for one in starts) - without) / 1e6,
            "MB",
            at_most(8),
        ),
        Figure(f"a changed lease at {WATCHERS} watchers, median", statistics.median(took) * 1e3, "ms"),
        Figure(f"a changed lease at {WATCHERS} watchers, 99th percentile", took[len(took) * 99 // 100] * 1e3, "ms", at_most(100)),
        Figure(f"{len(seconds)} clients that start at once, until the last has a lease", max(seconds), "s", at_most(30)),
    ]
    report.parent.mkdir(parents=True, exist_ok=True)
    write_report(report, command="make bench-etcd", figures=figures)
    for figure in figures:
        print(json.dumps(figure.row))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--begin"]:
        asyncio.run(begin(sys.argv[2]))
    else:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("benches/results/etcd.json"))

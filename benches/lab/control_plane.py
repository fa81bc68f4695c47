"""What the control plane costs: one host among 100 to 10,000 simulated peers, its real kernel in a namespace of its own.

Run as root: `make bench-control`. The report is benches/results/control-plane.json.

- Cold starts, changes and bursts: the daemon's loop in a process of its own over a store in memory, so that what is measured is
  the way from leases to a programmed kernel. `ip -batch` and `bridge -batch` make the same entries in the same round.
- Restarts, memory and idling: the real daemon, from before its process is made until its READY=1 is heard, over an SQLite file.
"""

from __future__ import annotations

# ruff: noqa: ASYNC110, S101 - looking on must not slow what is measured down
import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import structlog
from overlaynet.daemon.collector import spare_collector
from overlaynet.daemon.driver import Driver
from overlaynet.daemon.health import Health
from overlaynet.kernel.netlink import NetlinkKernel
from overlaynet.lab.figures import Figure, at_least, at_most, write_report
from overlaynet.model.dataplane import PumpConfig
from overlaynet.model.host import HostSettings
from overlaynet.model.kernel import Put, Scope
from overlaynet.model.lease import HostId
from overlaynet.reconcile.reconciler import Reconciler
from overlaynet.store.memory import MemoryStore

from benches.lab import simulated_peers as sim
from benches.lab.daemon_process import DaemonProcess, daemon_process

_REPORT = Path(__file__).parent.parent / "results" / "control-plane.json"
_SIZES = (100, 1_000, 5_000, 10_000)
_LARGEST = 10_000
_ROUNDS = 3
_CHANGES = 300
_BURST = 1_000
_REST_S = 20.0
"""After a start, until the snapshot of ten thousand leases has been kept too."""


class NoEngine:
    """No packet engine: the kernel carries the packets."""

    config: PumpConfig | None = None
    failure: str | None = None

    def apply(self, config: PumpConfig | None) -> None:
        """Nothing to start."""

    def counters(self) -> dict[str, object]:
        """Nothing to count."""
        return {}


class Running:
    """A daemon's loop in this process."""

    def __init__(self, driver: Driver, kernel: NetlinkKernel, reconciler: Reconciler, health: Health) -> None:
        self.driver, self.kernel, self.reconciler, self.health = driver, kernel, reconciler, health

    async def until_ready(self) -> None:
        """Return when it is ready."""
        while not self.health.ready:
            await asyncio.sleep(0.001)

    async def until_programmed(self, writes: int) -> None:
        """Return when so many operations have gone out and nothing is under way."""
        while self.kernel.writes < writes or self.reconciler.kernel.busy:
            await asyncio.sleep(0.0002)


@contextlib.asynccontextmanager
async def running(netns: str, store: MemoryStore, *, next_hops: bool = True) -> AsyncIterator[Running]:
    """A daemon's loop in the namespace, stopped at the end; the kernel keeps what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        async with await NetlinkKernel.open(netns) as kernel:
            host = HostSettings(
                *(HostId("bench"), "eth0", sim.ADDRESS, None, sim.ADDRESS, None),
                previous=sim.OWN,
                store="memory:",
                next_hops=next_hops,
            )
            reconciler, health = Reconciler(host), Health()
            driver = Driver(
                *(host.host, reconciler, store, kernel, NoEngine(), health, Path(folder) / "subnet.env", Path(folder) / "state")
            )
            task = asyncio.create_task(driver.run())
            try:
                yield Running(driver, kernel, reconciler, health)
            finally:
                driver.stop(release=False)
                await task


async def cold_start(netns: str, peers: int, *, next_hops: bool) -> dict[str, float]:
    """Seconds from an empty kernel to ready, a store that answers at once included."""
    store = await sim.store_of(peers)
    start = time.perf_counter()
    async with running(netns, store, next_hops=next_hops) as daemon:
        await daemon.until_ready()
        return {"seconds": time.perf_counter() - start}


async def programming(netns: str, peers: int) -> dict[str, float]:
    """Seconds that the kernel adapter takes for the entries, packing included."""
    operations = [Put(item) for item in sim.entries(peers, next_hops=True)]
    async with await NetlinkKernel.open(netns) as kernel:
        start = time.perf_counter()
        results = await kernel.perform(operations)
        seconds = time.perf_counter() - start
    failed = [str(result) for result in results if result is not None]
    assert not failed, failed[:3]
    return {"seconds": seconds}


async def changes(netns: str, peers: int) -> dict[str, float]:
    """One lease changed at a time, a burst of changes, and what an observation costs the loop and the processor."""
    found: dict[str, float] = {}
    store = await sim.store_of(peers)
    async with running(netns, store) as daemon:
        await daemon.until_ready()
        await asyncio.sleep(2.0)
        spans, writes = [], []
        for turn in range(_CHANGES):
            number, already, start = turn // 4 % peers, daemon.kernel.writes, time.perf_counter()
            match turn % 4:
                case 0:
                    sim.place(store, sim.lease_of(number, moved=1))
                case 1:
                    sim.place(store, sim.lease_of(number, moved=1, renewed=1 + turn // 4))
                case 2:
                    sim.remove(store, sim.subnets(number))
                case _:
                    sim.place(store, sim.lease_of(number))
            await daemon.until_programmed(already + 1)
            spans.append(time.perf_counter() - start)
            writes.append(daemon.kernel.writes - already)
            await asyncio.sleep(0.005)
        found["change_s"] = statistics.median(spans)
        found["change_p99_s"] = statistics.quantiles(spans, n=100)[98]
        found["change_writes"] = max(writes)
        already, start = daemon.kernel.writes, time.perf_counter()
        for number in range(_BURST):
            sim.place(store, sim.lease_of(number % peers, moved=2))
        await daemon.until_programmed(already + min(_BURST, peers))
        found["burst_s"] = time.perf_counter() - start
        await asyncio.sleep(2.0)
        state = daemon.reconciler.state
        assert state is not None
        # As the daemon reads it: with what it expects to find.
        expected = {item.key: item for item in state.objects}
        cpu = time.process_time()
        await daemon.kernel.observe(Scope("eth0", (sim.NETWORK,)), expected)
        found["observation_cpu_s"] = time.process_time() - cpu
        stop = asyncio.Event()
        watching = asyncio.create_task(longest_pause(stop))
        # A stranger's route inside the network: the daemon reads everything and compares it with what it wants.
        for verb in ("add", "delete"):
            stranger = ["ip", "-n", netns, "route", verb, "10.254.0.0/24", "dev", "lo"]
            code = await (await asyncio.create_subprocess_exec(*stranger)).wait()
            assert code == 0
            await asyncio.sleep(3.0)
        stop.set()
        found["pause_s"] = await watching
    return found


async def longest_pause(stop: asyncio.Event) -> float:
    """The longest time for which the loop ran nothing else."""
    longest = 0.0
    while not stop.is_set():
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - before - 0.001)
    return longest


_PARTS = {
    "cold": lambda netns, peers: cold_start(netns, peers, next_hops=True),
    "cold-plain": lambda netns, peers: cold_start(netns, peers, next_hops=False),
    "programming": programming,
    "changes": changes,
}


def by_itself(part: str, netns: str, peers: int) -> dict[str, float]:
    """One part of the measurement, in a process of its own."""
    command = [sys.executable, "-m", "benches.lab.control_plane", "--part", part, netns, str(peers)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def by_iproute2(netns: str, peers: int, *, next_hops: bool) -> float:
    """Seconds that iproute2 takes for the same entries."""
    sim.clear(netns, device=True)
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "ip", Path(folder) / "bridge"
        for file, lines in zip(files, sim.iproute2_lines(peers, next_hops=next_hops), strict=True):
            file.write_text(lines)
        start = time.perf_counter()
        subprocess.run(["ip", "-n", netns, "-batch", str(files[0])], check=True)
        subprocess.run(["bridge", "-n", netns, "-batch", str(files[1])], check=True)
        return time.perf_counter() - start


def starts(netns: str, peers: int) -> list[Figure]:
    """Cold starts, beside iproute2 in the same rounds."""
    ours, to_plain, to_hops = [], [], []
    for _ in range(_ROUNDS):
        plain = by_iproute2(netns, peers, next_hops=False)
        hops = by_iproute2(netns, peers, next_hops=True)
        sim.clear(netns, device=False)
        ours.append(by_itself("cold", netns, peers)["seconds"])
        to_plain.append(ours[-1] / plain)
        to_hops.append(ours[-1] / hops)
    sim.clear(netns, device=False)
    without = by_itself("cold-plain", netns, peers)["seconds"]
    name, largest = f"{peers} peers: cold start", peers == _LARGEST
    return [
        Figure(f"{name} to ready", statistics.median(ours) * 1e3, "ms"),
        Figure(f"{name} / iproute2 with plain gateways", statistics.median(to_plain), "x", at_most(0.4) if largest else None),
        Figure(f"{name} / iproute2 with next hops", statistics.median(to_hops), "x", at_most(1.0) if largest else None),
        Figure(f"{name} to ready, without next hops", without * 1e3, "ms"),
    ]


def processes(netns: str, peers: int, idle_s: float) -> list[Figure]:
    """The real daemon: started on an empty kernel and again; for the largest size also what it takes."""
    largest = peers == _LARGEST
    sim.clear(netns, device=False)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        asyncio.run(sim.file_of(place / "store.db", peers))
        with daemon_process(netns, place) as first:
            cold = first.seconds
            while not (place / "state" / "snapshot.json").exists():
                time.sleep(0.05)
        with daemon_process(netns, place) as again:
            figures = [
                Figure(f"{peers} peers: the process, cold start to READY=1", cold * 1e3, "ms"),
                Figure(f"{peers} peers: restart: kernel writes", again.kernel_writes, "writes", at_most(0) if largest else None),
                Figure(
                    f"{peers} peers: restart: process start to READY=1",
                    again.seconds * 1e3,
                    "ms",
                    at_most(1500) if largest else None,
                ),
            ]
            if not largest:
                return figures
            time.sleep(_REST_S)
            resident, idle = again.resident_bytes, at_rest(again, idle_s)
    sim.clear(netns, device=False)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(sim.file_of(Path(folder) / "store.db", 0))
        with daemon_process(netns, Path(folder)) as alone:
            time.sleep(_REST_S)
            over, idle_alone = resident - alone.resident_bytes, at_rest(alone, idle_s)
    return [
        *figures,
        Figure(f"{peers} peers: resident memory over that at none", over / 2**20, "MiB", at_most(40)),
        Figure(f"{peers} peers: CPU of a minute without change", idle, "s", at_most(0.1)),
        Figure("no peers: CPU of a minute without change", idle_alone, "s"),
    ]


def at_rest(daemon: DaemonProcess, idle_s: float) -> float:
    """Seconds of processor time in a minute in which nothing changes, taken from `idle_s`."""
    before = daemon.cpu_s
    time.sleep(idle_s)
    return (daemon.cpu_s - before) * 60.0 / idle_s


def followed(netns: str, peers: int) -> list[Figure]:
    """Changes among so many peers, and observations."""
    sim.clear(netns, device=False)
    found = by_itself("changes", netns, peers)
    return [
        Figure(f"{peers} peers: {name}", value, unit, target if peers == _LARGEST else None)
        for name, value, unit, target in (
            ("one lease changed: kernel writes, most", found["change_writes"], "writes", at_most(4)),
            ("one lease changed: to programmed, median", found["change_s"] * 1e3, "ms", at_most(3)),
            ("one lease changed: to programmed, 99th percentile", found["change_p99_s"] * 1e3, "ms", at_most(15)),
            (f"{min(peers, _BURST)} leases changed at once: to all programmed", found["burst_s"] * 1e3, "ms", at_most(300)),
            ("CPU of one observation", found["observation_cpu_s"], "s", at_most(0.3)),
            ("longest pause of the loop, observing and comparing", found["pause_s"] * 1e3, "ms", at_most(50)),
        )
    ]


def measure(sizes: tuple[int, ...], idle_s: float) -> list[Figure]:
    """Every figure, the largest size last; targets belong to the sizes that they name."""
    figures: list[Figure] = []
    rates: dict[int, float] = {}
    with sim.namespace() as netns:
        for peers in sizes:
            figures += starts(netns, peers)
            spans = []
            for _ in range(_ROUNDS):
                sim.clear(netns, device=True)
                spans.append(by_itself("programming", netns, peers)["seconds"])
            spent = statistics.median(spans)
            rates[peers] = peers / spent
            target = at_most(120) if peers == 5_000 else None
            figures.append(Figure(f"{peers} peers: kernel programming alone", spent * 1e3, "ms", target))
            figures += followed(netns, peers)
            figures += processes(netns, peers, idle_s)
    if {1_000, _LARGEST} <= rates.keys():
        figures.append(Figure("rate of programming at 10,000 / at 1,000", rates[_LARGEST] / rates[1_000], "x", at_least(0.8)))
    return figures


def main() -> None:
    """Measure, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=int, nargs="*", default=list(_SIZES))
    parser.add_argument("--idle", type=float, default=60.0, help="seconds of the minute without change")
    parser.add_argument("--part", nargs=3, metavar=("PART", "NAMESPACE", "PEERS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        part, netns, peers = arguments.part
        structlog.configure(
            logger_factory=structlog.PrintLoggerFactory(file=sys.stderr), wrapper_class=structlog.make_filtering_bound_logger(40)
        )
        spare_collector()
        print(json.dumps(asyncio.run(_PARTS[part](netns, int(peers)))))
        return
    figures = measure(tuple(arguments.peers), arguments.idle)
    for figure in figures:
        met = "" if figure.target is None else f"{figure.target!s:>9} {'met' if figure.met else 'MISSED'}"
        print(f"{figure.figure:<75} {figure.value:10.4g} {figure.unit:<8} {met}")
    if tuple(arguments.peers) == _SIZES and arguments.idle == 60.0:
        _REPORT.parent.mkdir(exist_ok=True)
        write_report(_REPORT, command="make bench-control", figures=figures)


if __name__ == "__main__":
    main()

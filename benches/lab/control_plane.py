"""What the control plane costs: one host among 100 to 10,000 simulated peers, its real kernel in a namespace of its own.

Run as root: `make bench-control`. The store is in memory, so that what is measured is the daemon: leases to desired state, the
difference, and the kernel's programming. `iproute2` does the same entries by `ip -batch` and `bridge -batch` in the same run. The
report is benches/results/control-plane.json.
"""

from __future__ import annotations

# ruff: noqa: SLF001, ASYNC110, S101 - the simulated store is filled from inside, and looking on must not slow what is measured down
import argparse
import asyncio
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import structlog
from overlaynet.backend.vxlan import vtep_mac
from overlaynet.daemon.driver import Driver
from overlaynet.daemon.health import Health
from overlaynet.kernel.netlink import NetlinkKernel
from overlaynet.lab.figures import Figure, at_least, at_most, write_report
from overlaynet.model.addresses import Family, Vni
from overlaynet.model.dataplane import PumpConfig
from overlaynet.model.host import HostSettings
from overlaynet.model.kernel import FdbEntry, KernelObject, Neighbour, NextHop, Put, Route, Scope
from overlaynet.model.lease import HostId, Lease, LeaseAttributes, Subnets
from overlaynet.model.lease_text import VxlanData, encode_vxlan_data
from overlaynet.model.snapshot import LeasePut
from overlaynet.reconcile.reconciler import Reconciler
from overlaynet.store import memory
from overlaynet.store.memory import MemoryStore

_REPORT = Path(__file__).parent.parent / "results" / "control-plane.json"
_SIZES = (100, 1_000, 5_000, 10_000)
_NETWORK = IPv4Network("10.0.0.0/8")
_CONFIG = json.dumps({"Network": str(_NETWORK), "SubnetLen": 24, "Backend": {"Type": "vxlan"}}).encode()
_VNI = Vni(1)
_OWN = Subnets(IPv4Network("10.255.0.0/24"))
_ADDRESS = IPv4Address("192.168.0.1")


class NoEngine:
    """No packet engine: the kernel carries the packets."""

    failure: str | None = None

    def apply(self, config: PumpConfig | None) -> None:
        """Nothing to start."""

    def counters(self) -> dict[str, object]:
        """Nothing to count."""
        return {}


def attributes(number: int, *, moved: int = 0) -> LeaseAttributes:
    """What peer `number` publishes; `moved` gives it another public address."""
    mac = vtep_mac(HostId(f"peer{number}"), _VNI, Family.IPV4)
    public = IPv4Address(int(IPv4Address("192.168.0.0")) + 256 + number + moved * 20_000)
    return LeaseAttributes(public, None, "vxlan", encode_vxlan_data(VxlanData(_VNI, mac)), None)


def subnets(number: int) -> Subnets:
    """The subnet of peer `number`."""
    return Subnets(IPv4Network((int(_NETWORK.network_address) + (number + 1) * 256, 24)))


async def store_of(peers: int) -> MemoryStore:
    """A store with so many peers' leases, reserved so that none ends."""
    store = MemoryStore(keep=100_000)
    await store.put_config(_CONFIG)
    # Straight into its table: ten thousand claims, each checked against all before it, are not what is measured.
    for number in range(peers):
        place(store, number)
    return store


def place(store: MemoryStore, number: int, *, moved: int = 0) -> None:
    """Give the store a peer's lease, and its watchers the change."""
    lease = Lease(subnets(number), attributes(number, moved=moved), owner=HostId(f"peer{number}"), created=number + 1)
    store._held[lease.subnets] = memory._Held(lease, number + 1, 1e9, None)
    store._commit(LeasePut(lease))


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """A namespace with an underlay."""
    name = f"ovb-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        lines = (
            "link set lo up",
            "link add eth0 type veth peer name eth1",
            f"address add {_ADDRESS}/16 dev eth0",
            "link set eth1 up",
            "link set eth0 up",
        )
        subprocess.run(["ip", "-n", name, "-batch", "-"], input="\n".join(lines), text=True, check=True)
        deadline = time.monotonic() + 10.0
        while (
            "state UP"
            not in subprocess.run(["ip", "-n", name, "link", "show", "eth0"], capture_output=True, text=True, check=True).stdout
        ):
            if time.monotonic() > deadline:
                raise TimeoutError("eth0 has no carrier")
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


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
                HostId("bench"), "eth0", _ADDRESS, None, _ADDRESS, None, previous=_OWN, store="memory:", next_hops=next_hops
            )
            reconciler, health = Reconciler(host), Health()
            driver = Driver(
                host.host, reconciler, store, kernel, NoEngine(), health, Path(folder) / "subnet.env", Path(folder) / "state"
            )
            task = asyncio.create_task(driver.run())
            try:
                yield Running(driver, kernel, reconciler, health)
            finally:
                driver.stop(release=False)
                await task


def entries(peers: int, *, next_hops: bool) -> list[KernelObject]:
    """What the peers need in the kernel."""
    found: list[KernelObject] = []
    for number in range(peers):
        subnet = subnets(number).v4
        assert subnet is not None
        base = subnet.network_address
        mac = vtep_mac(HostId(f"peer{number}"), _VNI, Family.IPV4)
        public = attributes(number).public_ipv4
        assert public is not None
        found += [Neighbour("ovl.1", base, mac), FdbEntry("ovl.1", mac, public)]
        if next_hops:
            found += [NextHop(0x4F000000 + number + 1, "ovl.1", base), Route(subnet, "ovl.1", next_hop=0x4F000000 + number + 1)]
        else:
            found.append(Route(subnet, "ovl.1", base, onlink=True))
    return sorted(found, key=lambda item: item.kind)


def by_iproute2(netns: str, peers: int, *, next_hops: bool) -> float:
    """Seconds that iproute2 takes for the same entries."""
    ip, bridge = [], []
    for item in entries(peers, next_hops=next_hops):
        match item:
            case Neighbour():
                ip.append(f"neighbour add {item.address} lladdr {item.mac} dev ovl.1 nud permanent")
            case FdbEntry():
                bridge.append(f"fdb add {item.mac} dev ovl.1 dst {item.destination} self permanent")
            case NextHop():
                ip.append(f"nexthop add id {item.id} via {item.gateway} dev ovl.1 onlink proto 79")
            case Route(next_hop=None):
                ip.append(f"route add {item.prefix} via {item.gateway} dev ovl.1 onlink proto 79")
            case Route():
                ip.append(f"route add {item.prefix} nhid {item.next_hop} proto 79")
            case _:
                raise AssertionError(item)
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "ip", Path(folder) / "bridge"
        files[0].write_text("\n".join(ip))
        files[1].write_text("\n".join(bridge))
        start = time.perf_counter()
        subprocess.run(["ip", "-n", netns, "-batch", str(files[0])], check=True)
        subprocess.run(["bridge", "-n", netns, "-batch", str(files[1])], check=True)
        return time.perf_counter() - start


def clear(netns: str, *, device: bool = True) -> None:
    """Take the device away, and everything on it; `device` makes an empty one again, for iproute2."""
    subprocess.run(["ip", "-n", netns, "link", "delete", "ovl.1"], check=False, capture_output=True)
    subprocess.run(["ip", "-n", netns, "route", "flush", "proto", "79"], check=False, capture_output=True)
    if device:
        lines = (
            f"link add ovl.1 type vxlan id 1 dev eth0 local {_ADDRESS} dstport 8472 nolearning",
            "address add 10.255.0.0/32 dev ovl.1",
            "link set ovl.1 up",
        )
        subprocess.run(["ip", "-n", netns, "-batch", "-"], input="\n".join(lines), text=True, check=True)


async def cold_start(netns: str, peers: int, *, next_hops: bool) -> float:
    """Seconds from an empty kernel to ready."""
    store = await store_of(peers)
    clear(netns, device=False)
    start = time.perf_counter()
    async with running(netns, store, next_hops=next_hops) as daemon:
        await daemon.until_ready()
        return time.perf_counter() - start


async def programming(netns: str, peers: int) -> float:
    """Seconds that the kernel adapter takes for the entries, packing included."""
    clear(netns)
    operations = [Put(item) for item in entries(peers, next_hops=True)]
    async with await NetlinkKernel.open(netns) as kernel:
        start = time.perf_counter()
        results = await kernel.perform(operations)
        seconds = time.perf_counter() - start
    failed = [str(result) for result in results if result is not None]
    assert not failed, failed[:3]
    return seconds


def memory_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def longest_pause(stop: asyncio.Event) -> float:
    """The longest time for which the loop ran nothing else."""
    longest = 0.0
    while not stop.is_set():
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - before - 0.001)
    return longest


async def child(netns: str, peers: int, *, rounds: int, burst: int, quiet_s: float) -> dict[str, float]:
    """A restart with everything in place, and then changes: run in a process of its own."""
    found: dict[str, float] = {}
    before = memory_bytes()
    store = await store_of(peers)
    # The simulated store is no part of a daemon.
    stocked = memory_bytes() - before
    began = time.perf_counter()
    async with running(netns, store) as daemon:
        await daemon.until_ready()
        found["restart_s"] = time.perf_counter() - began
        found["restart_writes"] = daemon.kernel.writes
    clear(netns, device=False)
    async with running(netns, store) as daemon:
        await daemon.until_ready()
        found["memory_bytes"] = memory_bytes() - stocked
        if not peers:
            return found
        await asyncio.sleep(1.0)
        spans, writes = [], []
        for turn in range(rounds):
            already = daemon.kernel.writes
            start = time.perf_counter()
            place(store, turn % peers, moved=1 + turn // peers)
            await daemon.until_programmed(already + 1)
            spans.append(time.perf_counter() - start)
            writes.append(daemon.kernel.writes - already)
            await asyncio.sleep(0.005)
        found["change_s"] = statistics.median(spans)
        found["change_p99_s"] = statistics.quantiles(spans, n=100)[98]
        found["change_writes"] = max(writes)
        already = daemon.kernel.writes
        start = time.perf_counter()
        for number in range(burst):
            place(store, number % peers, moved=2)
        await daemon.until_programmed(already + burst)
        found["burst_s"] = time.perf_counter() - start
        stop = asyncio.Event()
        watching = asyncio.create_task(longest_pause(stop))
        scope = Scope("eth0", (_NETWORK,))
        cpu = time.process_time()
        await daemon.kernel.observe(scope)
        found["observation_cpu_s"] = time.process_time() - cpu
        stop.set()
        found["pause_s"] = await watching
        cpu = time.process_time()
        await asyncio.sleep(quiet_s)
        found["idle_cpu_s"] = (time.process_time() - cpu) * 60.0 / quiet_s
    return found


def in_a_process(netns: str, peers: int, quiet_s: float) -> dict[str, float]:
    """`child`, by itself."""
    command = [sys.executable, __file__, "--child", netns, str(peers), "--quiet", str(quiet_s)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(sizes: tuple[int, ...], quiet_s: float) -> list[Figure]:
    """Every figure, the largest size last; targets belong to the sizes that they name."""
    figures: list[Figure] = []
    rates: dict[int, float] = {}
    with namespace() as netns:
        for peers in sizes:
            largest = peers == 10_000
            clear(netns)
            for hops, target in ((False, 0.4), (True, 1.0)):
                clear(netns)
                theirs = by_iproute2(netns, peers, next_hops=hops)
                ours = statistics.median(asyncio.run(cold_start(netns, peers, next_hops=hops)) for _ in range(3))
                kind = "next hops" if hops else "plain gateways"
                figures.append(Figure(f"{peers} peers: cold start to ready, {kind}", ours * 1e3, "ms"))
                # The daemon writes next hops either way it is compared: what counts is how soon the host is ready.
                if not hops:
                    ours = statistics.median(asyncio.run(cold_start(netns, peers, next_hops=True)) for _ in range(3))
                figures.append(
                    Figure(
                        f"{peers} peers: cold start / iproute2 with {kind}",
                        ours / theirs,
                        "x",
                        at_most(target) if largest else None,
                    )
                )
            spent = statistics.median(asyncio.run(programming(netns, peers)) for _ in range(3))
            rates[peers] = peers / spent
            figures.append(
                Figure(f"{peers} peers: kernel programming alone", spent * 1e3, "ms", at_most(120) if peers == 5_000 else None)
            )
            clear(netns, device=False)
            asyncio.run(cold_start(netns, peers, next_hops=True))
            found = in_a_process(netns, peers, quiet_s)
            clear(netns, device=False)
            found["memory_bytes"] -= in_a_process(netns, 0, quiet_s)["memory_bytes"]
            for name, value, unit, target_of in (
                ("restart: kernel writes", found["restart_writes"], "writes", at_most(0)),
                ("restart: start to ready", found["restart_s"] * 1e3, "ms", at_most(1500)),
                ("one lease changed: kernel writes", found["change_writes"], "writes", at_most(4)),
                ("one lease changed: to programmed, median", found["change_s"] * 1e3, "ms", at_most(3)),
                ("one lease changed: to programmed, 99th percentile", found["change_p99_s"] * 1e3, "ms", at_most(15)),
                ("1,000 leases changed: to all programmed", found["burst_s"] * 1e3, "ms", at_most(300)),
                ("resident memory over that at none", found["memory_bytes"] / 2**20, "MiB", at_most(40)),
                ("CPU of a minute without change", found["idle_cpu_s"], "s", at_most(0.1)),
                ("CPU of one observation", found["observation_cpu_s"], "s", at_most(0.3)),
                ("longest pause of the loop while it observes", found["pause_s"] * 1e3, "ms", at_most(50)),
            ):
                figures.append(Figure(f"{peers} peers: {name}", value, unit, target_of if largest else None))
        if {1_000, 10_000} <= rates.keys():
            figures.append(Figure("rate of programming at 10,000 / at 1,000", rates[10_000] / rates[1_000], "x", at_least(0.8)))
    return figures


def main() -> None:
    """Measure, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=int, nargs="*", default=list(_SIZES))
    parser.add_argument("--quiet", type=float, default=60.0, help="seconds of the minute without change")
    parser.add_argument("--child", nargs=2, metavar=("NAMESPACE", "PEERS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr), wrapper_class=structlog.make_filtering_bound_logger(40)
    )
    if arguments.child:
        netns, peers = arguments.child
        print(json.dumps(asyncio.run(child(netns, int(peers), rounds=300, burst=1_000, quiet_s=arguments.quiet))))
        return
    figures = measure(tuple(arguments.peers), arguments.quiet)
    for figure in figures:
        met = "" if figure.target is None else f"{figure.target!s:>9} {'met' if figure.met else 'MISSED'}"
        print(f"{figure.figure:<75} {figure.value:10.4g} {figure.unit:<8} {met}")
    if tuple(arguments.peers) == _SIZES:
        _REPORT.parent.mkdir(exist_ok=True)
        write_report(_REPORT, command="make bench-control", figures=figures)


if __name__ == "__main__":
    main()

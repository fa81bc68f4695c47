"""What each way between hosts carries: bulk TCP, small packets, round-trip times, and the processor time that they take.

A path is a backend with the daemon's flags. Each has a lab of two hosts, all alike and all up at once, and only one works at a
time: rounds go through all paths before the next begins, so that a machine that slows down slows all alike. What is compared are
the ratios within a round.

A link is how the underlay behaves: `veth` passes super-packets on whole, as between virtual machines of one host; `wire` cuts
them into packets of 1,500 bytes with all their checksums before they leave, as an ordinary NIC without tunnel offload wants it.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overlaynet.errors import ConfigError, LabError
from overlaynet.lab import generator
from overlaynet.lab.lab import Lab, running
from overlaynet.lab.system import enter, require
from overlaynet.lab.topology import Plan, plan_lab
from overlaynet.lab.traffic import serving
from overlaynet.model.dataplane import OFFLOADS

LINKS = ("veth", "wire")
PROGRAMS = ("ip", "iperf3", "ethtool")
SPACINGS_MS = (0.5, 2.0, 10.0)
STREAMS = (1, 4)
SMALL_BYTES = 64

_PORT = 9_000
_WIRE_OFF = (
    "tx-checksum-ip-generic",
    "tso",
    "tx-udp-segmentation",
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
)
_TICKS_S = 100

Progress = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Way:
    """How packets go between hosts: the backend, and flags for its daemons."""

    backend: str
    flags: tuple[str, ...] = ()


PATHS = {
    "host-gw": Way("host-gw"),
    "vxlan": Way("vxlan"),
    "vxlan-user": Way("vxlan", ("--vxlan-mode", "user", "--offload", "default,tap")),
    "udp": Way("udp"),
    "udp-plain": Way("udp", ("--offload", "none")),
}
"""`udp-plain` moves one packet a system call, as the proxies of today do."""

WITHOUT = {f"udp-no-{one}": Way("udp", ("--offload", ",".join(name for name in OFFLOADS if name != one))) for one in OFFLOADS}
"""`udp` without one offload each, to see what it brings; measured only when named."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long each measurement takes: seconds of TCP and of small packets, and how many probes at each spacing."""

    tcp_s: int = 2
    small_s: float = 1.0
    probes: int = 200


@dataclass(frozen=True, slots=True)
class Sample:
    """What one path did in one round. Round-trip times are (median, 99th percentile) in microseconds, by spacing in ms."""

    tcp_gbit_s: dict[int, float]
    small_kpps: float
    small_lost: float
    rtt_us: dict[float, tuple[float, float]]
    loaded_rtt_us: tuple[float, float]
    cpu_s_per_gb: float
    busy_cores: float


def plan_bench(name: str, paths: Sequence[str]) -> dict[str, Plan]:
    """A lab for each path. ConfigError: there is no such path."""
    ways = PATHS | WITHOUT
    unknown = [path for path in paths if path not in ways]
    if unknown or not paths:
        raise ConfigError("--paths", ",".join(paths), f"must be some of {','.join(ways)}")
    plans = {}
    for path in dict.fromkeys(paths):
        kind = ways[path]
        plans[path] = plan_lab(f"{name}-{path}", hosts=2, backend=kind.backend, daemon_flags=kind.flags)
    return plans


def measure(
    plans: dict[str, Plan], links: Sequence[str], rounds: int, effort: Effort, progress: Progress
) -> dict[tuple[str, str], list[Sample]]:
    """Every sample, by (link, path). LabError: a lab cannot be brought up, or a path carries nothing."""
    require(*PROGRAMS)
    with contextlib.ExitStack() as stack:
        labs = {}
        for path, plan in plans.items():
            progress(path, "up")
            labs[path] = stack.enter_context(running(plan))
        samples: dict[tuple[str, str], list[Sample]] = {}
        for number in range(1, rounds + 1):
            for link in links:
                for path, lab in labs.items():
                    progress(path, f"{link}, round {number} of {rounds}")
                    _set_link(lab, link)
                    samples.setdefault((link, path), []).append(_sample(lab, effort))
        return samples


def _set_link(lab: Lab, link: str) -> None:
    """Let both ends of each host's way into the underlay behave as `link` says."""
    state = "off" if link == "wire" else "on"
    options = [word for option in _WIRE_OFF for word in (option, state)]
    for host in lab.plan.hosts:
        for member, device in ((host.name, "eth0"), ("underlay", host.name)):
            done = lab.run(member, "ethtool", "-K", device, *options, "gro", "on" if link == "wire" else "off")
            if done.returncode != 0:
                raise LabError(f"{member}: ethtool -K {device}: {done.stderr.strip()}")


def _sample(lab: Lab, effort: Effort) -> Sample:
    tcp: dict[int, float] = {}
    busy_s = bits = 0.0
    for streams in STREAMS:
        before = _busy_s()
        tcp[streams] = _tcp_gbit_s(lab, effort.tcp_s, streams)
        if streams == 1:
            busy_s = _busy_s() - before
            # The first second is not counted in the rate, but worked for.
            bits = tcp[1] * 1e9 * (effort.tcp_s + 1)
    small = _small(lab, effort.small_s)
    rtt = {spacing: _rtt_us(lab, spacing, effort.probes) for spacing in SPACINGS_MS}
    with _bulk(lab):
        loaded = _rtt_us(lab, 2.0, effort.probes)
    return Sample(
        tcp_gbit_s=tcp,
        small_kpps=small[0],
        small_lost=small[1],
        rtt_us=rtt,
        loaded_rtt_us=loaded,
        cpu_s_per_gb=busy_s / (bits / 8e9) if bits else 0.0,
        busy_cores=busy_s / (effort.tcp_s + 1),
    )


def _busy_s() -> float:
    """The processor time of the whole machine that was not idle, in seconds."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(fields[:8]) - fields[3] - fields[4]) / _TICKS_S


@contextlib.contextmanager
def _iperf3(lab: Lab) -> Iterator[str]:
    address = lab.pod_address("pod2")
    with serving(lab, "pod2", ["iperf3", "--server", "--one-off", "--bind", address, "--forceflush"], "listening"):
        yield address


def _tcp_gbit_s(lab: Lab, seconds: int, streams: int) -> float:
    with _iperf3(lab) as address:
        command = ["iperf3", "--client", address, "--time", str(seconds), "--omit", "1", "--parallel", str(streams)]
        done = lab.run("pod1", *command, "--congestion", "cubic", "--json", timeout_s=seconds + 20.0)
        try:
            return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9
        except (ValueError, KeyError):
            raise LabError(f"{lab.plan.name}: iperf3 did not get through: {done.stdout[-300:]}") from None


@contextlib.contextmanager
def _bulk(lab: Lab) -> Iterator[None]:
    """One TCP stream while the block runs."""
    with _iperf3(lab) as address:
        command = ["iperf3", "--client", address, "--time", "60", "--congestion", "cubic"]
        client = subprocess.Popen(enter(lab.plan.member("pod1"), *command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(0.5)
            yield
        finally:
            client.kill()
            client.wait()


def _command(name: str, **arguments: object) -> list[str]:
    return [sys.executable, "-m", generator.__name__, name, json.dumps(arguments)]


def _small(lab: Lab, seconds: float) -> tuple[float, float]:
    """How many thousand small datagrams arrive a second, and the part of them that does not."""
    bind = (lab.pod_address("pod2"), _PORT)
    with _listening(lab, _command("count", bind=bind, patience=10.0, quiet=0.5)) as counter:
        flood = _command("flood", to=bind, payload=SMALL_BYTES, seconds=seconds, most=1 << 40)
        sent = _result(lab, lab.run("pod1", *flood, timeout_s=seconds + 20.0))
        received, _, _, span = json.loads(counter.communicate(timeout=30)[0])
    return (received / span / 1e3 if span else 0.0), 1 - received / max(sent, 1)


def _rtt_us(lab: Lab, spacing_ms: float, probes: int) -> tuple[float, float]:
    bind = (lab.pod_address("pod2"), _PORT)
    with _listening(lab, _command("reflect", bind=bind, quiet=5.0)):
        call = _command("probe", to=bind, payload=SMALL_BYTES, interval=spacing_ms / 1e3, probes=probes, patience=1.0)
        times = _result(lab, lab.run("pod1", *call, timeout_s=probes * spacing_ms / 1e3 + 30.0))
    if len(times) < max(2, probes // 2):
        raise LabError(f"{lab.plan.name}: {probes - len(times)} of {probes} probes were not answered")
    return statistics.median(times) * 1e6, statistics.quantiles(times, n=100)[98] * 1e6


@contextlib.contextmanager
def _listening(lab: Lab, command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A generator in the second pod that waits for datagrams when the block begins, and is gone after it."""
    process = subprocess.Popen(enter(lab.plan.member("pod2"), *command), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None  # noqa: S101 - PIPE was asked for
        if process.stdout.readline().strip() != generator.LISTENS:
            raise LabError(f"{lab.plan.name}: the traffic generator does not listen")
        # It says so just before it binds.
        time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


def _result(lab: Lab, done: subprocess.CompletedProcess[str]) -> Any:
    if done.returncode != 0:
        raise LabError(f"{lab.plan.name}: the traffic generator failed: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout)

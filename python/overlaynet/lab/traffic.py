"""Real traffic between a lab's pods: pings, a file over HTTP, a TCP stream; each returns what it saw.

A lost packet or a refused connection is a result, not an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import select
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from overlaynet.errors import LabError
from overlaynet.lab import file_server
from overlaynet.lab.lab import Lab
from overlaynet.lab.system import enter
from overlaynet.model.addresses import Family

MIB = 1 << 20
PROGRAMS = ("ping", "curl", "iperf3")
"""What this module starts inside the pods."""

_AT_ONCE = 4
_HTTP_PORT = 8000
_TIME = re.compile(r"time=([0-9.]+) ms")
_RECEIVED = re.compile(r"(\d+) received")


@dataclass(frozen=True, slots=True)
class Pings:
    """Echo requests that were sent, those without an answer, and the round-trip times of the others in microseconds."""

    sent: int = 0
    lost: int = 0
    rtts_us: tuple[float, ...] = ()

    def __add__(self, other: Pings) -> Pings:
        return Pings(self.sent + other.sent, self.lost + other.lost, self.rtts_us + other.rtts_us)

    @property
    def rtt_us_median(self) -> float | None:
        """The median round-trip time; None without any answer."""
        return round(statistics.median(self.rtts_us), 1) if self.rtts_us else None


def ping(lab: Lab, source: str, destination: str, *, count: int = 5, interval_s: float = 0.2, wait_s: float = 1.0) -> Pings:
    """The outcome of `count` echo requests from the member `source` to an address. The first packet counts like any other."""
    done = lab.run(source, "ping", "-n", "-c", str(count), "-i", str(interval_s), "-W", str(wait_s), destination)
    received = _RECEIVED.search(done.stdout)
    times = tuple(float(text) * 1000 for text in _TIME.findall(done.stdout))
    return Pings(count, count - (int(received[1]) if received else 0), times)


def ping_all(lab: Lab, *, count: int = 5, interval_s: float = 0.2, wait_s: float = 10.0) -> Pings:
    """The sum of the pings from every pod to every other in each family of the lab, a few pairs at a time.

    The wait is long, so that on a busy machine an answer that comes late does not count as lost.
    """
    families = lab.plan.families.members
    addresses = {pod.name: [lab.pod_address(pod.name, family) for family in families] for pod in lab.plan.pods}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        running = [
            pool.submit(ping, lab, source, address, count=count, interval_s=interval_s, wait_s=wait_s)
            for source, destination in itertools.permutations(addresses, 2)
            for address in addresses[destination]
        ]
        return sum((one.result() for one in running), Pings())


def move_file(
    lab: Lab,
    source: str,
    destination: str,
    *,
    family: Family | None = None,
    size_bytes: int = 256 * MIB,
    wait_s: float = 120.0,
) -> bool:
    """Whether a file of random bytes, served over HTTP by the pod `source`, arrives in `destination` with the same SHA-256.

    It goes over `family`, else over the lab's first.
    """
    scratch = lab.files.scratch
    try:
        scratch.mkdir(mode=0o700)
    except OSError as error:
        raise LabError(f"{scratch}: cannot be made: {error.strerror}") from error
    try:
        sent = _random_file(scratch / "sent", size_bytes)
        address = lab.pod_address(source, family)
        server = [sys.executable, "-m", file_server.__name__, address, str(_HTTP_PORT), str(scratch)]
        with serving(lab, source, server, file_server.SERVES):
            received = scratch / "received"
            url = f"http://{f'[{address}]' if ':' in address else address}:{_HTTP_PORT}/sent"
            done = lab.run(
                destination,
                *("curl", "--noproxy", "*", "--silent", "--show-error", "--fail"),
                *("--max-time", str(wait_s), "--output", str(received), url),
                timeout_s=wait_s + 10,
            )
            return done.returncode == 0 and _sha256(received) == sent
    except OSError as error:
        raise LabError(f"{scratch}: {size_bytes // MIB} MiB cannot be written or read: {error.strerror}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def tcp_gbit_s(lab: Lab, source: str, destination: str, *, family: Family | None = None, seconds: int = 5) -> float:
    """What one TCP stream from pod to pod delivers, in Gbit/s; 0 if it did not come about. Cubic: BBR's pacing hides much."""
    address = lab.pod_address(destination, family)
    with serving(lab, destination, ["iperf3", "--server", "--one-off", "--bind", address, "--forceflush"], "listening"):
        command = ["iperf3", "--client", address, "--time", str(seconds), "--congestion", "cubic"]
        command += ["--connect-timeout", "3000", "--json"]
        try:
            done = lab.run(source, *command, timeout_s=seconds + 15.0)
            return round(float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9, 2)
        except (LabError, ValueError, KeyError):
            return 0.0


@contextlib.contextmanager
def serving(lab: Lab, member: str, command: Sequence[str], word: str, *, wait_s: float = 10.0) -> Iterator[None]:
    """A server inside the member, running when the block begins (it has printed `word`) and gone after it."""
    server = subprocess.Popen(
        enter(lab.plan.member(member), *command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert server.stdout is not None  # noqa: S101 - PIPE was asked for
        _await_word(server.stdout.fileno(), word.encode(), time.monotonic() + wait_s, f"{member}: {command[0]}")
        yield
    finally:
        server.kill()
        server.communicate()


def _await_word(descriptor: int, word: bytes, deadline: float, who: str) -> None:
    said = b""
    while word not in said:
        readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(descriptor, 4096) if readable else b""
        if not chunk:
            raise LabError(f"{who} does not serve: {said.decode(errors='replace').strip() or 'it says nothing'}")
        said += chunk


def _random_file(path: Path, size_bytes: int) -> str:
    """The SHA-256 of a new file of random bytes."""
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for start in range(0, size_bytes, MIB):
            chunk = os.urandom(min(MIB, size_bytes - start))
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

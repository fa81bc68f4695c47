"""Two hosts with an engine each, on a bridge of a third that is no peer, without a daemon around them.

a 192.0.2.1               c 192.0.2.3               b 192.0.2.2
TUN tun0 10.9.1.1         bridge br0                TUN tun0 10.9.2.1
    eth0 ---------------- a          b ------------ eth0
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from overlaynet.lab.links import Batch
from overlaynet.lab.system import delete_namespaces, enter, namespaces, run_ip
from overlaynet.model.dataplane import OFFLOADS

from tests.lab.conftest import left_behind

OURS = re.compile(r"ovt-pump([0-9]+)-[abc]")
PORT = 8285
MTU = 1472

ENGINE = """
import json, sys, time
from overlaynet._core import Pump
from overlaynet.errors import DataplaneError
pump = None
for line in sys.stdin:
    name, arguments = json.loads(line)
    began = time.monotonic()
    try:
        if name == "open":
            arguments["bind"] = [tuple(one) for one in arguments["bind"]]
            pump = Pump(**arguments)
            said = None
        elif name == "configure":
            arguments["peers"] = [tuple(peer) for peer in arguments["peers"]]
            arguments["vteps"] = tuple(arguments["vteps"]) if "vteps" in arguments else None
            said = pump.configure(**arguments)
        elif name in ("running", "failure"):
            said = getattr(pump, name)
        else:
            said = getattr(pump, name)(**arguments)
    except DataplaneError as error:
        said = {"error": str(error)}
    print(json.dumps([said, time.monotonic() - began]), flush=True)
"""


def until(told: str, holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, told
        time.sleep(0.02)


class Host:
    """One namespace, and the process in it that owns an engine."""

    def __init__(self, name: str, number: int) -> None:
        self.namespace = f"ovt-pump{os.getpid()}-{name}"
        self.number = number
        self.public = f"192.0.2.{number}"
        self.overlay = f"10.9.{number}.1"
        self.subnet = f"10.9.{number}.0/24"
        self.seconds = 0.0
        self._process: subprocess.Popen[str] | None = None

    def ip(self, *lines: str) -> None:
        run_ip(Batch(self.namespace, lines))

    def run(self, *command: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(enter(self.namespace, *command), capture_output=True, text=True, check=False, timeout=timeout_s)

    def make_tun(self) -> None:
        self.ip(
            "tuntap add tun0 mode tun",
            f"link set tun0 mtu {MTU} up",
            f"address add {self.overlay}/32 dev tun0",
            f"route add 10.9.0.0/16 dev tun0 src {self.overlay}",
        )

    def ask(self, name: str, **arguments: object) -> Any:
        """What the engine's process says to a call; how long the call took stays in `seconds`."""
        process = self._process
        if process is None:
            process = self._process = subprocess.Popen(
                enter(self.namespace, sys.executable, "-c", ENGINE), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([name, arguments]) + "\n")
        process.stdin.flush()
        said, self.seconds = json.loads(process.stdout.readline())
        return said

    def process_id(self) -> int:
        assert self._process is not None
        return self._process.pid

    def open(self, offloads: Sequence[str] = OFFLOADS) -> Any:
        return self.ask("open", tun="tun0", bind=[(self.public, PORT)], mtu=MTU, offloads=offloads)

    def configure(self, *peers: Host) -> Any:
        table = [([peer.subnet], peer.public, PORT, None) for peer in peers]
        return self.ask("configure", local=[self.subnet], addresses=[self.overlay], peers=table)

    def begin(self, *peers: Host, offloads: Sequence[str] = OFFLOADS) -> None:
        assert self.open(offloads) is None
        assert self.configure(*peers) is None
        assert self.ask("start") is None
        assert self.ask("running") is True
        # A device gets its queue a moment after its carrier, by a worker of the kernel; what comes before is lost.
        until("tun0 has no queue", lambda: "qdisc noop " not in self.run("ip", "link", "show", "dev", "tun0").stdout)

    def drops(self) -> dict[str, int]:
        return {reason: count for reason, count in self.ask("counters")["drops"].items() if count}

    def end(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.communicate(timeout=10)


def ping(source: Host, destination: str, *options: str, count: int = 3) -> subprocess.CompletedProcess[str]:
    return source.run("ping", "-c", str(count), "-i", "0.02", "-W", "2", *options, destination)


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host, Host]]:
    delete_namespaces(left_behind(namespaces(), OURS))
    a, b, c = Host("a", 1), Host("b", 2), Host("c", 3)
    try:
        for host in (a, b, c):
            subprocess.run(["ip", "netns", "add", host.namespace], check=True)
            host.ip("link set lo up")
            # The kernel's own IPv6 chatter on a TUN would be counted too.
            assert host.run("sysctl", "-w", "net.ipv6.conf.default.disable_ipv6=1").returncode == 0
        c.ip("link add br0 type bridge", f"address add {c.public}/24 dev br0", "link set br0 up")
        for name, host in (("a", a), ("b", b)):
            c.ip(f"link add name {name} type veth peer name eth0 netns {host.namespace}", f"link set dev {name} master br0 up")
            host.ip(f"address add {host.public}/24 dev eth0", "link set eth0 up")
            host.make_tun()
        yield a, b, c
    finally:
        for host in (a, b, c):
            host.end()
        delete_namespaces([host.namespace for host in (a, b, c)])


def send_stream(a: Host, b: Host, size: str = "32M", address: str | None = None) -> float:
    """The bytes that the receiver of one TCP stream has read when the sender is done."""
    server = subprocess.Popen(enter(b.namespace, "iperf3", "-s", "-1"), stdout=subprocess.DEVNULL)
    try:
        until("iperf3 does not listen", lambda: ":5201" in b.run("ss", "-ltn").stdout)
        bulk = a.run("iperf3", "-c", address or b.overlay, "-n", size, "-J")
        assert bulk.returncode == 0, bulk.stdout
        server.wait(timeout=10)
    finally:
        server.kill()
        server.wait()
    return float(json.loads(bulk.stdout)["end"]["sum_received"]["bytes"])

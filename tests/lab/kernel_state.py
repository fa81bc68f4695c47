"""What a lab's host holds in its kernel, as text: what is ours, what is not, and the kernel's own account of changes."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from overlaynet.control.client import ask
from overlaynet.errors import OverlaynetError
from overlaynet.lab.lab import Lab
from overlaynet.lab.system import enter
from overlaynet.model.kernel import ROUTE_PROTOCOL

OURS = re.compile(rf"\bovl6?\.\d|\bovl-udp\b|\bovl-vxlan\b|\bovl-tap\b|proto {ROUTE_PROTOCOL}\b")
"""In a line of `ip` or `bridge`: one of our links, or our routes' protocol."""

_VIEWS = (
    ("ip", "-o", "link", "show"),
    ("ip", "-d", "-o", "link", "show", "type", "vxlan"),
    ("ip", "-o", "address", "show"),
    ("ip", "-d", "-4", "-o", "route", "show", "table", "all"),
    ("ip", "-d", "-6", "-o", "route", "show", "table", "all"),
    ("ip", "-o", "neighbour", "show", "nud", "permanent"),
    ("bridge", "fdb", "show"),
    ("ip", "-d", "-o", "nexthop", "show"),
    ("ip", "rule", "show"),
)


def lines_of(lab: Lab, member: str) -> list[str]:
    """Every line about links, addresses, routes, permanent neighbours, FDB entries, next hops and rules."""
    return [line.strip() for view in _VIEWS for line in lab.run(member, *view).stdout.splitlines()]


def ours(lab: Lab, member: str) -> str:
    """What is ours, interface indices and MAC addresses included."""
    return "\n".join(sorted(line for line in lines_of(lab, member) if OURS.search(line)))


def foreign(lab: Lab, member: str) -> str:
    """What is not ours, once the kernel has tried every address: until then it is marked as tentative and has no local route.

    Entries that come and go by themselves (a port's carrier, its own neighbours) are not permanent ones.
    """
    until(lambda: not any(" tentative" in line for line in lines_of(lab, member)))
    return "\n".join(sorted(line for line in lines_of(lab, member) if not OURS.search(line)))


@contextlib.contextmanager
def monitored(lab: Lab, member: str) -> Iterator[Callable[[], list[str]]]:
    """A function that gives the kernel's messages about objects of ours since the block began."""
    monitor = subprocess.Popen(
        enter(lab.plan.member(member), "ip", "-o", "monitor", "link", "address", "route", "neigh", "nexthop"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
    )
    said = [""]
    assert monitor.stdout is not None
    output = monitor.stdout

    def read(wait_s: float) -> bool:
        """Whether anything was said in time. What is read ends anywhere: the last line may be half a one."""
        readable, _, _ = select.select([output], [], [], wait_s)
        if readable:
            lines = (said.pop() + os.read(output.fileno(), 65_536).decode()).split("\n")
            said.extend(lines)
        return bool(readable)

    def heard() -> list[str]:
        """Everything up to a change that we make ourselves: messages come in order."""
        _flip(lab, member, "198.51.100.98/32")
        _hear(read, said, "198.51.100.98")
        return [line.strip() for line in said if OURS.search(line)]

    try:
        _flip(lab, member, "198.51.100.99/32")
        while not read(0.05):
            _flip(lab, member, "198.51.100.99/32")
        yield heard
    finally:
        monitor.kill()
        monitor.wait()
        output.close()


def _flip(lab: Lab, member: str, prefix: str) -> None:
    """Add a foreign route and remove it."""
    for verb in ("replace", "delete"):
        lab.run(member, "ip", "route", verb, "blackhole", prefix, "proto", "200")


def _hear(read: Callable[[float], bool], said: list[str], word: str) -> None:
    deadline = time.monotonic() + 10.0
    while not any(word in line and "Deleted" in line for line in said):
        assert time.monotonic() < deadline, "ip monitor says nothing"
        read(0.1)


def status(lab: Lab, number: int) -> dict[str, Any]:
    """What the daemon of this host says, or nothing while there is none."""
    try:
        found: dict[str, Any] = ask(lab.files.host(lab.plan.hosts[number - 1]).run, "status")["status"]
    except OverlaynetError:
        return {}
    return found


def until(condition: Callable[[], object], *, wait_s: float = 30.0) -> None:
    """Return when `condition` holds; fail at the deadline."""
    deadline = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline, "the condition does not come about"
        time.sleep(0.01)

"""What can befall a host's kernel state, and how long its daemon takes to have everything back.

Each cause is a script that another program could have run on a lab's first host. The whole owned state is compared as text: it is
healed when it reads as before, whatever was in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from overlaynet.errors import KernelError, LabError
from overlaynet.kernel.netlink import NetlinkKernel
from overlaynet.lab.lab import Lab
from overlaynet.lab.numbered import Flow, Loss, flowing
from overlaynet.lab.topology import OVERLAY_NETWORKS, Host
from overlaynet.model.kernel import Scope, describe, in_order

_PAUSE_S = 0.002


@dataclass(frozen=True, slots=True)
class Cause:
    """A name, the backend under which it is played, and the lines for a shell on a member: the host itself, or the underlay."""

    name: str
    backend: str
    script: str
    member: str = "host1"


# `ip route flush` gives up at a route over a next hop: it sends both the number and what that stands for.
_ROUTES_GO = (
    "ip route show proto 79 | sed 's/ \\(nhid\\|via\\|dev\\|metric\\).*//' |"
    " while read route; do ip route delete $route proto 79; done"
)

CAUSES = (
    Cause("device deleted", "vxlan", "ip link delete ovl.1"),
    Cause("device set down", "vxlan", "ip link set ovl.1 down"),
    Cause("address removed", "vxlan", "ip address flush dev ovl.1"),
    Cause("routes removed", "vxlan", _ROUTES_GO),
    Cause("route replaced", "vxlan", "ip route replace $(ip route show dev ovl.1 | cut -d' ' -f1 | head -n1) dev ovl.1 proto 79"),
    Cause("FDB flushed", "vxlan", "bridge fdb flush dev ovl.1"),
    Cause("neighbours flushed", "vxlan", "ip neighbour flush dev ovl.1 nud permanent"),
    Cause("next hops flushed", "vxlan", "ip nexthop flush"),
    Cause("MAC changed", "vxlan", "ip link set ovl.1 address 02:00:5e:00:00:01"),
    Cause("MTU changed", "vxlan", "ip link set ovl.1 mtu 1280"),
    Cause("underlay down and up", "vxlan", "ip link set eth0 down; ip link set eth0 up"),
    Cause(
        "underlay address removed and given again",
        "vxlan",
        "own=$(ip -o -4 address show dev eth0 | awk '{print $4}'); ip address flush dev eth0; ip address add $own dev eth0",
    ),
    Cause(
        "everything flushed at once",
        "vxlan",
        f"ip address flush dev ovl.1; {_ROUTES_GO}; ip neighbour flush dev ovl.1 nud permanent; "
        "bridge fdb flush dev ovl.1; ip nexthop flush",
    ),
    Cause(
        "network service restarted",
        "vxlan",
        "own=$(ip -o -4 address show dev eth0 | awk '{print $4}'); "
        f"for link in ovl.1 eth0; do ip address flush dev $link; done; {_ROUTES_GO}; ip nexthop flush; "
        "ip address add $own dev eth0",
    ),
    Cause("routes removed", "host-gw", "ip route flush proto 79"),
    Cause(
        "route replaced",
        "host-gw",
        "ip route replace $(ip route show proto 79 | grep -m1 ' via ' | cut -d' ' -f1) dev eth0 proto 79",
    ),
    Cause("carrier flapped", "host-gw", "ip link set host1 down; ip link set host1 up", member="underlay"),
    Cause("underlay down and up", "host-gw", "ip link set eth0 down; ip link set eth0 up"),
    Cause("device deleted", "udp", "ip link delete ovl-udp"),
    Cause("device set down", "udp", "ip link set ovl-udp down"),
    Cause("address removed", "udp", "ip address flush dev ovl-udp"),
    Cause("MTU changed", "udp", "ip link set ovl-udp mtu 1280"),
    Cause("routes removed", "udp", "ip route flush proto 79"),
)


@dataclass(frozen=True, slots=True)
class Healing:
    """How long it took from the script's end until everything read as before, and what a running flow lost meanwhile."""

    seconds: float
    loss: Loss | None


class Watcher:
    """Reads the owned state of a lab's host, its first by default. A context manager."""

    def __init__(self, lab: Lab, host: Host | None = None) -> None:
        self._host = host or lab.plan.hosts[0]
        self._runner = asyncio.Runner()
        self._scope = Scope("eth0", tuple(OVERLAY_NETWORKS.values()), ("ipv4/ip_forward",))

    def __enter__(self) -> Self:
        try:
            self._kernel = self._runner.run(NetlinkKernel.open(self._host.namespace))
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._kernel.aclose())
        self._runner.close()

    def text(self) -> str:
        """Everything that is ours, a line each, in order; empty while it cannot be read."""
        try:
            seen = self._runner.run(self._kernel.observe(self._scope))
        except KernelError:
            return ""
        return "".join(f"{describe(item)}\n" for item in in_order(seen.objects))

    def await_text(self, text: str, deadline: float, *, pause_s: float = _PAUSE_S) -> None:
        """Return when everything reads so. LabError shows the difference that is there at `deadline` (monotonic)."""
        while (shown := self.text()) != text:
            if time.monotonic() > deadline:
                wanted, found = set(text.splitlines()), set(shown.splitlines())
                missing = ", ".join(sorted(wanted - found)) or "nothing"
                raise LabError(f"not healed; missing: {missing}; instead: {', '.join(sorted(found - wanted)) or 'nothing'}")
            time.sleep(pause_s)


def heal(lab: Lab, watcher: Watcher, cause: Cause, *, within_s: float, counted: bool = True) -> Healing:
    """Play the cause and wait until all is back. LabError: the script failed, or it is not back in time."""
    before = watcher.text()
    with _counting(lab, counted) as flow:
        done = lab.run(cause.member, "sh", "-c", cause.script)
        if done.returncode != 0:
            raise LabError(f"{cause.name}: {done.stderr.strip()}")
        start = time.monotonic()
        watcher.await_text(before, start + within_s)
        seconds = time.monotonic() - start
        return Healing(seconds, None if flow is None else flow.end())


@contextlib.contextmanager
def _counting(lab: Lab, counted: bool) -> Iterator[Flow | None]:
    if not counted:
        yield None
        return
    with flowing(lab, lab.plan.hosts[0].pods[0].name, lab.plan.hosts[1].pods[0].name) as flow:
        yield flow

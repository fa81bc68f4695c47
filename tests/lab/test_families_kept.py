"""What befalls a host of both families: its daemon's end, a lost peer, deleted entries. IPv6 is held as IPv4 is.

IPv6 has ways of its own to lose state: a link that goes down loses its IPv6 addresses, and with them the routes of that family.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest
from overlaynet.control.client import ask
from overlaynet.lab import lab as labs
from overlaynet.lab import traffic
from overlaynet.lab.lab import Lab
from overlaynet.lab.numbered import flowing
from overlaynet.lab.topology import OVERLAY_NETWORKS, Families, Plan, plan_lab
from overlaynet.model.addresses import Family

from tests.lab.conftest import lab_name, run_overlaynet

WITHIN_S = 20.0

VIEWS = (
    "ip -br link show type vxlan",
    "ip -o -br address show type vxlan",
    "ip -4 -o route show proto 79",
    "ip -6 -o route show proto 79",
    "ip neighbour show nud permanent",
    "bridge fdb show | grep ' dst '",
)


def held(lab: Lab, host: str = "host1") -> list[str]:
    """The host's entries in both families, line by line, without the links' numbers."""
    return sorted(line.strip() for view in VIEWS for line in lab.run(host, "sh", "-c", view).stdout.splitlines())


def numbers(lab: Lab) -> str:
    """The overlay devices with their numbers."""
    return lab.run("host1", "ip", "-o", "link", "show", "type", "vxlan").stdout


def until(condition: Callable[[], bool], explain: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.05)


Kind = tuple[str, Families]
"""A lab's backend and the families of its network."""

KINDS: list[Kind] = [(backend, families) for families in (Families.DUAL, Families.V6) for backend in ("vxlan", "host-gw")]


def case(kind: Kind, *values: str) -> object:
    """A test's parameters; a network without IPv4 is tried in the long run only."""
    backend, families = kind
    marks = [pytest.mark.soak] if families is Families.V6 else []
    return pytest.param(kind, *values, marks=marks, id="-".join((backend, families.value, *values)))


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, bring_up: Callable[[Plan], Lab]) -> Lab:
    backend, families = request.param
    return bring_up(plan_lab(lab_name("kept"), hosts=2, backend=backend, families=families))


@pytest.mark.parametrize("lab", [case(kind) for kind in KINDS], indirect=True)
def test_killed_daemon_and_its_next_start_lose_no_packet_in_any_family(lab: Lab) -> None:
    host = lab.plan.hosts[0]
    before = held(lab), numbers(lab), lab.files.host(host).subnet_env.read_text()
    with contextlib.ExitStack() as stack:
        flows = [stack.enter_context(flowing(lab, "pod1", "pod2", family=family)) for family in lab.plan.families.members]
        flows[0].run_for(0.3)
        lab.kill_daemon(host)
        flows[0].run_for(0.7)
        lab.start_daemons([host])
        flows[0].run_for(0.3)
        losses = [flow.end() for flow in flows]
    assert [loss.lost for loss in losses] == [0] * len(flows)
    assert all(loss.there.sent > 1_000 for loss in losses)
    assert (held(lab), numbers(lab), lab.files.host(host).subnet_env.read_text()) == before
    assert ask(lab.files.host(host).run, "status")["status"]["kernel_writes"] == 0


@pytest.mark.parametrize("lab", [case(kind) for kind in KINDS], indirect=True)
def test_packet_to_a_missing_ipv6_subnet_ends_here_and_takes_no_default_route(lab: Lab) -> None:
    network = OVERLAY_NETWORKS[Family.IPV6]
    leased = "\n".join(held(lab))
    missing = next(str(one[7]) for one in network.subnets(new_prefix=64) if str(one[0]) not in leased and one[0] != network[0])
    gateway = next(address.ip for address in lab.plan.hosts[1].addresses if address.version == 6)
    out = "add table inet look; add chain inet look out { type filter hook postrouting priority 0; }"
    rule = f"add rule inet look out ip6 daddr {missing} counter"
    try:
        assert lab.run("host1", "ip", "-6", "route", "replace", "default", "via", str(gateway), "dev", "eth0").returncode == 0
        assert lab.run("host1", "nft", f"{out}; {rule}").returncode == 0
        said = lab.run("pod1", "ping", "-6", "-c", "2", "-i", "0.2", "-W", "2", missing).stdout
        counted = lab.run("host1", "nft", "list", "table", "inet", "look").stdout
    finally:
        lab.run("host1", "ip", "-6", "route", "delete", "default", "via", str(gateway))
        lab.run("host1", "nft", "delete", "table", "inet", "look")
    assert said.count("Destination unreachable") == 2, said
    assert "packets 0 " in counted, counted


# The link-local address too: without one the kernel asks for no neighbour of a forwarded packet.
_SIX = "$(ip -o -6 address show dev eth0 | awk '{print $4}')"
_GIVEN_AGAIN = "for one in $six; do ip address add $one dev eth0 nodad; done"
_ROUTES_GO = (
    "ip -6 route show proto 79 | sed 's/ \\(nhid\\|via\\|dev\\|metric\\).*//' |"
    " while read route; do ip -6 route delete $route proto 79; done"
)
CAUSES = {
    "device deleted": ("vxlan", "ip link delete ovl6.1"),
    "device down and up": ("vxlan", "ip link set ovl6.1 down; ip link set ovl6.1 up"),
    "address removed": ("vxlan", "ip -6 address flush dev ovl6.1"),
    "neighbours flushed": ("vxlan", "ip -6 neighbour flush dev ovl6.1 nud permanent"),
    "FDB flushed": ("vxlan", "bridge fdb flush dev ovl6.1"),
    "MTU changed": ("vxlan", "ip link set ovl6.1 mtu 1300"),
    "routes removed": ("", _ROUTES_GO),
    "underlay addresses removed and given again": ("", f"six={_SIX}; ip -6 address flush dev eth0; {_GIVEN_AGAIN}"),
    "underlay down and up": ("", f"six={_SIX}; ip link set eth0 down; ip link set eth0 up; {_GIVEN_AGAIN}"),
}


@pytest.mark.parametrize(
    ("lab", "cause"),
    [case(kind, cause) for kind in KINDS for cause, (backend, _) in CAUSES.items() if backend in ("", kind[0])],
    indirect=["lab"],
)
def test_what_is_lost_in_ipv6_is_made_again(lab: Lab, cause: str) -> None:
    _, script = CAUSES[cause]
    before = held(lab)
    done = lab.run("host1", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    until(lambda: held(lab) == before, lambda: (before, held(lab)))
    address = lab.pod_address("pod2", Family.IPV6)
    until(lambda: traffic.ping(lab, "pod1", address, count=1).lost == 0, lambda: "no packet passes")
    pings = traffic.ping_all(lab, count=2, interval_s=0.05)
    assert pings.lost == 0


@pytest.mark.parametrize("backend", ["vxlan", pytest.param("host-gw", marks=pytest.mark.soak)])
def test_host_that_goes_is_gone_in_both_families(name: str, backend: str) -> None:
    lab = labs.up(plan_lab(name, hosts=3, backend=backend, families=Families.DUAL))
    first, _, third = lab.plan.hosts
    words = [str(address.ip) for address in third.addresses]
    words += [lab.pod_address("pod3", family)[:-1] for family in lab.plan.families.members]
    assert all(any(word in line for line in held(lab)) for word in words[2:])

    status = ask(lab.files.host(third).run, "status")["status"]
    lab.stop_daemon(third)
    released = run_overlaynet("--store", lab.store, "lease", "release", status["lease"]["subnets"])
    assert released.returncode == 0, released.stderr

    until(lambda: not any(word in line for line in held(lab) for word in words), lambda: held(lab))
    assert len(ask(lab.files.host(first).run, "status")["status"]["peers"]) == 1
    for family in lab.plan.families.members:
        assert traffic.ping(lab, "pod1", lab.pod_address("pod2", family), count=2, interval_s=0.05).lost == 0

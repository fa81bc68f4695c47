"""Who reaches whom, in each family: nobody without the daemons, everybody with them, on both kinds of underlay."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from overlaynet.lab import lab as labs
from overlaynet.lab import system, traffic
from overlaynet.lab.topology import Families, Plan, Underlay, plan_lab
from overlaynet.model.addresses import Family

from tests.lab.conftest import lab_name, run_overlaynet

GATEWAYS = {
    Family.IPV4: {"pod1a": "10.1.1.1", "pod1b": "10.1.1.129", "pod2a": "10.1.2.1", "pod2b": "10.1.2.129"},
    Family.IPV6: {
        "pod1a": "fd00:10:1:1::1",
        "pod1b": "fd00:10:1:1:8000::1",
        "pod2a": "fd00:10:1:2::1",
        "pod2b": "fd00:10:1:2:8000::1",
    },
}


@pytest.mark.parametrize(("underlay", "families"), [(Underlay.BRIDGE, Families.V4), (Underlay.ROUTED, Families.DUAL)])
def test_without_daemons_no_pod_reaches_another(name: str, underlay: Underlay, families: Families) -> None:
    lab = labs.up(plan_lab(name, hosts=2, bridges=2, underlay=underlay, families=families), daemons=False)

    # The lab itself is whole: hosts reach each other, and each pod its own bridge.
    for one, other in itertools.permutations(lab.plan.hosts, 2):
        for address in other.addresses:
            assert traffic.ping(lab, one.name, str(address.ip), count=1).lost == 0
    for family in families.members:
        gateways = GATEWAYS[family]
        pods = {pod: str(ip_address(gateway) + 1) for pod, gateway in gateways.items()}
        for pod, gateway in gateways.items():
            assert traffic.ping(lab, pod, gateway, count=1).lost == 0
        reached = [
            (source, destination)
            for source, destination in itertools.permutations(pods, 2)
            if traffic.ping(lab, source, pods[destination], count=1, wait_s=0.2).lost == 0
        ]
        assert reached == []


KINDS = [
    ("vxlan", Families.V4),
    ("vxlan", Families.V6),
    ("vxlan", Families.DUAL),
    ("host-gw", Families.V4),
    ("host-gw", Families.V6),
    ("host-gw", Families.DUAL),
    ("udp", Families.V4),
    ("udp", Families.DUAL),
]

LONG = [("host-gw", Families.V6), ("udp", Families.DUAL)]
"""What the other kinds cover together."""


def named(kind: tuple[str, Families]) -> str:
    return f"{kind[0]}-{kind[1].value}"


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=pytest.mark.soak) if kind in LONG else kind for kind in KINDS],
    ids=named,
)
def lab(request: pytest.FixtureRequest, bring_up: Callable[[Plan], labs.Lab]) -> labs.Lab:
    backend, families = request.param
    bridges = 2 if (backend, families) == KINDS[0] else 1
    return bring_up(plan_lab(lab_name("reach"), hosts=3, bridges=bridges, backend=backend, families=families))


def test_every_pod_reaches_every_other(lab: labs.Lab) -> None:
    pods, families = len(lab.plan.pods), len(lab.plan.families.members)
    pings = traffic.ping_all(lab, count=3, interval_s=0.05)
    assert (pings.sent, pings.lost) == (pods * (pods - 1) * 3 * families, 0)
    assert len(pings.rtts_us) == pings.sent


def test_file_and_stream_arrive_whole(lab: labs.Lab) -> None:
    first, last = lab.plan.pods[0].name, lab.plan.pods[-1].name
    for family in lab.plan.families.members:
        assert traffic.move_file(lab, first, last, family=family, size_bytes=8 * traffic.MIB)
        assert traffic.move_file(lab, last, first, family=family, size_bytes=8 * traffic.MIB + 1)
        assert traffic.tcp_gbit_s(lab, first, last, family=family, seconds=1) > 0
    assert not lab.files.scratch.exists()


MTUS = {
    ("vxlan", Families.V4): 1450,
    ("vxlan", Families.V6): 1430,
    ("vxlan", Families.DUAL): 1430,
    ("udp", Families.V4): 1472,
    ("udp", Families.DUAL): 1472,
}


def fragments(lab: labs.Lab) -> list[str]:
    """The hosts' counters of packets that were taken apart or put together, of both families, where they are not zero."""
    found = []
    for host in lab.plan.hosts:
        text = lab.run(host.name, "nstat", "-a", "-s", "Ip*Frag*", "Ip*Reasm*").stdout
        found += [line for line in text.splitlines() if not line.startswith("#") and line.split()[1] != "0"]
    return found


def test_packets_as_large_as_the_overlay_carries_pass_and_larger_ones_do_not(lab: labs.Lab) -> None:
    """The MTU in subnet.env is right in each family: not one byte too large for the underlay."""
    mtu = MTUS.get((lab.plan.backend, lab.plan.families), 1500)
    first = lab.plan.pods[0].name
    for family in lab.plan.families.members:
        address = lab.pod_address(lab.plan.pods[-1].name, family)
        largest = mtu - family.header_bytes - 8
        fits = lab.run(first, "ping", "-n", "-c", "1", "-w", "10", "-M", "do", "-s", str(largest), address)
        assert fits.returncode == 0, fits.stdout + fits.stderr
        exceeds = lab.run(first, "ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", str(largest + 1), address)
        assert exceeds.returncode != 0
        assert f"mtu={mtu}" in (exceeds.stdout + exceeds.stderr).replace("mtu: ", "mtu=")
    # An MTU that is too large for the underlay would show as fragments, which the answer to a ping does not tell.
    assert fragments(lab) == []


SYSCTLS = {Family.IPV4: "ipv4/ip_forward", Family.IPV6: "ipv6/conf/all/forwarding"}


def test_hosts_of_one_segment_forward_because_their_daemons_say_so(lab: labs.Lab) -> None:
    for host, (family, path) in itertools.product(lab.plan.hosts, SYSCTLS.items()):
        on = lab.run(host.name, "cat", f"/proc/sys/net/{path}").stdout
        assert on == f"{family in lab.plan.families.members:d}\n"


@pytest.mark.parametrize(
    "kind",
    [
        ("vxlan", Families.V4),
        ("vxlan", Families.V6),
        pytest.param(("vxlan", Families.DUAL), marks=pytest.mark.soak),
        ("udp", Families.V4),
        pytest.param(("udp", Families.V6), marks=pytest.mark.soak),
    ],
    ids=named,
)
def test_tunnels_work_across_a_router(name: str, kind: tuple[str, Families]) -> None:
    backend, families = kind
    lab = labs.up(plan_lab(name, hosts=2, backend=backend, families=families, underlay=Underlay.ROUTED))
    pings = traffic.ping_all(lab, count=3, interval_s=0.05)
    assert (pings.sent, pings.lost) == (6 * len(families.members), 0)
    for family in families.members:
        assert traffic.move_file(lab, "pod1", "pod2", family=family, size_bytes=traffic.MIB)
    assert fragments(lab) == []


@pytest.fixture(params=[Families.V4, Families.V6], ids=lambda families: str(families.value))
def refused(request: pytest.FixtureRequest, name: str) -> labs.Lab:
    return labs.up(plan_lab(name, hosts=3, backend="host-gw", families=request.param, underlay=Underlay.ROUTED))


def test_host_gw_across_a_router_refuses_each_peer_and_becomes_ready(refused: labs.Lab) -> None:
    host, *others = refused.plan.hosts
    files = refused.files.host(host)
    status = json.loads(run_overlaynet("--run-dir", str(files.run), "status", "--json").stdout)

    assert status["ready"] is True
    assert {peer["public_address"] for peer in status["peers"]} == {str(other.address.ip) for other in others}
    for peer in status["peers"]:
        assert peer["state"] == "refused"
        assert peer["why"]
    log = files.log.read_text().splitlines()
    for other in others:
        lines = [line for line in log if str(other.address.ip) in line and "refused" in line]
        assert len(lines) == 1, "\n".join(log)
    # Refused before any kernel write: no route was tried, let alone made.
    for version in ("-4", "-6"):
        assert " via " not in refused.run(host.name, "ip", version, "route", "show", "proto", "79").stdout
    assert not [line for line in log if "errno" in line]
    process = files.daemon
    assert process is not None
    assert process.is_alive
    assert traffic.ping(refused, "pod1", refused.pod_address("pod2"), count=1, wait_s=0.2).lost == 1


def test_two_labs_at_once_do_not_meet(name: str) -> None:
    other_name = lab_name("other")
    try:
        one = labs.up(plan_lab(name, hosts=2))
        other = labs.up(plan_lab(other_name, hosts=2, backend="udp"))
        assert traffic.ping_all(one, count=2, interval_s=0.05).lost == 0
        assert traffic.ping_all(other, count=2, interval_s=0.05).lost == 0

        labs.down(other_name)
        assert labs.names() >= {name}
        assert other_name not in labs.names()
        assert traffic.ping_all(one, count=2, interval_s=0.05).lost == 0
        assert all(_daemon(one, host.name).is_alive for host in one.plan.hosts)
    finally:
        labs.down(other_name)


def _daemon(lab: labs.Lab, name: str) -> system.Process:
    host = next(host for host in lab.plan.hosts if host.name == name)
    process = lab.files.host(host).daemon
    assert process is not None
    return process


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_every_pod_of_many_hosts_reaches_every_other(name: str, kind: tuple[str, Families]) -> None:
    backend, families = kind
    lab = labs.up(plan_lab(name, hosts=12, bridges=2, backend=backend, families=families))
    pings = traffic.ping_all(lab, count=5, interval_s=0.05)
    assert (pings.sent, pings.lost) == (24 * 23 * 5 * len(families.members), 0)

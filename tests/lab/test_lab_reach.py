"""Who reaches whom: nobody without the daemons, everybody with them, on both kinds of underlay."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import pytest
from overlaynet.lab import lab as labs
from overlaynet.lab import system, traffic
from overlaynet.lab.topology import Plan, Underlay, plan_lab

from tests.lab.conftest import lab_name, run_overlaynet


@pytest.mark.parametrize("underlay", Underlay)
def test_without_daemons_no_pod_reaches_another(name: str, underlay: Underlay) -> None:
    lab = labs.up(plan_lab(name, hosts=2, bridges=2, underlay=underlay), daemons=False)

    # The lab itself is whole: hosts reach each other, and each pod its own bridge.
    for one, other in itertools.permutations(lab.plan.hosts, 2):
        assert traffic.ping(lab, one.name, str(other.address.ip), count=1).lost == 0
    gateways = {"pod1a": "10.1.1.1", "pod1b": "10.1.1.129", "pod2a": "10.1.2.1", "pod2b": "10.1.2.129"}
    pods = {"pod1a": "10.1.1.2", "pod1b": "10.1.1.130", "pod2a": "10.1.2.2", "pod2b": "10.1.2.130"}
    for pod, gateway in gateways.items():
        assert traffic.ping(lab, pod, gateway, count=1).lost == 0

    reached = [
        (source, destination)
        for source, destination in itertools.permutations(pods, 2)
        if traffic.ping(lab, source, pods[destination], count=1, wait_s=0.2).lost == 0
    ]
    assert reached == []


@pytest.fixture(scope="module", params=["vxlan", "host-gw", "udp"])
def lab(request: pytest.FixtureRequest, bring_up: Callable[[Plan], labs.Lab]) -> labs.Lab:
    bridges = 2 if request.param == "vxlan" else 1
    return bring_up(plan_lab(lab_name("reach"), hosts=3, bridges=bridges, backend=request.param))


def test_every_pod_reaches_every_other(lab: labs.Lab) -> None:
    pods = len(lab.plan.pods)
    pings = traffic.ping_all(lab, count=3, interval_s=0.05)
    assert (pings.sent, pings.lost) == (pods * (pods - 1) * 3, 0)
    assert len(pings.rtts_us) == pings.sent


def test_file_and_stream_arrive_whole(lab: labs.Lab) -> None:
    first, last = lab.plan.pods[0].name, lab.plan.pods[-1].name
    assert traffic.move_file(lab, first, last, size_bytes=8 * traffic.MIB)
    assert traffic.move_file(lab, last, first, size_bytes=8 * traffic.MIB + 1)
    assert traffic.tcp_gbit_s(lab, first, last, seconds=1) > 0
    assert not lab.files.scratch.exists()


def test_packets_as_large_as_the_overlay_carries_pass_and_larger_ones_do_not(lab: labs.Lab) -> None:
    """The MTU in subnet.env is right: not one byte too large for the underlay."""
    mtu = {"vxlan": 1450, "host-gw": 1500, "udp": 1472}[lab.plan.backend]
    address = lab.pod_address(lab.plan.pods[-1].name)
    first = lab.plan.pods[0].name
    fits = lab.run(first, "ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", str(mtu - 28), address)
    assert fits.returncode == 0, fits.stdout + fits.stderr
    exceeds = lab.run(first, "ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", str(mtu - 27), address)
    assert exceeds.returncode != 0
    assert f"mtu={mtu}" in exceeds.stdout + exceeds.stderr


def test_hosts_of_one_segment_forward_because_their_daemons_say_so(lab: labs.Lab) -> None:
    for host in lab.plan.hosts:
        assert lab.run(host.name, "cat", "/proc/sys/net/ipv4/ip_forward").stdout == "1\n"


@pytest.mark.parametrize("backend", ["vxlan", "udp"])
def test_tunnels_work_across_a_router(name: str, backend: str) -> None:
    lab = labs.up(plan_lab(name, hosts=2, backend=backend, underlay=Underlay.ROUTED))
    pings = traffic.ping_all(lab, count=3, interval_s=0.05)
    assert (pings.sent, pings.lost) == (6, 0)
    assert traffic.move_file(lab, "pod1", "pod2", size_bytes=traffic.MIB)


@pytest.fixture
def refused(name: str) -> labs.Lab:
    return labs.up(plan_lab(name, hosts=3, backend="host-gw", underlay=Underlay.ROUTED))


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
    assert " via " not in refused.run(host.name, "ip", "route", "show", "proto", "79").stdout
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
@pytest.mark.parametrize("backend", ["vxlan", "host-gw", "udp"])
def test_every_pod_of_many_hosts_reaches_every_other(name: str, backend: str) -> None:
    lab = labs.up(plan_lab(name, hosts=12, bridges=2, backend=backend))
    pings = traffic.ping_all(lab, count=5, interval_s=0.05)
    assert (pings.sent, pings.lost) == (24 * 23 * 5, 0)

"""What the packet engine lets in: a peer's own packets to this host's subnet. The rest is counted by its reason."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from overlaynet.lab import lab as labs
from overlaynet.lab import traffic
from overlaynet.lab.system import enter
from overlaynet.lab.topology import Host, Plan, plan_lab
from scapy.layers.inet import ICMP, IP

from tests.lab.conftest import lab_name, run_overlaynet

SEND = """
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.bind((sys.argv[1], 0))
sender.sendto(bytes.fromhex(sys.argv[3]), (sys.argv[2], 8285))
"""


@pytest.fixture(scope="module")
def lab(bring_up: Callable[[Plan], labs.Lab]) -> labs.Lab:
    return bring_up(plan_lab(lab_name("forged"), hosts=3, backend="udp"))


def drops(lab: labs.Lab, host: Host) -> dict[str, int]:
    run_dir = lab.files.host(host).run
    done = run_overlaynet("--run-dir", str(run_dir), "status", "--json")
    assert done.returncode == 0, done.stderr
    counted: dict[str, int] = json.loads(done.stdout)["counters"]["drops"]
    return counted


def send(lab: labs.Lab, source: str, destination: str, packet: bytes) -> None:
    namespace = lab.plan.hosts[2].namespace
    subprocess.run(enter(namespace, sys.executable, "-c", SEND, source, destination, packet.hex()), check=True)


@pytest.mark.parametrize(
    ("reason", "of_a_peer", "inner_source", "inner_destination"),
    [
        ("unknown_peer", False, "pod2", "pod1"),
        ("foreign_source", True, "pod2", "pod1"),
        ("foreign_source", True, "pod1", "pod1"),
        ("foreign_destination", True, "pod3", "pod2"),
        ("malformed", True, None, None),
    ],
)
def test_forged_packet_is_dropped_and_counted(
    lab: labs.Lab, reason: str, *, of_a_peer: bool, inner_source: str | None, inner_destination: str | None
) -> None:
    victim, forger = lab.plan.hosts[0], lab.plan.hosts[2]
    source = str(forger.address.ip)
    if not of_a_peer:
        source = str(forger.address.network.broadcast_address - 1)
        subprocess.run(
            ["ip", "-n", forger.namespace, "address", "replace", f"{source}/{forger.address.network.prefixlen}", "dev", "eth0"],
            check=True,
        )
    packet = b"\x45\x00"
    if inner_source is not None and inner_destination is not None:
        packet = bytes(IP(src=lab.pod_address(inner_source), dst=lab.pod_address(inner_destination)) / ICMP())
    before = drops(lab, victim)

    send(lab, source, str(victim.address.ip), packet)

    deadline = time.monotonic() + 10
    while (after := drops(lab, victim))[reason] == before[reason]:
        assert time.monotonic() < deadline, after
    assert {name: after[name] - before[name] for name in after if after[name] != before[name]} == {reason: 1}


def test_packet_to_a_subnet_of_nobody_is_answered(lab: labs.Lab) -> None:
    taken = {lab.pod_address(pod).rsplit(".", 1)[0] for pod in ("pod1", "pod2", "pod3")}
    nowhere = next(f"10.1.{third}.9" for third in range(1, 255) if f"10.1.{third}" not in taken)

    done = subprocess.run(
        enter(lab.plan.member("pod1"), "ping", "-c", "1", "-W", "5", nowhere), capture_output=True, text=True, check=False
    )

    assert "Destination Net Unreachable" in done.stdout


def test_engine_changes_its_tables_under_traffic_without_loss(lab: labs.Lab) -> None:
    """host3's lease is removed and claimed again while pod1 and pod2 talk."""
    pinging = subprocess.Popen(
        enter(lab.plan.member("pod1"), "ping", "-q", "-i", "0.01", "-c", "200", lab.pod_address("pod2")),
        stdout=subprocess.PIPE,
        text=True,
    )
    subnet = lab.pod_address("pod3").rsplit(".", 1)[0] + ".0/24"
    released = run_overlaynet("--store", lab.store, "lease", "release", subnet)
    said, _ = pinging.communicate(timeout=60)

    assert released.returncode == 0, released.stderr
    assert "200 received, 0% packet loss" in said
    deadline = time.monotonic() + 20
    while traffic.ping(lab, "pod1", lab.pod_address("pod3"), count=1).lost:
        assert time.monotonic() < deadline, "host3 did not come back"

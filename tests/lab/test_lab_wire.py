"""Each backend's packets on the underlay have exactly its wire form, and nothing of the overlay goes there in another."""

from __future__ import annotations

import contextlib
import json
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from overlaynet.lab import lab as labs
from overlaynet.lab import traffic
from overlaynet.lab.system import enter
from overlaynet.lab.topology import Plan, plan_lab
from scapy.error import Scapy_Exception
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import rdpcap

from tests.lab.conftest import lab_name

PINGS = 3


@contextlib.contextmanager
def captured(lab: labs.Lab, port: str, file: Path) -> Iterator[None]:
    """Every frame on one port of the underlay while the block runs, in `file`."""
    command = ["tcpdump", "-Z", "root", "-U", "-n", "-s", "0", "--immediate-mode", "-i", port, "-w", str(file)]
    process = subprocess.Popen(enter(lab.plan.underlay_namespace, *command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        said = b""
        while b"listening on" not in said:
            assert select.select([process.stderr], [], [], 10)[0], "tcpdump does not begin"
            said += process.stderr.read1(4096)  # type: ignore[attr-defined]
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)


@pytest.fixture(scope="module", params=["vxlan", "host-gw", "udp"])
def seen(
    request: pytest.FixtureRequest, bring_up: Callable[[Plan], labs.Lab], tmp_path_factory: pytest.TempPathFactory
) -> tuple[labs.Lab, list[Any]]:
    """A lab of two hosts, and the IPv4 frames at host1's port of the underlay while pod1 pings pod2."""
    lab = bring_up(plan_lab(lab_name("wire"), hosts=2, backend=request.param))
    file = tmp_path_factory.mktemp("wire") / "underlay.pcap"
    with captured(lab, "host1", file):
        assert traffic.ping(lab, "pod1", lab.pod_address("pod2"), count=PINGS, interval_s=0.05).lost == 0
        # A ping from host to host comes last: once its reply is in the file, everything before it is.
        one, two = (str(host.address.ip) for host in lab.plan.hosts)
        assert traffic.ping(lab, "host1", two, count=1).lost == 0
        deadline = time.monotonic() + 10
        while not (found := before_reply(file, two, one)):
            assert time.monotonic() < deadline, "the capture does not get to its last packet"
            time.sleep(0.02)
    return lab, found


def before_reply(file: Path, source: str, destination: str) -> list[Any]:
    """The IPv4 frames in the file before the plain echo request that was answered; empty while the reply is not there."""
    try:
        frames = [Ether(bytes(frame)) for frame in rdpcap(str(file))]
    except (EOFError, Scapy_Exception):
        return []
    frames = [frame for frame in frames if frame.type == 0x0800]
    if not frames or not is_echo(frames[-1], source, destination, 0):
        return []
    request = next(number for number, frame in enumerate(frames) if is_echo(frame, destination, source, 8))
    return frames[:request]


def is_echo(frame: Any, source: str, destination: str, kind: int) -> bool:
    ip = frame[IP]
    return (ip.src, ip.dst, ip.proto) == (source, destination, 1) and frame[ICMP].type == kind


def mac(lab: labs.Lab, member: str, link: str) -> str:
    return str(json.loads(lab.run(member, "ip", "-json", "link", "show", "dev", link).stdout)[0]["address"])


def ends(lab: labs.Lab, number: int) -> tuple[str, str]:
    """The pods' addresses as source and destination of the capture's frame `number`: requests and replies in turn."""
    one, two = lab.pod_address("pod1"), lab.pod_address("pod2")
    return (one, two) if number % 2 == 0 else (two, one)


def hosts(number: int) -> tuple[int, int]:
    return (1, 2) if number % 2 == 0 else (2, 1)


def test_wire_form(seen: tuple[labs.Lab, list[Any]]) -> None:
    lab, frames = seen
    assert len(frames) == 2 * PINGS, [frame.summary() for frame in frames]
    for number, frame in enumerate(frames):
        source, destination = hosts(number)
        # Outside: from host to host, whatever is inside.
        assert (frame.src, frame.dst) == (mac(lab, f"host{source}", "eth0"), mac(lab, f"host{destination}", "eth0"))
        match lab.plan.backend:
            case "vxlan":
                check_vxlan(lab, frame, number)
            case "host-gw":
                check_echo(lab, bytes(frame[IP]), number)
            case "udp":
                check_udp(lab, frame, number)


def check_outer(lab: labs.Lab, frame: Any, number: int) -> bytes:
    """The UDP payload of a frame from host to host; nothing follows it."""
    source, destination = (str(lab.plan.hosts[host - 1].address.ip) for host in hosts(number))
    assert (frame[IP].src, frame[IP].dst) == (source, destination)
    assert frame[IP].proto == 17
    assert frame[IP].len == 20 + frame[UDP].len
    assert len(frame) == 14 + frame[IP].len
    return bytes(frame)[14 + 20 + 8 :]


def check_vxlan(lab: labs.Lab, frame: Any, number: int) -> None:
    """RFC 7348 section 5: flag I alone, VNI 1, reserved bits zero; then the Ethernet frame from VTEP to VTEP."""
    payload = check_outer(lab, frame, number)
    assert frame[UDP].dport == 8472
    assert frame[UDP].sport >= 1024
    assert payload[:8] == bytes.fromhex("0800000000000100")
    source, destination = hosts(number)
    assert payload[8:14].hex(":") == mac(lab, f"host{destination}", "ovl.1")
    assert payload[14:20].hex(":") == mac(lab, f"host{source}", "ovl.1")
    assert payload[20:22] == b"\x08\x00"
    check_echo(lab, payload[22:], number)


def check_udp(lab: labs.Lab, frame: Any, number: int) -> None:
    """The inner IP packet as it is, from port to port."""
    payload = check_outer(lab, frame, number)
    assert (frame[UDP].sport, frame[UDP].dport) == (8285, 8285)
    check_echo(lab, payload, number)


def check_echo(lab: labs.Lab, packet: bytes, number: int) -> None:
    """The pods' own packet: their addresses, nothing around it, a TTL that one or two hops have lowered, right checksums."""
    inner = IP(packet)
    assert packet[0] == 0x45
    assert (inner.src, inner.dst) == ends(lab, number)
    assert inner.len == len(packet) == 84
    assert inner.ttl in (62, 63)
    assert inner[ICMP].type == (8, 0)[number % 2]
    again = IP(packet)
    del again.chksum
    del again[ICMP].chksum
    assert bytes(again) == packet
    assert IPv4Address(inner.src).is_private

"""Each backend's packets on the underlay have exactly its wire form, and nothing of the overlay goes there in another."""

from __future__ import annotations

import contextlib
import json
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from overlaynet.lab import lab as labs
from overlaynet.lab import traffic
from overlaynet.lab.system import enter
from overlaynet.lab.topology import Families, Plan, plan_lab
from overlaynet.model.addresses import Family
from scapy.error import Scapy_Exception
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
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


Seen = tuple[labs.Lab, dict[Family, list[Any]]]

KINDS = [
    ("vxlan", Families.V4),
    ("vxlan", Families.V6),
    ("vxlan", Families.DUAL),
    ("host-gw", Families.V4),
    ("host-gw", Families.V6),
    pytest.param(("host-gw", Families.DUAL), marks=pytest.mark.soak),
    ("udp", Families.V4),
    ("udp", Families.V6),
    ("udp", Families.DUAL),
]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1].value}")
def seen(request: pytest.FixtureRequest, bring_up: Callable[[Plan], labs.Lab], tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A lab of two hosts, and for each family the IP frames at host1's port of the underlay while pod1 pings pod2 in it."""
    backend, families = request.param
    lab = bring_up(plan_lab(lab_name("wire"), hosts=2, backend=backend, families=families))
    found = {}
    for number, family in enumerate(families.members):
        file = tmp_path_factory.mktemp("wire") / "underlay.pcap"
        with captured(lab, "host1", file):
            assert traffic.ping(lab, "pod1", lab.pod_address("pod2", family), count=PINGS, interval_s=0.05).lost == 0
            # A ping from host to host comes last: once its reply is in the file, everything before it is.
            one, two = (str(host.addresses[number].ip) for host in lab.plan.hosts)
            assert traffic.ping(lab, "host1", two, count=1).lost == 0
            deadline = time.monotonic() + 10
            while not (frames := before_reply(file, two, one)):
                assert time.monotonic() < deadline, "the capture does not get to its last packet"
                time.sleep(0.02)
        found[family] = frames
    return lab, found


def before_reply(file: Path, source: str, destination: str) -> list[Any]:
    """The IP frames in the file before the plain echo request that was answered; empty while the reply is not there.

    Without what the underlay's own links say to find each other (RFC 4861, RFC 3810).
    """
    try:
        frames = [Ether(bytes(frame)) for frame in rdpcap(str(file))]
    except (EOFError, Scapy_Exception):
        return []
    frames = [frame for frame in frames if IP in frame or (IPv6 in frame and not is_the_links_own(frame[IPv6]))]
    if not frames or not is_echo(frames[-1], source, destination, "reply"):
        return []
    request = next(number for number, frame in enumerate(frames) if is_echo(frame, destination, source, "request"))
    return frames[:request]


def is_the_links_own(ip: Any) -> bool:
    kind = bytes(ip.payload)[0]
    return ip.nh == 0 or (ip.nh == 58 and 133 <= kind <= 137)


def is_echo(frame: Any, source: str, destination: str, what: str) -> bool:
    ip = frame[IP] if IP in frame else frame[IPv6]
    if (ip.src, ip.dst) != (source, destination):
        return False
    if ICMP in frame and ip.version == 4:
        return bool(ip.proto == 1 and ip[ICMP].type == {"request": 8, "reply": 0}[what])
    return {"request": ICMPv6EchoRequest, "reply": ICMPv6EchoReply}[what] in frame and ip.nh == 58


def mac(lab: labs.Lab, member: str, link: str) -> str:
    return str(json.loads(lab.run(member, "ip", "-json", "link", "show", "dev", link).stdout)[0]["address"])


def ends(lab: labs.Lab, family: Family, number: int) -> tuple[str, str]:
    """The pods' addresses as source and destination of the capture's frame `number`: requests and replies in turn."""
    one, two = lab.pod_address("pod1", family), lab.pod_address("pod2", family)
    return (one, two) if number % 2 == 0 else (two, one)


def hosts(number: int) -> tuple[int, int]:
    return (1, 2) if number % 2 == 0 else (2, 1)


def test_wire_form(seen: Seen) -> None:
    lab, captures = seen
    for family, frames in captures.items():
        assert len(frames) == 2 * PINGS, [frame.summary() for frame in frames]
        for number, frame in enumerate(frames):
            source, destination = hosts(number)
            # Outside: from host to host, whatever is inside.
            assert (frame.src, frame.dst) == (mac(lab, f"host{source}", "eth0"), mac(lab, f"host{destination}", "eth0"))
            match lab.plan.backend:
                case "vxlan":
                    check_vxlan(lab, frame, family, number)
                case "host-gw":
                    check_echo(lab, bytes(frame)[14:], family, number)
                case "udp":
                    check_udp(lab, frame, family, number)


def check_outer(lab: labs.Lab, frame: Any, family: Family, number: int) -> bytes:
    """The UDP payload of a frame of this family from host to host; nothing follows it."""
    at = lab.plan.families.members.index(family)
    source, destination = (str(lab.plan.hosts[host - 1].addresses[at].ip) for host in hosts(number))
    outer = frame[IP] if family is Family.IPV4 else frame[IPv6]
    assert outer is frame.payload
    assert (outer.src, outer.dst) == (source, destination)
    if family is Family.IPV4:
        assert outer.proto == 17
        assert outer.len == 20 + frame[UDP].len
    else:
        assert outer.nh == 17
        assert outer.plen == frame[UDP].len
        assert frame[UDP].chksum != 0  # RFC 8200 section 8.1
    assert len(frame) == 14 + family.header_bytes + frame[UDP].len
    return bytes(frame)[14 + family.header_bytes + 8 :]


VXLAN_DEVICE = {Family.IPV4: "ovl.1", Family.IPV6: "ovl6.1"}
ETHERTYPE = {Family.IPV4: b"\x08\x00", Family.IPV6: b"\x86\xdd"}


def check_vxlan(lab: labs.Lab, frame: Any, family: Family, number: int) -> None:
    """RFC 7348 section 5: flag I alone, VNI 1, reserved bits zero; then the Ethernet frame from VTEP to VTEP.

    Outside and inside are of one family, whatever else the underlay has.
    """
    payload = check_outer(lab, frame, family, number)
    assert frame[UDP].dport == 8472
    assert frame[UDP].sport >= 1024
    assert payload[:8] == bytes.fromhex("0800000000000100")
    source, destination = hosts(number)
    assert payload[8:14].hex(":") == mac(lab, f"host{destination}", VXLAN_DEVICE[family])
    assert payload[14:20].hex(":") == mac(lab, f"host{source}", VXLAN_DEVICE[family])
    assert payload[20:22] == ETHERTYPE[family]
    check_echo(lab, payload[22:], family, number)


def check_udp(lab: labs.Lab, frame: Any, family: Family, number: int) -> None:
    """The inner IP packet as it is, from port to port; outside of the underlay's first family, whatever is inside."""
    payload = check_outer(lab, frame, lab.plan.families.members[0], number)
    assert (frame[UDP].sport, frame[UDP].dport) == (8285, 8285)
    check_echo(lab, payload, family, number)


def check_echo(lab: labs.Lab, packet: bytes, family: Family, number: int) -> None:
    """The pods' own packet: their addresses, nothing around it, a TTL that one or two hops have lowered, right checksums."""
    if family is Family.IPV4:
        inner = IP(packet)
        assert packet[0] == 0x45
        assert inner.len == len(packet) == 84
        assert inner.ttl in (62, 63)
        assert inner[ICMP].type == (8, 0)[number % 2]
        again = IP(packet)
        del again.chksum
        del again[ICMP].chksum
    else:
        inner = IPv6(packet)
        assert packet[0] >> 4 == 6
        assert inner.plen == len(packet) - 40 == 64
        assert inner.hlim in (62, 63)
        kind = (ICMPv6EchoRequest, ICMPv6EchoReply)[number % 2]
        again = IPv6(packet)
        del again[kind].cksum
    assert (inner.src, inner.dst) == ends(lab, family, number)
    assert bytes(again) == packet
    assert ip_address(inner.src).is_private

"""What our encoder writes is what tshark reads: every header, every checksum, nothing malformed."""

from __future__ import annotations

import json
import struct
import subprocess
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from overlaynet.packet import Ethernet, Icmp, Icmpv6, Ipv4, Ipv6, Layer, Tcp, Udp, Vxlan, encode

NEAR, FAR = "02:00:00:00:00:01", "02:00:00:00:00:02"
V4, OTHER_V4 = IPv4Address("192.0.2.1"), IPv4Address("198.51.100.2")
V6, OTHER_V6 = IPv6Address("2001:db8::1"), IPv6Address("2001:db8:2::2")
INNER = IPv4Address("10.1.1.2"), IPv4Address("10.1.2.2")

PACKETS: dict[str, tuple[tuple[Layer, ...], bytes, dict[str, str]]] = {
    "udp over IPv4": (
        (Ethernet(FAR, NEAR), Ipv4(V4, OTHER_V4, identification=7, ttl=9), Udp(4000, 5000)),
        b"payload",
        {
            "frame.protocols": "eth:ethertype:ip:udp:data",
            "eth.src": NEAR,
            "ip.dst": str(OTHER_V4),
            "ip.ttl": "9",
            "ip.checksum.status": "1",
            "udp.dstport": "5000",
            "udp.checksum.status": "1",
            "data.data": b"payload".hex(),
        },
    ),
    "tcp over IPv6": (
        (Ethernet(FAR, NEAR), Ipv6(V6, OTHER_V6, hop_limit=3), Tcp(4000, 5001, sequence=17)),
        b"odd",
        {"ipv6.src": str(V6), "ipv6.hlim": "3", "tcp.seq_raw": "17", "tcp.checksum.status": "1", "tcp.len": "3"},
    ),
    "echo over IPv4": (
        (Ethernet(FAR, NEAR), Ipv4(V4, OTHER_V4), Icmp(8, 0)),
        b"",
        {"icmp.type": "8", "icmp.checksum.status": "1", "ip.len": "28"},
    ),
    "echo over IPv6": (
        (Ethernet(FAR, NEAR), Ipv6(V6, OTHER_V6), Icmpv6(128, 0)),
        b"",
        {"icmpv6.type": "128", "icmpv6.checksum.status": "1", "ipv6.plen": "8"},
    ),
    "vxlan": (
        (
            *(Ethernet(FAR, NEAR), Ipv4(V4, OTHER_V4), Udp(40_000, 4789), Vxlan(0xABCDEF)),
            *(Ethernet(NEAR, FAR), Ipv4(*INNER, ttl=63), Udp(4000, 5002)),
        ),
        b"inner",
        {
            "frame.protocols": "eth:ethertype:ip:udp:vxlan:eth:ethertype:ip:udp:data",
            "vxlan.vni": str(0xABCDEF),
            "ip.dst": f"{OTHER_V4},{INNER[1]}",
            "ip.ttl": "64,63",
            "ip.checksum.status": "1,1",
            "data.data": b"inner".hex(),
        },
    ),
    "vxlan over IPv6": (
        (
            *(Ethernet(FAR, NEAR), Ipv6(V6, OTHER_V6), Udp(40_000, 4789), Vxlan(1)),
            *(Ethernet(NEAR, FAR), Ipv6(OTHER_V6, V6), Tcp(4000, 5003)),
        ),
        b"inner",
        {"vxlan.vni": "1", "ipv6.dst": f"{OTHER_V6},{V6}", "udp.checksum.status": "1", "tcp.checksum.status": "1"},
    ),
}


def read_by_tshark(path: Path, fields: list[str]) -> dict[str, str]:
    """The fields as tshark shows them, several of one name joined by commas, and what its experts found wrong."""
    checks = ("ip.check_checksum", "udp.check_checksum", "tcp.check_checksum")
    wanted = [word for name in [*fields, "_ws.expert.message", "_ws.malformed"] for word in ("-e", name)]
    settings = [word for name in checks for word in ("-o", f"{name}:TRUE")]
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), *settings, "-T", "json", *wanted],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    (packet,) = json.loads(done.stdout)
    layers: dict[str, list[Any]] = packet["_source"]["layers"]
    return {name: ",".join(str(value) for value in values) for name, values in layers.items()}


@pytest.mark.parametrize("case", PACKETS)
def test_tshark_reads_what_we_wrote(tmp_path: Path, case: str) -> None:
    layers, payload, fields = PACKETS[case]
    frame = encode(*layers, payload=payload)
    capture = tmp_path / "frames.pcap"
    # One record of a capture of link type Ethernet (draft-ietf-opsawg-pcap).
    capture.write_bytes(
        struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1) + struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame
    )

    found = read_by_tshark(capture, list(fields))

    assert {name: found.get(name) for name in fields} == fields
    assert "_ws.malformed" not in found
    assert not any(word in found.get("_ws.expert.message", "").lower() for word in ("checksum", "malformed", "bad", "illegal"))

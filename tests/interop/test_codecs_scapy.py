"""Our codecs and scapy's say the same of the same packets, both ways."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from overlaynet.packet import Arp, Ethernet, Icmp, Icmpv6, Ipv4, Ipv6, Tcp, Udp, Vlan, Vxlan, decode, encode

# scapy's loading warns of what it finds on the machine (deprecated ciphers, no libpcap), none of which is used here.
pytestmark = pytest.mark.filterwarnings("ignore")

ports = st.integers(1, 65535).filter(lambda port: port not in (53, 4789, 8472, 8285))
mac = st.binary(min_size=6, max_size=6).map(lambda octets: octets.hex(":"))
ipv4 = st.integers(0, 2**32 - 1).map(IPv4Address)
ipv6 = st.integers(0, 2**128 - 1).map(IPv6Address)
payloads = st.binary(max_size=64)


@pytest.fixture(scope="module")
def scapy() -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from scapy import all as scapy_all
        from scapy.layers import vxlan

        assert vxlan is not None
    return scapy_all


@given(mac, mac, ipv4, ipv4, ports, ports, st.integers(0, 2**24 - 1), ipv6, ipv6, payloads)
@settings(max_examples=100, deadline=None)
def test_scapy_builds_the_tunnel_that_we_build(
    scapy: Any,
    near: str,
    far: str,
    source: IPv4Address,
    destination: IPv4Address,
    source_port: int,
    destination_port: int,
    vni: int,
    inner_source: IPv6Address,
    inner_destination: IPv6Address,
    payload: bytes,
) -> None:
    ours = encode(
        Ethernet(far, near),
        Ipv4(source, destination, identification=1),
        Udp(source_port, 4789),
        Vxlan(vni),
        Ethernet(near, far),
        Ipv6(inner_source, inner_destination),
        Udp(source_port, destination_port),
        payload=payload,
    )
    theirs = bytes(
        scapy.Ether(dst=far, src=near)
        / scapy.IP(src=str(source), dst=str(destination), id=1)
        / scapy.UDP(sport=source_port, dport=4789)
        / scapy.VXLAN(vni=vni, flags=8)
        / scapy.Ether(dst=near, src=far)
        / scapy.IPv6(src=str(inner_source), dst=str(inner_destination))
        / scapy.UDP(sport=source_port, dport=destination_port)
        / scapy.Raw(payload)
    )
    assert ours == theirs


@given(ipv4, ipv4, ports, ports, st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(0, 65535), payloads)
@settings(max_examples=100, deadline=None)
def test_we_read_what_scapy_writes(
    scapy: Any,
    source: IPv4Address,
    destination: IPv4Address,
    source_port: int,
    destination_port: int,
    number: int,
    small: int,
    identifier: int,
    payload: bytes,
) -> None:
    addresses = {"src": str(source), "dst": str(destination), "ttl": small, "tos": small, "id": identifier}
    head = Ipv4(source, destination, 6, small, small, identifier)
    tcp = scapy.TCP(sport=source_port, dport=destination_port, seq=number, ack=number, flags=small, window=identifier)
    packet = decode(bytes(scapy.IP(**addresses) / tcp / scapy.Raw(payload)), "ip")
    expected = Tcp(source_port, destination_port, number, number, small, identifier)
    assert packet.layers == (head, expected)
    assert packet.checksums == ("right", "right")
    assert packet.payload == payload

    echo = decode(bytes(scapy.IP(**addresses) / scapy.ICMP(id=identifier, seq=1) / scapy.Raw(payload)), "ip")
    assert echo.layers[1] == Icmp(8, 0, identifier.to_bytes(2, "big") + b"\x00\x01")
    assert echo.checksums == ("right", "right")


@given(ipv6, ipv6, st.integers(0, 255), st.integers(0, 2**20 - 1), st.integers(0, 65535), payloads)
@settings(max_examples=100, deadline=None)
def test_we_read_what_scapy_writes_over_ipv6(
    scapy: Any,
    source: IPv6Address,
    destination: IPv6Address,
    small: int,
    label: int,
    identifier: int,
    payload: bytes,
) -> None:
    head = scapy.IPv6(src=str(source), dst=str(destination), hlim=small, tc=small, fl=label)
    packet = decode(bytes(head / scapy.ICMPv6EchoRequest(id=identifier, seq=2, data=payload)), "ip")
    expected = Icmpv6(128, 0, identifier.to_bytes(2, "big") + b"\x00\x02")
    assert packet.layers == (Ipv6(source, destination, 58, small, small, label), expected)
    assert packet.checksums == ("absent", "right")
    assert packet.payload == payload


@given(mac, mac, ipv4, ipv4, st.integers(0, 4095), st.integers(0, 7), st.booleans(), st.integers(1, 2))
@settings(max_examples=100, deadline=None)
def test_scapy_builds_the_tags_and_the_arp_that_we_build(
    scapy: Any,
    near: str,
    far: str,
    sender: IPv4Address,
    target: IPv4Address,
    vid: int,
    priority: int,
    drop_eligible: bool,
    operation: int,
) -> None:
    layers = (
        Ethernet(far, near, 0x88A8),
        Vlan(vid, priority, drop_eligible, 0x8100),
        Vlan(vid ^ 1, ether_type=0x0806),
        Arp(operation, near, sender, far, target),
    )
    theirs = bytes(
        scapy.Ether(dst=far, src=near, type=0x88A8)
        / scapy.Dot1Q(vlan=vid, prio=priority, dei=int(drop_eligible), type=0x8100)
        / scapy.Dot1Q(vlan=vid ^ 1, type=0x0806)
        / scapy.ARP(op=operation, hwsrc=near, psrc=str(sender), hwdst=far, pdst=str(target))
    )
    assert encode(*layers) == theirs
    assert decode(theirs).layers == layers


@given(st.integers(0, 2**24 - 1), st.integers(0, 2**16 - 1), st.booleans(), st.booleans(), mac, payloads)
@settings(max_examples=100, deadline=None)
def test_scapy_builds_the_group_policy_that_we_build(
    scapy: Any, vni: int, group: int, dont_learn: bool, policy_applied: bool, station: str, payload: bytes
) -> None:
    layers = (Vxlan(vni, group, dont_learn, policy_applied), Ethernet(station, station, 0x1234))
    ours = encode(*layers, payload=payload)
    policy = "+".join(["D"] * dont_learn + ["A"] * policy_applied)
    header = scapy.VXLAN(vni=vni, flags="Instance+G", gpid=group, gpflags=policy)
    frame = scapy.Ether(dst=station, src=station, type=0x1234) / scapy.Raw(payload)
    theirs = bytes(header / frame)
    assert decode(theirs, "vxlan").layers == layers
    assert ours[:4].hex() == theirs[:4].hex()
    assert ours == theirs

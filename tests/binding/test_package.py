"""`import overlaynet` is light, and its names lead where they say."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import overlaynet
import pytest
from overlaynet.packet import Ethernet, Icmp, Ipv4, Ipv6, Packet, Udp, Vxlan, decode, encode

NEAR, FAR = "02:00:00:00:00:01", "02:00:00:00:00:02"
HOSTS = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")


def test_importing_the_package_loads_none_of_its_modules() -> None:
    program = "import sys, overlaynet; print(*sorted(m for m in sys.modules if m.startswith('overlaynet')))"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert found.stdout.split() == ["overlaynet"]


def test_the_library_loads_neither_netlink_nor_grpc_nor_numpy() -> None:
    program = """
import sys
before = set(sys.modules)
import overlaynet
assert len(set(sys.modules) - before) < 40, sorted(set(sys.modules) - before)
overlaynet.decode, overlaynet.Tunnel, overlaynet.PrefixTable, overlaynet.Tun, overlaynet.Pump, overlaynet.open_store
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert not {"pyroute2", "grpc", "numpy", "google", "click", "structlog", "rich"} & set(found)


def test_what_the_library_page_uses_is_public() -> None:
    page = (Path(__file__).parents[2] / "docs" / "library.md").read_text()
    imports = re.findall(r"^from (overlaynet[\w.]*) import (.+)$", page, re.MULTILINE)
    assert len(imports) > 10
    for module, names in imports:
        for name in names.split(","):
            used = name.partition(" as ")[0].strip()
            if used not in getattr(import_module(module), "__all__", ()):
                # A module of a package, then, which says itself what is public.
                assert import_module(f"{module}.{used}").__all__


@pytest.mark.parametrize("name", overlaynet.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(overlaynet, name)
    assert name in dir(overlaynet)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'overlaynet' has no attribute 'decode_all'"):
        _ = overlaynet.decode_all  # type: ignore[attr-defined]  # its absence is what is tested


def tunnel() -> Packet:
    inner = (Ethernet(FAR, NEAR), Ipv4(*HOSTS), Icmp(8))
    return decode(encode(Ethernet(NEAR, FAR), Ipv4(*HOSTS, ttl=9), Udp(1, 8472), Vxlan(5), *inner, payload=b"ping"))


def test_layers_are_found_from_either_end() -> None:
    packet = tunnel()
    outer, inner = packet.outermost(Ipv4), packet.innermost(Ipv4)
    assert outer is not None
    assert inner is not None
    assert (outer.ttl, inner.ttl) == (9, 64)
    assert packet.innermost(Ipv6) is None
    assert bytes(packet.payload) == b"ping"


def test_tunnels_are_left_closed_on_request() -> None:
    frame = encode(Ethernet(NEAR, FAR), Ipv4(*HOSTS), Udp(1, 8472), payload=b"no vxlan")
    assert bytes(decode(frame, tunnels=False).payload) == b"no vxlan"


def test_what_the_next_layer_does_not_say_must_be_given() -> None:
    with pytest.raises(ValueError, match=r"Ipv4\.protocol: must be given"):
        encode(Ipv4(*HOSTS), payload=b"x")
    with pytest.raises(ValueError, match=r"Ethernet\.ether_type: must be given"):
        encode(Ethernet(NEAR, FAR))
    with pytest.raises(ValueError, match=r"Ipv6\.next_header: must name the first"):
        encode(Ipv6(IPv6Address(1), IPv6Address(2), extensions=bytes(8)), Udp(1, 2))


@pytest.mark.parametrize("text", ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "020000000001", "02-00-00-00-00-01"])
def test_a_mac_address_is_six_pairs(text: str) -> None:
    with pytest.raises(ValueError, match=r"six hexadecimal pairs|non-hexadecimal"):
        encode(Ethernet(text, FAR, 0x0800))

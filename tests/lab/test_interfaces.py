"""The underlay chosen from the links, addresses and routes of a real namespace."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from overlaynet.errors import ConfigError, KernelError
from overlaynet.kernel.interfaces import Selection, choose_underlay


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"ovt-i{secrets.token_hex(4)}"
    lines = [
        "link set lo up",
        "link add eth0 type veth peer name far0",
        "link add eth1 type veth peer name far1",
        "address add 192.0.2.1/24 dev eth0",
        "address add 2001:db8::1/64 dev eth0 nodad",
        "address add 198.51.100.1/24 dev eth1",
        "address add 198.51.100.2/24 dev eth1",
        *(f"link set {link} up" for link in ("eth0", "far0", "eth1", "far1")),
    ]
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        text = "".join(f"{line}\n" for line in lines)
        subprocess.run(["ip", "-n", name, "-batch", "-"], input=text, text=True, check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def ip(namespace: str, words: str) -> None:
    subprocess.run(["ip", "-n", namespace, *words.split()], check=True)


def shown(namespace: str, words: str) -> str:
    return subprocess.run(["ip", "-n", namespace, *words.split()], capture_output=True, text=True, check=True).stdout


async def test_flags_choose_among_real_links(namespace: str) -> None:
    by_name = await choose_underlay(Selection(iface=("eth0",)), namespace)
    assert (by_name.link, by_name.local_ipv4, by_name.local_ipv6) == (
        "eth0",
        IPv4Address("192.0.2.1"),
        IPv6Address("2001:db8::1"),
    )
    by_address = await choose_underlay(Selection(iface=("198.51.100.2",)), namespace)
    assert (by_address.link, by_address.local_ipv4) == ("eth1", IPv4Address("198.51.100.2"))
    by_pattern = await choose_underlay(Selection(iface_regex=(r"^198\.51",)), namespace)
    assert by_pattern.link == "eth1"
    reached = await choose_underlay(Selection(can_reach=ip_address("198.51.100.77")), namespace)
    assert (reached.link, reached.local_ipv4) == ("eth1", IPv4Address("198.51.100.1"))


async def test_a_duplicate_address_is_not_chosen(namespace: str) -> None:
    ip(namespace, "address add 2001:db8::7/64 dev far1 nodad")
    ip(namespace, "address add 2001:db8::7/64 dev eth1")
    deadline = time.monotonic() + 20
    while "dadfailed" not in shown(namespace, "address show dev eth1"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    chosen = await choose_underlay(Selection(iface=("eth1",)), namespace)
    assert (chosen.local_ipv4, chosen.local_ipv6) == (IPv4Address("198.51.100.1"), None)
    ip(namespace, "address add 2001:db8::8/64 dev eth1 nodad")
    assert (await choose_underlay(Selection(iface=("eth1",)), namespace)).local_ipv6 == IPv6Address("2001:db8::8")


async def test_without_default_route_the_links_are_named(namespace: str) -> None:
    with pytest.raises(ConfigError, match=r"--iface.*links here: .*eth1 198.51.100.1 198.51.100.2"):
        await choose_underlay(Selection(), namespace)
    with pytest.raises(ConfigError, match=r"--iface-can-reach.*no route leads there"):
        await choose_underlay(Selection(can_reach=ip_address("203.0.113.1")), namespace)


async def test_the_default_route_of_the_smallest_metric_chooses(namespace: str) -> None:
    ip(namespace, "route add default via 192.0.2.254 metric 20")
    assert (await choose_underlay(Selection(), namespace)).link == "eth0"
    ip(namespace, "route add default via 198.51.100.254 metric 10")
    assert (await choose_underlay(Selection(), namespace)).link == "eth1"


async def test_a_namespace_that_is_not_there_is_a_kernel_error() -> None:
    with pytest.raises(KernelError, match="network namespace ovt-none"):
        await choose_underlay(Selection(), "ovt-none")

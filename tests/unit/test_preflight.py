"""What a daemon finds out before it touches anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from overlaynet.daemon import preflight
from overlaynet.daemon.preflight import check_network, check_rights, tap_obstacles
from overlaynet.errors import ConfigError, KernelPermissionError
from overlaynet.kernel.fake import FakeKernel
from overlaynet.model.addresses import Address, Family, Mtu
from overlaynet.model.host import HostSettings
from overlaynet.model.kernel import Sysctl
from overlaynet.model.lease import HostId
from overlaynet.model.network import NetworkConfig

HOST = HostSettings(
    HostId("a" * 32),
    "eth0",
    IPv4Address("203.0.113.1"),
    IPv6Address("2001:db8::1"),
    IPv4Address("192.0.2.1"),
    IPv6Address("2001:db8::1"),
    store="sqlite:///s",
)


FORWARDING = {Family.IPV4: "ipv4/ip_forward", Family.IPV6: "ipv6/conf/all/forwarding"}
V6_ONLY = b'{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00::/48", "Backend": {"Type": "vxlan"}}'
DUAL = b'{"Network": "10.1.0.0/16", "EnableIPv6": true, "IPv6Network": "2001:db8::/48", "Backend": {"Type": "vxlan"}}'


def kernel() -> FakeKernel:
    kernel = FakeKernel()
    kernel.add_underlay("eth0", [(IPv4Address("192.0.2.1"), 24)])
    return kernel


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[Address]:
    """The addresses for which obstacles were looked for."""
    found: list[Address] = []

    async def check_obstacles(config: NetworkConfig, listen: Address, sysctls: Sequence[Sysctl]) -> None:
        assert [one.path for one in sysctls] == [FORWARDING[half.family] for half in config.families]
        found.append(listen)

    monkeypatch.setattr(preflight, "check_obstacles", check_obstacles)
    return found


@pytest.mark.parametrize(
    ("effective", "passes"), [("0000000000001000", True), ("000001ffffffffff", True), ("0", False), ("ffffefff", False)]
)
def test_right_is_read_from_the_process_s_status(tmp_path: Path, effective: str, passes: bool) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\toverlaynet-daem\nCapPrm:\tffffffffffffffff\nCapEff:\t{effective}\nCapBnd:\tffffffffffffffff\n")
    if passes:
        check_rights(status)
        return
    with pytest.raises(KernelPermissionError, match="CAP_NET_ADMIN"):
        check_rights(status)


async def test_store_without_a_network_is_waited_for(looked: list[Address]) -> None:
    await check_network(None, HOST, kernel())
    assert looked == []


async def test_network_that_this_host_can_serve_passes(looked: list[Address]) -> None:
    await check_network(b'{"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan"}}', HOST, kernel())
    v6 = replace(HOST, public_ipv4=None, local_ipv4=None)
    await check_network(V6_ONLY, v6, kernel())
    await check_network(V6_ONLY.replace(b"vxlan", b"udp"), HOST, kernel())
    assert looked == [HOST.local_ipv4, HOST.local_ipv6, HOST.local_ipv6]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b'{"Network": "203.0.113.0/24"}', "Network"),
        (b'{"Network": "192.0.2.0/24"}', "Network"),
        (
            b'{"Network": "10.1.0.0/16", "EnableIPv6": true, "IPv6Network": "2001:db8::/48", "Backend": {"Type": "vxlan"}}',
            "IPv6Network",
        ),
        (b'{"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan", "MTU": 9000}}', "Backend.MTU"),
        (b"{", "network config"),
        (b'{"Network": "10.1.0.0/16", "SubnetLen": 40}', "SubnetLen"),
    ],
)
async def test_network_that_it_cannot_serve_is_named_with_its_store(looked: list[Address], text: bytes, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await check_network(text, HOST, kernel())
    assert caught.value.field == f"network configuration in sqlite:///s: {field}"
    assert looked == []


async def test_host_without_an_address_of_the_network_s_family_is_told(looked: list[Address]) -> None:
    v4 = replace(HOST, public_ipv6=None, local_ipv6=None)
    with pytest.raises(ConfigError, match="IPv6"):
        await check_network(V6_ONLY, v4, kernel())
    assert looked == []


async def test_link_whose_mtu_is_too_small_is_named_where_the_network_names_no_mtu(looked: list[Address]) -> None:
    small = FakeKernel()
    small.add_underlay("eth0", [(IPv4Address("192.0.2.1"), 24)], mtu=Mtu(100))
    with pytest.raises(ConfigError, match=r"--iface: 'eth0': its MTU, 100, leaves 50 bytes for IPv4, which needs 68"):
        await check_network(b'{"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan"}}', HOST, small)
    assert looked == []


@pytest.mark.parametrize(
    ("release", "rp_filter", "named"),
    [
        ("6.17.0-1-amd64", "0", []),
        ("7.0", "2", []),
        ("6.16.12", "0", ["needs Linux 6.17, this is 6.16.12"]),
        ("5.10.0-30", "1", ["needs Linux 6.17", "rp_filter is 1 (strict)"]),
        ("6.18.1", None, []),
    ],
)
def test_what_keeps_a_tap_from_use_is_said_beforehand(
    tmp_path: Path, release: str, rp_filter: str | None, named: list[str]
) -> None:
    if rp_filter is not None:
        (tmp_path / "ipv4/conf/all").mkdir(parents=True)
        (tmp_path / "ipv4/conf/all/rp_filter").write_text(f"{rp_filter}\n")
    found = tap_obstacles(release, tmp_path)
    assert len(found) == len(named)
    assert all(part in text for part, text in zip(named, found, strict=True))

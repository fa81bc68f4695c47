"""`overlaynet`'s commands against a store in a file and a daemon's answer, without a kernel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from overlaynet.cli.main import command
from overlaynet.cli.status import _lines
from overlaynet.errors import ConfigError, ConflictError, NetworkNotConfiguredError, OverlaynetError
from overlaynet.model.lease import HostId, LeaseAttributes, Subnets
from overlaynet.store.open import open_store

NETWORK = '{"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan"}}'
Cli = Callable[..., str]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def cli(url: str, capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: str) -> str:
        command.main(["--store", url, *arguments], standalone_mode=False, prog_name="overlaynet")
        return capsys.readouterr().out

    return run


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "network.json"
    path.write_text(NETWORK)
    return path


def lease(url: str, subnet: str, address: str) -> None:
    async def claim() -> None:
        store = open_store(url)
        try:
            attributes = LeaseAttributes(IPv4Address(address), backend_type="vxlan")
            await store.claim(HostId("b" * 32), Subnets(IPv4Network(subnet)), attributes, ttl_s=3600.0, seen=await store.load())
        finally:
            await store.aclose()

    asyncio.run(claim())


def test_network_is_checked_shown_and_set(cli: Cli, network: Path, tmp_path: Path) -> None:
    assert "SubnetLen               24" in cli("network", "check", str(network))
    assert not (tmp_path / "store.db").exists()
    assert json.loads(cli("network", "set", str(network), "--json"))["SubnetMin"] == "10.1.1.0"
    assert json.loads(cli("network", "show", "--json"))["Backend"]["Port"] == 8472


def test_store_without_a_network_says_how_to_set_one(cli: Cli, url: str) -> None:
    lease(url, "10.1.7.0/24", "192.0.2.7")
    with pytest.raises(NetworkNotConfiguredError, match="network set FILE"):
        cli("network", "show")


def test_change_that_needs_a_restart_is_warned_about(cli: Cli, network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli("network", "set", str(network))
    network.write_text(NETWORK.replace("vxlan", "udp"))
    command.main(["--store", f"sqlite:///{network.parent}/store.db", "network", "set", str(network)], standalone_mode=False)
    assert "keep the old network and backend until they are restarted" in capsys.readouterr().err


def test_leases_are_listed_and_released(cli: Cli, url: str) -> None:
    lease(url, "10.1.7.0/24", "192.0.2.7")
    assert cli("leases").split()[:3] == ["10.1.7.0-24", "192.0.2.7", "vxlan"]
    (row,) = json.loads(cli("leases", "--json"))["leases"]
    assert (row["subnet"], row["owner"]) == ("10.1.7.0-24", "b" * 32)
    assert 3500 < row["remaining_s"] <= 3600
    assert cli("lease", "release", "10.1.7.0/24") == "10.1.7.0-24: released\n"
    assert json.loads(cli("leases", "--json")) == {"leases": []}


def test_subnet_is_reserved_shown_and_revoked(cli: Cli, network: Path, url: str) -> None:
    cli("network", "set", str(network))
    assert cli("lease", "reserve", "10.1.7.0/24", "--public-ip", "192.0.2.7") == "10.1.7.0-24: reserved for 192.0.2.7\n"
    shown = json.loads(cli("lease", "show", "10.1.7.0-24", "--json"))
    assert (shown["reserved"], shown["public_ip"], shown["owner"], shown["remaining_s"]) == (True, "192.0.2.7", None, None)
    assert cli("lease", "show", "10.1.7.0/24").split() == ["10.1.7.0-24", "192.0.2.7", "-", "reserved", "-"]
    with pytest.raises(ConflictError, match="overlaps the lease"):
        cli("lease", "reserve", "10.1.7.0/24", "--public-ip", "192.0.2.8")
    assert json.loads(cli("lease", "release", "10.1.7.0/24", "--json")) == {"released": "10.1.7.0-24", "owner": None}
    lease(url, "10.1.7.0/24", "192.0.2.7")
    assert json.loads(cli("lease", "revoke", "10.1.7.0/24", "--json")) == {"revoked": "10.1.7.0-24", "owner": "b" * 32}
    with pytest.raises(ConflictError, match="not leased"):
        cli("lease", "show", "10.1.7.0/24")
    with pytest.raises(ConflictError, match="was revoked"):
        lease(url, "10.1.7.0/24", "192.0.2.7")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("10.1.7.0/24",), "--public-ip: '': say for which host"),
        (("10.1.7.0/24", "--public-ip", "there"), "--public-ip: 'there': must be an IPv4 address"),
        (("10.1.7.0/24", "--public-ip", "127.0.0.1"), "--public-ip: '127.0.0.1': must be an address at which peers reach"),
        (
            ("10.1.7.0/25", "--public-ip", "192.0.2.7"),
            "SUBNET: '10.1.7.0/25': must be what this network leases: a /24 from",
        ),
        (("10.2.7.0/24", "--public-ip", "192.0.2.7"), "SUBNET: '10.2.7.0/24': must be what this network leases"),
        (("fd00:1::/64", "--public-ipv6", "fd00::7"), "SUBNET: 'fd00:1::/64': must be what this network leases"),
    ],
)
def test_reservation_that_cannot_be_is_one_line_and_changes_nothing(
    cli: Cli, network: Path, words: tuple[str, ...], said: str
) -> None:
    cli("network", "set", str(network))
    with pytest.raises(ConfigError) as caught:
        cli("lease", "reserve", *words)
    assert str(caught.value).startswith(said)
    assert json.loads(cli("leases", "--json")) == {"leases": []}


@pytest.mark.parametrize("text", ["10.1.7.0", "10.1.7.1/24", "10.1.7.0/33", "there", "10.1.7.0/24/7"])
def test_what_is_no_subnet_is_named(cli: Cli, url: str, text: str) -> None:
    with pytest.raises(ConfigError, match="SUBNET"):
        cli("lease", "release", text)


@pytest.mark.parametrize("words", [("network", "show"), ("leases",), ("lease", "release", "10.1.7.0/24")])
def test_reading_makes_no_store(cli: Cli, tmp_path: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(OverlaynetError, match="no such file"):
        cli(*words)
    assert list(tmp_path.iterdir()) == []


def test_commands_are_listed_without_being_imported(cli: Cli) -> None:
    listed = cli("--help")
    for name in ("cleanup", "lab", "lease", "leases", "network", "status"):
        assert f"\n  {name} " in listed


STATUS = {
    "host": "a" * 32,
    "ready": True,
    "network": ["10.1.0.0/16"],
    "backend": "vxlan",
    "lease": {"subnets": "10.1.7.0-24", "remaining_s": 3599.6, "expired": False},
    "public_addresses": ["192.0.2.7"],
    "underlay": "eth0",
    "mtu": 1450,
    "store": "sqlite:///s",
    "store_error": "store sqlite:///s: unavailable: it was closed",
    "store_lost_since_s": None,
    "kept": False,
    "kernel_writes": 7,
    "warnings": ["a warning"],
    "conflicts": ["a conflict"],
    "refused_leases": ["10.1.9.0-24: overlaps"],
    "unreadable_keys": 2,
    "peers": [
        {"subnets": "10.1.8.0-24", "public_address": "192.0.2.8", "state": "programmed", "why": ""},
        {"subnets": "10.1.6.0-24", "public_address": "192.0.2.6", "state": "failed", "why": "no route"},
    ],
    "counters": {"packets_out": 5, "drops": {"no_route": 3, "too_long": 0}},
}


def test_status_names_all_that_is_not_in_order() -> None:
    text = "\n".join(_lines(STATUS))
    for line in (
        "state           ready",
        "lease           10.1.7.0-24, 3600 s left",
        "store           sqlite:///s: unavailable: it was closed",
        "warning         a warning",
        "conflict        a conflict",
        "refused lease   10.1.9.0-24: overlaps",
        "unreadable      2 keys of the store",
        "peers           1 of 2 programmed",
        "failed: no route",
        "packets_out     5",
        "dropped         3 no_route",
    ):
        assert line in text
    assert "too_long" not in text


def test_host_without_a_lease_says_so() -> None:
    text = "\n".join(_lines(STATUS | {"lease": None, "ready": False, "network": [], "mtu": None}))
    assert "state           not ready" in text
    assert "network         not configured" in text
    assert "lease           none" in text

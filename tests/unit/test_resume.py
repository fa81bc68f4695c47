"""What an engine ran with, as text; and that a daemon begins with it before it imports what takes long."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlaynet.daemon.resume import ENGINE, resume, resume_words
from overlaynet.daemon.settings import Settings
from overlaynet.dataplane.kept import decode_running, encode_running
from overlaynet.errors import StoreDataError
from overlaynet.model.addresses import MacAddress, Mtu, Vni
from overlaynet.model.dataplane import PumpConfig, PumpPeer, Vteps
from overlaynet.store.location import StoreLocation

MAC = MacAddress.parse("02:00:00:00:00:01")

PLAIN = PumpConfig(
    link="ovl-udp",
    listen=(IPv4Address("192.0.2.1"),),
    port=8285,
    mtu=Mtu(1472),
    local=(IPv4Network("10.1.1.0/24"), IPv6Network("2001:db8:1::/64")),
    addresses=(IPv4Address("10.1.1.0"),),
    peers=(
        PumpPeer((IPv4Network("10.1.2.0/24"), IPv6Network("2001:db8:2::/64")), IPv4Address("192.0.2.2"), 8285),
        PumpPeer((IPv4Network("10.1.3.0/24"),), IPv4Address("192.0.2.3"), 8285),
    ),
)
VXLAN = PumpConfig(
    link="ovl.1",
    listen=(IPv4Address("192.0.2.1"),),
    port=8472,
    mtu=Mtu(1450),
    local=(IPv4Network("10.1.1.0/24"),),
    addresses=(IPv4Address("10.1.1.0"),),
    peers=(PumpPeer((IPv4Network("10.1.2.0/24"),), IPv4Address("192.0.2.2"), 8472, MAC),),
    vteps=Vteps(Vni(1), MAC, MAC),
    tap="ovl-tap",
)
WORDS = ("sqlite:///x", "eth0")


@pytest.mark.parametrize("config", [PLAIN, VXLAN, None])
def test_configuration_comes_back_from_its_text(config: PumpConfig | None) -> None:
    assert decode_running(encode_running(config, WORDS), WORDS) == config


def test_text_of_other_settings_is_none_to_begin_with() -> None:
    assert decode_running(encode_running(PLAIN, WORDS), ("sqlite:///x", "eth1")) is None


@given(st.binary(max_size=100) | st.integers(0, 800).map(lambda end: encode_running(VXLAN, WORDS)[:end]))
def test_any_bytes_give_a_configuration_or_an_error(text: bytes) -> None:
    with contextlib.suppress(StoreDataError):
        assert decode_running(text, WORDS) in (VXLAN, None)


@pytest.mark.parametrize("mark", [b'"10.1.2.0/24"', b'"port": 8472', b'"link"', b'"form": 1', b'"02:00:00:00:00:01"'])
def test_text_of_something_else_is_an_error(mark: bytes) -> None:
    text = encode_running(VXLAN, WORDS)
    assert mark in text
    with pytest.raises(StoreDataError):
        decode_running(text.replace(mark, b'"what": []' if b":" in mark and b" " in mark else b'"what"'), WORDS)


def settings(folder: Path) -> Settings:
    return Settings(StoreLocation("sqlite:///x"), folder, folder, folder / "subnet.env", iface=("eth0",))


def test_engine_without_its_device_waits_for_the_daemon(tmp_path: Path) -> None:
    assert resume(settings(tmp_path)).why is None
    (tmp_path / ENGINE).write_bytes(encode_running(PLAIN, resume_words(settings(tmp_path))))
    resumed = resume(settings(tmp_path))
    assert resumed.engine.config is None
    assert resumed.why is not None
    (tmp_path / ENGINE).write_bytes(b"{")
    assert "engine" in str(resume(settings(tmp_path)).why)


SHOW_IMPORTS = """
import sys
from overlaynet.cli import daemon
from overlaynet.dataplane.pump import UdpEngine

def apply(engine, config):
    print(config.link, *sys.modules)
    raise SystemExit(0)

UdpEngine.apply = apply
daemon.main()
"""

LATER = ("asyncio", "grpc", "msgspec", "pyroute2", "structlog", "sqlite3", "overlaynet.daemon.main")


def test_engine_begins_before_anything_that_takes_long_is_imported(tmp_path: Path) -> None:
    (tmp_path / ENGINE).write_bytes(encode_running(PLAIN, resume_words(settings(tmp_path))))
    flags = ["--store", "sqlite:///x", "--state-dir", str(tmp_path), "--run-dir", str(tmp_path), "--iface", "eth0"]
    done = subprocess.run([sys.executable, "-c", SHOW_IMPORTS, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    link, *modules = done.stdout.split()
    assert link == PLAIN.link
    assert "overlaynet.dataplane.pump" in modules
    assert sorted(set(LATER) & set(modules)) == []

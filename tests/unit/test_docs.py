"""The pages in docs/ agree with the code and with themselves: exit codes, flags, links, and the frames drawn byte by byte."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from overlaynet import errors
from overlaynet.model import network

DOCS = Path(__file__).parents[2] / "docs"
OPERATIONS = (DOCS / "operations.md").read_text()


def table_below(heading: str, *, number: int = 0) -> list[list[str]]:
    """The rows of a table below `heading`, the first by default, cell by cell, without its head; an escaped bar is text."""
    section = OPERATIONS.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    tables = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in tables[number].splitlines()[2:]]


def test_exit_codes_are_those_of_the_exceptions() -> None:
    documented = {name: int(code) for code, names, _ in table_below("Exit codes") for name in re.findall(r"`(\w+)`", names)}

    defined = {
        name: item.exit_code
        for name, item in inspect.getmembers(errors, inspect.isclass)
        if issubclass(item, errors.OverlaynetError)
    }
    assert documented == defined


def test_flags_are_those_of_the_daemon() -> None:
    program = Path(sys.executable).with_name("overlaynet-daemon")
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=True, timeout=30)

    options = re.findall(r"^  (-.*?)(?:  |$)", done.stdout, re.MULTILINE)
    offered = {flag for option in options for flag in re.findall(r"--[a-z0-9-]+", option)} - {"--help"}
    documented = {flag for cells in table_below("Flags of overlaynet-daemon") for flag in re.findall(r"--[a-z0-9-]+", cells[0])}
    assert documented == offered


def test_configuration_keys_are_those_that_are_read() -> None:
    heading = "The network's configuration"
    documented = {cells[0].strip("`") for cells in table_below(heading)}
    assert documented == set(network._NETWORK_KEYS)

    kind = ""
    documented_of: dict[str, set[str]] = {}
    for cells in table_below(heading, number=1):
        kind = cells[0].strip("`") or kind
        documented_of.setdefault(kind, {"Type"}).update(cells[1].strip("`").split())
    assert documented_of == {kind: set(known) for kind, known in network._BACKEND_KEYS.items()}


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = [target.split("#")[0] for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text())]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def drawn_frames() -> list[bytes]:
    """The frames of how-it-works.md, out of their drawings; each line must start at the offset that it names."""
    page = (DOCS / "how-it-works.md").read_text()
    frames = []
    for drawing in re.findall(r"^offset .*?^```", page, re.MULTILINE | re.DOTALL):
        frame = b""
        for offset, octets in re.findall(r"^0x([0-9a-f]{2})    ((?:[0-9a-f]{2} )+)", drawing, re.MULTILINE):
            assert int(offset, 16) == len(frame), f"0x{offset} follows {len(frame)} bytes"
            frame += bytes.fromhex(octets)
        frames.append(frame)
    return frames


def ones_sum(octets: bytes) -> int:
    """The Internet checksum's sum (RFC 1071) of big-endian words; 0xffff over anything that includes a right checksum."""
    total = sum(int.from_bytes(octets[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(octets), 2))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return total


def assert_right_ipv4(packet: bytes) -> bytes:
    """Check one IPv4 packet's length and header checksum, and its payload's checksum if it is UDP or ICMP; its payload."""
    assert packet[0] == 0x45
    assert int.from_bytes(packet[2:4], "big") == len(packet)
    assert ones_sum(packet[:20]) == 0xFFFF
    payload = packet[20:]
    match packet[9]:
        case 17:
            assert int.from_bytes(payload[4:6], "big") == len(payload)
            assert ones_sum(packet[12:20] + bytes([0, 17]) + payload[4:6] + payload) == 0xFFFF
        case 1:
            assert ones_sum(payload) == 0xFFFF
        case other:
            pytest.fail(f"protocol {other}")
    return payload


def test_drawn_frames_are_right_byte_for_byte() -> None:
    vxlan, host_gw, udp = drawn_frames()

    datagram = assert_right_ipv4(vxlan[14:])
    assert datagram[2:4] == (8472).to_bytes(2, "big")
    assert datagram[8:16] == bytes.fromhex("0800000000000100")
    assert datagram[28:30] == b"\x08\x00"
    assert_right_ipv4(datagram[30:])

    assert_right_ipv4(host_gw[14:])

    datagram = assert_right_ipv4(udp[14:])
    assert datagram[:4] == (8285).to_bytes(2, "big") * 2
    assert_right_ipv4(datagram[8:])

"""Captures of every form are read; damaged ones up to the damage, which is named."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlaynet.errors import CaptureError
from overlaynet.packet.pcap import Captured, Link, link_of, read_capture

PACKETS = [(1_700_000_000_123_456_789, b"first"), (1_700_000_001_000_000_000, b""), (1_700_000_002_999_999_000, b"x" * 77)]


def classic(order: str = "<", *, nanoseconds: bool = False, link_type: int = 1, more_bytes: int = 0) -> bytes:
    magic, units = (0xA1B23C4D, 10**9) if nanoseconds else (0xA1B2C3D4, 10**6)
    file = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, link_type)
    for time_ns, data in PACKETS:
        seconds, rest = divmod(time_ns, 10**9)
        file += struct.pack(f"{order}IIII", seconds, rest * units // 10**9, len(data), len(data) + more_bytes) + data
    return file


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(f"{order}I", 12 + len(body))
    return struct.pack(f"{order}I", kind) + length + body + length


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str, *, link_type: int = 1, options: bytes = b"", snapshot: int = 0) -> bytes:
    return block(order, 1, struct.pack(f"{order}HHI", link_type, 0, snapshot) + options)


def option(order: str, code: int, value: bytes) -> bytes:
    return struct.pack(f"{order}HH", code, len(value)) + value + bytes(-len(value) % 4)


def enhanced(order: str, ticks: int, data: bytes, *, of: int = 0) -> bytes:
    return block(order, 6, struct.pack(f"{order}IIIII", of, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data)) + data)


def next_generation(order: str = "<") -> bytes:
    options = option(order, 2, b"eth0") + option(order, 9, b"\x09") + option(order, 0, b"")
    file = section(order) + interface(order, options=options) + block(order, 0x0BAD, b"not ours")
    return file + b"".join(enhanced(order, time_ns, data) for time_ns, data in PACKETS)


def read(file: bytes) -> list[Captured]:
    return list(read_capture(io.BytesIO(file), "file.pcap"))


def up_to_damage(file: bytes) -> tuple[list[Captured], CaptureError]:
    found: list[Captured] = []
    with pytest.raises(CaptureError) as caught:
        found.extend(read_capture(io.BytesIO(file), "file.pcap"))
    return found, caught.value


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_and_both_resolutions_of_pcap(order: str) -> None:
    assert read(classic(order, nanoseconds=True)) == [Captured(1, time, len(data), data) for time, data in PACKETS]
    assert read(classic(order)) == [Captured(1, time // 1000 * 1000, len(data), data) for time, data in PACKETS]
    assert [one.length - len(one.data) for one in read(classic(order, more_bytes=9))] == [9, 9, 9]


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_of_pcapng(order: str) -> None:
    assert read(next_generation(order)) == [Captured(1, time, len(data), data) for time, data in PACKETS]


def test_sections_of_both_byte_orders_follow_one_another() -> None:
    found = read(next_generation("<") + section(">") + interface(">", link_type=101) + enhanced(">", 7, b"raw"))
    assert found[-1] == Captured(101, 7000, 3, b"raw")
    assert len(found) == len(PACKETS) + 1


@pytest.mark.parametrize(
    ("options", "ticks", "time_ns"),
    [
        (b"", 5, 5000),
        (option("<", 9, b"\x00"), 5, 5 * 10**9),
        (option("<", 9, b"\x81"), 3, 1_500_000_000),
        (option("<", 9, b"\x0c"), 5000, 5),
        (option("<", 14, struct.pack("<q", -1)), 2_000_000, 10**9),
    ],
)
def test_resolution_and_offset_of_an_interface_hold(options: bytes, ticks: int, time_ns: int) -> None:
    assert read(section("<") + interface("<", options=options) + enhanced("<", ticks, b""))[0].time_ns == time_ns


def test_simple_and_old_packet_blocks() -> None:
    simple = block("<", 3, struct.pack("<I", 9) + b"kept")
    old = block("<", 2, struct.pack("<HHIIII", 1, 0, 0, 8, 3, 5) + b"old")
    found = read(section("<") + interface("<", snapshot=4) + interface("<", link_type=101) + simple + old)
    assert found == [Captured(1, None, 9, b"kept"), Captured(101, 8000, 5, b"old")]


@pytest.mark.parametrize("make", [classic, next_generation])
@given(st.data())
def test_a_cut_gives_the_packets_before_it(make: Callable[[], bytes], data: st.DataObject) -> None:
    file = make()
    cut = data.draw(st.integers(0, len(file) - 1))
    whole = read(file)
    found: list[Captured] = []
    with contextlib.suppress(CaptureError):
        found.extend(read_capture(io.BytesIO(file[:cut]), "file.pcap"))
    assert found == whole[: len(found)]
    assert len(found) < len(whole)


@given(st.sampled_from([classic(), next_generation()]), st.integers(0, 300), st.binary(min_size=1, max_size=4))
def test_any_damage_is_a_capture_error_or_none(file: bytes, at: int, bytes_: bytes) -> None:
    at %= len(file)
    with contextlib.suppress(CaptureError):
        found = read(file[:at] + bytes_ + file[at + len(bytes_) :])
        assert sum(len(one.data) for one in found) <= len(file)


@given(st.binary(max_size=100))
def test_any_bytes_are_no_capture_or_one(file: bytes) -> None:
    try:
        read(file)
    except CaptureError:
        return
    pytest.fail("so few bytes are no capture")


def test_damage_is_named() -> None:
    assert up_to_damage(b"PK\3\4")[1].why == "begins with 504b0304: neither pcap nor pcapng"
    assert up_to_damage(b"")[1].why == "ends inside the file's magic number: 0 of 4 bytes are there"
    found, error = up_to_damage(classic()[:-1])
    assert (len(found), error.why) == (2, "ends inside a packet: 76 of 77 bytes are there")
    found, error = up_to_damage(classic()[:24] + b"\xff" * 16)
    assert (len(found), error.why) == (0, "a packet of 4294967295 bytes: at most 67108864 are believed")
    found, error = up_to_damage(next_generation()[:-4] + struct.pack("<I", 8))
    assert (len(found), error.why) == (2, "a block's lengths differ: 112 before it, 8 behind it")
    assert up_to_damage(section("<") + enhanced("<", 0, b""))[1].why == "a packet of interface 0: 0 are described"
    assert up_to_damage(struct.pack("<IHHiIII", 0xA1B2C3D4, 3, 0, 0, 0, 0, 1))[1].why == "pcap version 3: want 2"


@pytest.mark.parametrize(
    ("link_type", "data", "link"),
    [
        (1, b"", Link("ethernet", 0, "ethernet")),
        (101, b"", Link("raw", 0, "ip")),
        (228, b"", Link("raw", 0, "ipv4")),
        (229, b"", Link("raw", 0, "ipv6")),
        (0, b"\x02\0\0\0", Link("loopback", 4, "ip")),
        (0, b"\0\0\0\x1e", Link("loopback", 4, "ip")),
        (108, b"\0\0\0\x07", Link("loopback", 4, None)),
        (113, bytes(14) + b"\x86\xdd", Link("sll", 16, "ipv6")),
        (276, b"\x08\x06" + bytes(18), Link("sll2", 20, "arp")),
        (276, b"\x88\xcc" + bytes(18), Link("sll2", 20, None)),
        (147, b"", None),
    ],
)
def test_links_say_what_comes_first(link_type: int, data: bytes, link: Link | None) -> None:
    assert link_of(Captured(link_type, None, len(data), data)) == link

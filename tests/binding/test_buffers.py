"""Codecs read any buffer, of any format and strides; what they keep shares its memory."""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest
from overlaynet import _core
from overlaynet.packet import Ethernet, Ipv4, Udp, Vxlan, decode, decode_many, encode, encode_many

FRAME = encode(
    Ethernet("02:00:00:00:00:01", "02:00:00:00:00:02"),
    Ipv4(IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")),
    Udp(1, 2),
    payload=b"payload!" + bytes(2),
)


def in_mmap(frame: bytes) -> mmap.mmap:
    mapped = mmap.mmap(-1, len(frame))
    mapped[:] = frame
    return mapped


def strided(frame: bytes) -> memoryview:
    spread = bytearray(2 * len(frame))
    spread[::2] = frame
    return memoryview(spread)[::2]


KINDS: list[Callable[[bytes], object]] = [
    bytes,
    bytearray,
    memoryview,
    lambda frame: array("B", frame),
    lambda frame: array("I", frame),
    lambda frame: memoryview(frame).cast("H"),
    in_mmap,
    strided,
    lambda frame: type("Octets", (bytes,), {})(frame),
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_buffer_gives_the_same_packet(kind: Callable[[bytes], object]) -> None:
    assert len(FRAME) % 4 == 0
    expected, found = decode(FRAME), decode(kind(FRAME))  # type: ignore[arg-type]  # `object` may be any buffer
    assert found.layers == expected.layers
    assert found.payload == expected.payload == b"payload!" + bytes(2)
    columns = decode_many([kind(FRAME)])  # type: ignore[list-item]  # as above
    assert columns["source_port"].tolist() == [1]


def test_payload_shares_the_buffers_memory() -> None:
    frame = bytearray(FRAME)
    payload = decode(frame).payload
    frame[-10:-8] = b"PA"
    assert payload[:8].tobytes() == b"PAyload!"


def test_an_array_of_frames_is_decoded_slot_by_slot() -> None:
    slots = bytearray(3 * 64)
    slots[0 : len(FRAME)] = FRAME
    slots[64 : 64 + len(FRAME)] = FRAME
    slots[64 + 26] = 192
    columns = decode_many(slots, stride=64)
    assert columns["version"].tolist() == [4, 4, 0]
    assert bytes(columns["source"]) == bytes([10, 0, 0, 1, *bytes(12), 192, 0, 0, 1, *bytes(28)])
    assert columns["wrong_checksums"].tolist() == [0, 2, 0]
    assert columns["payload_offset"].tolist()[:2] == [42, 42]
    assert columns["payload_length"].tolist()[:2] == [10, 10]


@pytest.mark.parametrize("stride", [0, 5])
def test_a_stride_divides_the_buffer(stride: int) -> None:
    with pytest.raises(ValueError, match=f"stride {stride}: want a divisor of the buffer's 64 bytes"):
        decode_many(bytes(64), stride=stride)


def test_faults_are_numbers_in_a_batch() -> None:
    wrong_version, no_flag = bytearray(FRAME), encode(Vxlan(1), Ethernet("02:00:00:00:00:01", "02:00:00:00:00:02", 0))
    wrong_version[14] = 0x65
    short_length = bytearray(FRAME)
    short_length[17] = 19
    assert decode_many([b"", wrong_version, short_length, FRAME])["fault"].tolist() == [1, 2, 3, 0]
    assert decode_many([no_flag, bytes(22)], "vxlan")["fault"].tolist() == [0, 4]


def test_a_batch_encodes_what_single_calls_do() -> None:
    layers = (Ipv4(IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")), Udp(1, 2))
    payloads = [bytes([n]) * n for n in range(50)]
    assert encode_many(*layers, payloads=payloads) == [encode(*layers, payload=payload) for payload in payloads]


def test_a_packet_as_text() -> None:
    lines = _core.pretty(FRAME).splitlines()
    assert lines[1] == " 14 ipv4 10.0.0.1 > 10.0.0.2 protocol 17 ttl 64 length 38 checksum right"
    assert _core.pretty(FRAME[:20]).splitlines()[-1] == " 14 ! ipv4 at byte 14: truncated: need 20, have 6"

"""Codecs read any buffer, of any format and strides; what they keep shares its memory."""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest
from overlaynet import _core
from overlaynet.packet import Ethernet, Ipv4, Tunnel, Udp, Vxlan, decode, decode_many, encode, encode_many

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


@pytest.mark.parametrize("view", [FRAME, memoryview(FRAME), memoryview(b"xx" + FRAME + b"yy")[2:-2]])
def test_what_cannot_change_is_read_in_place(view: bytes | memoryview) -> None:
    packet = decode(view)
    whole = view.obj if isinstance(view, memoryview) else view
    assert packet.payload.obj is whole
    assert packet.payload.tobytes() == b"payload!" + bytes(2)
    assert packet.payload.readonly


def test_what_may_change_is_copied_once() -> None:
    frame = bytearray(FRAME)
    packet = decode(frame)
    frame[:] = bytes(len(frame))
    assert packet.layers == decode(FRAME).layers
    assert packet.payload == b"payload!" + bytes(2)


def test_columns_are_a_mapping() -> None:
    columns = decode_many([FRAME, FRAME])
    assert dict(columns) == dict(columns.items())
    assert [*columns] == [*columns.keys()]
    assert len(columns) == 12
    assert "vni" in columns
    assert ("vnis" in columns, 1 in columns) == (False, False)
    assert columns["vni"].tolist() == [-1, -1]
    with pytest.raises(KeyError, match="vnis"):
        columns["vnis"]


def test_packets_one_behind_the_other_are_told_apart_by_their_lengths() -> None:
    columns = decode_many(FRAME + FRAME[:20] + FRAME, lengths=array("I", [len(FRAME), 20, len(FRAME)]))
    assert columns["fault"].tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="lengths: 100 bytes in all: the buffer has 52"):
        decode_many(FRAME, lengths=[50, 50])
    with pytest.raises(ValueError, match="stride, lengths: only one of them"):
        decode_many(FRAME, stride=1, lengths=[1])


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
    expected = [encode(*layers, payload=payload) for payload in payloads]
    assert encode_many(*layers, payloads=payloads) == expected
    assert Tunnel(*layers).wrap_many(payloads) == expected
    slots = b"".join(payloads[7:8] * 3)
    assert encode_many(*layers, payloads=slots, stride=7) == expected[7] * 3
    assert Tunnel(*layers).wrap_many(bytearray(slots), stride=7) == expected[7] * 3


def test_a_packet_as_text() -> None:
    lines = _core.pretty(FRAME).splitlines()
    assert lines[1] == " 14 ipv4 10.0.0.1 > 10.0.0.2 protocol 17 ttl 64 length 38 checksum right"
    assert _core.pretty(FRAME[:20]).splitlines()[-1] == " 14 ! ipv4 at byte 14: truncated: need 20, have 6"

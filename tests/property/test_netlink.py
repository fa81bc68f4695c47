"""Netlink messages: what the core packs pyroute2 reads the same, and the other way round.

pyroute2 knows no next hops; the kernel itself and iproute2 vouch for them, in the contract tests.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlaynet import _core
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

NEWROUTE, DELROUTE, NEWNEIGH, DELNEIGH = 24, 25, 28, 29
AF_INET, AF_INET6 = 2, 10
REQUEST, ACK = 0x1, 0x4

byte = st.integers(0, 255)
number = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 2**31])
positive = st.integers(1, 2**31 - 1)
ipv4 = st.integers(0, 2**32 - 1).map(lambda value: IPv4Address(value).packed)
ipv6 = st.integers(0, 2**128 - 1).map(lambda value: IPv6Address(value).packed)
mac = st.binary(min_size=6, max_size=6)


def route_of(address: st.SearchStrategy[bytes], bits: int) -> st.SearchStrategy[tuple[Any, ...]]:
    length, maybe = st.integers(1, bits), st.none() | address
    return st.tuples(address, length, byte, byte, byte, byte, number, number, maybe, number, maybe, st.just(0))


routes = route_of(ipv4, 32) | route_of(ipv6, 128)
neighbours = st.tuples(st.just(AF_INET), positive, st.integers(0, 0xFF), byte, ipv4, mac) | st.tuples(
    st.just(AF_INET6), positive, st.integers(0, 0xFF), byte, ipv6, mac
)
requests = st.tuples(st.sampled_from([NEWROUTE, DELROUTE]), routes) | st.tuples(st.sampled_from([NEWNEIGH, DELNEIGH]), neighbours)


def text(packed: bytes | None) -> str | None:
    """The address in the C library's spelling, which differs from `ipaddress` where the last four bytes stand alone."""
    return None if packed is None else socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def read_by_pyroute2(kind: int, data: bytes) -> tuple[dict[str, int], dict[str, Any]]:
    """The header's fields, and the structure's fields and attributes in one."""
    message = (rtmsg if kind in (NEWROUTE, DELROUTE) else ndmsg)(data=data)
    message.decode()
    values = {name: message[name] for name, *_ in message.fields}
    values.update({slot[0]: slot[1] for slot in message["attrs"]})
    return message["header"], values


def expected(kind: int, fields: tuple[Any, ...]) -> dict[str, Any]:
    """What a reader should find, absent attributes left out."""
    if kind in (NEWROUTE, DELROUTE):
        destination, length, table, protocol, scope, action, flags, link, gateway, metric, source, _ = fields
        found = {
            "family": AF_INET if len(destination) == 4 else AF_INET6,
            "dst_len": length,
            "src_len": 0,
            "tos": 0,
            "table": table,
            "proto": protocol,
            "scope": scope,
            "type": action,
            "flags": flags,
            "RTA_DST": text(destination),
            "RTA_OIF": link or None,
            "RTA_GATEWAY": text(gateway),
            "RTA_PRIORITY": metric or None,
            "RTA_PREFSRC": text(source),
        }
    else:
        family, link, state, flags, destination, mac = fields
        found = {
            "family": family,
            "__pad": (),
            "ifindex": link,
            "state": state,
            "flags": flags,
            "ndm_type": 0,
            "NDA_DST": text(destination),
            "NDA_LLADDR": mac.hex(":"),
        }
    return {name: value for name, value in found.items() if value is not None}


def split(data: bytes) -> list[bytes]:
    parts = []
    while data:
        length = int.from_bytes(data[:4], "little")
        parts.append(data[:length])
        data = data[(length + 3) & ~3 :]
    return parts


@given(st.lists(st.tuples(requests, st.sampled_from([0, 0x600, 0x500])), min_size=1, max_size=5), st.integers(1, 2**31))
def test_what_the_core_packs_pyroute2_reads(several: list[tuple[tuple[int, tuple[Any, ...]], int]], first: int) -> None:
    packed = _core.netlink_pack([(kind, flags, fields) for (kind, fields), flags in several], first)
    parts = split(packed)
    assert len(parts) == len(several)
    for place, (part, ((kind, fields), flags)) in enumerate(zip(parts, several, strict=True)):
        header, values = read_by_pyroute2(kind, part)
        acknowledge = ACK if place == len(several) - 1 else 0
        assert (header["type"], header["flags"], header["sequence_number"]) == (
            kind,
            flags | REQUEST | acknowledge,
            first + place,
        )
        assert values == expected(kind, fields)


@given(st.lists(requests, min_size=1, max_size=5))
def test_what_pyroute2_packs_the_core_reads(several: list[tuple[int, tuple[Any, ...]]]) -> None:
    packed = b""
    for kind, fields in several:
        message = (rtmsg if kind in (NEWROUTE, DELROUTE) else ndmsg)()
        values = expected(kind, fields)
        for name, value in values.items():
            if name.isupper():
                continue
            message[name] = value
        message["attrs"] = [[name, value] for name, value in values.items() if name.isupper()]
        message["header"]["type"] = kind
        message["header"]["sequence_number"] = 9
        message.reset()
        message.encode()
        packed += bytes(message.data)
    rows, interrupted, end = _core.netlink_dumped(packed, 9)
    assert (interrupted, end) == (False, None)
    assert [row[:12] if kind in (NEWROUTE, DELROUTE) else row[:6] for (kind, _), row in zip(several, rows, strict=True)] == [
        fields for _, fields in several
    ]
    assert _core.netlink_dumped(packed, 8) == ([], False, None)
    assert [event[2] for event in _core.netlink_events(packed, [7])] == rows
    assert _core.netlink_events(packed, [0]) == []


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1))
def test_no_bytes_do_harm(data: bytes, sequence: int) -> None:
    _core.netlink_dumped(data, sequence)
    _core.netlink_answers(data)
    _core.netlink_events(bytearray(data), [sequence])


@pytest.mark.parametrize(
    ("kind", "fields", "why"),
    [
        (16, (), "kind 16: want 24, 25, 28, 29, 104 or 105"),
        (NEWNEIGH, (2, 1, 128, 0, b"abc", b"123456"), "address of 3 bytes: want 4 or 16"),
        (NEWNEIGH, (2, 1, 128, 0, b"abcd", b"12345"), "MAC address of 5 bytes: want 6"),
        (NEWROUTE, (None, 1, 0, 0, 0, 0, 0, 0, None, 0, None, 0), "destination is missing"),
    ],
)
def test_a_field_that_is_none_is_refused(kind: int, fields: tuple[Any, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        _core.netlink_pack([(kind, 0, fields)], 1)

"""Captures, as tcpdump and Wireshark write them: one packet after the other out of a binary stream.

Reads pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng) in both byte orders, with microseconds, nanoseconds and
any other resolution. The format is told by the first bytes. Packets are given as they are read, so that of a damaged file those
before the damage are had; then CaptureError says where it is. Never reads more into memory than one record or block.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from overlaynet.errors import CaptureError
from overlaynet.packet import First

__all__ = ["MOST_BYTES", "Captured", "Link", "Stream", "link_of", "read_capture"]


class Stream(Protocol):
    """Where bytes come from: a binary file, a pipe, `io.BytesIO`."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        ...


MOST_BYTES: Final = 1 << 26
"""The longest record or block that is believed: a larger length is damage. (tcpdump's own limit for a packet is 256 KiB.)"""

_MAGICS: Final = {
    b"\xa1\xb2\xc3\xd4": (">", 10**6),
    b"\xd4\xc3\xb2\xa1": ("<", 10**6),
    b"\xa1\xb2\x3c\x4d": (">", 10**9),
    b"\x4d\x3c\xb2\xa1": ("<", 10**9),
}
_SECTION_MAGIC: Final = b"\x0a\x0d\x0d\x0a"
_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 0x0A0D0D0A, 1, 2, 3, 6
_BYTE_ORDERS: Final = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
_OPTION_END, _OPTION_RESOLUTION, _OPTION_OFFSET = 0, 9, 14


@dataclass(frozen=True, slots=True)
class Captured:
    """One packet of a capture: `data` is what was kept of its `length` bytes, `time_ns` since 1970 (None: not recorded).

    `link_type` is one of the numbers that tcpdump.org assigns: 1 is Ethernet.
    """

    link_type: int
    time_ns: int | None
    length: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """What is around a packet on its link: a header of `header_bytes`, and then `first`; None: something that is not read."""

    name: str
    header_bytes: int
    first: First | None


def read_capture(stream: Stream, name: str) -> Iterator[Captured]:
    """The packets of a capture; CaptureError, with `name`, where it is damaged or if it is none."""
    reader = _Reader(stream, name)
    magic = reader.take(4, "the file's magic number")
    if magic in _MAGICS:
        return _classic(reader, *_MAGICS[magic])
    if magic == _SECTION_MAGIC:
        return _blocks(reader)
    raise CaptureError(name, 0, f"begins with {magic.hex()}: neither pcap nor pcapng")


def link_of(packet: Captured) -> Link | None:
    """What is around the packet's headers; None if the link type is not known.

    Known are Ethernet (1), raw IP (12, 14, 101, 228, 229), BSD loopback (0, 108), and Linux's cooked captures (113, 276).
    """
    data = packet.data
    match packet.link_type:
        case 1:
            return Link("ethernet", 0, "ethernet")
        case 12 | 14 | 101:
            return Link("raw", 0, "ip")
        case 228:
            return Link("raw", 0, "ipv4")
        case 229:
            return Link("raw", 0, "ipv6")
        case 0 | 108:
            # The family, in the byte order of whoever captured (0) or of the network (108): one of its bytes is set.
            known = sum(data[:4]) in _FAMILIES if len(data) >= 4 else False
            return Link("loopback", 4, "ip" if known else None)
        case 113:
            return Link("sll", 16, _first_of(data[14:16]))
        case 276:
            return Link("sll2", 20, _first_of(data[0:2]))
        case _:
            return None


_FAMILIES: Final = {2, 10, 24, 28, 30}  # AF_INET everywhere; AF_INET6 of Linux, NetBSD, FreeBSD and macOS
_ETHER_TYPES: Final[dict[int, First]] = {0x0800: "ipv4", 0x0806: "arp", 0x8100: "vlan", 0x86DD: "ipv6", 0x88A8: "vlan"}


def _first_of(ether_type: bytes) -> First | None:
    return _ETHER_TYPES.get(int.from_bytes(ether_type, "big"))


class _Reader:
    """A stream with a place in it, which turns what is missing into CaptureError."""

    def __init__(self, stream: Stream, name: str) -> None:
        self._stream = stream
        self._name = name
        self.offset = 0

    def take(self, count: int, what: str, *, or_end: bool = False) -> bytes:
        """So many bytes, or none at the end of the stream if that may be here."""
        data = b""
        while len(data) < count and (more := self._stream.read(count - len(data))):
            data += more
        if len(data) < count and not (or_end and not data):
            raise self.damage(f"ends inside {what}: {len(data)} of {count} bytes are there")
        self.offset += len(data)
        return data

    def damage(self, why: str) -> CaptureError:
        return CaptureError(self._name, self.offset, why)


def _classic(reader: _Reader, order: str, units: int) -> Iterator[Captured]:
    version, _, _, _, _, network = struct.unpack(f"{order}HHiIII", reader.take(20, "the file's header"))
    if version != 2:
        raise reader.damage(f"pcap version {version}: want 2")
    record = struct.Struct(f"{order}IIII")
    while header := reader.take(16, "a packet's record", or_end=True):
        seconds, fraction, kept, length = record.unpack(header)
        if kept > MOST_BYTES:
            raise reader.damage(f"a packet of {kept} bytes: at most {MOST_BYTES} are believed")
        data = reader.take(kept, "a packet")
        # The upper bits tell about frame check sequences (draft-ietf-opsawg-pcap section 4).
        yield Captured(network & 0xFFFF, (seconds * units + fraction) * (10**9 // units), max(length, kept), data)


@dataclass(frozen=True, slots=True)
class _Interface:
    """How one interface's packets are to be read: times are `ticks_per_s` since `offset_s`."""

    link_type: int
    snapshot_bytes: int
    ticks_per_s: int
    offset_s: int

    def time_ns(self, ticks: int) -> int:
        return ticks * 10**9 // self.ticks_per_s + self.offset_s * 10**9


def _blocks(reader: _Reader) -> Iterator[Captured]:
    """The packets of a pcapng file, whose first block's type was read already."""
    order = "="
    interfaces: list[_Interface] = []
    kind = _SECTION_MAGIC
    while kind:
        if kind == _SECTION_MAGIC:
            size = reader.take(4, "a section's header")
            mark = reader.take(4, "a section's header")
            if mark not in _BYTE_ORDERS:
                raise reader.damage(f"byte-order magic {mark.hex()}: want 1a2b3c4d or 4d3c2b1a")
            order = _BYTE_ORDERS[mark]
            interfaces = []
            _body(reader, order, size, already=4)
        else:
            body = _body(reader, order, reader.take(4, "a block's header"))
            number: int = struct.unpack(f"{order}I", kind)[0]
            if number == _INTERFACE:
                interfaces.append(_interface(reader, order, body))
            elif number in (_PACKET, _OLD_PACKET, _SIMPLE_PACKET):
                yield _packet(reader, order, number, body, interfaces)
        kind = reader.take(4, "a block's header", or_end=True)


def _body(reader: _Reader, order: str, size: bytes, *, already: int = 0) -> bytes:
    """What is between a block's two lengths, which must agree; `already` bytes of it were read."""
    length: int = struct.unpack(f"{order}I", size)[0]
    if length % 4 or not 12 + already <= length <= MOST_BYTES:
        raise reader.damage(f"a block of {length} bytes: want a multiple of 4, from {12 + already} to {MOST_BYTES}")
    body = reader.take(length - 12 - already, "a block")
    again = reader.take(4, "a block")
    if again != size:
        raise reader.damage(f"a block's lengths differ: {length} before it, {struct.unpack(f'{order}I', again)[0]} behind it")
    return body


def _interface(reader: _Reader, order: str, body: bytes) -> _Interface:
    if len(body) < 8:
        raise reader.damage(f"an interface's block of {len(body)} bytes: want 8 at least")
    link_type, _, snapshot = struct.unpack_from(f"{order}HHI", body)
    ticks, offset = 10**6, 0
    at = 8
    while at + 4 <= len(body):
        code, length = struct.unpack_from(f"{order}HH", body, at)
        value = body[at + 4 : at + 4 + length]
        if code == _OPTION_END:
            break
        if code == _OPTION_RESOLUTION and length == 1:
            # The highest bit says that the other seven are a power of two.
            ticks = (2 if value[0] & 0x80 else 10) ** (value[0] & 0x7F)
        if code == _OPTION_OFFSET and length == 8:
            offset = struct.unpack(f"{order}q", value)[0]
        at += 4 + (length + 3) // 4 * 4
    return _Interface(link_type, snapshot, ticks, offset)


def _packet(reader: _Reader, order: str, kind: int, body: bytes, interfaces: list[_Interface]) -> Captured:
    form = struct.Struct(order + {_PACKET: "IIIII", _OLD_PACKET: "HHIIII", _SIMPLE_PACKET: "I"}[kind])
    if len(body) < form.size:
        raise reader.damage(f"a packet's block of {len(body)} bytes: want {form.size} at least")
    fields = form.unpack_from(body)
    at = 0 if kind == _SIMPLE_PACKET else fields[0]
    if at >= len(interfaces):
        raise reader.damage(f"a packet of interface {at}: {len(interfaces)} are described")
    interface = interfaces[at]
    if kind == _SIMPLE_PACKET:
        length = fields[0]
        kept = min(length, interface.snapshot_bytes or length, len(body) - form.size)
        return Captured(interface.link_type, None, length, body[form.size : form.size + kept])
    high, low, kept, length = fields[-4:]
    data = body[form.size : form.size + kept]
    if len(data) < kept:
        raise reader.damage(f"a packet of {kept} bytes in a block with {len(data)}")
    return Captured(interface.link_type, interface.time_ns(high << 32 | low), max(length, kept), data)

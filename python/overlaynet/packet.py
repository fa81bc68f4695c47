"""Packets as stacks of typed layers: `decode` reads any buffer, `encode` writes headers with lengths and checksums filled in.

Layers are frozen values. They carry no lengths and no checksums: those follow from what is inside and are made by `encode`; what
`decode` found out about them is in `Packet.checksums`. A field that says what comes next (`ether_type`, `protocol`,
`next_header`) may be left out where the next layer says it. Decoding a packet and encoding its layers around its payload gives
the same bytes, unless padding, reserved bits or wrong lengths and checksums were in them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, assert_never

from overlaynet import _core

if TYPE_CHECKING:
    from typing_extensions import Buffer

First: TypeAlias = Literal["ethernet", "ip", "ipv4", "ipv6", "udp", "tcp", "icmp", "icmpv6", "vxlan"]
"""The header with which a packet starts; `ip` is IPv4 or IPv6, as the version field says."""

Checksum: TypeAlias = Literal["absent", "right", "wrong", "unknown"]
"""What is known of a layer's checksum; unknown: the addresses that it covers are not there."""


@dataclass(frozen=True, slots=True)
class Ethernet:
    """An Ethernet II header. Addresses are six hexadecimal pairs joined by colons."""

    destination: str
    source: str
    ether_type: int | None = None


@dataclass(frozen=True, slots=True)
class Ipv4:
    """An IPv4 header (RFC 791). `fragment_offset` counts units of eight bytes; `options` are a multiple of four bytes."""

    source: IPv4Address
    destination: IPv4Address
    protocol: int | None = None
    ttl: int = 64
    tos: int = 0
    identification: int = 0
    dont_fragment: bool = False
    more_fragments: bool = False
    fragment_offset: int = 0
    options: bytes = b""


@dataclass(frozen=True, slots=True)
class Ipv6:
    """An IPv6 header (RFC 8200) and the bytes of its extension headers, of which `next_header` names the first."""

    source: IPv6Address
    destination: IPv6Address
    next_header: int | None = None
    hop_limit: int = 64
    traffic_class: int = 0
    flow_label: int = 0
    extensions: bytes = b""


@dataclass(frozen=True, slots=True)
class Udp:
    """A UDP header (RFC 768), with or without a checksum."""

    source_port: int
    destination_port: int
    checksum: bool = True


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP header (RFC 9293). `options` are a multiple of four bytes."""

    source_port: int
    destination_port: int
    sequence: int = 0
    acknowledgement: int = 0
    flags: int = 0
    window: int = 0
    urgent: int = 0
    options: bytes = b""


@dataclass(frozen=True, slots=True)
class Icmp:
    """An ICMP header (RFC 792): type, code, and four bytes whose meaning depends on them."""

    kind: int
    code: int = 0
    rest: bytes = bytes(4)


@dataclass(frozen=True, slots=True)
class Icmpv6:
    """An ICMPv6 header (RFC 4443): type, code, and four bytes whose meaning depends on them."""

    kind: int
    code: int = 0
    rest: bytes = bytes(4)


@dataclass(frozen=True, slots=True)
class Vxlan:
    """A VXLAN header (RFC 7348): a network identifier of 24 bits."""

    vni: int


Layer: TypeAlias = Ethernet | Ipv4 | Ipv6 | Udp | Tcp | Icmp | Icmpv6 | Vxlan
"""One header."""

LayerT = TypeVar("LayerT", Ethernet, Ipv4, Ipv6, Udp, Tcp, Icmp, Icmpv6, Vxlan)


@dataclass(frozen=True, slots=True)
class Packet:
    """What `decode` found: the layers from the outermost inwards, and the payload, which shares the buffer's memory.

    `offsets` and `checksums` have one item a layer; an offset is in bytes from the start of the buffer.
    """

    layers: tuple[Layer, ...]
    offsets: tuple[int, ...]
    checksums: tuple[Checksum, ...]
    payload: memoryview

    def outermost(self, kind: type[LayerT]) -> LayerT | None:
        """The outermost layer of this kind, or None."""
        return next((layer for layer in self.layers if isinstance(layer, kind)), None)

    def innermost(self, kind: type[LayerT]) -> LayerT | None:
        """The innermost layer of this kind, or None."""
        return next((layer for layer in reversed(self.layers) if isinstance(layer, kind)), None)


def decode(buffer: Buffer, first: First = "ethernet", *, tunnels: bool = True) -> Packet:
    """The packet in `buffer`, down to the innermost payload; DecodeError if a header is not what the one before announces.

    With `tunnels`, what follows UDP destination ports 4789 and 8472 is VXLAN, and what follows 8285 an IP packet. Fragments and
    the packets that ICMP errors quote are payload. A wrong checksum is no error.
    """
    headers, start, end = _core.decode(buffer, first, tunnels=tunnels)
    return Packet(
        layers=tuple([_layer(name, fields) for name, _, _, _, fields in headers]),
        offsets=tuple([offset for _, offset, _, _, _ in headers]),
        checksums=tuple([_CHECKSUMS[checksum] for _, _, _, checksum, _ in headers]),
        payload=_bytes_view(buffer)[start:end],
    )


def encode(*layers: Layer, payload: Buffer = b"") -> bytes:
    """The packet of `layers`, the outermost first, around `payload`.

    ValueError says which field has no room for its value, or that a layer needs another one around it or after it.
    """
    return _core.encode(_headers(layers), payload)


def encode_many(*layers: Layer, payloads: Iterable[Buffer]) -> list[bytes]:
    """One packet for each of `payloads`, all with the same layers; lengths and checksums are each packet's own."""
    return _core.encode_many(_headers(layers), payloads)


def decode_many(
    frames: Iterable[Buffer] | Buffer, first: First = "ethernet", *, stride: int | None = None, tunnels: bool = True
) -> Mapping[str, memoryview]:
    """Columns about many packets, one item a packet, in numbers of this machine's byte order.

    `frames` are buffers, or with `stride` one buffer of slots of that many bytes. Nothing raises DecodeError: `fault` is 0, or 1
    truncated, 2 wrong version, 3 wrong length, 4 required flag not set, and the other columns tell what came before it: `layers`,
    `wrong_checksums`, `vni` (-1: none), `payload_offset`, `payload_length`, and of the innermost IP header `version`, `protocol`,
    `source_port`, `destination_port`, `source` and `destination`. Addresses take 16 bytes each, an IPv4 address the first four:
    item i is `source[16 * i : 16 * i + 16]`.
    """
    if stride is None:
        columns = _core.decode_many(frames, first, tunnels=tunnels)  # type: ignore[arg-type]  # a buffer alone is refused there
    else:
        columns = _core.decode_array(frames, stride, first, tunnels=tunnels)  # type: ignore[arg-type]  # and here an iterable
    return {name: memoryview(values).cast(_CASTS[form]) for name, (form, values) in columns.items()}


_CHECKSUMS: Final[dict[str, Checksum]] = {"absent": "absent", "right": "right", "wrong": "wrong", "unknown": "unknown"}
_CASTS: Final[dict[str, Literal["B", "H", "I", "i"]]] = {"B": "B", "H": "H", "I": "I", "i": "i", "16s": "B"}


def _bytes_view(buffer: Buffer) -> memoryview:
    view = memoryview(buffer)
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())


def _layer(name: str, fields: tuple[Any, ...]) -> Layer:
    match name:
        case "ethernet":
            return Ethernet(fields[0].hex(":"), fields[1].hex(":"), fields[2])
        case "ipv4":
            return Ipv4(IPv4Address(fields[0]), IPv4Address(fields[1]), *fields[2:])
        case "ipv6":
            return Ipv6(IPv6Address(fields[0]), IPv6Address(fields[1]), *fields[2:])
        case "udp":
            return Udp(*fields)
        case "tcp":
            return Tcp(*fields)
        case "icmp":
            return Icmp(*fields)
        case "icmpv6":
            return Icmpv6(*fields)
        case _:
            return Vxlan(*fields)


def _headers(layers: tuple[Layer, ...]) -> list[tuple[str, tuple[object, ...]]]:
    following: tuple[Layer | None, ...] = (*layers[1:], None)
    return [_header(layer, after) for layer, after in zip(layers, following, strict=True)]


def _header(layer: Layer, after: Layer | None) -> tuple[str, tuple[object, ...]]:
    match layer:
        case Ethernet():
            ether_type = _announced("Ethernet.ether_type", layer.ether_type, after, _ETHER_TYPES)
            return "ethernet", (_mac(layer.destination), _mac(layer.source), ether_type)
        case Ipv4():
            protocol = _announced("Ipv4.protocol", layer.protocol, after, _PROTOCOLS)
            return "ipv4", (layer.source.packed, layer.destination.packed, protocol, *_values(layer)[3:])
        case Ipv6():
            if layer.extensions and layer.next_header is None:
                raise ValueError("Ipv6.next_header: must name the first of the extension headers")
            protocol = _announced("Ipv6.next_header", layer.next_header, after, _PROTOCOLS)
            return "ipv6", (layer.source.packed, layer.destination.packed, protocol, *_values(layer)[3:])
        case Udp():
            return "udp", _values(layer)
        case Tcp():
            return "tcp", _values(layer)
        case Icmp():
            return "icmp", _values(layer)
        case Icmpv6():
            return "icmpv6", _values(layer)
        case Vxlan():
            return "vxlan", _values(layer)
        case _:
            assert_never(layer)


_ETHER_TYPES: Final[dict[type[Layer], int]] = {Ipv4: 0x0800, Ipv6: 0x86DD}
_PROTOCOLS: Final[dict[type[Layer], int]] = {Icmp: 1, Tcp: 6, Udp: 17, Icmpv6: 58, Ipv4: 4, Ipv6: 41}


def _announced(field: str, value: int | None, after: Layer | None, numbers: Mapping[type[Layer], int]) -> int:
    if value is not None:
        return value
    number = None if after is None else numbers.get(type(after))
    if number is None:
        raise ValueError(f"{field}: must be given, since the next layer does not say it")
    return number


def _values(layer: Layer) -> tuple[object, ...]:
    return tuple([getattr(layer, field.name) for field in dataclasses.fields(layer)])


def _mac(text: str) -> bytes:
    octets = bytes.fromhex(text.replace(":", ""))
    if len(octets) != 6 or len(text) != 17:
        raise ValueError(f"{text!r}: a MAC address is six hexadecimal pairs joined by colons")
    return octets

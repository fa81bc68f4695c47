"""`overlaynet decode`: the layers of packets in a capture or in hexadecimal, tunnels included."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import BinaryIO, Final, get_args

import click

from overlaynet.errors import ConfigError
from overlaynet.packet import First, Layer, Packet, decode, pretty
from overlaynet.packet.pcap import Captured, Link, Stream, link_of, read_capture

_HEX: Final = re.compile(r"(?:0x)?[0-9a-f]{2}(?:[\s:]*[0-9a-f]{2})*", re.IGNORECASE)
_TRANSPORTS: Final = frozenset({"udp", "tcp", "icmp", "icmpv6"})
_VERDICT: Final = re.compile(r" checksum (right|wrong)$")


@click.command(name="decode")
@click.argument("source", metavar="FILE.pcap|HEX|-")
@click.option(
    "--first",
    type=click.Choice(get_args(First)),
    default="ethernet",
    show_default=True,
    help="The header with which a packet in hexadecimal starts.",
)
@click.option("--tunnels/--no-tunnels", default=True, show_default=True, help="Go on into VXLAN and IP in UDP.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, one object a line for each packet.")
def command(source: str, first: First, tunnels: bool, as_json: bool) -> None:
    """Show each packet's layers with their offsets, and whether their checksums are right.

    FILE.pcap is a capture, pcap or pcapng; HEX one packet's bytes; - either of them on standard input. A damaged capture gives
    the packets before the damage, one line on standard error, and exit code 11.
    """
    start_ns: int | None = None
    with _packets(source) as packets:
        for number, captured in enumerate(packets, 1):
            link = Link("hex", 0, first) if captured.link_type == _NO_LINK else link_of(captured)
            if start_ns is None:
                start_ns = captured.time_ns
            if as_json:
                click.echo(json.dumps(_object(number, captured, link, tunnels=tunnels)))
            else:
                click.echo(_text(number, captured, link, start_ns, tunnels=tunnels))


_NO_LINK: Final = -1


@contextlib.contextmanager
def _packets(source: str) -> Iterator[Iterator[Captured]]:
    """The packets of what the user named; a file of that name comes before hexadecimal digits."""
    if source == "-":
        yield _packets_of(sys.stdin.buffer, "standard input")
        return
    path = Path(source)
    if not os.path.lexists(source) and _HEX.fullmatch(source.strip()):
        yield iter([_hex_packet(source)])
        return
    try:
        stream = path.open("rb")
    except OSError as error:
        why = f"{error.strerror}: want a capture, hexadecimal digits in pairs, or - for standard input"
        raise ConfigError("FILE.pcap|HEX|-", source, why) from error
    with stream:
        yield _packets_of(stream, source)


def _packets_of(stream: BinaryIO, name: str) -> Iterator[Captured]:
    """The packets of a capture, or the one that a text gives in hexadecimal."""
    head = b""
    while len(head) < 4 and (more := stream.read(4 - len(head))):
        head += more
    # A pcapng file begins with four line ends.
    if re.fullmatch(rb"[0-9a-fA-FxX\s:]+", head) and head != b"\n\r\r\n":
        try:
            text = (head + stream.read()).decode("ascii").strip()
        except UnicodeDecodeError:
            text = ""
        if _HEX.fullmatch(text):
            return iter([_hex_packet(text)])
        raise ConfigError("FILE.pcap|HEX|-", name, "neither a capture nor hexadecimal digits in pairs")
    return read_capture(_Behind(head, stream), name)


class _Behind:
    """A stream, and before it some bytes that were read from it already."""

    def __init__(self, head: bytes, stream: Stream) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        if self._head:
            head, self._head = self._head[:size], self._head[size:]
            return head
        return self._stream.read(size)


def _hex_packet(text: str) -> Captured:
    data = bytes.fromhex(re.sub(r"[\s:]", "", text.strip().lower().removeprefix("0x")))
    return Captured(_NO_LINK, None, len(data), data)


def _decoded(captured: Captured, link: Link | None, *, tunnels: bool) -> Packet | None:
    """The packet behind the link's header; None: not readable."""
    if link is None or link.first is None or len(captured.data) < link.header_bytes:
        return None
    return decode(_whole(captured, link), link.first, tunnels=tunnels, strict=False)


def _text(number: int, captured: Captured, link: Link | None, start_ns: int | None, *, tunnels: bool) -> str:
    """One line for the packet, and one for each of its layers."""
    at = "" if captured.time_ns is None or start_ns is None else f" {(captured.time_ns - start_ns) / 1e9:.9f}"
    kept = "" if len(captured.data) == captured.length else f", {len(captured.data)} captured"
    lines = [f"#{number}{at} {captured.length} bytes{kept}"]
    packet = _decoded(captured, link, tunnels=tunnels)
    if link is None:
        return "\n".join([*lines, f"  0 ! link type {captured.link_type}: not known"])
    if link.header_bytes:
        lines.append(f"  0 {link.name}")
    if packet is None or link.first is None:
        return "\n".join([*lines, f"{link.header_bytes:>3} payload {max(len(captured.data) - link.header_bytes, 0)} bytes"])
    shown = pretty(_whole(captured, link), link.first, tunnels=tunnels).splitlines()
    if kept:
        shown = shown[: _kept_layers(packet, captured, link)]
    for line in shown:
        offset, _, rest = line.strip().partition(" ")
        place = int(offset) + link.header_bytes
        if kept and rest.split(" ", 1)[0] in _TRANSPORTS:
            rest = _VERDICT.sub(" checksum unknown", rest)
        if rest.startswith("! "):
            rest = rest.replace(f"at byte {offset}:", f"at byte {place}:")
        lines.append(f"{place:>3} {rest}")
    return "\n".join(lines)


def _whole(captured: Captured, link: Link) -> memoryview:
    """What is behind the link's header, filled up with zeros if only its start was kept."""
    whole = captured.data.ljust(min(captured.length, 1 << 16), b"\0")
    return memoryview(whole)[link.header_bytes :]


def _kept_layers(packet: Packet, captured: Captured, link: Link) -> int:
    """How many layers' headers were kept whole."""
    ends = [*packet.offsets[1:], packet.payload_offset]
    return sum(end + link.header_bytes <= len(captured.data) for end in ends[: len(packet)])


def _object(number: int, captured: Captured, link: Link | None, *, tunnels: bool) -> dict[str, object]:
    """The packet as JSON has it. Offsets are in bytes from the start of the frame; bytes are hexadecimal."""
    cut = len(captured.data) < captured.length
    found: dict[str, object] = {
        "number": number,
        "time_ns": captured.time_ns,
        "length": captured.length,
        "captured": len(captured.data),
        "link": None if link is None else link.name,
    }
    packet = _decoded(captured, link, tunnels=tunnels)
    if link is None or packet is None:
        return found | {"layers": [], "payload": None, "fault": None}
    layers = []
    rows = zip(packet.layers, packet.names, packet.offsets, packet.checksums, strict=True)
    for layer, name, offset, checksum in itertools.islice(rows, _kept_layers(packet, captured, link)):
        verdict = "unknown" if cut and name in _TRANSPORTS and checksum != "absent" else checksum
        layers.append({"layer": name, "offset": offset + link.header_bytes, "checksum": verdict, **_fields(layer)})
    fault = packet.fault
    start = packet.payload_offset + link.header_bytes
    return found | {
        "layers": layers,
        "payload": None if fault else {"offset": start, "length": len(packet.payload)},
        "fault": None
        if fault is None
        else {"text": str(fault), "layer": fault.layer, "offset": fault.offset + link.header_bytes},
    }


def _fields(layer: Layer) -> dict[str, object]:
    return {name: _plain(getattr(layer, name)) for name in layer.__match_args__ if name != "checksum"}


def _plain(value: object) -> object:
    match value:
        case bytes():
            return value.hex()
        case IPv4Address() | IPv6Address():
            return str(value)
        case _:
            return value

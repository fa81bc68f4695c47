"""How the public API is used, for the type checker: this file is checked with every other and never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, ItemsView, MutableMapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any, assert_type

from overlaynet import PrefixTable, Pump, Tun, Tunnel, decode, decode_many, encode, encode_many, open_store
from overlaynet.control.client import ask, follow
from overlaynet.errors import DecodeError, OverlaynetError
from overlaynet.model.snapshot import Changes, Snapshot
from overlaynet.packet import Arp, Checksum, Columns, Ethernet, Icmp, Ipv4, Ipv6, Layer, Packet, Tcp, Udp, Vlan, Vxlan, pretty
from overlaynet.packet.pcap import Captured, Link, link_of, read_capture
from overlaynet.store import AdministeredStore

FRAME = b""


def tables(table: PrefixTable[str], numbers: dict[str, int], buffer: bytearray) -> None:
    assert_type(table["10.1.2.3"], str)
    assert_type(table[b"1234"], str)
    assert_type(table.get(IPv4Address("10.1.2.3")), str | None)
    assert_type(table.get(5, 6), str | int)
    assert_type(table.lookup(IPv6Address("::1")), tuple[IPv4Network | IPv6Network, str] | None)
    assert_type([*table], list[IPv4Network | IPv6Network])
    assert_type(table.pop("10.0.0.0/8", None), str | None)
    assert_type(table | numbers, PrefixTable[str | int])
    assert_type(table.aggregate(), PrefixTable[str])
    assert_type(PrefixTable(numbers, strict=False), PrefixTable[int])
    assert_type(PrefixTable([(IPv4Network("10.0.0.0/8"), 1.5)]), PrefixTable[float])
    assert_type(table.lookup_many(buffer, missing=0, stride=16), memoryview)
    assert_type(table.entry(table.lookup_slots(buffer)[0]), tuple[IPv4Network | IPv6Network, str])
    table.load(["10.0.0.0/8", b"12345"], ["a", "b"])
    table.load(buffer, ["a"])
    mapping: MutableMapping[IPv4Network | IPv6Network, str] = table
    assert_type(mapping.items(), ItemsView[IPv4Network | IPv6Network, str])
    PrefixTable[int](family=5)  # type: ignore[arg-type]
    table[5] = "an address is no prefix"  # type: ignore[index]
    table["10.0.0.0/8"] = 5  # type: ignore[assignment]
    del table[IPv4Address(5)]  # type: ignore[arg-type]


def packets() -> None:
    packet = decode(FRAME, "ip", tunnels=False, strict=False)
    assert_type(packet, Packet)
    assert_type(packet.layers, tuple[Layer, ...])
    assert_type(packet.checksums, tuple[Checksum, ...])
    assert_type(packet.innermost(Ipv4), Ipv4 | None)
    assert_type(packet.outermost(Ethernet), Ethernet | None)
    assert_type(packet.payload, memoryview)
    assert_type(packet.vni, int | None)
    assert_type(packet.fault, DecodeError | None)
    assert_type(packet[0], Layer)
    assert_type(pretty(memoryview(FRAME)), str)
    decode(FRAME, "gre")  # type: ignore[arg-type]
    decode("text")  # type: ignore[arg-type]


def layers(layer: Layer) -> str:
    match layer:
        case Ethernet(destination=destination):
            return destination
        case Ipv4(source, destination, _, ttl):
            assert_type((source, destination, ttl), tuple[IPv4Address, IPv4Address, int])
            return str(source)
        case Ipv6(source=source):
            assert_type(source, IPv6Address)
            return str(source)
        case Arp() | Vlan() | Udp() | Tcp() | Vxlan():
            return layer.__match_args__[0]
        case _:
            return ""


def writing(payloads: list[bytes], buffer: bytearray) -> None:
    tunnel = Tunnel(Ipv4("192.0.2.1", IPv4Address("192.0.2.2")), Udp(1, 8472), Vxlan(7, group=1), Ethernet("", "", 0x0800))
    assert_type(tunnel.wrap(buffer), bytes)
    assert_type(tunnel.wrap_many(payloads), list[bytes])
    assert_type(tunnel.wrap_many(buffer, stride=64), bytes)
    assert_type(encode(Icmp(8), payload=buffer), bytes)
    assert_type(encode_many(Icmp(8), payloads=payloads), list[bytes])
    assert_type(encode_many(Icmp(8), payloads=buffer, stride=64), bytes)
    Vxlan("7")  # type: ignore[arg-type]
    Vxlan(7).vni = 8  # type: ignore[misc]


def columns(frames: list[bytes], buffer: bytearray, lengths: memoryview) -> None:
    assert_type(decode_many(frames), Columns)
    assert_type(decode_many(buffer, "ip", stride=64), Columns)
    assert_type(decode_many(buffer, "ip", lengths=lengths)["vni"], memoryview)


def devices(buffer: bytearray) -> None:
    with Tun("tun0") as tun:
        lengths = tun.read_many(buffer)
        assert_type(lengths, memoryview)
        tun.write_many(buffer, lengths)
        tun.write_many([b"packet"])
        assert_type(tun.fileno(), int)
    pump = Pump(tun="tun0", bind=[("192.0.2.1", 8285)], mtu=1472, offloads=["gso"])
    assert_type(pump.running, bool)
    assert_type(pump.failure, str | None)


async def stores() -> None:
    store = open_store("sqlite:////var/lib/overlaynet/store.db")
    assert_type(store, AdministeredStore)
    snapshot = await store.load()
    assert_type(snapshot, Snapshot)
    assert_type(store.watch(snapshot.revision), AsyncIterator[Changes])


async def daemons() -> None:
    assert_type(ask(Path("/run/overlaynet"), "status"), dict[str, Any])
    async for status in follow(Path("/run/overlaynet")):
        assert_type(status, dict[str, Any])


def captures(file: Path) -> None:
    with file.open("rb") as stream:
        for captured in read_capture(stream, file.name):
            assert_type(captured, Captured)
            assert_type(link_of(captured), Link | None)


def errors(error: OverlaynetError) -> int:
    return error.exit_code

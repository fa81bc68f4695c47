"""Codecs: what is encoded decodes to the same, and no bytes at all do harm."""

from __future__ import annotations

import pickle
from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st
from overlaynet.errors import DecodeError
from overlaynet.packet import (
    Arp,
    Ethernet,
    First,
    Icmp,
    Icmpv6,
    Ipv4,
    Ipv6,
    Layer,
    Tcp,
    Tunnel,
    Udp,
    Vlan,
    Vxlan,
    decode,
    decode_many,
    encode,
    encode_many,
    pretty,
)

FIRSTS: list[First] = ["ethernet", "vlan", "arp", "ip", "ipv4", "ipv6", "udp", "tcp", "icmp", "icmpv6", "vxlan"]


def uint(bits: int) -> st.SearchStrategy[int]:
    """A number of so many bits, often at its limits."""
    return st.sampled_from([0, 1, 2 ** (bits - 1), 2**bits - 1]) | st.integers(0, 2**bits - 1)


mac = st.binary(min_size=6, max_size=6).map(lambda octets: octets.hex(":"))
options = st.integers(0, 10).flatmap(lambda words: st.binary(min_size=4 * words, max_size=4 * words))
ipv4_addresses = uint(32).map(IPv4Address)
ipv6_addresses = uint(128).map(IPv6Address)
payloads = st.binary(max_size=200)
ports = uint(16).filter(lambda port: port not in (4789, 8472, 8285))

ethernet = st.builds(Ethernet, mac, mac)
ipv4 = st.builds(Ipv4, ipv4_addresses, ipv4_addresses, st.none(), uint(8), uint(8), uint(16), st.booleans(), options=options)
ipv6 = st.builds(Ipv6, ipv6_addresses, ipv6_addresses, st.none(), uint(8), uint(8), uint(20))
udp = st.builds(Udp, ports, ports, st.booleans())
tcp = st.builds(Tcp, uint(16), uint(16), uint(32), uint(32), uint(8), uint(16), uint(16), options)
rest = st.binary(min_size=4, max_size=4)
icmp = st.builds(Icmp, uint(8), uint(8), rest)
icmpv6 = st.builds(Icmpv6, uint(8), uint(8), rest)
vxlan = st.builds(Vxlan, uint(24)) | st.builds(Vxlan, uint(24), uint(16), st.booleans(), st.booleans())
vlan = st.builds(Vlan, uint(12), uint(3), st.booleans())
arp = st.builds(Arp, uint(16), mac, ipv4_addresses, mac, ipv4_addresses)
tunnel_udp = st.builds(Udp, uint(16), st.sampled_from([4789, 8472]), st.booleans())

ip_stacks = st.tuples(ipv4, udp | tcp | icmp) | st.tuples(ipv6, udp | tcp | icmpv6)
frames: st.SearchStrategy[tuple[Layer, ...]] = st.builds(
    lambda outer, tags, inner: (outer, *tags, *inner), ethernet, st.lists(vlan, max_size=3), ip_stacks
)
tunnels: st.SearchStrategy[tuple[Layer, ...]] = st.builds(
    lambda frame, ip, port, tag, inner: (frame, ip, port, tag, *inner), ethernet, ipv4 | ipv6, tunnel_udp, vxlan, frames
)
stacks = frames | tunnels


@given(stacks, payloads)
def test_what_is_encoded_decodes_to_the_same(layers: tuple[Layer, ...], payload: bytes) -> None:
    frame = encode(*layers, payload=payload)
    packet = decode(frame)
    assert [type(layer) for layer in packet.layers] == [type(layer) for layer in layers]
    assert packet.payload == payload
    assert not {"wrong", "unknown"} & set(packet.checksums)
    assert encode(*packet.layers, payload=packet.payload) == frame
    assert encode_many(*layers, payloads=[payload, payload]) == [frame, frame]
    for before, after in zip(layers, packet.layers, strict=True):
        for name in before.__match_args__:
            said = getattr(before, name)
            assert said is None or getattr(after, name) == said


@given(stacks, st.lists(payloads, max_size=4), payloads)
def test_a_tunnel_wraps_as_encode_does(layers: tuple[Layer, ...], several: list[bytes], payload: bytes) -> None:
    tunnel = Tunnel(*layers)
    frame = encode(*layers, payload=payload)
    assert tunnel.layers == layers
    assert tunnel.overhead == len(frame) - len(payload)
    assert tunnel.wrap(payload) == frame
    assert tunnel.wrap_many(several) == [encode(*layers, payload=one) for one in several]
    if payload:
        assert tunnel.wrap_many(payload * 3, stride=len(payload)) == frame * 3
    assert pickle.loads(pickle.dumps(tunnel)).wrap(payload) == frame  # our own bytes


@given(ethernet, st.lists(vlan, max_size=2), arp)
def test_arp_survives(outer: Ethernet, tags: list[Vlan], message: Arp) -> None:
    packet = decode(encode(outer, *tags, message) + bytes(18))
    assert packet.innermost(Arp) == message
    assert len(packet) == 2 + len(tags)
    assert not packet.payload


@given(stacks)
def test_layers_are_values(layers: tuple[Layer, ...]) -> None:
    for layer in layers:
        assert pickle.loads(pickle.dumps(layer)) == layer  # our own bytes
        assert hash(layer.__replace__()) == hash(layer)
        assert layer.__replace__() == layer
        assert layer != object()
        fields = ", ".join(f"{name}={getattr(layer, name)!r}" for name in layer.__match_args__)
        assert repr(layer) == f"{type(layer).__name__}({fields})"


@given(ipv4_addresses, uint(13), st.booleans(), payloads)
def test_fragments_survive(address: IPv4Address, offset: int, more: bool, payload: bytes) -> None:
    layer = Ipv4(address, address, 17, more_fragments=more, fragment_offset=offset)
    packet = decode(encode(layer, payload=bytes([0, 1, 0, 1, 0, 8, 0, 0]) + payload), "ip")
    assert packet.layers[0] == layer
    assert len(packet.layers) == (1 if more or offset else 2)


@given(stacks, payloads, st.data())
def test_a_batch_says_what_single_calls_say(layers: tuple[Layer, ...], payload: bytes, data: st.DataObject) -> None:
    frame = bytearray(encode(*layers, payload=payload))
    for at in data.draw(st.lists(st.integers(0, len(frame) - 1), max_size=2)):
        frame[at] = data.draw(uint(8))
    frame = frame[: data.draw(st.integers(0, len(frame)) | st.just(len(frame)))]
    columns = {name: column.tolist() for name, column in decode_many([frame]).items()}
    try:
        packet = decode(frame)
    except DecodeError:
        assert columns["fault"] != [0]
        return
    assert columns["fault"] == [0]
    assert columns["layers"] == [len(packet.layers)]
    assert columns["wrong_checksums"] == [packet.checksums.count("wrong")]
    assert columns["payload_length"] == [len(packet.payload)]
    tag = packet.innermost(Vxlan)
    assert columns["vni"] == [-1 if tag is None else tag.vni]
    ip = next((layer for layer in reversed(packet.layers) if isinstance(layer, Ipv4 | Ipv6)), None)
    assert columns["version"] == [0 if ip is None else ip.source.version]
    if ip is not None:
        assert bytes(columns["source"])[: len(ip.source.packed)] == ip.source.packed


@given(st.binary(max_size=300), st.sampled_from(FIRSTS), st.booleans())
def test_no_bytes_do_harm(frame: bytes, first: First, tunnels: bool) -> None:
    assert pretty(frame, first) is not None
    decode_many([frame], first, tunnels=tunnels)
    try:
        packet = decode(frame, first, tunnels=tunnels)
    except DecodeError as error:
        offset = error.offset
    else:
        offset = packet.offsets[-1] if packet.offsets else 0
        assert len(packet.payload) <= len(frame)
    assert 0 <= offset <= len(frame)

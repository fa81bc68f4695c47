"""Packets as stacks of typed layers: `decode` reads any buffer, `encode` writes headers with lengths and checksums filled in.

Layers are frozen values that are compared by their fields. They carry no lengths and no checksums: those follow from what is
inside and are made by `encode`; what `decode` found out about them is in `Packet.checksums`. A field that says what comes next
(`ether_type`, `protocol`, `next_header`) may be left out where the next layer says it. Decoding a packet and encoding its layers
around its payload gives the same bytes, unless padding, reserved bits or wrong lengths and checksums were in them.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from overlaynet._core import (
    Arp,
    Columns,
    Ethernet,
    Icmp,
    Icmpv6,
    Ipv4,
    Ipv6,
    Packet,
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

__all__ = [
    "Arp",
    "Checksum",
    "Columns",
    "Ethernet",
    "First",
    "Icmp",
    "Icmpv6",
    "Ipv4",
    "Ipv6",
    "Layer",
    "Packet",
    "Tcp",
    "Tunnel",
    "Udp",
    "Vlan",
    "Vxlan",
    "decode",
    "decode_many",
    "encode",
    "encode_many",
    "pretty",
]

First: TypeAlias = Literal["ethernet", "vlan", "arp", "ip", "ipv4", "ipv6", "udp", "tcp", "icmp", "icmpv6", "vxlan"]
"""The header with which a packet starts; `ip` is IPv4 or IPv6, as the version field says."""

Checksum: TypeAlias = Literal["absent", "right", "wrong", "unknown"]
"""What is known of a layer's checksum; unknown: the addresses that it covers are not there."""

Layer: TypeAlias = Ethernet | Vlan | Arp | Ipv4 | Ipv6 | Udp | Tcp | Icmp | Icmpv6 | Vxlan
"""One header."""

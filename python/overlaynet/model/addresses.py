"""Addresses, prefixes and the small numbers of links, as values.

IPv4 and IPv6 are values of one `Family`, never two code paths. Addresses and prefixes are those of the standard library's
`ipaddress`, interfaces' numbers and sizes are distinct types so that they cannot be mixed up.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NewType, Self, TypeAlias

__all__ = ["Address", "Family", "LinkIndex", "MacAddress", "Mtu", "Prefix", "Vni", "ipv4_number"]

Address: TypeAlias = IPv4Address | IPv6Address
"""An IP address of either family."""

Prefix: TypeAlias = IPv4Network | IPv6Network
"""An IP prefix of either family; host bits are zero."""

Vni = NewType("Vni", int)
"""A VXLAN network identifier, 24 bits (RFC 7348 section 5)."""

Mtu = NewType("Mtu", int)
"""The largest IP packet of a link, in bytes."""

LinkIndex = NewType("LinkIndex", int)
"""The kernel's number of a link (`ifindex`)."""


class Family(enum.Enum):
    """An IP version. The value is the version number in the header."""

    IPV4 = 4
    IPV6 = 6

    # Members are single; an enum's own hash is of its name, by a call of Python for each look-up.
    __hash__ = object.__hash__

    @property
    def bits(self) -> int:
        """The length of an address, in bits."""
        return 32 if self is Family.IPV4 else 128

    @property
    def header_bytes(self) -> int:
        """The length of the fixed IP header, in bytes (RFC 791 section 3.1, RFC 8200 section 3)."""
        return 20 if self is Family.IPV4 else 40

    @property
    def minimum_mtu(self) -> Mtu:
        """The smallest MTU on which the family works (RFC 791 section 3.1: 68; RFC 8200 section 5: 1280)."""
        return Mtu(68 if self is Family.IPV4 else 1280)

    @classmethod
    def of(cls, value: Address | Prefix) -> Family:
        """The family of an address or prefix."""
        return cls.IPV4 if value.version == 4 else cls.IPV6

    def host_prefix(self, address: Address) -> Prefix:
        """The prefix that holds this one address: /32 or /128."""
        return IPv4Network(int(address)) if self is Family.IPV4 else IPv6Network(int(address))


def ipv4_number(text: str) -> int | None:
    """The number of the IPv4 address whose canonical text this is; None for any other text, which `ipaddress` judges, slowly."""
    try:
        octets = bytes(map(int, text.split(".")))
    except ValueError:
        return None
    return int.from_bytes(octets, "big") if len(octets) == 4 and ".".join(map(str, octets)) == text else None


_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True, order=True)
class MacAddress:
    """A 48-bit Ethernet address, as six bytes in network order."""

    octets: bytes

    def __post_init__(self) -> None:
        if len(self.octets) != 6:
            raise ValueError(f"{self.octets!r}: a MAC address has 6 bytes")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The address in `text`, six hexadecimal pairs joined by colons; ValueError says what is wrong."""
        folded = text.lower()
        if not _MAC.fullmatch(folded):
            raise ValueError(f"{text!r}: a MAC address is six hexadecimal pairs joined by colons")
        return cls(bytes.fromhex(folded.replace(":", "")))

    @classmethod
    def from_random(cls, six_bytes: bytes) -> Self:
        """A locally administered unicast address (IEEE 802-2014 section 8.4) made of six random bytes."""
        first = (six_bytes[0] | 0x02) & 0xFE
        return cls(bytes([first]) + six_bytes[1:])

    @property
    def is_unicast(self) -> bool:
        """Whether this is one station's address: the group bit is clear and not all bits are zero."""
        return not self.octets[0] & 0x01 and any(self.octets)

    def __str__(self) -> str:
        return self.octets.hex(":")

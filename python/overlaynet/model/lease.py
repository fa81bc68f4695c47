"""Leases: which host holds which subnet, and the text under which stores keep them.

The stored text is flannel's to the byte: the key `10.5.52.0-24`, with both families `10.5.52.0-24&2001:db8:42:1::-64`, with IPv6
alone `0.0.0.0-0&2001:db8:42:1::-64`; the value is compact JSON in a fixed field order.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NewType, Self

from overlaynet.model.addresses import Address, Family, Prefix

__all__ = ["Grant", "HostId", "Lease", "LeaseAttributes", "Subnets"]

HostId = NewType("HostId", str)
"""The random identity of a host, 32 hexadecimal digits, made once and kept in its state directory."""


@dataclass(frozen=True, slots=True)
class Subnets:
    """The prefixes of one lease: IPv4, IPv6 or both; at least one.

    They are hashed by their text, which is made once: hashing those of `ipaddress` costs more than the look-up that needs it.
    """

    v4: IPv4Network | None = None
    v6: IPv6Network | None = None
    _text: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.v4 is None and self.v6 is None:
            raise ValueError("a lease has a subnet of at least one family")

    @classmethod
    def of_text(cls, v4: IPv4Network, text: str) -> Self:
        """The subnets that `v4` alone makes, whose text is known to be `text`."""
        made = cls(v4)
        object.__setattr__(made, "_text", text)
        return made

    @property
    def prefixes(self) -> tuple[Prefix, ...]:
        """The prefixes that are there, IPv4 first."""
        return tuple(prefix for prefix in (self.v4, self.v6) if prefix is not None)

    def of(self, family: Family) -> Prefix | None:
        """The prefix of `family`."""
        return self.v4 if family is Family.IPV4 else self.v6

    def overlaps(self, other: Subnets) -> bool:
        """Whether any address belongs to both."""
        return (self.v4 is not None and other.v4 is not None and _overlap(self.v4, other.v4)) or (
            self.v6 is not None and other.v6 is not None and _overlap(self.v6, other.v6)
        )

    def __str__(self) -> str:
        """The stored key's last part."""
        if not self._text:
            v4 = "0.0.0.0-0" if self.v4 is None else f"{self.v4.network_address}-{self.v4.prefixlen}"
            text = v4 if self.v6 is None else f"{v4}&{self.v6.network_address}-{self.v6.prefixlen}"
            object.__setattr__(self, "_text", text)
        return self._text

    def __hash__(self) -> int:
        return hash(self._text or str(self))


def _overlap(one: Prefix, other: Prefix) -> bool:
    """Whether two prefixes of a family share an address: the shorter holds the longer. `ipaddress` takes ten times as long."""
    apart = int(one.network_address) ^ int(other.network_address)
    return not apart >> one.max_prefixlen - min(one.prefixlen, other.prefixlen)


@dataclass(frozen=True, slots=True)
class LeaseAttributes:
    """What a host publishes with its lease.

    `backend_data` and `backend_v6_data` are JSON texts as stored (compact), or None where the backend has none. `backend_type` is
    empty where flannel omits it (udp, alloc).
    """

    public_ipv4: IPv4Address | None = None
    public_ipv6: IPv6Address | None = None
    backend_type: str = ""
    backend_data: bytes | None = None
    backend_v6_data: bytes | None = None

    def public(self, family: Family) -> Address | None:
        """The public address of `family`, under which peers reach the host's underlay."""
        return self.public_ipv4 if family is Family.IPV4 else self.public_ipv6

    def data(self, family: Family) -> bytes | None:
        """The backend's data about the overlay of `family`."""
        return self.backend_data if family is Family.IPV4 else self.backend_v6_data


@dataclass(frozen=True, slots=True)
class Lease:
    """One host's hold on its subnets, as a store shows it.

    `owner` is None for a host that does not say who it is (flannel's). A `reserved` lease never expires. A renewal changes
    nothing here: when a lease ends is known to its holder (`Grant`) and its store only. `created` orders leases by age: the
    smaller was there first.
    """

    subnets: Subnets
    attributes: LeaseAttributes
    owner: HostId | None = None
    features: tuple[str, ...] = ()
    reserved: bool = False
    created: int = 0

    def with_attributes(self, attributes: LeaseAttributes) -> Lease:
        """The same hold with other attributes."""
        return replace(self, attributes=attributes)


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease that this process holds: what the store gave, for how long, and the store's own handle for renewing it.

    `ttl_s` seconds count from the moment at which the request that brought this grant was sent.
    """

    lease: Lease
    ttl_s: float
    handle: int

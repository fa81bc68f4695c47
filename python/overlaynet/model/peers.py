"""Which leases are peers: what others wrote is input, and is refused with a reason where it cannot be right.

A lease is refused when, in a family that the network enables, its subnet lies outside the network or is not longer than it,
overlaps ours or that of an older lease, or its public address is missing, unspecified, loopback, multicast, our own or inside the
network; and when it repeats another lease's VTEP MAC address, or ours. An IPv6-only network takes no notice of a key's IPv4 half.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from operator import attrgetter

from overlaynet.errors import StoreDataError
from overlaynet.model.addresses import Address, Family
from overlaynet.model.lease import Lease, Subnets
from overlaynet.model.lease_text import decode_vxlan_data
from overlaynet.model.network import FamilyConfig, NetworkConfig, VxlanOptions


@dataclass(frozen=True, slots=True)
class Refusal:
    """A lease that is no peer, and why."""

    lease: Lease
    why: str


@dataclass(frozen=True, slots=True)
class AcceptedPeers:
    """The peers, oldest first, and the leases that were refused."""

    peers: tuple[Lease, ...]
    refused: tuple[Refusal, ...]


def accept_peers(
    config: NetworkConfig, own: Subnets | None, own_addresses: tuple[Address, ...], leases: tuple[Lease, ...]
) -> AcceptedPeers:
    """The leases that are peers of the host which holds `own` and has `own_addresses`. `own`'s lease itself is neither."""
    places = [_Place(half, own_addresses) for half in config.families]
    if own is not None:
        for place in places:
            place.take(own)
    macs: dict[tuple[Family, bytes], Lease] = {}
    own_text = "" if own is None else str(own)
    for lease in leases:
        if str(lease.subnets) == own_text:
            _repeated_mac(config, lease, macs)
    peers: list[Lease] = []
    refused: list[Refusal] = []
    for lease in _by_age(leases):
        if str(lease.subnets) == own_text:
            continue
        why = _fault(places, lease, own) or _repeated_mac(config, lease, macs)
        if why:
            refused.append(Refusal(lease, why))
            continue
        for place in places:
            place.take(lease.subnets)
        peers.append(lease)
    return AcceptedPeers(tuple(peers), tuple(refused))


def _by_age(leases: tuple[Lease, ...]) -> list[Lease]:
    """The oldest first; those of one age in the order of their texts, on every host."""
    if len({lease.created for lease in leases}) == len(leases):
        return sorted(leases, key=attrgetter("created"))
    return sorted(leases, key=lambda lease: (lease.created, str(lease.subnets)))


class _Place:
    """One family of the network as numbers, and which disjoint ranges of it are taken, each by the subnets that hold it.

    The operators of `ipaddress` would take longer than all the rest.
    """

    def __init__(self, half: FamilyConfig, own_addresses: tuple[Address, ...]) -> None:
        self.half = half
        self.bits = half.family.bits
        self.length = half.network.prefixlen
        self.first = int(half.network.network_address)
        self.last = self.first | (1 << self.bits - self.length) - 1
        self.ours = frozenset(int(address) for address in own_addresses if Family.of(address) is half.family)
        self._firsts: list[int] = []
        self._lasts: list[tuple[int, Subnets]] = []

    def take(self, subnets: Subnets) -> None:
        """Note that `subnets` is held, so far as it is of this family."""
        prefix = subnets.of(self.half.family)
        if prefix is None:
            return
        first = int(prefix.network_address)
        at = bisect_right(self._firsts, first)
        self._firsts.insert(at, first)
        self._lasts.insert(at, (first | (1 << self.bits - prefix.prefixlen) - 1, subnets))

    def holder(self, first: int, last: int) -> Subnets | None:
        """What holds an address between these two, or None."""
        at = bisect_right(self._firsts, last)
        return self._lasts[at - 1][1] if at and self._lasts[at - 1][0] >= first else None


def _fault(places: list[_Place], lease: Lease, own: Subnets | None) -> str:
    some = False
    for place in places:
        family = place.half.family
        prefix = lease.subnets.of(family)
        if prefix is None:
            continue
        some = True
        network, length, first = place.half.network, prefix.prefixlen, int(prefix.network_address)
        if length <= place.length or not place.first <= first <= place.last:
            return f"subnet {prefix} is not inside the network {network}"
        holder = place.holder(first, first | (1 << place.bits - length) - 1)
        if holder is not None:
            return f"subnet {prefix} overlaps {'our own' if holder is own else f'the older lease {holder}'}"
        address = lease.attributes.public(family)
        number = 0 if address is None else int(address)
        if not number:
            return f"no public IPv{family.value} address"
        kind = "this host's own" if number in place.ours else _kind(number, place.bits)
        if kind:
            return f"public address {address} is {kind}"
        if place.first <= number <= place.last:
            return f"public address {address} is inside the network {network}: packets to it would go into themselves"
    return "" if some else "no subnet of a family that the network enables"


def _kind(number: int, bits: int) -> str:
    """What a public address cannot be (RFC 6890 section 2.2, RFC 4291 section 2.4), or an empty text."""
    if bits == 128:
        return "loopback" if number == 1 else "multicast" if number >> 120 == 0xFF else ""
    if number >> 28 >= 0xE:
        return "multicast" if number >> 28 == 0xE else "reserved"
    return "loopback" if number >> 24 == 0x7F else ""


def _repeated_mac(config: NetworkConfig, lease: Lease, macs: dict[tuple[Family, bytes], Lease]) -> str:
    if not isinstance(config.backend, VxlanOptions) or lease.attributes.backend_type != config.backend.type:
        return ""
    found: list[tuple[Family, bytes]] = []
    for half in config.families:
        try:
            mac = decode_vxlan_data(lease.attributes.data(half.family)).mac
        except StoreDataError:
            continue
        other = macs.get((half.family, mac.octets))
        if other is not None:
            return f"VTEP MAC {mac} is also that of the lease {other.subnets}"
        found.append((half.family, mac.octets))
    macs.update(dict.fromkeys(found, lease))
    return ""

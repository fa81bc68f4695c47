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
from overlaynet.model.addresses import Address, Family, MacAddress, Prefix
from overlaynet.model.lease import Lease, Subnets
from overlaynet.model.lease_text import decode_vxlan_data
from overlaynet.model.network import NetworkConfig, VxlanOptions


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
    taken = {half.family: _Ranges() for half in config.families}
    if own is not None:
        for half in config.families:
            prefix = own.of(half.family)
            if prefix is not None:
                taken[half.family].add(prefix, own)
    macs: dict[tuple[Family, MacAddress], Lease] = {}
    for lease in leases:
        if lease.subnets == own:
            _repeated_mac(config, lease, macs)
    peers: list[Lease] = []
    refused: list[Refusal] = []
    ours = frozenset(own_addresses)
    for lease in _by_age(leases):
        if lease.subnets == own:
            continue
        why = _fault(config, lease, own, ours, taken) or _repeated_mac(config, lease, macs)
        if why:
            refused.append(Refusal(lease, why))
            continue
        for half in config.families:
            prefix = lease.subnets.of(half.family)
            if prefix is not None:
                taken[half.family].add(prefix, lease.subnets)
        peers.append(lease)
    return AcceptedPeers(tuple(peers), tuple(refused))


def _by_age(leases: tuple[Lease, ...]) -> list[Lease]:
    """The oldest first; those of one age in the order of their texts, on every host."""
    if len({lease.created for lease in leases}) == len(leases):
        return sorted(leases, key=attrgetter("created"))
    return sorted(leases, key=lambda lease: (lease.created, str(lease.subnets)))


class _Ranges:
    """Disjoint address ranges, each with the subnets that hold it."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[tuple[int, Subnets]] = []

    def add(self, prefix: Prefix, holder: Subnets) -> None:
        first, last = _ends(prefix)
        at = bisect_right(self._firsts, first)
        self._firsts.insert(at, first)
        self._lasts.insert(at, (last, holder))

    def holder(self, prefix: Prefix) -> Subnets | None:
        """What holds an address of `prefix`, or None."""
        first, last = _ends(prefix)
        at = bisect_right(self._firsts, last)
        return self._lasts[at - 1][1] if at and self._lasts[at - 1][0] >= first else None


def _ends(prefix: Prefix) -> tuple[int, int]:
    """The first and the last address of the prefix; `broadcast_address` makes an object, and keeps it."""
    first = int(prefix.network_address)
    return first, first | (1 << prefix.max_prefixlen - prefix.prefixlen) - 1


def _fault(
    config: NetworkConfig, lease: Lease, own: Subnets | None, ours: frozenset[Address], taken: dict[Family, _Ranges]
) -> str:
    some = False
    for half in config.families:
        prefix = lease.subnets.of(half.family)
        if prefix is None:
            continue
        some = True
        network = half.network
        if prefix.prefixlen <= network.prefixlen or prefix.network_address not in network:
            return f"subnet {prefix} is not inside the network {network}"
        holder = taken[half.family].holder(prefix)
        if holder is not None:
            return f"subnet {prefix} overlaps {'our own' if holder is own else f'the older lease {holder}'}"
        address = lease.attributes.public(half.family)
        if address is None or not int(address):
            return f"no public IPv{half.family.value} address"
        kind = "this host's own" if address in ours else _kind(address)
        if kind:
            return f"public address {address} is {kind}"
        if address in network:
            return f"public address {address} is inside the network {network}: packets to it would go into themselves"
    return "" if some else "no subnet of a family that the network enables"


def _kind(address: Address) -> str:
    """What a public address cannot be (RFC 6890 section 2.2, RFC 4291 section 2.4), or an empty text."""
    number, bits = int(address), address.max_prefixlen
    if bits == 128:
        return "loopback" if number == 1 else "multicast" if number >> 120 == 0xFF else ""
    if number >> 28 >= 0xE:
        return "multicast" if number >> 28 == 0xE else "reserved"
    return "loopback" if number >> 24 == 0x7F else ""


def _repeated_mac(config: NetworkConfig, lease: Lease, macs: dict[tuple[Family, MacAddress], Lease]) -> str:
    if not isinstance(config.backend, VxlanOptions) or lease.attributes.backend_type != config.backend.type:
        return ""
    found: list[tuple[Family, MacAddress]] = []
    for half in config.families:
        try:
            mac = decode_vxlan_data(lease.attributes.data(half.family)).mac
        except StoreDataError:
            continue
        other = macs.get((half.family, mac))
        if other is not None:
            return f"VTEP MAC {mac} is also that of the lease {other.subnets}"
        found.append((half.family, mac))
    macs.update(dict.fromkeys(found, lease))
    return ""

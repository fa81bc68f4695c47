"""Which leases are peers: what others wrote is input, and is refused with a reason where it cannot be right.

A lease is refused when, in a family that the network enables, its subnet lies outside the network or is not longer than it,
overlaps ours or that of an older lease, or its public address is missing, unspecified, loopback, multicast, our own or inside the
network; and when it repeats another lease's VTEP MAC address, or ours. An IPv6-only network takes no notice of a key's IPv4 half.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass

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
                taken[half.family].add(prefix, "ours")
    macs: dict[tuple[Family, MacAddress], Lease] = {}
    for lease in leases:
        if lease.subnets == own:
            _repeated_mac(config, lease, macs)
    peers: list[Lease] = []
    refused: list[Refusal] = []
    for lease in sorted(leases, key=lambda lease: (lease.created, str(lease.subnets))):
        if lease.subnets == own:
            continue
        why = _fault(config, lease, own_addresses, taken) or _repeated_mac(config, lease, macs)
        if why:
            refused.append(Refusal(lease, why))
            continue
        for half in config.families:
            prefix = lease.subnets.of(half.family)
            if prefix is not None:
                taken[half.family].add(prefix, str(lease.subnets))
        peers.append(lease)
    return AcceptedPeers(tuple(peers), tuple(refused))


class _Ranges:
    """Disjoint address ranges, each with the name of what holds it."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int, str]] = []

    def add(self, prefix: Prefix, name: str) -> None:
        insort(self._ranges, (int(prefix.network_address), int(prefix.broadcast_address), name))

    def holder(self, prefix: Prefix) -> str | None:
        """What holds an address of `prefix`, or None."""
        first, last = int(prefix.network_address), int(prefix.broadcast_address)
        at = bisect_right(self._ranges, (last, 2**128, ""))
        return self._ranges[at - 1][2] if at and self._ranges[at - 1][1] >= first else None


def _fault(config: NetworkConfig, lease: Lease, own_addresses: tuple[Address, ...], taken: dict[Family, _Ranges]) -> str:
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
            return f"subnet {prefix} overlaps {'our own' if holder == 'ours' else 'the older lease ' + holder}"
        address = lease.attributes.public(half.family)
        if address is None or address.is_unspecified:
            return f"no public IPv{half.family.value} address"
        if address.is_loopback or address.is_multicast or address in own_addresses:
            kind = "loopback" if address.is_loopback else "multicast" if address.is_multicast else "this host's own"
            return f"public address {address} is {kind}"
        if half.family is Family.IPV4 and int(address) >> 28 == 0xF:
            return f"public address {address} is reserved"
        if address in network:
            return f"public address {address} is inside the network {network}: packets to it would go into themselves"
    return "" if some else "no subnet of a family that the network enables"


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

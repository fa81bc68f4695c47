"""Choosing a subnet: pure, from what a store was seen to hold. The store only says yes or no to the choice.

A host comes back to what it had: its own lease, one that an anonymous host left at its public address, the subnet of its last
run. Else it takes a free subnet, picked by a hash of its identity and the attempt, so that hosts which start together seldom
pick the same. Free subnets are counted as gaps between leases, never listed: an IPv6 network has too many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from overlaynet.errors import AddressInUseError, SubnetsExhaustedError
from overlaynet.model.addresses import Family, Prefix
from overlaynet.model.host import HostSettings
from overlaynet.model.lease import HostId, Lease, Subnets
from overlaynet.model.network import FamilyConfig, NetworkConfig


@dataclass(frozen=True, slots=True)
class Choice:
    """The subnets to claim. `takes_over` is the lease on them that is this host's to take; `why` says how they were found.

    `outgrown` is this host's own lease that the configuration no longer allows: it ends by itself.
    """

    subnets: Subnets
    why: str
    takes_over: Lease | None = None
    outgrown: Lease | None = None


def choose(config: NetworkConfig, settings: HostSettings, leases: tuple[Lease, ...], attempt: int = 0) -> Choice:
    """What this host should claim. AddressInUseError: another host's lease carries its public address.

    SubnetsExhaustedError: nothing is free. `attempt` counts claims that were refused, and leads to other picks.
    """
    own = next((lease for lease in leases if lease.owner == settings.host), None)
    if own is not None and fits(config, own.subnets):
        return Choice(own.subnets, "this host's own lease", takes_over=own)
    namesake = _at_our_address(config, settings, leases)
    if namesake is not None and fits(config, namesake.subnets):
        return Choice(namesake.subnets, "the lease at this host's public address", takes_over=namesake)
    others = tuple(lease for lease in leases if lease is not own)
    previous = settings.previous
    if previous is not None and attempt == 0:
        wanted = _enabled(config, previous)
        if wanted is not None and fits(config, wanted) and not any(wanted.overlaps(lease.subnets) for lease in leases):
            return Choice(wanted, "the subnet of the last run", outgrown=own)
    picked = {half.family: _pick(half, settings.host, attempt, others, own) for half in config.families}
    v4, v6 = picked.get(Family.IPV4), picked.get(Family.IPV6)
    return Choice(
        Subnets(v4 if isinstance(v4, IPv4Network) else None, v6 if isinstance(v6, IPv6Network) else None),
        "a free subnet",
        outgrown=own,
    )


def fits(config: NetworkConfig, subnets: Subnets) -> bool:
    """Whether `subnets` has exactly the enabled families, each with a subnet that the configuration leases."""
    for family in Family:
        half, prefix = config.of(family), subnets.of(family)
        if (half is None) != (prefix is None):
            return False
        if half is not None and prefix is not None and not half.allows(prefix):
            return False
    return True


def _enabled(config: NetworkConfig, subnets: Subnets) -> Subnets | None:
    """The part of `subnets` in enabled families."""
    v4 = subnets.v4 if config.v4 is not None else None
    v6 = subnets.v6 if config.v6 is not None else None
    return None if v4 is None and v6 is None else Subnets(v4, v6)


def _at_our_address(config: NetworkConfig, settings: HostSettings, leases: tuple[Lease, ...]) -> Lease | None:
    """The anonymous lease with our public address. AddressInUseError: one with that address has another owner."""
    publics = {Family.IPV4: settings.public_ipv4, Family.IPV6: settings.public_ipv6}
    ours = [(half.family, address) for half in config.families if (address := publics[half.family]) is not None]
    found = None
    for lease in leases:
        if lease.owner == settings.host:
            continue
        for family, address in ours:
            if lease.attributes.public(family) == address:
                if lease.owner is not None:
                    raise AddressInUseError(str(address), str(lease.subnets), lease.owner)
                found = found or lease
    return found


def _pick(half: FamilyConfig, host: HostId, attempt: int, others: Iterable[Lease], own: Lease | None) -> Prefix:
    """A free subnet of the family, the same for the same host, attempt and leases."""
    bits = half.family.bits
    step_bits = bits - half.subnet_len
    first, last = int(half.subnet_min) >> step_bits, int(half.subnet_max) >> step_bits
    leases = [*others] if own is None else [*others, own]
    prefixes = [prefix for lease in leases if (prefix := lease.subnets.of(half.family)) is not None]
    count = len(prefixes)
    # Of each place that a lease begins at, the place after the longest that begins there.
    taken: dict[int, int] = {last + 1: last + 2}
    for prefix in prefixes:
        low = int(prefix.network_address) >> step_bits
        # One that is no longer than ours takes many places, others one: there is no need to ask for their last addresses.
        spare_bits = half.subnet_len - prefix.prefixlen
        if spare_bits > 0:
            taken[low] = max(low + (1 << spare_bits), taken.get(low, 0))
        else:
            taken.setdefault(low, low + 1)
    gaps: list[tuple[int, int]] = []
    free = 0
    cursor = first
    for low in sorted(taken):
        end = low if low <= last else last + 1
        if end > cursor:
            gaps.append((cursor, end - cursor))
            free += end - cursor
        after = taken[low]
        if after > cursor:
            cursor = after
    if not free:
        raise SubnetsExhaustedError(str(half.network), count)
    digest = hashlib.sha256(f"{host}/{half.family.value}/{attempt}".encode()).digest()
    index = int.from_bytes(digest[:16]) % free
    for start, length in gaps:
        if index < length:
            address = (start + index) << step_bits
            break
        index -= length
    if half.family is Family.IPV4:
        return IPv4Network((address, half.subnet_len))
    return IPv6Network((address, half.subnet_len))

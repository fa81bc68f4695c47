"""Leases that are held, found by what a claim asks about: their subnets, their addresses, their owners, their ends.

No question looks at every lease: a store of many thousands answers a claim as fast as one of ten.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass

from overlaynet.model.addresses import Address, Family
from overlaynet.model.lease import HostId, Lease, LeaseAttributes, Subnets


@dataclass(frozen=True, slots=True)
class Held:
    """A lease, the handle under which it is renewed, its span, and when it ends; None: never."""

    lease: Lease
    handle: int
    ttl_s: float
    expires_at: float | None


class Holdings:
    """Leases of which no two overlap."""

    def __init__(self) -> None:
        self._held: dict[Subnets, Held] = {}
        self._ranges: dict[Family, list[tuple[int, int]]] = {family: [] for family in Family}
        self._by_start: dict[tuple[Family, int], Subnets] = {}
        self._by_address: dict[Address, dict[Subnets, None]] = {}
        self._by_owner: dict[HostId, dict[Subnets, None]] = {}
        self._ends: list[tuple[float, int, Subnets]] = []
        self._pushes = 0

    def __getitem__(self, subnets: Subnets) -> Held:
        return self._held[subnets]

    def __contains__(self, subnets: Subnets) -> bool:
        return subnets in self._held

    def get(self, subnets: Subnets) -> Held | None:
        """What is held on exactly these subnets."""
        return self._held.get(subnets)

    @property
    def leases(self) -> tuple[Lease, ...]:
        """Every lease."""
        return tuple([held.lease for held in self._held.values()])

    def put(self, held: Held) -> None:
        """Hold it, in place of what is held on the same subnets."""
        subnets = held.lease.subnets
        before = self._held.get(subnets)
        self._held[subnets] = held
        if before is None:
            for family in Family:
                prefix = subnets.of(family)
                if prefix is not None:
                    start = int(prefix.network_address)
                    insort(self._ranges[family], (start, int(prefix.broadcast_address)))
                    self._by_start[family, start] = subnets
        if before is None or before.lease is not held.lease:
            if before is not None:
                self._forget(before.lease)
            for address in _addresses(held.lease.attributes):
                self._by_address.setdefault(address, {})[subnets] = None
            if held.lease.owner is not None:
                self._by_owner.setdefault(held.lease.owner, {})[subnets] = None
        if held.expires_at is not None:
            self._pushes += 1
            heapq.heappush(self._ends, (held.expires_at, self._pushes, subnets))

    def remove(self, subnets: Subnets) -> None:
        """Hold it no more; it was held."""
        held = self._held.pop(subnets)
        self._forget(held.lease)
        for family in Family:
            prefix = subnets.of(family)
            if prefix is not None:
                start = int(prefix.network_address)
                del self._ranges[family][bisect_left(self._ranges[family], (start, 0))]
                del self._by_start[family, start]

    def overlapping(self, subnets: Subnets) -> list[Lease]:
        """The leases that share an address with `subnets`."""
        found: dict[Subnets, None] = {}
        for family in Family:
            prefix = subnets.of(family)
            if prefix is None:
                continue
            first, last = int(prefix.network_address), int(prefix.broadcast_address)
            ranges = self._ranges[family]
            at = bisect_right(ranges, (first, 1 << 129))
            # What begins before `first` may reach into it, what begins up to `last` does.
            at -= 1 if at and ranges[at - 1][1] >= first else 0
            while at < len(ranges) and ranges[at][0] <= last:
                found[self._by_start[family, ranges[at][0]]] = None
                at += 1
        return [self._held[one].lease for one in found]

    def at_addresses(self, attributes: LeaseAttributes) -> list[Lease]:
        """The leases with one of these public addresses."""
        return [self._held[one].lease for address in _addresses(attributes) for one in self._by_address.get(address, ())]

    def of_owner(self, host: HostId) -> list[Lease]:
        """The host's leases."""
        return [self._held[one].lease for one in self._by_owner.get(host, ())]

    @property
    def next_end(self) -> float | None:
        """When the next lease ends, if none is renewed."""
        while self._ends:
            end, _, subnets = self._ends[0]
            held = self._held.get(subnets)
            if held is not None and held.expires_at == end:
                return end
            heapq.heappop(self._ends)
        return None

    def ended(self, now: float) -> Iterator[Held]:
        """What has ended by `now`, the first to end first; each is to be removed before the next is asked for."""
        while (end := self.next_end) is not None and end <= now:
            yield self._held[heapq.heappop(self._ends)[2]]

    def _forget(self, lease: Lease) -> None:
        for address in _addresses(lease.attributes):
            there = self._by_address[address]
            del there[lease.subnets]
            if not there:
                del self._by_address[address]
        if lease.owner is not None:
            owned = self._by_owner[lease.owner]
            del owned[lease.subnets]
            if not owned:
                del self._by_owner[lease.owner]


def _addresses(attributes: LeaseAttributes) -> list[Address]:
    return [address for family in Family if (address := attributes.public(family)) is not None]

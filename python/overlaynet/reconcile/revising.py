"""The desired state after a few leases have changed, without a look at all the others.

Leases stand in each other's way in few ways: overlapping subnets, and link-layer addresses of one device. Each way is a *place*
that a lease takes. A lease whose places nobody else takes is alone: whether it is a peer, and what it needs, depends on nothing
but itself, and nobody else depends on it. So a change from a lease that was alone to one that is alone changes what that one
needs, and no more. Any other change (a refused peer among them, or a packet engine, whose configuration is one piece) is not
revised: the whole is computed anew, which is always right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from overlaynet.backend import DesiredState, PeerPlan, backend_for
from overlaynet.errors import StoreDataError
from overlaynet.model.addresses import Address, Family
from overlaynet.model.host import HostSettings
from overlaynet.model.kernel import KernelObject, Underlay
from overlaynet.model.lease import Lease, Subnets
from overlaynet.model.lease_text import decode_vxlan_data
from overlaynet.model.network import NetworkConfig
from overlaynet.model.peers import accept_peers

T = TypeVar("T", bound=Hashable)


@dataclass(slots=True)
class Crowd:
    """Which places all leases take, our own included."""

    _taken: Counter[Hashable] = field(default_factory=Counter)
    _lengths: Counter[tuple[int, int]] = field(default_factory=Counter)

    @classmethod
    def of(cls, leases: Iterable[Lease]) -> Crowd:
        """The crowd of these leases."""
        crowd = cls()
        for lease in leases:
            crowd.add(lease)
        return crowd

    def add(self, lease: Lease) -> None:
        """One more."""
        self._taken.update(_places(lease))
        self._lengths.update(_lengths(lease))

    def remove(self, lease: Lease) -> None:
        """One less; it was there."""
        _take_away(self._taken, _places(lease))
        _take_away(self._lengths, _lengths(lease))

    def is_even(self) -> bool:
        """Whether all subnets of a family are of one length, so that two overlap only if they are equal."""
        return len({version for version, _ in self._lengths}) == len(self._lengths)

    def is_alone(self, lease: Lease) -> bool:
        """Whether nobody else takes any of its places; it is there itself."""
        return all(self._taken[place] == 1 for place in _places(lease))


@dataclass(frozen=True, slots=True)
class Revision:
    """What has come of the changes: the objects that are wanted no more, and those that are wanted anew."""

    gone: tuple[KernelObject, ...]
    come: tuple[KernelObject, ...]


def revise(
    config: NetworkConfig,
    settings: HostSettings,
    own: Lease,
    own_addresses: tuple[Address, ...],
    underlay: Underlay,
    crowd: Crowd,
    peers: dict[Subnets, Lease],
    state: DesiredState,
    changes: Mapping[Subnets, tuple[Lease | None, Lease | None]],
) -> Revision | None:
    """Have `peers` and the plans of `state` follow `changes`, from what a lease was to what it is.

    None: the whole must be computed anew, and both are as they were. `crowd` follows too; after None it is of no more use.
    """
    backend = backend_for(config, settings)
    shown: tuple[Lease, ...] = ()
    if changes.get(own.subnets) == (None, own):
        # The store shows our own lease, by which we went already: if it stands in nobody's way, nothing comes of it.
        shown = (own,)
        crowd.add(own)
        changes = {subnets: pair for subnets, pair in changes.items() if subnets != own.subnets}
    if state.pump is not None or own.subnets in changes or not crowd.is_even():
        return None
    for before, after in changes.values():
        if before is not None:
            if str(before.subnets) not in state.plans or not crowd.is_alone(before):
                return None
            crowd.remove(before)
        if after is not None:
            crowd.add(after)
    if not crowd.is_even():
        return None
    # None of them stands in another's way, so each is accepted among the others as it would be alone.
    come_leases = tuple(after for _, after in changes.values() if after is not None)
    if (
        not all(map(crowd.is_alone, (*shown, *come_leases)))
        or accept_peers(config, own.subnets, own_addresses, come_leases).refused
    ):
        return None
    plans: list[PeerPlan] = []
    for lease in come_leases:
        plan = backend.peer(own, lease, underlay)
        if not isinstance(plan, PeerPlan):
            return None
        plans.append(plan)
    gone: list[KernelObject] = []
    for before, _ in changes.values():
        if before is not None:
            del peers[before.subnets]
            gone += state.plans.pop(str(before.subnets)).objects
    for lease, plan in zip(come_leases, plans, strict=True):
        peers[lease.subnets] = lease
        state.plans[str(lease.subnets)] = plan
    return Revision(tuple(gone), tuple(item for plan in plans for item in plan.objects))


def _take_away(counted: Counter[T], gone: Iterable[T]) -> None:
    for one in gone:
        counted[one] -= 1
        if not counted[one]:
            del counted[one]


def _places(lease: Lease) -> Iterator[Hashable]:
    for prefix in lease.subnets.prefixes:
        yield prefix.version, int(prefix.network_address)
    for family in Family:
        text = lease.attributes.data(family)
        if text is not None:
            try:
                yield family, decode_vxlan_data(text).mac.octets
            except StoreDataError:
                continue


def _lengths(lease: Lease) -> Iterator[tuple[int, int]]:
    return ((prefix.version, prefix.prefixlen) for prefix in lease.subnets.prefixes)

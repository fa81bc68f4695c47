"""What must hold in every run, checked beside the code that is to make it so and not by it."""

from __future__ import annotations

from bisect import bisect_left, insort

from overlaynet.backend import desired
from overlaynet.lab.simulation.hosts import Host
from overlaynet.model.addresses import Family
from overlaynet.model.kernel import KernelObject, Sysctl, describe
from overlaynet.model.lease import Lease, Subnets
from overlaynet.model.peers import accept_peers
from overlaynet.model.snapshot import Changes, LeaseGone, LeasePut


class Overlaps:
    """The leases at each revision of the store, and each time that one of them overlapped another."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._held: dict[Subnets, Lease] = {}
        self._starts: dict[Family, list[tuple[int, int]]] = {family: [] for family in Family}

    def note(self, changes: Changes) -> None:
        """Take a change over, and look whether any two leases overlap now."""
        for change in changes.changes:
            match change:
                case LeasePut(lease):
                    if lease.subnets not in self._held:
                        self._add(lease.subnets, changes.revision)
                    self._held[lease.subnets] = lease
                case LeaseGone(subnets):
                    if self._held.pop(subnets, None) is not None:
                        for family, span in _spans(subnets):
                            self._starts[family].remove(span)
                case _:
                    pass

    def _add(self, subnets: Subnets, revision: int) -> None:
        for family, (first, last) in _spans(subnets):
            spans = self._starts[family]
            at = bisect_left(spans, (first, 0))
            if (at < len(spans) and spans[at][0] <= last) or (at and spans[at - 1][1] >= first):
                self.found.append(f"revision {revision}: {subnets} overlaps another lease")
            insort(spans, (first, last))


def _spans(subnets: Subnets) -> list[tuple[Family, tuple[int, int]]]:
    found = []
    for family in Family:
        prefix = subnets.of(family)
        if prefix is not None:
            found.append((family, (int(prefix.network_address), int(prefix.broadcast_address))))
    return found


class Beliefs:
    """Which host takes which subnets for its own, and each time that two did."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._holders: dict[Subnets, Host] = {}

    def note(self, host: Host) -> bool:
        """Look at what the host believes after a turn; whether it has been granted subnets that it did not have."""
        grant, said = host.decisions.lease.grant, host.said_grant
        if grant is said:
            return False
        host.said_grant = grant
        if grant is None:
            return False
        subnets, now = grant.lease.subnets, host.timeline.now
        before = self._holders.get(subnets)
        if before is not None and before is not host and not before.ended:
            theirs = before.decisions.lease
            if theirs.grant is not None and theirs.grant.lease.subnets == subnets and not theirs.expired(now):
                self.found.append(f"{now:.3f} s: {subnets} is {before.settings.host}'s and {host.settings.host}'s")
        self._holders[subnets] = host
        return said is None or said.lease.subnets != subnets


def unlike(host: Host, leases: tuple[Lease, ...]) -> list[str]:
    """What the host's kernel holds and should not, or lacks, by the leases that there are; computed anew, from nothing."""
    reconciler = host.reconciler
    if reconciler is None:
        return []
    config, own, underlay = reconciler.store.config, reconciler.lease.own, reconciler.kernel.underlay
    if config is None or own is None or underlay is None:
        return ["it holds no lease"]
    accepted = accept_peers(config, own.subnets, underlay.addresses, leases)
    state = desired(config, host.settings, own, accepted.peers, underlay)
    wanted: set[KernelObject] = {item for item in state.objects if not isinstance(item, Sysctl)}
    there = host.kernel.fake.objects
    lines = [f"lacks {describe(item)}" for item in wanted - there] + [f"has {describe(item)}" for item in there - wanted]
    if not any(lease.owner == host.settings.host and lease.subnets == own.subnets for lease in leases):
        lines.append(f"its lease {own.subnets} is not in the store")
    return sorted(lines)

"""A store, hosts that come, go and are cut off, and how long each change takes to reach each kernel."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Coroutine, Iterable
from ipaddress import IPv4Address
from random import Random
from typing import Any, TypeVar

from overlaynet.kernel.fake import FakeKernel
from overlaynet.lab.simulation.checks import Beliefs, Overlaps, unlike
from overlaynet.lab.simulation.hosts import Host
from overlaynet.lab.simulation.lease_part import LeasePart
from overlaynet.lab.simulation.remote import Line, OwnLeaseStore, RemoteStore, SlowKernel
from overlaynet.lab.simulation.service import Service
from overlaynet.lab.simulation.timeline import Timeline
from overlaynet.model.host import HostSettings
from overlaynet.model.lease import HostId, Subnets
from overlaynet.model.snapshot import Changes, LeaseGone, LeasePut, Snapshot
from overlaynet.reconcile.reconciler import Reconciler

T = TypeVar("T")

BEGIN_S = 1_000.0
"""What the hosts' clocks show at the beginning: none of them was switched on just now."""
TTL_S = 60.0
"""That of the lab's leases."""
UNDERLAY = IPv4Address("198.18.0.0")
UNDERLAY_LEN = 15
"""Addresses for measurements (RFC 2544): as many hosts as these have addresses."""


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """What a call of the store in memory gives, which never waits."""
    try:
        call.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    call.close()
    raise AssertionError("a store in memory does not wait")


class World:
    """One run. `chance` is the only source of chance."""

    def __init__(self, config: bytes, chance: Random) -> None:
        self.timeline = Timeline(BEGIN_S)
        self.chance = chance
        self.service = Service(self.timeline, self._committed)
        self.hosts: list[Host] = []
        self.overlaps = Overlaps()
        self.beliefs = Beliefs()
        self.lags = array("d")
        """Seconds from a change in the store to a kernel that has it, one for each change and whole host that was connected."""
        self.returns = array("d")
        """Seconds from the end of a cut until the host holds a lease and its kernel has all."""
        self.starts = array("d")
        """Seconds from a whole host's start until it is ready."""
        self.granted_at = BEGIN_S
        """When a lease was last granted anew."""
        self.progress_at = BEGIN_S
        """When a kernel last got what the store had told."""
        self.goal: Goal | None = None
        self._marks: list[tuple[float, float]] = []
        self._stores: dict[Subnets, OwnLeaseStore] = {}
        at_once(self.service.memory.put_config(config))
        self.service.look()

    @property
    def present(self) -> Snapshot:
        """What the store holds now."""
        return at_once(self.service.memory.load())

    @property
    def alive(self) -> list[Host]:
        """The hosts that have not ended."""
        return [host for host in self.hosts if not host.ended]

    def settings(self, number: int) -> HostSettings:
        """The host of this number."""
        address = UNDERLAY + number + 1
        host = HostId(f"{self.chance.getrandbits(128):032x}")
        return HostSettings(host, "eth0", address, None, address, None, ttl_s=TTL_S, store="memory:", next_hops=True)

    def add(self, settings: HostSettings, *, whole: bool, prefix_len: int = UNDERLAY_LEN, lines: list[str] | None = None) -> Host:
        """A new host, not yet started: a whole one, or the part that the store sees."""
        kernel = FakeKernel()
        line = Line(self.chance)
        if whole:
            if settings.local_ipv4 is not None:
                kernel.add_underlay(settings.underlay, [(settings.local_ipv4, prefix_len)])
            store = RemoteStore(self.service, line)
            decisions: Reconciler | LeasePart = Reconciler(settings)
        else:
            store = OwnLeaseStore(self.service, line)
            decisions = LeasePart(settings, lambda: self.present)
        host = Host(self.timeline, settings, store, SlowKernel(kernel), decisions, self._turned, lines)
        self.hosts.append(host)
        return host

    def cut(self, host: Host, span_s: float) -> None:
        """Cut the host off from the store for a span."""
        host.store.line.set(cut=True)
        host.mark, host.back = None, None

        def join() -> None:
            host.store.line.set(cut=False)
            host.back = self.timeline.now, self.service.memory.revision

        self.timeline.at(self.timeline.now + span_s, join)

    def unlike(self) -> list[str]:
        """Every connected whole host whose kernel is not as the leases that are left ask, and in what."""
        leases = self.present.leases
        return [
            f"{host.settings.host}: {line}"
            for host in self.alive
            if not host.store.line.is_cut()
            for line in unlike(host, leases)
        ]

    def _committed(self, changes: Changes) -> None:
        self.overlaps.note(changes)
        for change in changes.changes:
            match change:
                case LeasePut(lease):
                    self._marks.append((changes.revision, self.timeline.now))
                    self._tell_holder(lease.subnets, changes)
                case LeaseGone(subnets):
                    self._marks.append((changes.revision, self.timeline.now))
                    self._tell_holder(subnets, changes)
                case _:
                    pass

    def _tell_holder(self, subnets: Subnets, changes: Changes) -> None:
        store = self._stores.get(subnets)
        if store is not None:
            store.tell(changes)

    def _turned(self, host: Host) -> None:
        if self.beliefs.note(host):
            self.granted_at = self.timeline.now
        grant = host.decisions.lease.grant
        if grant is not None and isinstance(host.store, OwnLeaseStore):
            self._stores[grant.lease.subnets] = host.store
        if host.is_up_to_date:
            self._note_progress(host)
        if self.goal is not None:
            self.goal.note(host)

    def _note_progress(self, host: Host) -> None:
        now, revision = self.timeline.now, host.decisions.store.revision
        if host.back is not None and (host.reconciler is None or revision >= host.back[1]):
            self.returns.append(now - host.back[0])
            host.back = None
        if host.reconciler is None or host.store.line.is_cut():
            return
        if not host.was_ready:
            host.was_ready, self.progress_at = True, now
            self.starts.append(now - host.began_at)
        if host.mark is None:
            host.mark = bisect_right(self._marks, (revision, math.inf))
        while host.mark < len(self._marks) and self._marks[host.mark][0] <= revision:
            self.lags.append(now - self._marks[host.mark][1])
            self.progress_at = now
            host.mark += 1


class Goal:
    """That each of `hosts` holds a lease and has brought to its kernel what the store held at `revision`; `left` have not."""

    def __init__(self, hosts: Iterable[Host], revision: int, now: float) -> None:
        self.began_at = now
        self.took_s: float | None = None
        self.left = dict.fromkeys(hosts)
        self._revision = revision
        for host in list(self.left):
            self.note(host)

    def note(self, host: Host) -> None:
        """The host has taken a turn; one that has ended is waited for no longer."""
        there = host.is_up_to_date and (host.reconciler is None or host.decisions.store.revision >= self._revision)
        if there or host.ended:
            self.left.pop(host, None)
            if not self.left and self.took_s is None:
                self.took_s = host.timeline.now - self.began_at

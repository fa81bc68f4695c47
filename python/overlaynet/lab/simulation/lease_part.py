"""The part of a host that the store sees: load, claim, renew, watch, and begin again; without peers and without a kernel.

It is made of the daemon's own parts. What thousands of hosts would each keep, every lease, they share: a claim goes by what the
store holds now if the watch is well, and by what was loaded last if not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from overlaynet.backend import attributes
from overlaynet.errors import LeaseLostError
from overlaynet.model.host import HostSettings
from overlaynet.model.lease import LeaseAttributes
from overlaynet.model.snapshot import Snapshot
from overlaynet.reconcile.actions import Action, Stop
from overlaynet.reconcile.backoff import Backoff
from overlaynet.reconcile.events import (
    Event,
    LeaseGranted,
    LeaseRefused,
    LeaseReleased,
    SnapshotLoaded,
    StopRequested,
    StoreChanged,
    StoreFailed,
)
from overlaynet.reconcile.following import StoreFollower
from overlaynet.reconcile.holding import LeaseHolder
from overlaynet.reconcile.journal import Journal


@dataclass(slots=True)
class SharedFollower(StoreFollower):
    """Follows its own lease, and knows how many there are."""

    everything: Snapshot | None = None

    @property
    def size(self) -> int:
        """How many hosts there are."""
        return 0 if self.everything is None else len(self.everything.leases)


class LeasePart:
    """One host's decisions about its lease, called as a `Reconciler` is. `present` gives what the store holds now."""

    def __init__(self, settings: HostSettings, present: Callable[[], Snapshot]) -> None:
        self.settings = settings
        self.journal = Journal()
        self.store = SharedFollower(self.journal, Backoff(f"{settings.host}/store"), settings.store, settings.host)
        self.lease = LeaseHolder(self.journal, settings, Backoff(f"{settings.host}/lease"))
        self._present = present
        self._attributes: LeaseAttributes | None = None
        self._stopping: StopRequested | None = None
        self._stopped = False

    @property
    def snapshot(self) -> Snapshot:
        """What a claim goes by."""
        everything = self.store.everything
        return self._present() if everything is None or self.store.lost_since is None else everything

    def handle(self, event: Event, now: float) -> None:
        """Take in what has happened at `now`, and decide."""
        match event:
            case SnapshotLoaded(snapshot):
                self.store.everything = snapshot
                own = tuple(lease for lease in snapshot.leases if lease.owner == self.settings.host)
                self.store.loaded_snapshot(replace(snapshot, leases=own), now)
                self._look_at_own(now)
            case StoreChanged(changes):
                self.store.changed(changes, now)
                self._look_at_own(now)
            case StoreFailed(error):
                self.store.failed(error, now)
            case LeaseGranted(grant, sent_at):
                self.lease.granted(grant, sent_at)
            case LeaseRefused(error):
                if isinstance(error, LeaseLostError) and self.lease.own is not None:
                    self.store.forget(self.lease.own.subnets, self.settings.host)
                self.lease.refused(error, now)
            case LeaseReleased(trouble):
                self.lease.released(trouble)
            case StopRequested():
                self._stopping = event
            case _:
                pass
        self._step(now)

    def take_actions(self) -> list[Action]:
        """What is to be done, in order, since the last call."""
        return self.journal.take()

    def next_deadline(self) -> float | None:
        """When to hand in `TimerFired`, at the latest."""
        if self._stopped or self._stopping is not None:
            return None
        moments = [self.store.deadline]
        if self._may_ask:
            moments.append(self.lease.deadline(self._attributes))
        return min((moment for moment in moments if moment is not None), default=None)

    @property
    def _may_ask(self) -> bool:
        return self.store.loaded and (self.lease.grant is not None or self.store.configured)

    def _look_at_own(self, now: float) -> None:
        if self.lease.own is not None:
            self.lease.look_at(self.store.lease_on(self.lease.own.subnets), now)

    def _step(self, now: float) -> None:
        if self._stopped:
            return
        if self._stopping is not None:
            if self._stopping.release:
                self.lease.release()
            if not self.lease.busy:
                self._stopped = True
                self.journal.act(Stop())
            return
        self.lease.look_at_clock(now)
        self.store.step(now)
        config = self.store.config
        if config is None or not self._may_ask:
            return
        if self._attributes is None:
            self._attributes = attributes(config, self.settings)
        self.lease.step(config, self._attributes, self, now)

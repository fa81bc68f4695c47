"""Holding a lease: claim, renew, update, and begin again when it is lost.

What this host believes rests on its own clock: a grant counts from the moment at which its request was *sent*, less a margin, so
the belief ends before the store can give the subnet away. When it has ended nothing is taken down: forwarding goes on, the lease
is called expired, and renewing goes on until the store says yes or no.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from overlaynet.backend import features
from overlaynet.errors import (
    AddressInUseError,
    ConflictError,
    HostIdInUseError,
    LeaseLostError,
    StaleSnapshotError,
    StoreError,
    SubnetsExhaustedError,
)
from overlaynet.model.host import HostSettings
from overlaynet.model.lease import Grant, Lease, LeaseAttributes, Subnets
from overlaynet.model.network import NetworkConfig
from overlaynet.model.snapshot import Snapshot
from overlaynet.reconcile.actions import ClaimSubnet, ReleaseLease, RenewLease, Stop, UpdateLease
from overlaynet.reconcile.allocate import choose
from overlaynet.reconcile.backoff import Backoff
from overlaynet.reconcile.journal import Journal

_CLOCK_MARGIN_S = 1.0
"""How long before its end a lease stops being believed in; less where the TTL is short."""

_Request = Literal["claim", "renew", "update", "release"]


class Seen(Protocol):
    """Who knows what the store holds. A snapshot takes a look at every lease, so it is made where it is needed."""

    @property
    def snapshot(self) -> Snapshot:
        """Everything that was seen."""


@dataclass(slots=True)
class LeaseHolder:
    """This host's hold on its lease. `own` is the lease held now or last; the kernel is kept by it until there is another.

    `moved` says, for the rest of the run, that the subnet has changed.
    """

    journal: Journal
    settings: HostSettings
    backoff: Backoff
    grant: Grant | None = None
    own: Lease | None = None
    error: StoreError | None = None
    moved: str = ""
    _sent_at: float = 0.0
    _request: _Request | None = None
    _attempt: int = 0
    _failures: int = 0
    _not_before: float = 0.0
    _check: bool = False
    _doubted_at: float | None = None
    _told_end: bool = False
    _given_up: bool = False

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return self._request is not None

    @property
    def ends_at(self) -> float | None:
        """When this host stops believing in its lease; None: it holds none, or one without end.

        At the latest when the grant's time is over, less a margin; at once when the store shows that the lease is gone.
        """
        if self.grant is None or math.isinf(self.grant.ttl_s):
            return self._doubted_at
        end = self._sent_at + self.grant.ttl_s - min(_CLOCK_MARGIN_S, self.grant.ttl_s / 10)
        return end if self._doubted_at is None else min(end, self._doubted_at)

    def expired(self, now: float) -> bool:
        """Whether a lease is held by name only."""
        ends_at = self.ends_at
        return ends_at is not None and now >= ends_at

    def unheld(self, now: float) -> str:
        """Why no lease is held at `now`; empty if one is."""
        if self.grant is None:
            return "its lease was lost, and no other is held yet"
        return "its lease has expired, or was taken" if self.expired(now) else ""

    @property
    def _renew_at(self) -> float | None:
        if self.grant is None or math.isinf(self.grant.ttl_s):
            return None
        ttl = self.grant.ttl_s
        margin = self.settings.renew_margin_s
        if margin is None:
            margin = min(3600.0, ttl * 2 / 3)
        return self._sent_at + max(0.0, min(ttl / 3, ttl - margin))

    def deadline(self, attributes: LeaseAttributes | None) -> float | None:
        """When `look_at_clock` or `step` has something to do; `attributes` are those that should be published."""
        moments = (self._ask_at(attributes), None if self._told_end else self.ends_at)
        return min((moment for moment in moments if moment is not None), default=None)

    def _ask_at(self, attributes: LeaseAttributes | None) -> float | None:
        """When the next request is due."""
        if self._request is not None or self._given_up or attributes is None:
            return None
        if self.grant is None or self._check or self.grant.lease.attributes != attributes:
            return self._not_before
        renew_at = self._renew_at
        return None if renew_at is None else max(renew_at, self._not_before)

    def look_at_clock(self, now: float) -> None:
        """Notice that the lease has ended. To be called before anything else is done at `now`: there may have been a pause."""
        if self._told_end or not self.expired(now):
            return
        self._told_end = True
        if self._doubted_at is None:
            text = "the lease has expired by this host's clock: forwarding goes on, renewing"
        else:
            text = "the store no longer shows this host's lease: forwarding goes on, asking for it"
        self.journal.trouble("lease-expired", "lease", text)

    def step(self, config: NetworkConfig, attributes: LeaseAttributes, store: Seen, now: float) -> None:
        """Send the request that is due, if any; a claim goes by the snapshot of `store`."""
        due = self._ask_at(attributes)
        if due is None or now < due:
            return
        if self.grant is None:
            self._claim(config, attributes, store.snapshot, now)
        elif self._check or now >= (self._renew_at or math.inf):
            self._request, self._check = "renew", False
            self.journal.act(RenewLease(self.grant))
        else:
            self._request = "update"
            self.journal.act(UpdateLease(self.grant, attributes))

    def _claim(self, config: NetworkConfig, attributes: LeaseAttributes, seen: Snapshot, now: float) -> None:
        settings = self.settings if self.own is None else replace(self.settings, previous=self.own.subnets)
        try:
            choice = choose(config, settings, seen.leases, self._attempt)
        except (AddressInUseError, SubnetsExhaustedError) as error:
            self._refused_claim(error, now)
            return
        self._request = "claim"
        said = features(config)
        claim = ClaimSubnet(choice.subnets, attributes, self.settings.ttl_s, seen, features=said, takes_over=choice.takes_over)
        self.journal.act(claim)

    def resume(self, own: Lease) -> None:
        """Go by the lease of an earlier run until the store says whether it is still held."""
        self.own = own

    def granted(self, grant: Grant, sent_at: float) -> None:
        """The request was answered with `grant`."""
        request, self._request = self._request, None
        self._failures, self._attempt, self._not_before, self.error = 0, 0, 0.0, None
        self._sent_at, self._doubted_at, self._told_end = sent_at, None, False
        before, self.grant, self.own = self.own, grant, grant.lease
        self.journal.over("lease", "lease", "the lease is in order again")
        self.journal.over("lease-lost", "lease", "a lease is held once more")
        self.journal.over("lease-expired", "lease", "the lease is held again")
        if request == "claim":
            self.journal.say("info", "lease-held", f"lease {grant.lease.subnets} held")
            if before is not None and before.subnets != grant.lease.subnets:
                self.moved = (
                    f"this host's subnet has changed from {before.subnets} to {grant.lease.subnets}: "
                    "containers with addresses of the old one must be made again"
                )
                self.journal.say("error", "subnet-changed", self.moved)

    def refused(self, error: StoreError, now: float) -> None:
        """The request was answered with `error`."""
        request, self._request = self._request, None
        if request == "claim":
            self._refused_claim(error, now)
            return
        if isinstance(error, HostIdInUseError):
            # To claim again would be to take the other's lease, under the same name, and it ours.
            self._give_up(error)
            return
        self._wait(now)
        if isinstance(error, LeaseLostError):
            self.journal.trouble("lease-lost", "lease", f"{error}; claiming again", level="error")
            self.grant, self._not_before, self._attempt, self._check = None, now, 0, False
            self._doubted_at, self._told_end = None, False
            return
        self.error = error
        self.journal.trouble("lease", "lease", f"lease not renewed: {error}; trying again")

    def _refused_claim(self, error: StoreError, now: float) -> None:
        self.error = error
        if isinstance(error, AddressInUseError | SubnetsExhaustedError) and self.own is None:
            self._give_up(error)
            return
        if isinstance(error, ConflictError) and not isinstance(error, StaleSnapshotError):
            # Only what is taken is left for another subnet.
            self._attempt += 1
        self._wait(now)
        self.journal.trouble("lease", "lease", f"no lease yet: {error}; trying again")

    def _give_up(self, error: StoreError) -> None:
        self._given_up = True
        self.journal.say("error", "lease", str(error))
        self.journal.act(Stop(error))

    def _wait(self, now: float) -> None:
        self._failures += 1
        self._not_before = now + self.backoff.delay_s(self._failures)

    def look_at(self, stored: Lease | None, now: float) -> None:
        """Compare with what the store shows at this host's subnets; a doubt ends belief until a renewal has settled it.

        A lease without an owner may be this host's, whose owner is told a moment later: it is asked for, and not doubted before.
        So is one that was made a reservation, or is one no longer.
        """
        if self.grant is None:
            return
        if stored is None or (stored.owner is not None and stored.owner != self.settings.host):
            self._check, self._doubted_at = True, now if self._doubted_at is None else self._doubted_at
        elif stored.owner is None or stored.reserved != self.grant.lease.reserved:
            self._check = True
        elif stored.attributes != self.grant.lease.attributes:
            # By an operator, or by another host that has this one's identity: which of them is asked before it is put right.
            self._check = True
            self.grant = replace(self.grant, lease=self.grant.lease.with_attributes(stored.attributes))

    def release(self) -> None:
        """Give the lease back, if one is held and no request is under way."""
        if self.grant is not None and self._request is None:
            self._request = "release"
            self.journal.act(ReleaseLease(self.grant))

    def released(self, error: StoreError | None) -> None:
        """The lease was given back, or could not be."""
        self._request, self.grant = None, None
        if error is not None:
            self.journal.say("warning", "lease", f"lease not given back: {error}: it ends with its time")

    def holds(self, subnets: Subnets) -> bool:
        """Whether these are the subnets that this host has, or had last."""
        return self.own is not None and self.own.subnets == subnets

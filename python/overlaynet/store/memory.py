"""A store in memory: the model that the other stores are held against, and the store of tests and simulations.

It keeps the last `keep` changes, expires leases by the clock that it is given, and serves any number of clients in one loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from overlaynet.errors import ConflictError, HistoryGoneError, LeaseLostError
from overlaynet.model.lease import Grant, HostId, Lease, LeaseAttributes, Subnets
from overlaynet.model.snapshot import Change, Changes, ConfigPut, LeaseGone, LeasePut, Snapshot, StoreTraits
from overlaynet.store.claims import barred, check_free, may_take
from overlaynet.store.holdings import Held, Holdings

_LONGEST_WAIT_S = 0.1


class MemoryStore:
    """A `Store` and `StoreAdmin` in this process. `clock` gives seconds that never go back."""

    def __init__(
        self, clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME), *, keep: int = 10_000
    ) -> None:
        self._clock = clock
        self._keep = keep
        self._revision = 1
        self._handles = 0
        self._config: bytes | None = None
        self._held = Holdings()
        self._snapshot: Snapshot | None = None
        self._bars: dict[Subnets, tuple[HostId, float]] = {}
        self._history: list[Changes] = []
        self._changed = asyncio.Event()
        self._closed = False

    @property
    def traits(self) -> StoreTraits:
        """Leases expire, subnets are chosen by the hosts."""
        return StoreTraits("memory:", expires=True, assigns_subnets=False, has_history=True)

    async def load(self) -> Snapshot:
        """Everything at the present revision."""
        self._expire()
        if self._snapshot is None:
            self._snapshot = Snapshot(self._revision, self._config, self._held.leases)
        return self._snapshot

    @property
    def revision(self) -> int:
        """The present revision; what has ended counts once somebody has looked."""
        return self._revision

    def changes_after(self, after: int) -> list[Changes]:
        """Every change after `after` up to now. HistoryGoneError: not all of them are kept."""
        self._expire()
        behind = self._revision - after
        if behind < 0 or behind > len(self._history):
            raise HistoryGoneError(after)
        return self._history[len(self._history) - behind :]

    @property
    def next_end(self) -> float | None:
        """When the next lease ends, if none is renewed."""
        return self._held.next_end

    async def watch(self, after: int) -> AsyncIterator[Changes]:
        """Every change after `after`. HistoryGoneError: not all of them are kept."""
        while not self._closed:
            behind = self.changes_after(after)
            for changes in behind:
                after = changes.revision
                yield changes
            if behind:
                continue
            changed = self._changed
            end = self._held.next_end
            # The loop's clock stands still during suspend and is not the one that ends leases: look again soon.
            wait = None if end is None else min(_LONGEST_WAIT_S, max(0.0, end - self._clock()))
            try:
                async with asyncio.timeout(wait):
                    await changed.wait()
            except TimeoutError:
                continue

    async def claim(
        self,
        host: HostId,
        subnets: Subnets,
        attributes: LeaseAttributes,
        *,
        ttl_s: float,
        seen: Snapshot,
        features: Sequence[str] = (),
        takes_over: Lease | None = None,
    ) -> Grant:
        """See `Store.claim`."""
        del seen
        self._expire()
        there = self._held.get(subnets)
        if there is not None and not may_take(there.lease, host, takes_over):
            raise ConflictError(f"subnet {subnets}", f"is leased by {there.lease.owner or 'a host without identity'}")
        if there is None and self._bars.get(subnets, ("", 0.0))[0] == host:
            raise barred(subnets)
        check_free(host, subnets, attributes, self._in_the_way(subnets, attributes))
        for other in self._held.of_owner(host):
            if other.subnets != subnets:
                self._remove(other)
        self._handles += 1
        lease = Lease(
            subnets,
            attributes,
            owner=host,
            features=tuple(features),
            reserved=there is not None and there.lease.reserved,
            created=self._revision + 1 if there is None else there.lease.created,
        )
        self._held.put(Held(lease, self._handles, ttl_s, None if lease.reserved else self._clock() + ttl_s))
        self._commit(LeasePut(lease))
        return Grant(lease, ttl_s, self._handles)

    async def renew(self, grant: Grant) -> Grant:
        """See `Store.renew`."""
        held = self._mine(grant)
        if held.expires_at is not None:
            self._held.put(replace(held, expires_at=self._clock() + held.ttl_s))
        return Grant(held.lease, held.ttl_s, held.handle)

    async def update(self, grant: Grant, attributes: LeaseAttributes) -> Grant:
        """See `Store.update`."""
        held = self._mine(grant)
        lease = held.lease.with_attributes(attributes)
        self._held.put(replace(held, lease=lease))
        self._commit(LeasePut(lease))
        left = held.ttl_s if held.expires_at is None else max(0.0, held.expires_at - self._clock())
        return Grant(lease, left, held.handle)

    async def release(self, grant: Grant) -> None:
        """See `Store.release`."""
        try:
            held = self._mine(grant)
        except LeaseLostError:
            return
        if held.lease.reserved:
            left = replace(held.lease, owner=None, features=())
            self._held.put(replace(held, lease=left, handle=0))
            self._commit(LeasePut(left))
        else:
            self._remove(held.lease)

    async def aclose(self) -> None:
        """End the watches; nothing else is held."""
        self._closed = True
        self._changed.set()

    async def put_config(self, text: bytes) -> None:
        """See `StoreAdmin.put_config`."""
        self._config = text
        self._commit(ConfigPut(text))

    async def reserve(self, subnets: Subnets, attributes: LeaseAttributes) -> Lease:
        """See `StoreAdmin.reserve`."""
        self._expire()
        check_free(None, subnets, attributes, self._in_the_way(subnets, attributes))
        self._bars.pop(subnets, None)
        lease = Lease(subnets, attributes, reserved=True, created=self._revision + 1)
        self._handles += 1
        self._held.put(Held(lease, self._handles, 0.0, None))
        self._commit(LeasePut(lease))
        return lease

    async def revoke(self, subnets: Subnets, *, bar: bool = True) -> Lease:
        """See `StoreAdmin.revoke`."""
        self._expire()
        held = self._held.get(subnets)
        if held is None:
            raise ConflictError(f"subnet {subnets}", "is not leased")
        self._remove(held.lease)
        if bar and held.lease.owner is not None:
            self._bars[subnets] = held.lease.owner, self._clock() + held.ttl_s
        return held.lease

    async def remaining(self, leases: Sequence[Lease]) -> list[float | None]:
        """See `StoreAdmin.remaining`."""
        now = self._clock()
        ends = [self._held[lease.subnets].expires_at if lease.subnets in self._held else now for lease in leases]
        return [None if end is None else max(0.0, end - now) for end in ends]

    def _mine(self, grant: Grant) -> Held:
        self._expire()
        held = self._held.get(grant.lease.subnets)
        if held is None:
            raise LeaseLostError(str(grant.lease.subnets), "it has expired or was removed")
        if held.handle != grant.handle or held.lease.owner != grant.lease.owner:
            raise LeaseLostError(str(grant.lease.subnets), "it was given away or claimed anew")
        return held

    def _in_the_way(self, subnets: Subnets, attributes: LeaseAttributes) -> list[Lease]:
        return [*self._held.overlapping(subnets), *self._held.at_addresses(attributes)]

    def _remove(self, lease: Lease) -> None:
        self._held.remove(lease.subnets)
        self._commit(LeaseGone(lease.subnets))

    def _expire(self) -> None:
        now = self._clock()
        if self._bars:
            self._bars = {subnets: (host, end) for subnets, (host, end) in self._bars.items() if end > now}
        for held in self._held.ended(now):
            self._remove(held.lease)

    def _commit(self, change: Change) -> None:
        self._revision += 1
        self._snapshot = None
        self._history.append(Changes(self._revision, (change,)))
        del self._history[: -self._keep]
        self._changed.set()
        self._changed = asyncio.Event()

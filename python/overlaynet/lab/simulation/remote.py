"""A host's way to the store, which can be cut, and to its kernel: the daemon's ports, with time between asking and hearing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from random import Random
from typing import TypeVar

from overlaynet.errors import KernelError, StoreUnavailableError
from overlaynet.kernel.fake import FakeKernel
from overlaynet.lab.simulation.service import Reply, Service
from overlaynet.lab.simulation.timeline import Signal, wait
from overlaynet.model.kernel import KernelObject, Observation, Operation, Scope
from overlaynet.model.lease import Grant, HostId, Lease, LeaseAttributes, Subnets
from overlaynet.model.snapshot import Changes, Snapshot, StoreTraits

T = TypeVar("T")

REQUEST_TIMEOUT_S = 5.0
SILENCE_S = 5.0
"""After so long without a sign of life a watch is given up."""

OPERATION_S = 5e-6
ROUND_S = 0.5e-3
"""A call of the kernel: once, and for each object."""


class Line:
    """One host's way to the store: a delay of its own, jitter, and whether it is cut."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._delay_s = chance.uniform(0.2e-3, 2e-3)
        self._cut = False
        self.changed = Signal()

    def is_cut(self) -> bool:
        """Whether nothing passes."""
        return self._cut

    def delay_s(self) -> float:
        """How long the next message takes."""
        return self._delay_s + self._chance.expovariate(1 / 0.2e-3)

    def set(self, *, cut: bool) -> None:
        """Cut it, or join it again."""
        self._cut = cut
        self.changed.give()


class RemoteStore:
    """A `Store` at the other end of a line."""

    def __init__(self, service: Service, line: Line) -> None:
        self.service = service
        self.line = line

    @property
    def traits(self) -> StoreTraits:
        """Those of the store itself."""
        return self.service.memory.traits

    async def load(self) -> Snapshot:
        """See `Store.load`."""
        self.service.traffic.loads += 1
        memory = self.service.memory
        return await self._ask(memory.load, leases=len((await memory.load()).leases))

    async def watch(self, after: int) -> AsyncIterator[Changes]:
        """See `Store.watch`. What has come together is sent together."""
        service, line = self.service, self.line
        await wait(line.delay_s())
        while True:
            if line.is_cut():
                await self._silence()
                continue
            changes = service.memory.changes_after(after)
            if not changes:
                await wait(None, service.news, line.changed)
                continue
            await wait(service.send(len(changes)) + line.delay_s())
            if line.is_cut():
                continue
            for one in changes:
                after = one.revision
                yield one

    async def _silence(self) -> None:
        """Return if the line is joined again in time."""
        until = self.service.timeline.now + SILENCE_S
        while self.line.is_cut():
            left = until - self.service.timeline.now
            if left <= 0:
                raise StoreUnavailableError(self.traits.name, "the watch is silent")
            await wait(left, self.line.changed)

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
        claim = self.service.memory.claim
        return await self._ask(
            lambda: claim(host, subnets, attributes, ttl_s=ttl_s, seen=seen, features=features, takes_over=takes_over)
        )

    async def renew(self, grant: Grant) -> Grant:
        """See `Store.renew`."""
        return await self._ask(lambda: self.service.memory.renew(grant))

    async def update(self, grant: Grant, attributes: LeaseAttributes) -> Grant:
        """See `Store.update`."""
        return await self._ask(lambda: self.service.memory.update(grant, attributes))

    async def release(self, grant: Grant) -> None:
        """See `Store.release`."""
        await self._ask(lambda: self.service.memory.release(grant))

    async def aclose(self) -> None:
        """Nothing is held."""

    async def _ask(self, call: Callable[[], Awaitable[T]], *, leases: int = 0) -> T:
        """One request; StoreUnavailableError: no answer in time, though it may have been carried out."""
        service, line = self.service, self.line
        service.traffic.requests += 1
        until = service.timeline.now + REQUEST_TIMEOUT_S
        await wait(line.delay_s())
        if not line.is_cut():
            reply: Reply[T] = service.ask(call, leases=leases)
            while not reply.is_there and service.timeline.now < until:
                await wait(until - service.timeline.now, reply.come)
            if reply.is_there and not line.is_cut():
                await wait(line.delay_s())
                if not line.is_cut():
                    return reply.take()
        await wait(max(0.0, until - service.timeline.now))
        service.traffic.timeouts += 1
        raise StoreUnavailableError(self.traits.name, f"no answer within {REQUEST_TIMEOUT_S:g} s")


class OwnLeaseStore(RemoteStore):
    """The same for a host of which only its own lease is of interest: every change is sent to it, and this one alone is told."""

    def __init__(self, service: Service, line: Line) -> None:
        super().__init__(service, line)
        self._told: list[Changes] = []
        self._news = Signal()

    def tell(self, changes: Changes) -> None:
        """Something has become of this host's lease."""
        self._told.append(changes)
        self._news.give()

    async def watch(self, after: int) -> AsyncIterator[Changes]:
        """See `Store.watch`."""
        service, line = self.service, self.line
        self._told.clear()
        await wait(service.send(service.memory.revision - after) + line.delay_s())
        while True:
            if line.is_cut():
                await self._silence()
            elif self._told:
                await wait(service.events_behind_s + line.delay_s())
                if not line.is_cut():
                    yield self._told.pop(0)
            else:
                service.watching += 1
                try:
                    await wait(None, self._news, line.changed)
                finally:
                    service.watching -= 1


class SlowKernel:
    """A `Kernel` that takes its time."""

    def __init__(self, kernel: FakeKernel) -> None:
        self.fake = kernel

    @property
    def writes(self) -> int:
        """How many operations were sent."""
        return self.fake.writes

    @property
    def next_hops(self) -> bool:
        """Whether it knows next-hop objects."""
        return self.fake.next_hops

    async def observe(self, scope: Scope, expected: Mapping[Hashable, KernelObject] | None = None) -> Observation:
        """See `Kernel.observe`."""
        await wait(ROUND_S + OPERATION_S * len(self.fake.objects))
        return await self.fake.observe(scope, expected)

    async def perform(self, operations: Sequence[Operation]) -> list[KernelError | None]:
        """See `Kernel.perform`."""
        await wait(ROUND_S + OPERATION_S * len(operations))
        return await self.fake.perform(operations)

    def changes(self, scope: Scope) -> AsyncIterator[None]:
        """See `Kernel.changes`; nobody listens here."""
        return self.fake.changes(scope)

    async def aclose(self) -> None:
        """Nothing to close."""

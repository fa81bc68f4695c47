"""What the reconciler asks of store and kernel, as calls of theirs, and the events that answer it.

Nothing here has a loop, a task or a clock of its own: the daemon's driver runs these coroutines in real time, and the lab's
simulation runs the same ones in virtual time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, assert_never

from overlaynet.errors import ConfigError, KernelError, StoreError, StoreUnavailableError
from overlaynet.kernel import Kernel
from overlaynet.model.lease import Grant, HostId
from overlaynet.reconcile import actions as do
from overlaynet.reconcile import events as it
from overlaynet.store import Store

Request: TypeAlias = do.LoadSnapshot | do.ClaimSubnet | do.RenewLease | do.UpdateLease | do.ReleaseLease | do.Observe | do.Program
"""The actions that one answer of the store or the kernel ends."""


class Requests:
    """One host's way to its store and its kernel. `clock` tells when a request was sent."""

    def __init__(self, host: HostId, store: Store, kernel: Kernel, clock: Callable[[], float]) -> None:
        self._host = host
        self._store = store
        self._kernel = kernel
        self._clock = clock

    async def answer(self, action: Request) -> it.Event:
        """Carry the action out; what came of it."""
        match action:
            case do.LoadSnapshot():
                return await self._load()
            case do.ClaimSubnet():
                return await self._lease(self._claim(action))
            case do.RenewLease(grant):
                return await self._lease(self._store.renew(grant))
            case do.UpdateLease(grant, attributes):
                return await self._lease(self._store.update(grant, attributes))
            case do.ReleaseLease(grant):
                return await self._release(grant)
            case do.Observe(scope, expected):
                try:
                    return it.KernelObserved(await self._kernel.observe(scope, expected))
                except KernelError as error:
                    return it.ObservationFailed(error)
            case do.Program(operations):
                return it.Programmed(tuple(zip(operations, await self._kernel.perform(operations), strict=True)))
            case _:
                assert_never(action)

    async def follow(self, after: int, tell: Callable[[it.Event], None]) -> None:
        """Tell every change after `after`, and in the end why the watch has failed."""
        try:
            async for changes in self._store.watch(after):
                tell(it.StoreChanged(changes))
        except StoreError as error:
            tell(it.StoreFailed(error))

    async def _load(self) -> it.Event:
        try:
            return it.SnapshotLoaded(await self._store.load())
        except StoreError as error:
            return it.StoreFailed(error)
        except ConfigError as error:
            # It was right when an earlier run used it: its place is gone for now, and may come back.
            return it.StoreFailed(StoreUnavailableError(self._store.traits.name, error.why))

    async def _claim(self, action: do.ClaimSubnet) -> Grant:
        return await self._store.claim(
            self._host,
            action.subnets,
            action.attributes,
            ttl_s=action.ttl_s,
            seen=action.seen,
            features=action.features,
            takes_over=action.takes_over,
        )

    async def _lease(self, request: Awaitable[Grant]) -> it.Event:
        sent_at = self._clock()
        try:
            return it.LeaseGranted(await request, sent_at)
        except StoreError as error:
            return it.LeaseRefused(error)

    async def _release(self, grant: Grant) -> it.Event:
        try:
            await self._store.release(grant)
        except StoreError as error:
            return it.LeaseReleased(error)
        return it.LeaseReleased()

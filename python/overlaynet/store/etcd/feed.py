"""The feed of changes: watchers of the configuration, of the leases and of their owners on one stream, resumed where it was cut.

Each watcher has its own position, since etcd orders answers within a watcher and not between them. A position moves to the
revision of the last event that was taken in, and to that of a periodic progress notification; an answer to a progress request
(which etcd before 3.4.25 may send ahead of events) or the revision in an answer's header never moves one. The view's revision is
the position of the leases: what a claim rests on is never newer than the leases that were handed over with it.

To go on after a position is right only where the cluster's past, up to there, is what was seen. A cluster that was put back to a
backup and written to since may be at the same revisions, or further, under the same id. So whenever a stream is opened again, or
by another leader than the one that was read under, the cluster is asked what it had at the position: how many keys, and which of
them changed last. While a stream is open nobody has put back the member behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from overlaynet.errors import HistoryGoneError, StoreDataError, StoreUnavailableError
from overlaynet.model.lease import Subnets
from overlaynet.model.snapshot import Change, Changes, ConfigPut, LeaseGone, LeasePut, Unreadable, UnreadableGone
from overlaynet.reconcile.backoff import Backoff
from overlaynet.reconcile.following import LEASES_READ_PER_S
from overlaynet.store.etcd import client as etcd
from overlaynet.store.etcd import rpc_pb2 as rpc
from overlaynet.store.etcd.keys import View, range_end

_PAIRING_S = 0.05
"""How long a lease's change waits for its owner key, which comes from another watcher of the same stream."""

_STEADY_S = 5.0
"""A stream that lasted so long was a success, even if it brought nothing."""

_CONFIG, _LEASES, _OWNERS = range(3)


@dataclass(frozen=True, slots=True)
class _Opened:
    """What comes next is by a stream whose cluster may have another past, up to these positions, than the view."""

    positions: tuple[int, ...]


_Item: TypeAlias = tuple[int, rpc.WatchResponse] | _Opened | StoreUnavailableError | HistoryGoneError | None
"""An answer with the watcher that it is for, what is to be checked first, why there are no more, or None: nobody wants more."""


class Feed:
    """One watch of one view, from the view's revision on."""

    def __init__(self, client: etcd.EtcdClient, view: View) -> None:
        self._client = client
        self._view = view
        self._after = view.revision
        layout = view.layout
        self._ranges = (
            (layout.config, b""),
            (layout.subnets, range_end(layout.subnets)),
            (layout.owners, range_end(layout.owners)),
        )
        self._next = [view.revision + 1] * len(self._ranges)
        self._answers: asyncio.Queue[_Item] = asyncio.Queue()
        self._was_open = self._is_open = False
        self._unchecked = 0
        self._opened: _Opened | None = None
        self._closed = False
        self._changes: list[Change] = []
        self._touched: dict[Subnets, bool] = {}
        self._hold_until: float | None = None

    async def changes(self) -> AsyncGenerator[Changes, None]:
        """Every change. HistoryGoneError: etcd has compacted some. StoreUnavailableError: no member goes on with the stream."""
        reading = asyncio.create_task(self._read())
        try:
            while not self._closed:
                await self._gather()
                if self._touched and not self._is_over():
                    continue
                for subnets in self._touched:
                    self._tell(subnets)
                changes, self._changes = tuple(self._changes), []
                self._touched.clear()
                self._hold_until = None
                if changes:
                    yield Changes(self._view.revision, changes)
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading

    def is_at(self, view: View) -> bool:
        """Whether a stream is open that goes on from `view`: nobody has put the cluster back meanwhile."""
        return self._view is view and self._is_open and not self._unchecked

    def close(self) -> None:
        """End the changes."""
        self._answers.put_nowait(None)

    async def _gather(self) -> None:
        """Take in what has come, or wait until something comes or what is held back has waited long enough."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._hold_until):
                self._take_in(await self._answers.get())
        while self._opened is None and not self._answers.empty():
            self._take_in(self._answers.get_nowait())
        if self._opened is not None:
            opened, self._opened = self._opened, None
            # All watchers may come back at once, and each question takes a look at all keys.
            turns_s = len(self._view.leases) ** 2 / LEASES_READ_PER_S
            await asyncio.sleep(turns_s * secrets.randbelow(1 << 16) / (1 << 16))
            await see_that_it_is_the_past(self._client, self._view, self._ranges, opened.positions)
            self._unchecked -= 1
        if self._touched and self._hold_until is None:
            self._hold_until = loop.time() + _PAIRING_S

    def _is_over(self) -> bool:
        """Whether nothing that is held back waits for its owner key any longer."""
        if self._hold_until is not None and asyncio.get_running_loop().time() >= self._hold_until:
            return True
        return all(self._view.is_paired(subnets) for subnets in self._touched)

    def _tell(self, subnets: Subnets) -> None:
        lease = self._view.lease(subnets)
        self._changes.append(LeaseGone(subnets) if lease is None else LeasePut(lease))

    def _take_in(self, item: _Item) -> None:
        if item is None:
            self._closed = True
            return
        if isinstance(item, _Opened):
            self._opened = item
            return
        if isinstance(item, StoreUnavailableError | HistoryGoneError):
            raise item
        which, answer = item
        self._view.term = answer.header.raft_term
        for event in answer.events:
            self._take_in_event(which, event)
        if which == _LEASES:
            self._view.revision = max(self._view.revision, self._position(answer))

    def _take_in_event(self, which: int, event: rpc.Event) -> None:
        view, pair = self._view, event.kv
        subnets = view.named(pair.key)
        name = view.lease_name(pair.key)
        was_bad = name in view.unreadable
        try:
            if which == _LEASES and subnets is not None and self._touched.get(subnets):
                self._tell(subnets)
            if event.type == rpc.Event.DELETE:
                view.delete(pair.key)
            else:
                view.put(pair)
        except StoreDataError as error:
            self._changes.append(Unreadable(error.key, error.why))
        if was_bad and name not in view.unreadable:
            self._changes.append(UnreadableGone(name))
        if which == _CONFIG:
            self._changes.append(ConfigPut(view.config))
        if subnets is not None:
            self._touched[subnets] = self._touched.get(subnets, False) or which == _LEASES

    def _position(self, answer: rpc.WatchResponse) -> int:
        """The revision up to which the answer's watcher has told everything; 0: it does not say."""
        if answer.events:
            return max(event.kv.mod_revision for event in answer.events)
        return 0 if answer.created or answer.canceled else answer.header.revision

    async def _read(self) -> None:
        """Keep a stream open and put its answers into the queue, until etcd has forgotten or no member serves it."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(secrets.token_hex(8))
        failures = 0
        lost_at = loop.time()
        while True:
            before, opened_at = list(self._next), loop.time()
            try:
                try:
                    await self._read_stream()
                finally:
                    self._is_open = False
            except HistoryGoneError as gone:
                self._answers.put_nowait(gone)
                return
            except StoreUnavailableError as error:
                now = loop.time()
                if self._next != before or now - opened_at > _STEADY_S:
                    failures, lost_at = 0, now
                failures += 1
                if failures > self._client.patience or now - lost_at > etcd.TOTAL_TIMEOUT_S:
                    self._answers.put_nowait(error)
                    return
            await asyncio.sleep(backoff.delay_s(failures))

    async def _read_stream(self) -> None:
        creates = [
            rpc.WatchCreateRequest(key=key, range_end=end, start_revision=start, progress_notify=True)
            for (key, end), start in zip(self._ranges, self._next, strict=True)
        ]
        positions = tuple(revision - 1 for revision in self._next)
        ids: dict[int, int] = {}
        async with contextlib.aclosing(self._client.watch(creates)) as answers:
            async for answer in answers:
                if answer.canceled:
                    if answer.compact_revision:
                        raise HistoryGoneError(self._after)
                    self._client.refused(answer.cancel_reason)
                if answer.created:
                    await self._see_that_history_goes_on(answer.header)
                    if not ids and (self._was_open or answer.header.raft_term != self._view.term):
                        self._unchecked += 1
                        self._answers.put_nowait(_Opened(positions))
                    self._was_open = self._is_open = True
                    ids[answer.watch_id] = len(ids)
                    continue
                which = ids.get(answer.watch_id)
                if which is None:
                    continue
                self._next[which] = max(self._next[which], self._position(answer) + 1)
                self._answers.put_nowait((which, answer))

    async def _see_that_history_goes_on(self, header: rpc.ResponseHeader) -> None:
        """HistoryGoneError: this is another cluster, or one put back to an earlier state; its watchers would wait in silence."""
        if header.cluster_id != self._view.cluster:
            raise HistoryGoneError(self._after, replaced=True)
        if header.revision < max(self._next) - 1:
            # A member may lag behind the one that answered before; what a quorum knows decides.
            now = await self._client.call(etcd.RANGE, rpc.RangeRequest(key=self._view.layout.config))
            if now.header.revision < max(self._next) - 1:
                raise HistoryGoneError(self._after, replaced=True)


async def see_that_it_is_the_past(
    client: etcd.EtcdClient, view: View, ranges: Sequence[tuple[bytes, bytes]], positions: Sequence[int]
) -> None:
    """Return if the cluster had in `ranges`, at `positions`, the keys that `view` has. HistoryGoneError: it had others.

    Not seen: that as many keys were deleted as in the past that was, but others, and nothing else was done to any key.
    """
    before = [view.standing(key, end, position) for (key, end), position in zip(ranges, positions, strict=True)]
    try:
        answer = await client.call(etcd.TXN, rpc.TxnRequest(success=[one.question for one in before]))
    except StoreUnavailableError as error:
        if "required revision" in error.why:
            raise HistoryGoneError(min(positions), replaced="future" in error.why) from None
        raise
    if not all(one.is_in(said.response_range) for one, said in zip(before, answer.responses, strict=True)):
        raise HistoryGoneError(min(positions), replaced=True)
    view.term = answer.header.raft_term

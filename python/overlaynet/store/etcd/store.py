"""The etcd store: flannel's schema, and claims that are never shared.

A claim is one transaction that succeeds only if no lease key was created or changed after the snapshot from which the subnet was
chosen: a range compare, which sees `X`, `X&Y` and a /25 inside a /24 alike. A lease that this host takes over rests on that lease
key alone, since nothing can overlap it while it is there. Lease ids are chosen here, so that a request whose answer was lost is
recognised when it is sent again. Renewing keeps the lease's own id alive and writes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from math import ceil

from overlaynet.errors import ConflictError, HistoryGoneError, LeaseLostError, StoreDataError, StoreUnavailableError
from overlaynet.model.lease import Grant, HostId, Lease, LeaseAttributes, Subnets
from overlaynet.model.lease_text import encode_attributes
from overlaynet.model.snapshot import Change, Changes, ConfigPut, LeaseGone, LeasePut, Snapshot, StoreTraits, Unreadable
from overlaynet.store.claims import check_free, may_take
from overlaynet.store.etcd import client as etcd
from overlaynet.store.etcd import rpc_pb2 as rpc
from overlaynet.store.etcd.keys import Layout, Owner, View, range_end
from overlaynet.store.etcd.settings import EtcdSettings

_PAIRING_S = 0.03
"""How long a lease's change waits for its owner key, which comes from another watcher of the same stream."""

_REVOKED_TTL_S = 86_400
_QUESTIONS_AT_ONCE = 16


class EtcdStore:
    """A `Store` and `StoreAdmin` over an etcd cluster."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._settings = settings
        self._layout = Layout(settings.prefix)
        self._client = etcd.EtcdClient(settings)
        self._view = View(self._layout)

    @property
    def traits(self) -> StoreTraits:
        """Leases expire, subnets are chosen by the hosts, changes are kept until etcd compacts them."""
        return StoreTraits(self._settings.name, expires=True, assigns_subnets=False, has_history=True)

    async def load(self) -> Snapshot:
        """Everything at the present revision: three ranges in one request."""
        layout = self._layout
        asked = [
            rpc.RangeRequest(key=layout.config),
            rpc.RangeRequest(key=layout.subnets, range_end=range_end(layout.subnets)),
            rpc.RangeRequest(key=layout.owners, range_end=range_end(layout.owners)),
        ]
        answer = await self._client.call(etcd.TXN, rpc.TxnRequest(success=[rpc.RequestOp(request_range=one) for one in asked]))
        view = View(layout, revision=answer.header.revision)
        for response in answer.responses:
            for pair in response.response_range.kvs:
                with contextlib.suppress(StoreDataError):
                    view.put(pair)
        self._view = view
        return view.snapshot

    async def watch(self, after: int) -> AsyncIterator[Changes]:
        """Every change after `after`. HistoryGoneError: etcd has compacted some of them, or the view is of another revision."""
        if self._view.revision != after:
            raise HistoryGoneError(after)
        view = self._view
        layout = self._layout
        ranges = [(layout.config, b""), (layout.subnets, range_end(layout.subnets)), (layout.owners, range_end(layout.owners))]
        creates = [
            rpc.WatchCreateRequest(key=key, range_end=end, start_revision=after + 1, progress_notify=True) for key, end in ranges
        ]
        answers: asyncio.Queue[rpc.WatchResponse | StoreUnavailableError] = asyncio.Queue()
        reading = asyncio.create_task(self._read(creates, answers))
        late: dict[Subnets, float] = {}
        loop = asyncio.get_running_loop()
        try:
            while True:
                wait = max(0.0, min(late.values()) - loop.time()) if late else None
                try:
                    async with asyncio.timeout(wait):
                        batch = [await answers.get()]
                except TimeoutError:
                    batch = []
                while not answers.empty():
                    batch.append(answers.get_nowait())
                changes: list[Change] = []
                touched: dict[Subnets, None] = {}
                for answer in batch:
                    if isinstance(answer, StoreUnavailableError):
                        raise answer
                    self._take_in(view, answer, after, changes, touched)
                now = loop.time()
                for subnets in touched:
                    late.setdefault(subnets, now + _PAIRING_S)
                for subnets in [one for one, deadline in late.items() if deadline <= now or self._is_paired(view, one)]:
                    del late[subnets]
                    lease = view.lease(subnets)
                    changes.append(LeaseGone(subnets) if lease is None else LeasePut(lease))
                if changes:
                    yield Changes(view.revision, tuple(changes))
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading

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
        view = self._view
        there = view.leases.get(subnets)
        lease_there = view.lease(subnets)
        owner = Owner(host, tuple(features))
        if there is not None and lease_there is not None:
            if not may_take(lease_there, host, takes_over):
                raise ConflictError(f"subnet {subnets}", f"is leased by {lease_there.owner or 'a host without identity'}")
            kept = await self._keep(lease_there, there.lease_id, owner, attributes, ttl_s)
            if kept is not None:
                return kept
        else:
            check_free(host, subnets, attributes, seen.leases)
        lease_id = await self._grant(ttl_s)
        key, owner_key = self._layout.lease(subnets), self._layout.owner(subnets)
        reserved = there is not None and there.lease_id == 0
        if there is None:
            compares = [_unchanged_since(self._layout.subnets, seen.revision)]
        else:
            held = view.owners.get(subnets)
            compares = [_mod(key, there.mod_revision), _mod(owner_key, held.mod_revision if held is not None else 0)]
        puts = [
            rpc.RequestOp(
                request_put=rpc.PutRequest(key=key, value=encode_attributes(attributes), lease=0 if reserved else lease_id)
            ),
            rpc.RequestOp(request_put=rpc.PutRequest(key=owner_key, value=owner.text, lease=lease_id)),
        ]
        for other in [
            one for one in view.leases if one != subnets and (seen_lease := view.lease(one)) and seen_lease.owner == host
        ]:
            compares.append(_mod(self._layout.lease(other), view.leases[other].mod_revision))
            puts += [_delete(self._layout.lease(other)), _delete(self._layout.owner(other))]
        asked = rpc.TxnRequest(compare=compares, success=puts, failure=[_read(key), _read(owner_key)])
        try:
            answer = await self._client.call(etcd.TXN, asked)
        except StoreUnavailableError:
            # It may have been carried out: the lease id is ours alone, and ends by itself if it was not.
            raise
        if not answer.succeeded and not _is_ours(answer, lease_id):
            await self._forget_lease(lease_id)
            raise ConflictError(f"subnet {subnets}", "the leases have changed since they were read")
        created = there.lease.created if there is not None else answer.header.revision
        lease = Lease(subnets, attributes, host, tuple(features), reserved, created)
        return Grant(lease, ttl_s, lease_id)

    async def renew(self, grant: Grant) -> Grant:
        """See `Store.renew`."""
        ttl = await self._client.keep_alive(grant.handle)
        if ttl <= 0:
            raise LeaseLostError(str(grant.lease.subnets), "it has expired or was removed")
        await self._check_ours(grant)
        return Grant(grant.lease, float(ttl), grant.handle)

    async def update(self, grant: Grant, attributes: LeaseAttributes) -> Grant:
        """See `Store.update`."""
        key = self._layout.lease(grant.lease.subnets)
        put = rpc.PutRequest(key=key, value=encode_attributes(attributes), ignore_lease=True)
        asked = rpc.TxnRequest(compare=self._ours(grant), success=[rpc.RequestOp(request_put=put)])
        if not (await self._client.call(etcd.TXN, asked)).succeeded:
            raise LeaseLostError(str(grant.lease.subnets), "it was given away or claimed anew")
        left = await self._client.call(etcd.TIME_TO_LIVE, rpc.LeaseTimeToLiveRequest(ID=grant.handle))
        return Grant(grant.lease.with_attributes(attributes), float(max(0, left.TTL)), grant.handle)

    async def release(self, grant: Grant) -> None:
        """See `Store.release`. Of a reservation the owner goes, the reservation stays."""
        deletes = [_delete(self._layout.owner(grant.lease.subnets))]
        if not grant.lease.reserved:
            deletes.append(_delete(self._layout.lease(grant.lease.subnets)))
        await self._client.call(etcd.TXN, rpc.TxnRequest(compare=self._ours(grant), success=deletes))
        await self._forget_lease(grant.handle)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def put_config(self, text: bytes) -> None:
        """See `StoreAdmin.put_config`."""
        await self._client.call(etcd.PUT, rpc.PutRequest(key=self._layout.config, value=text))

    async def reserve(self, subnets: Subnets, attributes: LeaseAttributes) -> Lease:
        """See `StoreAdmin.reserve`."""
        seen = await self.load()
        check_free(None, subnets, attributes, seen.leases)
        put = rpc.PutRequest(key=self._layout.lease(subnets), value=encode_attributes(attributes))
        compares = [_unchanged_since(self._layout.subnets, seen.revision)]
        answer = await self._client.call(etcd.TXN, rpc.TxnRequest(compare=compares, success=[rpc.RequestOp(request_put=put)]))
        if not answer.succeeded:
            raise ConflictError(f"subnet {subnets}", "the leases have changed since they were read: try again")
        return Lease(subnets, attributes, reserved=True, created=answer.header.revision)

    async def revoke(self, subnets: Subnets) -> Lease:
        """See `StoreAdmin.revoke`. The marker under `overlaynet/revoked/` tells the holder not to come back, for a day."""
        await self.load()
        record, lease = self._view.leases.get(subnets), self._view.lease(subnets)
        if record is None or lease is None:
            raise ConflictError(f"subnet {subnets}", "is not leased")
        key = self._layout.lease(subnets)
        marker_lease = await self._grant(_REVOKED_TTL_S)
        marker = rpc.PutRequest(key=self._layout.revoked(subnets), value=b"{}", lease=marker_lease)
        ops = [_delete(key), _delete(self._layout.owner(subnets)), rpc.RequestOp(request_put=marker)]
        answer = await self._client.call(etcd.TXN, rpc.TxnRequest(compare=[_mod(key, record.mod_revision)], success=ops))
        if not answer.succeeded:
            await self._forget_lease(marker_lease)
            raise ConflictError(f"subnet {subnets}", "has changed meanwhile: try again")
        return lease

    async def remaining(self, leases: Sequence[Lease]) -> list[float | None]:
        """See `StoreAdmin.remaining`; a bounded number of questions at once."""
        at_once = asyncio.Semaphore(_QUESTIONS_AT_ONCE)

        async def ask(lease: Lease) -> float | None:
            record = self._view.leases.get(lease.subnets)
            if lease.reserved:
                return None
            if record is None:
                return 0.0
            async with at_once:
                answer = await self._client.call(etcd.TIME_TO_LIVE, rpc.LeaseTimeToLiveRequest(ID=record.lease_id))
            return float(max(0, answer.TTL))

        return list(await asyncio.gather(*(ask(lease) for lease in leases)))

    async def _read(
        self, creates: Iterable[rpc.WatchCreateRequest], answers: asyncio.Queue[rpc.WatchResponse | StoreUnavailableError]
    ) -> None:
        try:
            async for answer in self._client.watch(creates):
                answers.put_nowait(answer)
        except StoreUnavailableError as error:
            answers.put_nowait(error)

    def _take_in(
        self, view: View, answer: rpc.WatchResponse, after: int, changes: list[Change], touched: dict[Subnets, None]
    ) -> None:
        if answer.canceled:
            if answer.compact_revision:
                raise HistoryGoneError(after)
            raise StoreUnavailableError(self._settings.name, f"the watch was refused: {answer.cancel_reason}")
        for event in answer.events:
            pair = event.kv
            view.revision = max(view.revision, pair.mod_revision)
            if event.type == rpc.Event.DELETE:
                subnets = view.delete(pair.key)
            else:
                try:
                    subnets = view.put(pair)
                except StoreDataError as error:
                    changes.append(Unreadable(error.key, error.why))
                    continue
            if pair.key == self._layout.config:
                changes.append(ConfigPut(view.config))
            if subnets is not None:
                touched[subnets] = None

    def _is_paired(self, view: View, subnets: Subnets) -> bool:
        """Whether lease key and owner key tell of one state, so that there is nothing to wait for."""
        record, held = view.leases.get(subnets), view.owners.get(subnets)
        if record is None or held is None:
            return record is None and held is None
        return record.lease_id in (0, held.lease_id)

    async def _keep(self, lease: Lease, lease_id: int, owner: Owner, attributes: LeaseAttributes, ttl_s: float) -> Grant | None:
        """This host's own lease, kept alive as it is, or None where something about it must be written."""
        unchanged = lease.attributes == attributes and (lease.owner, lease.features) == (owner.host, owner.features)
        if not unchanged or lease_id == 0:
            return None
        left = await self._client.call(etcd.TIME_TO_LIVE, rpc.LeaseTimeToLiveRequest(ID=lease_id))
        if left.TTL <= 0 or left.grantedTTL != ceil(ttl_s):
            return None
        ttl = await self._client.keep_alive(lease_id)
        grant = Grant(lease, float(ttl), lease_id)
        try:
            await self._check_ours(grant)
        except LeaseLostError:
            return None
        return grant if ttl > 0 else None

    def _ours(self, grant: Grant) -> list[rpc.Compare]:
        """What holds exactly while the lease is this grant's."""
        subnets, handle = grant.lease.subnets, grant.handle
        owner = Owner(grant.lease.owner or HostId(""), grant.lease.features)
        return [
            _lease_id(self._layout.lease(subnets), 0 if grant.lease.reserved else handle),
            _lease_id(self._layout.owner(subnets), handle),
            rpc.Compare(result=rpc.Compare.EQUAL, target=rpc.Compare.VALUE, key=self._layout.owner(subnets), value=owner.text),
            rpc.Compare(result=rpc.Compare.GREATER, target=rpc.Compare.VERSION, key=self._layout.lease(subnets), version=0),
        ]

    async def _check_ours(self, grant: Grant) -> None:
        if not (await self._client.call(etcd.TXN, rpc.TxnRequest(compare=self._ours(grant)))).succeeded:
            raise LeaseLostError(str(grant.lease.subnets), "it was given away or claimed anew")

    async def _grant(self, ttl_s: float) -> int:
        """A new etcd lease, whose id is chosen here."""
        lease_id = secrets.randbits(62) | 1
        try:
            await self._client.call(etcd.GRANT, rpc.LeaseGrantRequest(TTL=ceil(ttl_s), ID=lease_id))
        except StoreUnavailableError as error:
            if "lease already exists" not in error.why:
                raise
        return lease_id

    async def _forget_lease(self, lease_id: int) -> None:
        """Revoke an etcd lease of ours; one that cannot be revoked ends by itself."""
        with contextlib.suppress(StoreUnavailableError):
            await self._client.call(etcd.REVOKE, rpc.LeaseRevokeRequest(ID=lease_id))


def _unchanged_since(prefix: bytes, revision: int) -> rpc.Compare:
    """No key that begins with `prefix` was created or changed after `revision`."""
    return rpc.Compare(
        result=rpc.Compare.LESS, target=rpc.Compare.MOD, key=prefix, range_end=range_end(prefix), mod_revision=revision + 1
    )


def _mod(key: bytes, revision: int) -> rpc.Compare:
    """The key was last changed at `revision`; 0: it is not there."""
    return rpc.Compare(result=rpc.Compare.EQUAL, target=rpc.Compare.MOD, key=key, mod_revision=revision)


def _lease_id(key: bytes, lease: int) -> rpc.Compare:
    return rpc.Compare(result=rpc.Compare.EQUAL, target=rpc.Compare.LEASE, key=key, lease=lease)


def _read(key: bytes) -> rpc.RequestOp:
    return rpc.RequestOp(request_range=rpc.RangeRequest(key=key))


def _delete(key: bytes) -> rpc.RequestOp:
    return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))


def _is_ours(answer: rpc.TxnResponse, lease_id: int) -> bool:
    """Whether the refused claim had been carried out before: the owner key hangs on the lease that was made for it."""
    owners = answer.responses[1].response_range.kvs
    return len(owners) == 1 and owners[0].lease == lease_id

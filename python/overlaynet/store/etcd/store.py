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
from collections.abc import AsyncIterator, Sequence
from math import ceil

from overlaynet.errors import (
    ConflictError,
    HistoryGoneError,
    HostIdInUseError,
    LeaseLostError,
    StaleSnapshotError,
    StoreError,
    StoreUnavailableError,
)
from overlaynet.model.lease import Grant, HostId, Lease, LeaseAttributes, Subnets
from overlaynet.model.lease_text import encode_attributes
from overlaynet.model.snapshot import Changes, Snapshot, StoreTraits
from overlaynet.store.claims import check_free
from overlaynet.store.etcd import client as etcd
from overlaynet.store.etcd import rpc_pb2 as rpc
from overlaynet.store.etcd.claim import Claim
from overlaynet.store.etcd.feed import Feed, see_that_it_is_the_past
from overlaynet.store.etcd.keys import Layout, LeaseRecord, Owner, View, range_end
from overlaynet.store.etcd.settings import EtcdSettings
from overlaynet.store.etcd.transactions import (
    changed_at,
    delete,
    has_lease,
    has_value,
    is_there,
    put,
    read,
    unchanged_since,
)

_QUESTIONS_AT_ONCE = 16

_CLAIM_TIME_S = 20.0
"""How long a claim is tried on one subnet while only others' leases change, at most; a third of the TTL if that is less."""

_JUST_READ_S = 5.0
"""Within so little time nobody stops a cluster, puts it back to a backup, and has it elect a leader and catch up."""

_CLAIM_STEP_BACK_S = 0.5
"""The first span out of which the wait before the next try is drawn."""


class EtcdStore:
    """A `Store` and `StoreAdmin` over an etcd cluster."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._settings = settings
        self._layout = Layout(settings.prefix)
        self._client = etcd.EtcdClient(settings)
        self._view = View(self._layout)
        self._read_at = 0.0
        self._feeds: set[Feed] = set()

    @property
    def traits(self) -> StoreTraits:
        """Leases expire, subnets are chosen by the hosts, changes are kept until etcd compacts them."""
        return StoreTraits(self._settings.name, expires=True, assigns_subnets=False, has_history=True)

    async def load(self) -> Snapshot:
        """Everything at the present revision: three ranges in one request."""
        read_at = asyncio.get_running_loop().time()
        self._view, self._read_at = await self._read_view(), read_at
        return self._view.snapshot

    async def watch(self, after: int) -> AsyncIterator[Changes]:
        """Every change after `after`. HistoryGoneError: etcd has compacted some of them, or never had a revision `after`."""
        if self._view.revision != after:
            self._view = await self._read_view(after)
        feed = Feed(self._client, self._view)
        self._feeds.add(feed)
        try:
            async with contextlib.aclosing(feed.changes()) as all_changes:
                async for changes in all_changes:
                    yield changes
        finally:
            self._feeds.discard(feed)

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
        claim = Claim(view, Owner(host, tuple(features)), subnets, attributes, seen, takes_over)
        if claim.own is not None:
            kept = await self._keep(claim.own, attributes, features, ttl_s)
            if kept is not None:
                return kept
        lease_id, header = await self._grant(ttl_s)
        try:
            claim.check_history(header)
            if view.cluster and (header.raft_term != claim.term or not self._is_at(view)):
                await self._see_that_it_is_the_past(view, claim)
            async for look_first in self._tries(ttl_s):
                if look_first:
                    claim.learn(await self._client.call(etcd.TXN, claim.look()))
                answer = await self._client.call(etcd.TXN, claim.request(lease_id))
                if claim.is_granted(answer, lease_id):
                    return Grant(claim.lease(answer), ttl_s, lease_id)
                claim.learn(answer)
            raise StaleSnapshotError(f"subnet {subnets}", "the leases change too fast to claim it")
        except StoreUnavailableError as error:
            if "requested lease not found" in error.why:
                raise StaleSnapshotError(f"subnet {subnets}", "the claim took longer than a lease lasts") from None
            # It may have been carried out: the etcd lease is left to end by itself, so that the keys, if they are there, do too.
            raise
        except StoreError:
            await self._forget_lease(lease_id)
            raise

    def _is_at(self, view: View) -> bool:
        """Whether `view` is the past of the cluster of now, if its leader is the same: it is followed, or was just read."""
        just_read = view is self._view and asyncio.get_running_loop().time() - self._read_at < _JUST_READ_S
        return just_read or any(feed.is_at(view) for feed in self._feeds)

    async def _see_that_it_is_the_past(self, view: View, claim: Claim) -> None:
        """StaleSnapshotError: the cluster that has another leader now never showed the leases of `view`."""
        subnets = self._layout.subnets
        try:
            await see_that_it_is_the_past(self._client, view, [(subnets, range_end(subnets))], [view.revision])
        except HistoryGoneError:
            raise claim.put_back from None

    async def _tries(self, ttl_s: float) -> AsyncIterator[bool]:
        """The moments at which to try a claim, while only others' leases change; whether to look first, as time has passed.

        What the first refusal teaches is used at once, which suffices where a few hosts meet. Where many are at it together they
        step back, each for a span by chance out of one that doubles, until they seldom meet.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + min(_CLAIM_TIME_S, ttl_s / 3)
        span = _CLAIM_STEP_BACK_S
        yield False
        yield False
        while True:
            wait = span * secrets.randbelow(1 << 16) / (1 << 16)
            if loop.time() + wait > ends_at:
                return
            await asyncio.sleep(wait)
            yield True
            span = min(2 * span, _CLAIM_TIME_S / 2)

    async def renew(self, grant: Grant) -> Grant:
        """See `Store.renew`."""
        ttl = await self._renewed(grant)
        if ttl <= 0:
            raise LeaseLostError(str(grant.lease.subnets), "it has expired or was removed")
        return Grant(grant.lease, ttl, grant.handle)

    async def update(self, grant: Grant, attributes: LeaseAttributes) -> Grant:
        """See `Store.update`."""
        key = self._layout.lease(grant.lease.subnets)
        write = rpc.PutRequest(key=key, value=encode_attributes(attributes), ignore_lease=True)
        asked = rpc.TxnRequest(
            compare=self._ours(grant), success=[rpc.RequestOp(request_put=write)], failure=self._who_has(grant)
        )
        self._check_held(grant, await self._client.call(etcd.TXN, asked))
        left = await self._client.call(etcd.TIME_TO_LIVE, rpc.LeaseTimeToLiveRequest(ID=grant.handle))
        return Grant(grant.lease.with_attributes(attributes), float(max(0, left.TTL)), grant.handle)

    async def release(self, grant: Grant) -> None:
        """See `Store.release`. Of a reservation the owner goes, the reservation stays."""
        deletes = [delete(self._layout.owner(grant.lease.subnets))]
        if not grant.lease.reserved:
            deletes.append(delete(self._layout.lease(grant.lease.subnets)))
        await self._client.call(etcd.TXN, rpc.TxnRequest(compare=self._ours(grant), success=deletes))
        await self._forget_lease(grant.handle)

    async def aclose(self) -> None:
        """End the watches and close the connections."""
        for feed in self._feeds:
            feed.close()
        await self._client.aclose()

    async def put_config(self, text: bytes) -> None:
        """See `StoreAdmin.put_config`."""
        await self._client.call(etcd.PUT, rpc.PutRequest(key=self._layout.config, value=text))

    async def reserve(self, subnets: Subnets, attributes: LeaseAttributes) -> Lease:
        """See `StoreAdmin.reserve`."""
        seen = await self.load()
        check_free(None, subnets, attributes, seen.leases)
        key, value = self._layout.lease(subnets), encode_attributes(attributes)
        asked = rpc.TxnRequest(
            compare=[unchanged_since(self._layout.subnets, seen.revision)],
            success=[put(key, value), delete(self._layout.revoked(subnets))],
            failure=[read(key)],
        )
        answer = await self._client.call(etcd.TXN, asked)
        if answer.succeeded:
            return Lease(subnets, attributes, reserved=True, created=answer.header.revision)
        for there in answer.responses[0].response_range.kvs:
            if (there.value, there.lease) == (value, 0):
                # By an earlier sending of the same request, whose answer was lost.
                return Lease(subnets, attributes, reserved=True, created=there.create_revision)
        raise ConflictError(f"subnet {subnets}", "the leases have changed since they were read: try again")

    async def revoke(self, subnets: Subnets, *, bar: bool = True) -> Lease:
        """See `StoreAdmin.revoke`. A mark, for as long as the lease could last, keeps its holder from coming back to it."""
        await self.load()
        record, lease = self._view.leases.get(subnets), self._view.lease(subnets)
        if record is None or lease is None:
            raise ConflictError(f"subnet {subnets}", "is not leased")
        key, held = self._layout.lease(subnets), self._view.owners.get(subnets)
        ops = [delete(key), delete(self._layout.owner(subnets))]
        mark = await self._grant_as_long_as(held.lease_id) if bar and held is not None and lease.owner is not None else 0
        if mark and held is not None:
            ops.append(put(self._layout.revoked(subnets), held.owner.text, mark))
        asked = rpc.TxnRequest(
            compare=[changed_at(key, record.mod_revision)],
            success=ops,
            failure=[read(key), read(self._layout.revoked(subnets))],
        )
        answer = await self._client.call(etcd.TXN, asked)
        if not answer.succeeded:
            now, marks = (response.response_range.kvs for response in answer.responses)
            # An earlier sending of the same request, whose answer was lost, has left our mark; without one, gone is gone.
            if now or (mark and not any(one.lease == mark for one in marks)):
                if mark:
                    await self._forget_lease(mark)
                raise ConflictError(f"subnet {subnets}", "has changed meanwhile: try again")
        return lease

    async def _grant_as_long_as(self, lease_id: int) -> int:
        """A new etcd lease with the whole time of another; 0 if that is gone."""
        other = await self._client.call(etcd.TIME_TO_LIVE, rpc.LeaseTimeToLiveRequest(ID=lease_id))
        return (await self._grant(other.grantedTTL))[0] if other.grantedTTL > 0 else 0

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

    async def _read_view(self, revision: int = 0) -> View:
        """Everything at `revision`, or at the present one. HistoryGoneError: there is no such revision, or no longer."""
        layout = self._layout
        ranges = [(layout.config, b""), (layout.subnets, range_end(layout.subnets)), (layout.owners, range_end(layout.owners))]
        asked = [rpc.RequestOp(request_range=rpc.RangeRequest(key=key, range_end=end, revision=revision)) for key, end in ranges]
        try:
            answer = await self._client.call(etcd.TXN, rpc.TxnRequest(success=asked))
        except StoreUnavailableError as error:
            if revision and "required revision" in error.why:
                raise HistoryGoneError(revision, replaced="future" in error.why) from None
            raise
        view = View(layout, revision or answer.header.revision, answer.header.cluster_id, answer.header.raft_term)
        for response in answer.responses:
            view.take_all(response.response_range.kvs)
        return view

    async def _keep(self, own: LeaseRecord, attributes: LeaseAttributes, features: Sequence[str], ttl_s: float) -> Grant | None:
        """This host's own lease, kept alive as it is, or None where something about it must be written."""
        lease, lease_id = own.lease, own.lease_id
        if lease.attributes != attributes or lease.features != tuple(features) or lease_id == 0:
            return None
        left = await self._client.call(etcd.TIME_TO_LIVE, rpc.LeaseTimeToLiveRequest(ID=lease_id))
        if left.TTL <= 0 or left.grantedTTL != ceil(ttl_s):
            return None
        try:
            ttl = await self._renewed(Grant(lease, ttl_s, lease_id))
        except LeaseLostError:
            return None
        return Grant(lease, ttl, lease_id) if ttl > 0 else None

    async def _renewed(self, grant: Grant) -> float:
        """The seconds for which the etcd lease was kept alive; 0: it is gone. LeaseLostError: its keys are no longer ours.

        A keep-alive does not go through consensus: a leader that was paused may still acknowledge it after another was elected,
        which counts the lease's time from its own election. So the keys are read in a transaction, which does, and if its term is
        not the keep-alive's, the keep-alive is sent again.
        """
        while True:
            renewed = await self._client.call(etcd.KEEP_ALIVE, rpc.LeaseKeepAliveRequest(ID=grant.handle))
            if renewed.TTL <= 0:
                return 0.0
            if await self._check_ours(grant) == renewed.header.raft_term:
                return float(renewed.TTL)

    def _ours(self, grant: Grant) -> list[rpc.Compare]:
        """What holds exactly while the lease is this grant's."""
        subnets, handle = grant.lease.subnets, grant.handle
        owner = Owner(grant.lease.owner or HostId(""), grant.lease.features)
        key, owner_key = self._layout.lease(subnets), self._layout.owner(subnets)
        return [
            is_there(key),
            has_lease(key, 0 if grant.lease.reserved else handle),
            has_lease(owner_key, handle),
            has_value(owner_key, owner.text),
        ]

    async def _check_ours(self, grant: Grant) -> int:
        """The term in which the lease was seen to be this grant's. LeaseLostError, HostIdInUseError: it is not.

        The reads are what has etcd ask the other members first: a transaction of compares alone is answered by what the member
        happens to know, even if it is cut off or was deposed (isTxnSerializable in etcd's server/etcdserver/v3_server.go).
        """
        seen = self._who_has(grant)
        answer = await self._client.call(etcd.TXN, rpc.TxnRequest(compare=self._ours(grant), success=seen, failure=seen))
        self._check_held(grant, answer)
        return answer.header.raft_term

    def _who_has(self, grant: Grant) -> list[rpc.RequestOp]:
        return [read(self._layout.lease(grant.lease.subnets)), read(self._layout.owner(grant.lease.subnets))]

    def _check_held(self, grant: Grant, answer: rpc.TxnResponse) -> None:
        """LeaseLostError: the answer to a transaction on `_ours` says that the lease is this grant's no more.

        HostIdInUseError: it was claimed anew under this host's identity, while this host held it: by another host, then.
        """
        if answer.succeeded:
            return
        subnets, owner = grant.lease.subnets, grant.lease.owner
        view = View(self._layout)
        view.take_all(pair for response in answer.responses for pair in response.response_range.kvs)
        held, now = view.owners.get(subnets), view.lease(subnets)
        if held is not None and now is not None and held.lease_id != grant.handle and now.owner == owner is not None:
            address = now.attributes.public_ipv4 or now.attributes.public_ipv6
            raise HostIdInUseError(owner, str(subnets), str(address))
        raise LeaseLostError(str(subnets), "it was given away or claimed anew")

    async def _grant(self, ttl_s: float) -> tuple[int, rpc.ResponseHeader]:
        """A new etcd lease, whose id is chosen here, and the header of an answer by the cluster that has it."""
        lease_id = secrets.randbits(62) | 1
        try:
            granted = await self._client.call(etcd.GRANT, rpc.LeaseGrantRequest(TTL=ceil(ttl_s), ID=lease_id))
        except StoreUnavailableError as error:
            if "lease already exists" not in error.why:
                raise
            return lease_id, (await self._client.call(etcd.RANGE, rpc.RangeRequest(key=self._layout.config))).header
        return lease_id, granted.header

    async def _forget_lease(self, lease_id: int) -> None:
        """Revoke an etcd lease of ours; one that cannot be revoked ends by itself."""
        with contextlib.suppress(StoreUnavailableError):
            await self._client.call(etcd.REVOKE, rpc.LeaseRevokeRequest(ID=lease_id))

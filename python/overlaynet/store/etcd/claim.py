"""One host's claim of one lease: the transaction, what it rests on, and what a refusal teaches.

A new lease rests on this: no lease key was created or changed after the revision at which it was seen that nothing overlaps it.
The range compare sees `X`, `X&Y` and a /25 inside a /24 alike. Where it fails, the else branch brings the keys that have changed
since: if none of them stands in the way, the claim is made again on the newer revision, without a new choice. A key that vanished
meanwhile is not brought, and frees only. A lease that is taken over from a host without identity rests on its key too, and on the
range as well, so that a delayed copy of the request can never give this host a second lease. A host's own lease rests on its own
key alone: nothing overlaps it while it is there. What an administrator took from a host it does not claim for one TTL.
"""

from __future__ import annotations

from dataclasses import replace

from overlaynet.errors import ConflictError, StaleSnapshotError
from overlaynet.model.lease import Lease, LeaseAttributes, Subnets
from overlaynet.model.lease_text import encode_attributes
from overlaynet.model.snapshot import Snapshot
from overlaynet.store.claims import barred, check_free, may_take
from overlaynet.store.etcd import rpc_pb2 as rpc
from overlaynet.store.etcd.keys import LeaseRecord, Owner, View, parse_owner
from overlaynet.store.etcd.transactions import changed_at, delete, put, read, read_changed, unchanged_since


class Claim:
    """A claim of `subnets` by `owner`. ConflictError, AddressInUseError: another's lease in `seen` forbids it.

    `own` is the lease on the subnets that is this host's already, if it is. `term` is the leader's at the time of what was seen.
    """

    def __init__(
        self,
        view: View,
        owner: Owner,
        subnets: Subnets,
        attributes: LeaseAttributes,
        seen: Snapshot,
        takes_over: Lease | None,
    ) -> None:
        # All that is taken from the view is taken here, at one moment: the watch goes on changing it while the claim waits.
        self._owner = owner
        self._subnets = subnets
        self._attributes = attributes
        self._since, self._cluster, self.term = seen.revision, view.cluster, view.term
        self._key, self._owner_key = view.layout.lease(subnets), view.layout.owner(subnets)
        self._there, there = view.leases.get(subnets), view.lease(subnets)
        held = view.owners.get(subnets)
        self.own: LeaseRecord | None = None
        if self._there is None or there is None:
            check_free(owner.host, subnets, attributes, seen.leases)
        elif not may_take(there, owner.host, takes_over):
            raise ConflictError(f"subnet {subnets}", f"is leased by {there.owner or 'a host without identity'}")
        elif there.owner == owner.host:
            self.own = replace(self._there, lease=there)
        self._rests_on = [
            changed_at(self._key, self._there.mod_revision if self._there is not None else 0),
            changed_at(self._owner_key, held.mod_revision if held is not None else 0),
        ]
        self._revoked_key = view.layout.revoked(subnets)
        if self._there is None:
            self._rests_on.append(changed_at(self._revoked_key, 0))
        self._earlier = {one: record for one, record in view.leases.items() if one != subnets and self._is_ours(view, one)}
        self._news = View(view.layout)

    def check_history(self, header: rpc.ResponseHeader) -> None:
        """StaleSnapshotError: the cluster that granted the claim's etcd lease is not the one that was seen, or went back since.

        Its revisions then say nothing about what has changed. The lease that was granted carries this over to the transaction:
        a cluster that is put in the place of this one does not have it.
        """
        if header.revision < self._since or (self._cluster and header.cluster_id != self._cluster):
            raise self.put_back

    @property
    def put_back(self) -> StaleSnapshotError:
        """Why what was seen is of no use."""
        return StaleSnapshotError(f"subnet {self._subnets}", "the store was put back or replaced since it was read")

    def request(self, lease_id: int) -> rpc.TxnRequest:
        """The transaction on what is known now."""
        layout = self._news.layout
        compares = list(self._rests_on)
        if self.own is None:
            compares.append(unchanged_since(layout.subnets, self._since))
        puts = [
            put(self._key, encode_attributes(self._attributes), 0 if self._is_reserved else lease_id),
            put(self._owner_key, self._owner.text, lease_id),
        ]
        for subnets, record in self._earlier.items():
            compares.append(changed_at(layout.lease(subnets), record.mod_revision))
            puts += [delete(layout.owner(subnets))]
            if record.lease_id != 0:
                puts += [delete(layout.lease(subnets))]
        return rpc.TxnRequest(compare=compares, success=puts, failure=self._reads())

    def look(self) -> rpc.TxnRequest:
        """The else branch alone: what there is to `learn` now."""
        return rpc.TxnRequest(success=self._reads())

    def _reads(self) -> list[rpc.RequestOp]:
        layout = self._news.layout
        changed = [read_changed(prefix, self._since) for prefix in (layout.subnets, layout.owners)]
        return [read(self._key), read(self._owner_key), *changed, read(self._revoked_key)]

    def is_granted(self, answer: rpc.TxnResponse, lease_id: int) -> bool:
        """Whether the lease is held: by this transaction, or by an earlier sending of it whose answer was lost."""
        if answer.succeeded:
            return True
        owners = answer.responses[1].response_range.kvs
        return len(owners) == 1 and owners[0].lease == lease_id

    def learn(self, answer: rpc.TxnResponse) -> None:
        """Take in the else branch. ConflictError, AddressInUseError: what has changed forbids the claim.

        StaleSnapshotError: the lease that it was to rest on is gone.
        """
        now, owners = (response.response_range.kvs for response in answer.responses[:2])
        known = self._there.mod_revision if self._there is not None else 0
        if self.own is not None or (now[0].mod_revision if now else 0) != known:
            if now:
                raise ConflictError(f"subnet {self._subnets}", "has changed since it was read")
            raise StaleSnapshotError(f"subnet {self._subnets}", "was given up since it was read")
        if self._there is None:
            # An owner key whose lease key is gone: nobody's, until its own lease ends.
            self._rests_on[1] = changed_at(self._owner_key, owners[0].mod_revision if owners else 0)
            marks = answer.responses[4].response_range.kvs
            revoked = parse_owner(marks[0].value) if marks else None
            if revoked is not None and revoked.host == self._owner.host:
                raise barred(self._subnets)
            self._rests_on[2] = changed_at(self._revoked_key, marks[0].mod_revision if marks else 0)
        news = self._news
        for response in answer.responses[2:4]:
            news.take_all(response.response_range.kvs)
        self._since = answer.header.revision
        check_free(self._owner.host, self._subnets, self._attributes, news.snapshot.leases)
        for subnets, record in news.leases.items():
            if subnets != self._subnets and self._is_ours(news, subnets):
                self._earlier[subnets] = record

    def lease(self, answer: rpc.TxnResponse) -> Lease:
        """The lease that was granted."""
        if self._there is not None:
            created = self._there.lease.created
        else:
            created = answer.header.revision if answer.succeeded else answer.responses[0].response_range.kvs[0].create_revision
        owner = self._owner
        return Lease(self._subnets, self._attributes, owner.host, owner.features, self._is_reserved, created)

    @property
    def _is_reserved(self) -> bool:
        return self._there is not None and self._there.lease_id == 0

    def _is_ours(self, view: View, subnets: Subnets) -> bool:
        lease = view.lease(subnets)
        return lease is not None and lease.owner == self._owner.host

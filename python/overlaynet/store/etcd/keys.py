"""Our keys in etcd and what they hold: flannel's `config` and `subnets/`, and beside them `overlaynet/owner/`.

A lease key without etcd lease is a reservation. An owner key says who holds the lease key of the same text; it counts only while
it lives and dies with that key (the same etcd lease), or belongs to a reservation: what an unconditional write of a flannel host
took over is not ours any more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from overlaynet.errors import StoreDataError
from overlaynet.model.lease import HostId, Lease, Subnets
from overlaynet.model.lease_text import decode_attributes, lease_key, parse_lease_key
from overlaynet.model.snapshot import Snapshot, Unreadable
from overlaynet.store.etcd import rpc_pb2 as rpc

_LONGEST_OWNER_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Layout:
    """The keys under one prefix."""

    prefix: str

    @property
    def config(self) -> bytes:
        """The network configuration."""
        return f"{self.prefix}/config".encode()

    @property
    def subnets(self) -> bytes:
        """What all lease keys begin with."""
        return f"{self.prefix}/subnets/".encode()

    @property
    def owners(self) -> bytes:
        """What all owner keys begin with."""
        return f"{self.prefix}/overlaynet/owner/".encode()

    def revoked(self, subnets: Subnets) -> bytes:
        """The marker that an administrator revoked the lease."""
        return f"{self.prefix}/overlaynet/revoked/{lease_key(subnets)}".encode()

    def lease(self, subnets: Subnets) -> bytes:
        """The lease key."""
        return self.subnets + lease_key(subnets).encode()

    def owner(self, subnets: Subnets) -> bytes:
        """The owner key."""
        return self.owners + lease_key(subnets).encode()


def range_end(prefix: bytes) -> bytes:
    """The end of the range of all keys that begin with `prefix` (etcd's api/etcdserverpb/rpc.proto, RangeRequest)."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lease: the host's identity and what it can do."""

    host: HostId
    features: tuple[str, ...] = ()

    @property
    def text(self) -> bytes:
        """The stored JSON."""
        return json.dumps({"host": self.host, "features": list(self.features)}, separators=(",", ":")).encode()


def parse_owner(text: bytes) -> Owner | None:
    """The owner in a stored value, or None if it is none."""
    try:
        stored: Any = json.loads(text) if len(text) <= _LONGEST_OWNER_BYTES else None
        host, features = stored["host"], stored.get("features", [])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not isinstance(host, str) or not host or not isinstance(features, list):
        return None
    return Owner(HostId(host), tuple(str(feature) for feature in features))


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A lease key as stored: its value decoded, its etcd lease (0: a reservation), its revisions."""

    lease: Lease
    lease_id: int
    mod_revision: int


@dataclass(frozen=True, slots=True)
class OwnerRecord:
    """An owner key as stored."""

    owner: Owner
    lease_id: int
    mod_revision: int


@dataclass(slots=True)
class View:
    """Everything under the prefix as it was seen: by a load, then by the watch."""

    layout: Layout
    revision: int = 0
    config: bytes | None = None
    leases: dict[Subnets, LeaseRecord] = field(default_factory=dict)
    owners: dict[Subnets, OwnerRecord] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    def lease(self, subnets: Subnets) -> Lease | None:
        """The lease with its owner, where it has one."""
        record = self.leases.get(subnets)
        if record is None:
            return None
        held = self.owners.get(subnets)
        if held is None or (record.lease_id != 0 and held.lease_id != record.lease_id):
            return record.lease
        return replace(record.lease, owner=held.owner.host, features=held.owner.features)

    @property
    def snapshot(self) -> Snapshot:
        """The view as other parts see it, oldest lease first."""
        found = [lease for subnets in self.leases if (lease := self.lease(subnets)) is not None]
        found.sort(key=lambda lease: (lease.created, lease_key(lease.subnets)))
        bad = tuple(Unreadable(key, why) for key, why in sorted(self.unreadable.items()))
        return Snapshot(self.revision, self.config, tuple(found), bad)

    def put(self, pair: rpc.KeyValue) -> Subnets | None:
        """Take in a key; the subnets that it is about, or None for any other key. StoreDataError: it cannot be read."""
        key = pair.key
        if key == self.layout.config:
            self.config = pair.value
            return None
        if key.startswith(self.layout.owners):
            return self._put_owner(key[len(self.layout.owners) :], pair)
        if not key.startswith(self.layout.subnets):
            return None
        name = key[len(self.layout.subnets) :].decode(errors="replace")
        try:
            subnets = parse_lease_key(name)
            attributes = decode_attributes(pair.value)
        except StoreDataError as error:
            self.unreadable[name] = error.why
            self._forget_unreadable(name)
            raise StoreDataError(name, error.why) from None
        self.unreadable.pop(name, None)
        lease = Lease(subnets, attributes, reserved=pair.lease == 0, created=pair.create_revision)
        self.leases[subnets] = LeaseRecord(lease, pair.lease, pair.mod_revision)
        return subnets

    def delete(self, key: bytes) -> Subnets | None:
        """Forget a key; the subnets that it was about, or None."""
        if key == self.layout.config:
            self.config = None
            return None
        for start, records in ((self.layout.owners, self.owners), (self.layout.subnets, self.leases)):
            if key.startswith(start):
                name = key[len(start) :].decode(errors="replace")
                self.unreadable.pop(name, None)
                try:
                    subnets = parse_lease_key(name)
                except StoreDataError:
                    return None
                records.pop(subnets, None)
                return subnets
        return None

    def _put_owner(self, name: bytes, pair: rpc.KeyValue) -> Subnets | None:
        try:
            subnets = parse_lease_key(name.decode(errors="replace"))
        except StoreDataError:
            return None
        owner = parse_owner(pair.value)
        if owner is None:
            self.owners.pop(subnets, None)
        else:
            self.owners[subnets] = OwnerRecord(owner, pair.lease, pair.mod_revision)
        return subnets

    def _forget_unreadable(self, name: str) -> None:
        """A lease whose value can no longer be read is not there for us."""
        try:
            self.leases.pop(parse_lease_key(name), None)
        except StoreDataError:
            return

"""Our keys in etcd and what they hold: flannel's `config` and `subnets/`, and beside them `overlaynet/owner/`.

A lease key without etcd lease is a reservation. An owner key says who holds the lease key of the same text; it counts only while
it lives and dies with that key (the same etcd lease), or belongs to a reservation: what an unconditional write of a flannel host
took over is not ours any more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from overlaynet.errors import StoreDataError
from overlaynet.model.lease import HostId, Lease, Subnets
from overlaynet.model.lease_text import decode_attributes, lease_key, parse_lease_key
from overlaynet.model.snapshot import Snapshot, Unreadable
from overlaynet.store.etcd import rpc_pb2 as rpc

UNREADABLE = HostId("unreadable")
"""Who holds a lease whose owner key says nothing that can be read: somebody else, so that nobody takes it over."""

_LONGEST_OWNER_BYTES = 4_096
_LONGEST_WORD = 128


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


def parse_owner(text: bytes) -> Owner:
    """The owner in a stored value; UNREADABLE where it names none. Features that are no words are passed over.

    What others call themselves ends in files, logs and on terminals: only what can be printed is taken in.
    """
    try:
        stored: Any = json.loads(text) if len(text) <= _LONGEST_OWNER_BYTES else None
        host, features = stored["host"], stored.get("features", [])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Owner(UNREADABLE)
    if not _is_word(host) or not isinstance(features, list):
        return Owner(UNREADABLE)
    return Owner(HostId(host), tuple(feature for feature in features if _is_word(feature)))


def _is_word(text: object) -> TypeGuard[str]:
    return isinstance(text, str) and 0 < len(text) <= _LONGEST_WORD and text.isprintable()


def _shown(name: bytes) -> str:
    """A name as it can be printed, and told from any other, however long it is."""
    text = name.decode(errors="backslashreplace")
    if not text.isprintable():
        text = text.encode("unicode_escape").decode()
    if len(text) <= _LONGEST_WORD:
        return text
    return f"{text[: _LONGEST_WORD // 2]}... ({len(name)} bytes, SHA-256 {hashlib.sha256(name).hexdigest()[:16]})"


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


@dataclass(frozen=True, slots=True)
class Standing:
    """The keys of one range as they were at `revision`, in brief: how many, and on which etcd leases those that changed last."""

    key: bytes
    end: bytes
    revision: int
    count: int
    changed: int
    newest: frozenset[tuple[bytes, int]]

    @property
    def question(self) -> rpc.RequestOp:
        """What to ask a cluster whose past this may be."""
        asked = rpc.RangeRequest(key=self.key, range_end=self.end, revision=self.revision, min_mod_revision=max(1, self.changed))
        return rpc.RequestOp(request_range=asked)

    def is_in(self, answer: rpc.RangeResponse) -> bool:
        """Whether the cluster's past shows the same: etcd counts all keys of the range, and shows those that changed last."""
        shown = {(pair.key, pair.lease) for pair in answer.kvs}
        return answer.count == self.count and shown == self.newest


@dataclass(slots=True)
class View:
    """Everything under the prefix as it was seen: by a load, then by the watch.

    The leases are complete up to `revision`, at which a claim may be made. `cluster` is the id of the cluster that showed it, and
    `term` its leader's at that time: while that is the same, nobody has put the cluster back. `_others` are the keys, with their
    last revisions and etcd leases, that are no lease's and no owner's.
    """

    layout: Layout
    revision: int = 0
    cluster: int = 0
    term: int = 0
    config: bytes | None = None
    leases: dict[Subnets, LeaseRecord] = field(default_factory=dict)
    owners: dict[Subnets, OwnerRecord] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    _others: dict[bytes, tuple[int, int]] = field(default_factory=dict)

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

    def standing(self, key: bytes, end: bytes, revision: int) -> Standing:
        """The keys from `key` to `end`, of which everything up to `revision` was seen."""
        found = list(self._keys(key, end))
        changed = max((at for _, at, _ in found), default=0)
        newest = frozenset((one, lease) for one, at, lease in found if at == changed)
        return Standing(key, end, revision, len(found), changed, newest)

    def _keys(self, key: bytes, end: bytes) -> Iterator[tuple[bytes, int, int]]:
        """Each key from `key` to `end` that is there, the revision of its last change, and its etcd lease."""
        if key == self.layout.subnets:
            yield from ((self.layout.lease(one), record.mod_revision, record.lease_id) for one, record in self.leases.items())
        if key == self.layout.owners:
            yield from ((self.layout.owner(one), record.mod_revision, record.lease_id) for one, record in self.owners.items())
        yield from ((one, at, lease) for one, (at, lease) in self._others.items() if one == key or key <= one < end)

    def named(self, key: bytes) -> Subnets | None:
        """The subnets that a lease key or an owner key is about, or None for any other key."""
        for start in (self.layout.owners, self.layout.subnets):
            if key.startswith(start):
                try:
                    return parse_lease_key(key[len(start) :].decode(errors="replace"))
                except StoreDataError:
                    return None
        return None

    def lease_name(self, key: bytes) -> str:
        """The last part of a lease key, which names it in messages, on one line; empty for any other key."""
        start = self.layout.subnets
        return _shown(key[len(start) :]) if key.startswith(start) else ""

    def is_paired(self, subnets: Subnets) -> bool:
        """Whether lease key and owner key tell of one state."""
        record, held = self.leases.get(subnets), self.owners.get(subnets)
        if record is None or held is None:
            return record is None and held is None
        return record.lease_id in (0, held.lease_id)

    def take_all(self, pairs: Iterable[rpc.KeyValue]) -> None:
        """Take in all keys; what cannot be read is noted."""
        for pair in pairs:
            with contextlib.suppress(StoreDataError):
                self.put(pair)

    def put(self, pair: rpc.KeyValue) -> None:
        """Take in a key. StoreDataError: it is a lease key and cannot be read."""
        key = pair.key
        self._others[key] = pair.mod_revision, pair.lease
        if key == self.layout.config:
            self.config = pair.value
            return
        if key.startswith(self.layout.owners):
            self._put_owner(pair)
            return
        if not key.startswith(self.layout.subnets):
            return
        name = self.lease_name(key)
        try:
            subnets = parse_lease_key(name)
            attributes = decode_attributes(pair.value)
        except StoreDataError as error:
            self.unreadable[name] = error.why
            self._forget_unreadable(name)
            raise StoreDataError(name, error.why) from None
        self.unreadable.pop(name, None)
        del self._others[key]
        lease = Lease(subnets, attributes, reserved=pair.lease == 0, created=pair.create_revision)
        self.leases[subnets] = LeaseRecord(lease, pair.lease, pair.mod_revision)

    def delete(self, key: bytes) -> None:
        """Forget a key."""
        self._others.pop(key, None)
        if key == self.layout.config:
            self.config = None
            return
        subnets = self.named(key)
        if key.startswith(self.layout.subnets):
            self.unreadable.pop(self.lease_name(key), None)
            if subnets is not None:
                self.leases.pop(subnets, None)
        elif subnets is not None:
            self.owners.pop(subnets, None)

    def _put_owner(self, pair: rpc.KeyValue) -> None:
        subnets = self.named(pair.key)
        if subnets is None:
            return
        del self._others[pair.key]
        self.owners[subnets] = OwnerRecord(parse_owner(pair.value), pair.lease, pair.mod_revision)

    def _forget_unreadable(self, name: str) -> None:
        """A lease whose value can no longer be read is not there for us."""
        try:
            self.leases.pop(parse_lease_key(name), None)
        except StoreDataError:
            return

"""What one transaction does to the tables of the embedded store: leases, and the record of their changes.

Every method runs inside a transaction that the caller begins and ends, in the store's thread. Each change of a lease or of the
configuration is one revision in the record, of which the last `keep` are kept.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from overlaynet.errors import ConflictError, LeaseLostError
from overlaynet.model.lease import Grant, HostId, Lease, LeaseAttributes, Subnets
from overlaynet.model.lease_text import encode_attributes, lease_key
from overlaynet.store.claims import barred, check_free, may_take
from overlaynet.store.sqlite_rows import LEASE_COLUMNS, lease_in, leases_in, revision_of


@dataclass(frozen=True, slots=True)
class SqliteLedger:
    """The tables, by this clock (seconds on CLOCK_BOOTTIME), boot id and length of the record."""

    clock: Callable[[], float]
    boot: Callable[[], str]
    keep: int

    def sweep(self, db: sqlite3.Connection) -> None:
        """Give leases of another boot one full TTL, and remove what has expired."""
        boot, now = self.boot(), self.clock()
        db.execute("UPDATE lease SET boot = ?, expires = ? + ttl WHERE expires IS NOT NULL AND boot != ?", (boot, now, boot))
        for (key,) in db.execute("SELECT key FROM lease WHERE expires <= ?", (now,)).fetchall():
            self.delete(db, key)
        for name, text in db.execute("SELECT name, value FROM setting WHERE name LIKE 'revoked/%'").fetchall():
            host, ttl_s, since, ends = json.loads(text)
            if since != boot:
                self.bar(db, name.removeprefix("revoked/"), host, ttl_s)
            elif ends <= now:
                self.unbar(db, name.removeprefix("revoked/"))

    def needs_sweep(self, db: sqlite3.Connection) -> bool:
        """Whether `sweep` would change anything."""
        query = "SELECT 1 FROM lease WHERE expires IS NOT NULL AND (boot != ? OR expires <= ?) LIMIT 1"
        return db.execute(query, (self.boot(), self.clock())).fetchone() is not None

    def expired(self, db: sqlite3.Connection, now: float) -> list[tuple[str, int]]:
        """The keys and handles of the leases that are there and had ended at `now`."""
        query = "SELECT key, handle FROM lease WHERE expires <= ? AND boot = ?"
        return db.execute(query, (now, self.boot())).fetchall()

    def claim(
        self,
        db: sqlite3.Connection,
        host: HostId,
        subnets: Subnets,
        attributes: LeaseAttributes,
        ttl_s: float,
        features: Sequence[str],
        takes_over: Lease | None,
    ) -> Grant:
        """The lease on `subnets` for `host`, as `Store.claim` says; what it held before is gone."""
        leases, _ = leases_in(db)
        key = lease_key(subnets)
        there = next((lease for lease in leases if lease_key(lease.subnets) == key), None)
        if there is not None and not may_take(there, host, takes_over):
            raise ConflictError(f"subnet {subnets}", f"is leased by {there.owner or 'a host without identity'}")
        if there is None and self.barred(db, key) == host:
            raise barred(subnets)
        check_free(host, subnets, attributes, leases)
        for lease in leases:
            if lease.owner == host and lease.subnets != subnets:
                self.delete(db, lease_key(lease.subnets))
        wanted = Lease(
            subnets,
            attributes,
            owner=host,
            features=tuple(features),
            reserved=there is not None and there.reserved,
            created=0 if there is None else there.created,
        )
        lease, handle = self.insert(db, wanted, ttl_s)
        return Grant(lease, ttl_s, handle)

    def insert(self, db: sqlite3.Connection, lease: Lease, ttl_s: float) -> tuple[Lease, int]:
        """The lease as stored, with its creation revision, and its handle, which is the revision of this claim."""
        key = lease_key(lease.subnets)
        handle = revision_of(db) + 1
        expires = None if lease.reserved else self.clock() + ttl_s
        db.execute(
            "INSERT OR REPLACE INTO lease (key, value, owner, features, reserved, created, handle, ttl, boot, expires)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                encode_attributes(lease.attributes),
                lease.owner,
                json.dumps(lease.features),
                lease.reserved,
                lease.created or handle,
                handle,
                ttl_s,
                self.boot(),
                expires,
            ),
        )
        self.record_lease(db, key)
        row = db.execute(f"SELECT {LEASE_COLUMNS} FROM lease WHERE key = ?", (key,)).fetchone()  # noqa: S608  # own columns
        return lease_in(row), handle

    def mine(self, db: sqlite3.Connection, grant: Grant) -> tuple[Lease, float, float | None]:
        """The stored lease of `grant`, its TTL and its end."""
        subnets = grant.lease.subnets
        query = f"SELECT {LEASE_COLUMNS}, handle, ttl, expires FROM lease WHERE key = ?"  # noqa: S608  # own columns
        row = db.execute(query, (lease_key(subnets),)).fetchone()
        if row is None:
            raise LeaseLostError(str(subnets), "it has expired or was removed")
        lease = lease_in(row[:6])
        if row[6] != grant.handle or lease.owner != grant.lease.owner:
            raise LeaseLostError(str(subnets), "it was given away or claimed anew")
        return lease, row[7], row[8]

    def bar(self, db: sqlite3.Connection, key: str, host: HostId, ttl_s: float) -> None:
        """Keep `host` from claiming the subnets of `key` for a time."""
        text = json.dumps([host, ttl_s, self.boot(), self.clock() + ttl_s])
        db.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (f"revoked/{key}", text))

    def unbar(self, db: sqlite3.Connection, key: str) -> None:
        """End that, if it is so."""
        db.execute("DELETE FROM setting WHERE name = ?", (f"revoked/{key}",))

    def barred(self, db: sqlite3.Connection, key: str) -> str | None:
        """The host that may not claim the subnets of `key`, as the last sweep left it."""
        row = db.execute("SELECT value FROM setting WHERE name = ?", (f"revoked/{key}",)).fetchone()
        return None if row is None else str(json.loads(row[0])[0])

    def disown(self, db: sqlite3.Connection, key: str) -> None:
        """Take the owner from a lease that stays."""
        db.execute("UPDATE lease SET owner = NULL, features = '[]', handle = 0 WHERE key = ?", (key,))
        self.record_lease(db, key)

    def delete(self, db: sqlite3.Connection, key: str) -> None:
        """Remove the lease."""
        db.execute("DELETE FROM lease WHERE key = ?", (key,))
        self.record(db, "gone", key, b"")

    def record_lease(self, db: sqlite3.Connection, key: str) -> None:
        """The next revision, with the lease as it is now."""
        self.record(db, "put", key, b"")
        db.execute(
            "UPDATE change SET (value, owner, features, reserved, created) ="
            " (SELECT value, owner, features, reserved, created FROM lease WHERE key = ?) WHERE revision = ?",
            (key, revision_of(db)),
        )

    def record(self, db: sqlite3.Connection, kind: str, key: str, value: bytes) -> None:
        """The next revision, with this change."""
        revision = revision_of(db) + 1
        db.execute("INSERT OR REPLACE INTO setting VALUES ('revision', ?)", (revision,))
        db.execute("INSERT INTO change (revision, kind, key, value) VALUES (?, ?, ?, ?)", (revision, kind, key, value))
        db.execute("DELETE FROM change WHERE revision <= ?", (revision - self.keep,))

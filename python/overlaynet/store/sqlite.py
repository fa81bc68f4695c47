"""The embedded store: one SQLite file that several daemons of one machine share.

Every claim is one transaction that checks overlaps, so at every revision no two leases overlap. The journal is a rollback journal
(`TRUNCATE`, `synchronous=EXTRA`): a commit that was acknowledged survives a crash, and SQLite before 3.51.3 can lose commits of
several processes with a write-ahead log. Leases end by CLOCK_BOOTTIME; one that was written under another boot id gets one full
TTL from the first transaction of the new boot. The wall clock is never read.

All of SQLite runs in one thread of its own, so that the event loop never waits for a disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from overlaynet.errors import (
    ConfigError,
    ConflictError,
    HistoryGoneError,
    LeaseLostError,
    StoreDataError,
    StoreError,
    StoreUnavailableError,
)
from overlaynet.model.lease import Grant, HostId, Lease, LeaseAttributes, Subnets
from overlaynet.model.lease_text import encode_attributes, lease_key, parse_lease_key
from overlaynet.model.snapshot import Changes, LeaseGone, Snapshot, StoreTraits
from overlaynet.store.claims import check_free
from overlaynet.store.sqlite_file import check_place, open_database
from overlaynet.store.sqlite_ledger import SqliteLedger
from overlaynet.store.sqlite_rows import LEASE_COLUMNS, change_in, lease_in, leases_in, revision_of, stored_text

T = TypeVar("T")

_POLL_S = 0.1
_UNASKED = 10
"""Every so many polls SQLite itself is asked, even if the file looks as it did: where others share it, that may be late."""

_KEPT_CHANGES = 20_000


def boot_id() -> str:
    """The kernel's identity of this boot (Documentation/admin-guide/sysctl/kernel.rst, `random/boot_id`)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def boot_time() -> float:
    """Seconds on CLOCK_BOOTTIME, which goes on during suspend and cannot be set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SqliteStore:
    """A `Store` and `StoreAdmin` over the SQLite file at `path`, which is made when it is first used, unless not to `make` it.

    StoreDataError: the file is something else. ConfigError: it cannot be there, or is not there and not to be made. `clock`,
    `boot` and `keep`, the number of changes that are kept, are for tests.
    """

    def __init__(
        self,
        path: Path,
        *,
        make: bool = True,
        clock: Callable[[], float] = boot_time,
        boot: Callable[[], str] = boot_id,
        keep: int = _KEPT_CHANGES,
    ) -> None:
        self._path = path
        self._clock = clock
        self._boot = boot
        self._make = make
        self._ledger = SqliteLedger(clock, boot, keep)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._own_commits = 0
        self._closed = False

    @property
    def traits(self) -> StoreTraits:
        """Leases expire, subnets are chosen by the hosts."""
        return StoreTraits(f"sqlite:///{self._path}", expires=True, assigns_subnets=False, has_history=True)

    async def load(self) -> Snapshot:
        """Everything at the present revision, without what has expired."""
        return await self._run(self._load)

    async def watch(self, after: int) -> AsyncIterator[Changes]:
        """Every change after `after`, at most 200 ms after it. HistoryGoneError: not all of them are kept."""
        told: set[tuple[str, int]] = set()
        token: object = None
        ends = 0.0
        state: object = None
        polls = 0
        while True:
            batch: list[Changes] = []
            # Two commits within a tick of the kernel's clock are one state of the file, so that a new one is worth a second look.
            state, before = self._file_state(), state
            polls = 0 if state != before else polls + 1
            try:
                if polls < 2 or polls % _UNASKED == 0 or ends <= self._clock():
                    new_token = await self._run(self._token)
                    if new_token != token or ends <= self._clock():
                        token = new_token
                        batch, ends = await self._run(partial(self._changes, after, told))
            except StoreUnavailableError:
                if self._closed:
                    return
                raise
            for changes in batch:
                after = max(after, changes.revision)
                yield changes
            await asyncio.sleep(min(_POLL_S, max(0.001, ends - self._clock())))

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
        return await self._run(
            lambda: self._write(lambda db: self._ledger.claim(db, host, subnets, attributes, ttl_s, features, takes_over))
        )

    async def renew(self, grant: Grant) -> Grant:
        """See `Store.renew`."""

        def body(db: sqlite3.Connection) -> Grant:
            lease, ttl_s, _ = self._ledger.mine(db, grant)
            if not lease.reserved:
                db.execute(
                    "UPDATE lease SET boot = ?, expires = ? WHERE key = ?",
                    (self._boot(), self._clock() + ttl_s, lease_key(lease.subnets)),
                )
            return Grant(lease, ttl_s, grant.handle)

        return await self._run(lambda: self._write(body))

    async def update(self, grant: Grant, attributes: LeaseAttributes) -> Grant:
        """See `Store.update`."""

        def body(db: sqlite3.Connection) -> Grant:
            lease, ttl_s, expires = self._ledger.mine(db, grant)
            lease = lease.with_attributes(attributes)
            key = lease_key(lease.subnets)
            db.execute("UPDATE lease SET value = ? WHERE key = ?", (encode_attributes(attributes), key))
            self._ledger.record_lease(db, key)
            return Grant(lease, ttl_s if expires is None else max(0.0, expires - self._clock()), grant.handle)

        return await self._run(lambda: self._write(body))

    async def release(self, grant: Grant) -> None:
        """See `Store.release`."""

        def body(db: sqlite3.Connection) -> None:
            try:
                lease, _, _ = self._ledger.mine(db, grant)
            except LeaseLostError:
                return
            if lease.reserved:
                self._ledger.disown(db, lease_key(lease.subnets))
            else:
                self._ledger.delete(db, lease_key(lease.subnets))

        await self._run(lambda: self._write(body))

    async def put_config(self, text: bytes) -> None:
        """See `StoreAdmin.put_config`."""

        def body(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO setting VALUES ('config', ?)", (text,))
            self._ledger.record(db, "config", "", text)

        await self._run(lambda: self._write(body))

    async def reserve(self, subnets: Subnets, attributes: LeaseAttributes) -> Lease:
        """See `StoreAdmin.reserve`."""

        def body(db: sqlite3.Connection) -> Lease:
            check_free(None, subnets, attributes, leases_in(db)[0])
            self._ledger.unbar(db, lease_key(subnets))
            return self._ledger.insert(db, Lease(subnets, attributes, reserved=True), 0.0)[0]

        return await self._run(lambda: self._write(body))

    async def revoke(self, subnets: Subnets, *, bar: bool = True) -> Lease:
        """See `StoreAdmin.revoke`."""

        def body(db: sqlite3.Connection) -> Lease:
            key = lease_key(subnets)
            query = f"SELECT {LEASE_COLUMNS}, ttl FROM lease WHERE key = ?"  # noqa: S608  # own columns
            row = db.execute(query, (key,)).fetchone()
            if row is None:
                raise ConflictError(f"subnet {subnets}", "is not leased")
            self._ledger.delete(db, key)
            lease = lease_in(row[:6])
            if bar and lease.owner is not None:
                self._ledger.bar(db, key, lease.owner, float(row[6]))
            return lease

        return await self._run(lambda: self._write(body))

    async def remaining(self, leases: Sequence[Lease]) -> list[float | None]:
        """See `StoreAdmin.remaining`."""

        def body() -> list[float | None]:
            now = self._clock()
            ends = dict(self._database().execute("SELECT key, expires FROM lease").fetchall())
            found = [ends.get(lease_key(lease.subnets), now) for lease in leases]
            return [None if end is None else max(0.0, end - now) for end in found]

        return await self._run(body)

    async def aclose(self) -> None:
        """End the watches and close the file. Later calls raise StoreUnavailableError."""

        def close() -> None:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, close)
        self._thread.shutdown(wait=False)

    def _file_state(self) -> tuple[int, ...] | None:
        """What every commit changes, as far as it can be had without a change of threads; None: the file is not there."""
        try:
            there = self._path.stat()
        except OSError:
            return None
        return there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns

    # Below, everything runs in the store's thread.

    async def _run(self, body: Callable[[], T]) -> T:
        if self._closed:
            raise StoreUnavailableError(self.traits.name, "it was closed")
        # A cancelled caller leaves the thread to end its transaction: nothing is half done.
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, body)

    def _guarded(self, body: Callable[[], T]) -> T:
        try:
            return body()
        except sqlite3.Error as error:
            raise self._translated(error) from None
        except OSError as error:
            raise StoreUnavailableError(self.traits.name, error.strerror or str(error)) from None
        except ConfigError as error:
            # What was a fault of the settings at first is, once the store was open, a store that has gone away.
            if self._opened is None:
                raise
            raise StoreUnavailableError(self.traits.name, error.why) from None

    def _translated(self, error: sqlite3.Error) -> StoreError:
        name = getattr(error, "sqlite_errorname", "") or ""
        # The plain SQLITE_ERROR is said of a statement: it names a table or a column that this file has not.
        if name == "SQLITE_ERROR" or name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            return StoreDataError(str(self._path), f"not an overlaynet store: {error}")
        return StoreUnavailableError(self.traits.name, str(error))

    def _database(self) -> sqlite3.Connection:
        """The open file; opened again when another file stands at its path."""
        if self._connection is not None:
            try:
                there = self._path.stat()
            except FileNotFoundError:
                raise StoreUnavailableError(self.traits.name, "the file was removed") from None
            if self._opened == (there.st_dev, there.st_ino):
                return self._connection
            self._connection.close()
            self._connection = None
        check_place(self._path, make=self._make)
        self._connection = open_database(self._path)
        there = self._path.stat()
        self._opened = (there.st_dev, there.st_ino)
        return self._connection

    def _write(self, body: Callable[[sqlite3.Connection], T]) -> T:
        db = self._database()
        db.execute("BEGIN IMMEDIATE")
        try:
            self._ledger.sweep(db)
            result = body(db)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self._own_commits += 1
        return result

    def _swept(self) -> sqlite3.Connection:
        """The database, swept if that is needed and can be written."""
        db = self._database()
        if self._ledger.needs_sweep(db):
            try:
                self._write(lambda _: None)
            except sqlite3.OperationalError:
                # A full or read-only disk: readers leave out what has expired all the same.
                return db
        return db

    def _load(self) -> Snapshot:
        db = self._swept()
        db.execute("BEGIN")
        try:
            (config,) = db.execute("SELECT value FROM setting WHERE name = 'config'").fetchone() or (None,)
            expired = {key for key, _ in self._ledger.expired(db, self._clock())}
            leases, unreadable = leases_in(db)
            kept = tuple(lease for lease in leases if lease_key(lease.subnets) not in expired)
            text = None if config is None else stored_text(config)
            return Snapshot(revision_of(db), text, kept, unreadable)
        finally:
            db.execute("ROLLBACK")

    def _token(self) -> tuple[int, int]:
        """What changes with every commit: of others (PRAGMA data_version) and of ours."""
        return int(self._database().execute("PRAGMA data_version").fetchone()[0]), self._own_commits

    def _changes(self, after: int, told: set[tuple[str, int]]) -> tuple[list[Changes], float]:
        """The changes after `after`, and when the next lease expires. `told` are expiries that could not be committed."""
        # Before the sweep: what ends after it is committed, and told, the next time.
        now = self._clock()
        db = self._swept()
        db.execute("BEGIN")
        try:
            revision = revision_of(db)
            oldest = db.execute("SELECT min(revision) FROM change").fetchone()[0]
            if after > revision or (after < revision and (oldest is None or oldest > after + 1)):
                raise HistoryGoneError(after)
            rows = db.execute(
                f"SELECT revision, kind, {LEASE_COLUMNS} FROM change WHERE revision > ? ORDER BY revision",  # noqa: S608
                (after,),
            ).fetchall()
            batch = [Changes(row[0], (change_in(row[1], row[2:]),)) for row in rows]
            expired = [(key, handle) for key, handle in self._ledger.expired(db, now) if (key, handle) not in told]
            told.update(expired)
            if expired:
                batch.append(Changes(revision, tuple(LeaseGone(parse_lease_key(key)) for key, _ in expired)))
            query = "SELECT min(expires) FROM lease WHERE expires > ? AND boot = ?"
            end = db.execute(query, (now, self._boot())).fetchone()[0]
        finally:
            db.execute("ROLLBACK")
        return batch, float("inf") if end is None else end

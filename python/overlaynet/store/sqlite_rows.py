"""The rows of the embedded store's file as values: its revision, its leases, its changes."""

from __future__ import annotations

import json
import sqlite3

from overlaynet.errors import StoreDataError
from overlaynet.model.lease import HostId, Lease
from overlaynet.model.lease_text import decode_attributes, parse_lease_key
from overlaynet.model.snapshot import Change, ConfigPut, LeaseGone, LeasePut, Unreadable

LEASE_COLUMNS = "key, value, owner, features, reserved, created"
"""The columns of a `Row`, in the table of leases and in that of changes."""


def revision_of(db: sqlite3.Connection) -> int:
    """The revision of the latest change."""
    row = db.execute("SELECT value FROM setting WHERE name = 'revision'").fetchone()
    return 0 if row is None else int(row[0])


Row = tuple[str, object, str | None, str | None, int | None, int | None]


def stored_text(value: object) -> bytes:
    """What is stored as text, whatever type other hands have given it: SQLite keeps a value as it is put."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


def lease_in(row: Row) -> Lease:
    """The lease in a row. StoreDataError: it holds none."""
    key, value, owner, features, reserved, created = row
    try:
        names = () if features in (None, "[]") else tuple(str(name) for name in json.loads(features or "[]"))
        attributes = decode_attributes(stored_text(value))
        if not isinstance(created, int | None):
            raise TypeError(f"created: must be a whole number: {created!r}")
    except (ValueError, TypeError) as error:
        raise StoreDataError(str(key), str(error)) from None
    return Lease(
        parse_lease_key(str(key)),
        attributes,
        owner=None if owner is None else HostId(owner),
        features=names,
        reserved=bool(reserved),
        created=created or 0,
    )


def leases_in(db: sqlite3.Connection) -> tuple[tuple[Lease, ...], tuple[Unreadable, ...]]:
    """Every stored lease, oldest first, expired ones too; and the rows that hold none."""
    leases: list[Lease] = []
    unreadable: list[Unreadable] = []
    for row in db.execute(f"SELECT {LEASE_COLUMNS} FROM lease ORDER BY created, key"):  # noqa: S608  # own columns
        try:
            leases.append(lease_in(row))
        except StoreDataError as error:
            unreadable.append(Unreadable(str(row[0]), error.why))
    return tuple(leases), tuple(unreadable)


def change_in(kind: str, row: Row) -> Change:
    """The change in a row of the `kind`: put, gone or config."""
    try:
        match kind:
            case "put":
                return LeasePut(lease_in(row))
            case "gone":
                return LeaseGone(parse_lease_key(row[0]))
            case _:
                return ConfigPut(stored_text(row[1]))
    except StoreDataError as error:
        return Unreadable(str(row[0]), error.why)

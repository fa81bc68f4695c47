"""The file of the embedded store: where it may stand, its schema, and the settings of its connections."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from overlaynet.errors import ConfigError, StoreDataError

APPLICATION_ID = 0x4F564C4E
"""`PRAGMA application_id` of a store of ours: "OVLN"."""

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 10.0

_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs"}

_SCHEMA = """
CREATE TABLE setting (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE lease (
  key TEXT PRIMARY KEY, value BLOB NOT NULL, owner TEXT, features TEXT NOT NULL, reserved INTEGER NOT NULL,
  created INTEGER NOT NULL, handle INTEGER NOT NULL, ttl REAL NOT NULL, boot TEXT NOT NULL, expires REAL
) WITHOUT ROWID;
CREATE INDEX lease_expires ON lease (expires);
CREATE TABLE change (
  revision INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, owner TEXT, features TEXT,
  reserved INTEGER, created INTEGER
);
"""


def check_place(path: Path) -> None:
    """Make the file's folder (0700) if it is missing. ConfigError: the file cannot or must not stand there."""
    flag = "--store"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(flag, f"sqlite:///{path}", f"the directory cannot be made: {error.strerror}") from None
    if path.is_dir():
        raise ConfigError(flag, f"sqlite:///{path}", "is a directory: name a file in it")
    kind = file_system(path.parent)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise ConfigError(flag, f"sqlite:///{path}", f"is on a network file system ({kind}): SQLite needs a local one")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(flag, f"sqlite:///{path}", f"cannot be opened for writing: {error.strerror}") from None
    os.close(descriptor)


def file_system(folder: Path) -> str:
    """The type of the file system that `folder` is on, as /proc/self/mountinfo names it (proc(5)), or an empty text."""
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted:
            return after.split()[0]
    return ""


def open_database(path: Path) -> sqlite3.Connection:
    """A connection to the file, with the schema in place. StoreDataError: the file is not a store of ours."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute("BEGIN IMMEDIATE")
        _prepare(connection, path)
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application == APPLICATION_ID:
        if version != SCHEMA_VERSION:
            raise StoreDataError(str(path), f"schema version {version}: this release knows {SCHEMA_VERSION}")
        return
    if application or version or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StoreDataError(str(path), "is a database of another program: name another file")
    for statement in _SCHEMA.split(";"):
        if statement.strip():
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

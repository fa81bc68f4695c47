"""The file of the embedded store: where it may stand, its schema, and the settings of its connections."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
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


def check_place(path: Path, *, make: bool = True) -> None:
    """Make the file and its folder (0700) if they are missing. ConfigError: the file cannot or must not stand there.

    Not to `make` them: ConfigError if there is no file.
    """
    flag, url = "--store", f"sqlite:///{path}"
    try:
        # Looked at once: another process may be making the file.
        mode: int | None = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    except OSError as error:
        raise ConfigError(flag, url, f"cannot be opened: {error.strerror}") from None
    missing = mode is None
    if mode is not None and stat.S_ISDIR(mode):
        raise ConfigError(flag, url, "is a directory: name a file in it")
    if mode is not None and not stat.S_ISREG(mode):
        raise ConfigError(flag, url, "is a device, pipe or socket: name a file")
    if missing and not make:
        raise ConfigError(flag, url, f"there is no such file: `overlaynet --store {url} network set FILE` makes it")
    kind = file_system(path.parent.resolve(), Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))
    if kind in _NETWORK_FILE_SYSTEMS:
        raise ConfigError(flag, url, f"is on a network file system ({kind}): SQLite needs a local one")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(flag, url, f"the directory cannot be made: {error.strerror}") from None
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(flag, url, f"cannot be opened for writing: {error.strerror}") from None
    os.close(descriptor)


def file_system(folder: Path, mounts: str) -> str:
    """The type of the file system that holds `folder`, a path without links, by the text of mountinfo (proc(5)); "" if none does.

    By the longest mount point above it, the last of several: device numbers do not tell, as every btrfs subvolume shows files of
    a device of its own that mountinfo does not name.
    """
    found, depth = "", -1
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split(" ")[4]))
        if folder.is_relative_to(point) and len(point.parts) >= depth:
            found, depth = after.split(" ")[0], len(point.parts)
    return found


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

"""What a host keeps between runs, in the state directory: its random identity, and the last good snapshot."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from overlaynet.daemon.regular_file import read_regular
from overlaynet.errors import ConfigError, DaemonRunningError, StoreDataError
from overlaynet.model.kept import Kept, decode_kept
from overlaynet.model.lease import HostId

SNAPSHOT = "snapshot.json"
"""The file in the state directory that holds the last good snapshot."""

HOST_ID = "host-id"
"""The file in the state directory that holds this host's identity."""

_HOST_ID = re.compile(r"[0-9a-f]{32}")


def prepare_directory(flag: str, path: Path, mode: int) -> None:
    """Make the directory with `mode` if it is missing. ConfigError: it cannot be used."""
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(flag, str(path), f"the directory cannot be made: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(flag, str(path), "the directory is not writable")


def check_private(flag: str, path: Path) -> None:
    """ConfigError: others than its owner may write in the directory, and so put files of their own in the place of ours."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(flag, str(path), f"others may write there (mode {mode:04o}): chmod go-w, or choose another")


def check_place(flag: str, path: Path) -> None:
    """ConfigError: `path`, the place of a file that is to be written, is something else, or none at all."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(flag, str(path), f"cannot be written: {error.strerror}") from None
    if not stat.S_ISREG(there.st_mode):
        raise ConfigError(flag, str(path), "is there and is no file: name one")


def host_id(state_dir: Path) -> HostId:
    """This host's identity, made at the first call. ConfigError: the file holds something else, or cannot be written."""
    path = state_dir / HOST_ID
    for _ in range(2):
        try:
            text = read_regular(path).decode().strip()
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                _write_new(path, host_id_text(HostId(secrets.token_hex(16))))
            continue
        except OSError as error:
            raise ConfigError("--state-dir", str(path), f"cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            text = ""
        if not _HOST_ID.fullmatch(text):
            raise ConfigError(
                "--state-dir", str(path), "must hold 32 hexadecimal digits: restore it, or remove it for a new identity"
            )
        return HostId(text)
    raise ConfigError("--state-dir", str(path), "appears and vanishes: who else uses this directory?")


def host_id_text(host: HostId) -> str:
    """What the file with a host's identity holds."""
    return f"{host}\n"


def forget_host(state_dir: Path, *files: str) -> None:
    """Have the next start be a new host's: remove the identity, and the snapshot and `files`, which rest on it."""
    for name in (HOST_ID, SNAPSHOT, *files):
        (state_dir / name).unlink(missing_ok=True)


@contextlib.contextmanager
def owning_directory(flag: str, path: Path) -> Iterator[None]:
    """Keep the directory from other daemons for as long as the block runs. DaemonRunningError: one uses it.

    Two that share it would be one host in two places. The kernel ends the lock with the process.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DaemonRunningError(f"{flag} {path}: another overlaynet-daemon uses it: give each its own") from None
    finally:
        os.close(descriptor)


def read_kept(state_dir: Path) -> Kept | None:
    """What an earlier run kept; None: nothing. StoreDataError: the file is not what this program wrote."""
    path = state_dir / SNAPSHOT
    try:
        return decode_kept(read_regular(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreDataError(str(path), f"cannot be read: {error.strerror}") from None


def _write_new(path: Path, text: str) -> None:
    """Write a file of mode 0600 that is there whole or not at all. FileExistsError: it is there already."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_durably(draft, text.encode(), 0o600)
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError as error:
        raise ConfigError("--state-dir", str(path), f"cannot be written: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)


def write_durably(path: Path, data: bytes, mode: int) -> None:
    """Write `data` to a new file and wait until it is on the disk. OSError: it could not be done."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def replace_file(path: Path, data: bytes, mode: int, *, folder_mode: int = 0o755) -> None:
    """Replace the file at `path` in one step; its folder is made if missing. OSError: it could not be done."""
    path.parent.mkdir(mode=folder_mode, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    try:
        write_durably(draft, data, mode)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)

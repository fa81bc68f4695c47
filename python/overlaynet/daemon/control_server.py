"""The server side of the control socket: for its owner alone, or for a group too, and who is at the other end is checked.

The socket's mode keeps others out (0600, or 0660 with a group); the credentials of each connection are looked at all the same,
since a mode can be changed by whoever owns the socket's directory.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import dataclasses
import errno
import os
import pwd
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import structlog

from overlaynet.control.protocol import LONGEST_REQUEST_BYTES, SOCKET_NAME, TIMEOUT_S, decode, encode
from overlaynet.daemon.settings import SocketGroup
from overlaynet.errors import ConfigError
from overlaynet.model.status import Status

log = structlog.get_logger()

_LOOK_S = 1.0
_SO_PEERGROUPS = 59  # include/uapi/asm-generic/socket.h
_MOST_GROUPS_BYTES = 1_024  # what Python's getsockopt asks for at most


@contextlib.asynccontextmanager
async def serving(run_dir: Path, status: Callable[[], Status], group: SocketGroup | None = None) -> AsyncIterator[None]:
    """Answer at the socket in `run_dir` while the block runs, and make it again if it is removed.

    ConfigError: the socket cannot be made, or given to the group.
    """
    path = run_dir / SOCKET_NAME

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    writer.write(encode(await _answer(reader, writer, status, group)))
                    await writer.drain()
            except TimeoutError:
                pass
            finally:
                writer.close()

    def listen() -> Awaitable[asyncio.Server]:
        return asyncio.start_unix_server(answer, sock=_bound(path, group), limit=LONGEST_REQUEST_BYTES)

    server = await listen()

    async def tend() -> None:
        nonlocal server
        failed = False
        while True:
            await asyncio.sleep(_LOOK_S)
            if os.path.exists(path):  # noqa: ASYNC240, PTH110 - a look at a file system in memory
                continue
            try:
                again = await listen()
            except ConfigError as error:
                if not failed:
                    log.error("the control socket was removed and cannot be made again: trying on", why=str(error))
                failed = True
                continue
            server.close()
            server, failed = again, False
            log.warning("the control socket was removed: made again", path=str(path))

    tending = asyncio.create_task(tend())
    try:
        yield
    finally:
        tending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tending
        server.close()
        path.unlink(missing_ok=True)


def _bound(path: Path, group: SocketGroup | None) -> socket.socket:
    """A new socket at `path`, in a directory that is made if missing.

    ConfigError: the socket cannot be made, or given to the group.
    """
    listening = socket.socket(socket.AF_UNIX)
    old_mask = os.umask(0o022)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        os.umask(0o177)
        path.unlink(missing_ok=True)
        listening.bind(str(path))
        # At once, so that who finds the socket can ask.
        listening.listen()
        if group is not None:
            _give(path, group)
    except OSError as error:
        listening.close()
        raise ConfigError("--run-dir", str(path), f"the control socket cannot be made: {error.strerror or error}") from None
    except ConfigError:
        listening.close()
        path.unlink(missing_ok=True)
        raise
    finally:
        os.umask(old_mask)
    return listening


def _give(path: Path, group: SocketGroup) -> None:
    """Let the group's members in."""
    try:
        os.chown(path, -1, group.number)
        path.chmod(0o660)
    except OSError as error:
        why = f"the control socket cannot be given to it: {error.strerror}: the daemon must be a member (SupplementaryGroups=)"
        raise ConfigError("--socket-group", group.name, why) from None


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: Callable[[], Status], group: SocketGroup | None
) -> dict[str, object]:
    try:
        line = await reader.readline()
    except ValueError:
        line = b""
    # After reading: what is closed with a request unread takes its answer along.
    if not _trusted(writer.get_extra_info("socket"), group):
        return {"error": "only root, the daemon's own user and the members of its --socket-group are answered"}
    try:
        request = decode(line).get("request")
    except (ValueError, TypeError):
        return {"error": 'a request is one line of JSON, such as {"request": "status"}'}
    if request != "status":
        return {"error": f"unknown request {request!r}: known is status"}
    return {"status": dataclasses.asdict(status())}


def _trusted(connection: socket.socket, group: SocketGroup | None) -> bool:
    """Whether the process at the other end is root's, ours, or in the group (SO_PEERCRED and SO_PEERGROUPS, unix(7))."""
    _, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    if uid in (0, os.geteuid()):
        return True
    return group is not None and (gid == group.number or group.number in _groups(connection, uid, gid))


def _groups(connection: socket.socket, uid: int, gid: int) -> list[int]:
    """The groups of the process at the other end; those of its user where it has more than fit."""
    try:
        return array.array("I", connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_GROUPS_BYTES)).tolist()
    except OSError as error:
        if error.errno != errno.ERANGE:
            return []
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return []

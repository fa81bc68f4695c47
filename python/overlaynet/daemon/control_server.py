"""The server side of the control socket: mode 0600, and only root or the daemon's own user is answered."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from overlaynet.control.protocol import LONGEST_REQUEST_BYTES, SOCKET_NAME, TIMEOUT_S, decode, encode
from overlaynet.errors import ConfigError
from overlaynet.model.status import Status


@contextlib.asynccontextmanager
async def serving(run_dir: Path, status: Callable[[], Status]) -> AsyncIterator[None]:
    """Answer at the socket in `run_dir` while the block runs. ConfigError: the socket cannot be made."""
    path = run_dir / SOCKET_NAME

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    writer.write(encode(await _answer(reader, writer, status)))
                    await writer.drain()
            except TimeoutError:
                pass
            finally:
                writer.close()

    old_mask = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(answer, path, limit=LONGEST_REQUEST_BYTES)
    except OSError as error:
        raise ConfigError("--run-dir", str(path), f"the control socket cannot be made: {error.strerror or error}") from None
    finally:
        os.umask(old_mask)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: Callable[[], Status]) -> dict[str, object]:
    if not _trusted(writer.get_extra_info("socket")):
        return {"error": "only root and the daemon's own user are answered"}
    try:
        request = decode(await reader.readline()).get("request")
    except (ValueError, TypeError):
        return {"error": 'a request is one line of JSON, such as {"request": "status"}'}
    if request != "status":
        return {"error": f"unknown request {request!r}: known is status"}
    return {"status": dataclasses.asdict(status())}


def _trusted(connection: socket.socket) -> bool:
    """Whether the process at the other end is root's or ours (SO_PEERCRED, unix(7))."""
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return uid in (0, os.geteuid())

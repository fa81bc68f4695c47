"""Asking the daemon of this host, over its socket; of the standard library only, so that it starts at once."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from overlaynet.control.protocol import SOCKET_NAME, TIMEOUT_S, decode, encode
from overlaynet.errors import DaemonUnreachableError

__all__ = ["ask", "follow"]


def ask(run_dir: Path, request: str) -> dict[str, Any]:
    """The answer to `request`. DaemonUnreachableError: no daemon answers at the socket in `run_dir`, or not in time."""
    path = run_dir / SOCKET_NAME
    received = bytearray()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(str(path))
            connection.sendall(encode({"request": request}))
            while chunk := connection.recv(65_536):
                received += chunk
        answer = decode(bytes(received))
    except (OSError, ValueError, TypeError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DaemonUnreachableError(str(path), why) from None
    if "error" in answer:
        raise DaemonUnreachableError(str(path), str(answer["error"]))
    return answer


async def follow(run_dir: Path, *, interval_s: float = 1.0) -> AsyncIterator[dict[str, Any]]:
    """The daemon's status, and again whenever it has changed, looked at every `interval_s` seconds.

    Never ends by itself. DaemonUnreachableError: the daemon has ended.
    """
    import asyncio  # takes longer to load than a question takes to be answered

    last: dict[str, Any] | None = None
    while True:
        status = (await asyncio.to_thread(ask, run_dir, "status"))["status"]
        if status != last:
            yield status
            last = status
        await asyncio.sleep(interval_s)

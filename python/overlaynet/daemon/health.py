"""`/healthz` and `/readyz` over HTTP, from a thread of its own, so that it answers when the loop is stuck.

`/healthz` is 200 while the loop ticks, else 503. `/readyz` is 200 once the lease is held and every peer of the first snapshot was
attempted, and 503 before. A store that is lost later leaves it at 200, and the body says since when; a lease that has expired or
was taken makes it 503 until the next one is held.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address

import h11

from overlaynet.errors import ConfigError

_STUCK_AFTER_S = 10.0
_REQUEST_TIMEOUT_S = 2.0
_LONGEST_REQUEST_BYTES = 8_192


@dataclass(slots=True)
class Health:
    """What the daemon says of itself; written by its loop, read by the thread. Times are CLOCK_MONOTONIC seconds.

    `unheld` says why the lease is not held though it was; `store_lost_since` is on CLOCK_BOOTTIME, None while the store answers.
    """

    ready: bool = False
    unheld: str = ""
    store_lost_since: float | None = None
    ticked_at: float = field(default_factory=time.monotonic)

    def tick(self) -> None:
        """Say that the loop runs."""
        self.ticked_at = time.monotonic()

    def answer(self, path: str) -> tuple[int, str]:
        """The HTTP status and body for a GET of `path`."""
        match path.partition("?")[0]:
            case "/healthz":
                silent = time.monotonic() - self.ticked_at
                if silent > _STUCK_AFTER_S:
                    return 503, f"overlaynet-daemon's loop has not run for {silent:.0f} s\n"
                return 200, "overlaynet-daemon is running\n"
            case "/readyz":
                return self._readiness()
            case _:
                return 404, "try /healthz or /readyz\n"

    def _readiness(self) -> tuple[int, str]:
        if not self.ready:
            return 503, "overlaynet-daemon is not ready yet\n"
        if self.unheld:
            return 503, f"overlaynet-daemon is not ready: {self.unheld}{self._store()}\n"
        return 200, f"overlaynet-daemon is ready{self._store()}\n"

    def _store(self) -> str:
        since = self.store_lost_since
        if since is None:
            return ""
        lost_s = max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - since)
        moment = datetime.fromtimestamp(time.time() - lost_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return f"; the store has been lost since {moment}, for {lost_s:.0f} s"


class HealthServer:
    """The thread that answers. `port` 0 in a test means: any free port."""

    def __init__(self, health: Health, address: str, port: int) -> None:
        self._health = health
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            self._listener = socket.create_server((address, port), family=family, reuse_port=False)
        except OSError as error:
            place = f"[{address}]:{port}" if family == socket.AF_INET6 else f"{address}:{port}"
            why = os.strerror(error.errno) if error.errno else str(error)
            raise ConfigError("--healthz-port", place, f"cannot be listened on: {why}") from None
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                try:
                    self._exchange(connection)
                except (OSError, h11.ProtocolError):
                    continue

    def _exchange(self, connection: socket.socket) -> None:
        """One request, one answer; a client has two seconds for all of it."""
        ends = time.monotonic() + _REQUEST_TIMEOUT_S
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=_LONGEST_REQUEST_BYTES)
        status, body, head = 400, "bad request\n", False
        try:
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    connection.settimeout(max(0.01, ends - time.monotonic()))
                    http.receive_data(connection.recv(4_096))
                elif isinstance(event, h11.Request):
                    head = event.method == b"HEAD"
                    known = event.method in (b"GET", b"HEAD")
                    target = event.target.decode("ascii", "replace")
                    status, body = self._health.answer(target) if known else (405, "only GET\n")
                    break
                else:
                    return
        except h11.RemoteProtocolError:
            status, body = 400, "bad request\n"
        payload = body.encode()
        headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(payload))), ("Connection", "close")]
        sent = http.send(h11.Response(status_code=status, reason=HTTPStatus(status).phrase, headers=headers)) or b""
        if not head:
            sent += http.send(h11.Data(data=payload)) or b""
        connection.sendall(sent)


@contextlib.contextmanager
def serving_health(health: Health, address: IPv4Address | IPv6Address, port: int) -> Iterator[None]:
    """Answer while the block runs; port 0 is off. ConfigError: the address and port cannot be listened on."""
    if not port:
        yield
        return
    server = HealthServer(health, str(address), port)
    try:
        yield
    finally:
        server.close()

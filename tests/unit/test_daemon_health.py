"""/healthz and /readyz as a client sees them, byte for byte where that matters."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from overlaynet.daemon import health as module
from overlaynet.daemon.health import Health, HealthServer, serving_health
from overlaynet.errors import ConfigError


@pytest.fixture
def server() -> Iterator[HealthServer]:
    server = HealthServer(Health(), "127.0.0.1", 0)
    yield server
    server.close()


def exchange(server: HealthServer, request: bytes) -> str:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(4_096), b"")).decode()


def ask(server: HealthServer, path: str, method: str = "GET") -> tuple[str, str]:
    """The status line and the body."""
    head, _, body = exchange(server, f"{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()).partition("\r\n\r\n")
    return head.split("\r\n")[0], body


def test_loop_that_ticks_is_healthy_and_not_ready_until_it_says_so(server: HealthServer) -> None:
    assert ask(server, "/healthz") == ("HTTP/1.1 200 OK", "overlaynet-daemon is running\n")
    assert ask(server, "/readyz") == ("HTTP/1.1 503 Service Unavailable", "overlaynet-daemon is not ready yet\n")
    server._health.ready = True
    assert ask(server, "/readyz?verbose") == ("HTTP/1.1 200 OK", "overlaynet-daemon is ready\n")


def test_ready_outlives_the_store_and_not_the_lease(server: HealthServer) -> None:
    health = server._health
    health.ready, health.store_lost_since = True, time.clock_gettime(time.CLOCK_BOOTTIME) - 90
    line, body = ask(server, "/readyz")
    assert line == "HTTP/1.1 200 OK"
    assert re.fullmatch(
        r"overlaynet-daemon is ready; the store has been lost since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ, for 9\d s\n", body
    )
    health.unheld = "its lease has expired, or was taken"
    line, body = ask(server, "/readyz")
    assert line == "HTTP/1.1 503 Service Unavailable"
    assert body.startswith("overlaynet-daemon is not ready: its lease has expired, or was taken; the store has been lost since ")
    health.unheld, health.store_lost_since = "", None
    assert ask(server, "/readyz") == ("HTTP/1.1 200 OK", "overlaynet-daemon is ready\n")


def test_loop_that_is_stuck_is_not_healthy(server: HealthServer) -> None:
    server._health.ticked_at = time.monotonic() - 11
    line, body = ask(server, "/healthz")
    assert line == "HTTP/1.1 503 Service Unavailable"
    assert body == "overlaynet-daemon's loop has not run for 11 s\n"
    server._health.tick()
    assert ask(server, "/healthz")[0] == "HTTP/1.1 200 OK"


def test_other_paths_methods_and_bytes_are_refused_in_words(server: HealthServer) -> None:
    assert ask(server, "/") == ("HTTP/1.1 404 Not Found", "try /healthz or /readyz\n")
    assert ask(server, "/healthz", "POST") == ("HTTP/1.1 405 Method Not Allowed", "only GET\n")
    assert exchange(server, b"\x16\x03\x01 not HTTP\r\n\r\n").startswith("HTTP/1.1 400 Bad Request\r\n")
    assert exchange(server, b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 8_200).startswith("HTTP/1.1 400 Bad Request\r\n")


def test_head_has_the_length_and_no_body(server: HealthServer) -> None:
    answer = exchange(server, b"HEAD /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
    assert answer.startswith("HTTP/1.1 200 OK\r\n")
    assert "Content-Length: 29\r\n" in answer
    assert answer.endswith("\r\n\r\n")


def test_client_that_says_nothing_does_not_hold_up_the_next(server: HealthServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REQUEST_TIMEOUT_S", 0.2)
    with socket.create_connection(("127.0.0.1", server.port)):
        assert ask(server, "/healthz")[0] == "HTTP/1.1 200 OK"


def test_client_that_has_gone_is_no_trouble(server: HealthServer) -> None:
    socket.create_connection(("127.0.0.1", server.port)).close()
    assert ask(server, "/healthz")[0] == "HTTP/1.1 200 OK"


def test_closed_server_lets_its_port_go() -> None:
    server = HealthServer(Health(), "127.0.0.1", 0)
    server.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


def test_port_that_is_held_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"--healthz-port: '127.0.0.1:{port}': .*in use"):
            HealthServer(Health(), "127.0.0.1", port)


def test_port_zero_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(module, "HealthServer")
    with serving_health(Health(), IPv4Address("127.0.0.1"), 0):
        pass

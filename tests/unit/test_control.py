"""The control socket: its protocol, who is answered, and what a client says of a daemon that does not answer."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import stat
import threading
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from overlaynet.control import client
from overlaynet.control.client import ask
from overlaynet.control.protocol import decode, encode
from overlaynet.daemon import control_server
from overlaynet.daemon.control_server import serving
from overlaynet.errors import ConfigError, DaemonUnreachableError
from overlaynet.model.host import HostSettings
from overlaynet.model.lease import HostId
from overlaynet.model.status import Status
from overlaynet.reconcile.reconciler import Reconciler

HOST = HostSettings(HostId("a" * 32), "eth0", IPv4Address("192.0.2.1"), None, IPv4Address("192.0.2.1"), None)


def test_message_is_one_line_of_json() -> None:
    assert encode({"request": "status"}) == b'{"request":"status"}\n'
    assert decode(b'{"request":"status"}\n') == {"request": "status"}


@pytest.mark.parametrize("line", [b"", b"status\n", b"[]\n", b'"status"\n', b'{"request":\n', b"\xff\n"])
def test_what_is_no_object_is_refused(line: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        decode(line)


def status() -> Status:
    return Reconciler(HOST).status(0.0)


async def exchange(run_dir: Path, request: bytes) -> dict[str, object]:
    reader, writer = await asyncio.open_unix_connection(run_dir / "control.sock")
    writer.write(request)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    found = json.loads(answer)
    assert isinstance(found, dict)
    return found


async def test_status_is_answered_and_the_socket_is_for_its_owner(tmp_path: Path) -> None:
    async with serving(tmp_path, status):
        assert stat.S_IMODE((tmp_path / "control.sock").stat().st_mode) == 0o600
        told = await asyncio.to_thread(ask, tmp_path, "status")
        assert told["status"]["host"] == HOST.host
    assert not (tmp_path / "control.sock").exists()


REQUESTS = (b"", b"\n", b"hello\n", b"[]\n", b'{"request": "stop"}\n', b'{"request": ["status"]}\n', b"x" * 10_000)


@pytest.mark.parametrize("request_", REQUESTS)
async def test_other_requests_are_answered_with_an_error(tmp_path: Path, request_: bytes) -> None:
    async with serving(tmp_path, status):
        answer = await exchange(tmp_path, request_)
        assert set(answer) == {"error"}
        # And the next one is answered.
        assert set(await exchange(tmp_path, b'{"request": "status"}\n')) == {"status"}


async def test_client_that_says_nothing_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_server, "TIMEOUT_S", 0.1)
    async with serving(tmp_path, status):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "control.sock")
        assert await reader.read() == b""
        writer.close()


async def test_socket_of_a_daemon_that_was_killed_is_replaced(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "control.sock"))
    left.close()
    async with serving(tmp_path, status):
        assert set(await exchange(tmp_path, b'{"request": "status"}\n')) == {"status"}


async def test_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "none").write_text("a file")
    with pytest.raises(ConfigError, match=r"--run-dir: .*control socket cannot be made"):
        async with serving(tmp_path / "none", status):
            pass


async def test_socket_is_made_again_with_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_server, "_LOOK_S", 0.01)
    run_dir = tmp_path / "run"
    async with serving(run_dir, status):
        shutil.rmtree(run_dir)
        async with asyncio.timeout(10):
            while not (run_dir / "control.sock").exists():  # noqa: ASYNC110 - a file system tells nobody
                await asyncio.sleep(0.01)
        assert set(await exchange(run_dir, b'{"request": "status"}\n')) == {"status"}
        assert stat.S_IMODE((run_dir / "control.sock").stat().st_mode) == 0o600
    assert not (run_dir / "control.sock").exists()


def test_client_names_the_socket_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DaemonUnreachableError, match=rf"control socket {tmp_path}/control.sock: No such file.*--run-dir"):
        ask(tmp_path, "status")


@pytest.mark.parametrize("answer", [b"", b"{}x\n", b"[]\n", b'{"error": "not now"}\n'])
def test_client_says_what_a_strange_daemon_said(tmp_path: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "control.sock"))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4_096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(DaemonUnreachableError):
            ask(tmp_path, "status")
        thread.join()


def test_client_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_S", 0.1)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "control.sock"))
        listening.listen()
        with pytest.raises(DaemonUnreachableError, match="timed out"):
            ask(tmp_path, "status")

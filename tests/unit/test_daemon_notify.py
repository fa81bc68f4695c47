"""What the service manager hears."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

import pytest
from overlaynet.daemon.notify import notify


@pytest.mark.parametrize("abstract", [False, True])
def test_lines_are_one_datagram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"@overlaynet-test-{secrets.token_hex(8)}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify("READY=1", "STATUS=ready")
        notify("STOPPING=1")
        assert [manager.recv(100), manager.recv(100)] == [b"READY=1\nSTATUS=ready", b"STOPPING=1"]


@pytest.mark.parametrize("name", [None, "", "relative/path", "vsock:2:1234", "/nowhere/notify"])
def test_without_a_manager_that_listens_nothing_happens(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    if name is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", name)
    notify("READY=1")

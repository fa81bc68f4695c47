"""What a host keeps between runs belongs to one daemon at a time, and can be forgotten."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from overlaynet.daemon.state import check_place, forget_host, host_id, owning_directory, read_kept
from overlaynet.errors import ConfigError, DaemonRunningError, StoreDataError


def test_state_directory_is_one_daemons_until_that_ends(tmp_path: Path) -> None:
    with (
        owning_directory("--state-dir", tmp_path),
        pytest.raises(DaemonRunningError, match="uses it"),
        owning_directory("--state-dir", tmp_path),
    ):
        pass
    with owning_directory("--state-dir", tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_forgotten_host_begins_as_another(tmp_path: Path) -> None:
    first = host_id(tmp_path)
    assert host_id(tmp_path) == first
    (tmp_path / "snapshot.json").write_text("{}")
    (tmp_path / "engine.json").write_text("{}")
    forget_host(tmp_path, "engine.json", "never-there")
    assert list(tmp_path.iterdir()) == []
    assert read_kept(tmp_path) is None
    assert host_id(tmp_path) != first


def test_place_of_a_file_may_be_free_or_a_file_and_nothing_else(tmp_path: Path) -> None:
    check_place("--subnet-file", tmp_path / "none")
    (tmp_path / "file").touch()
    check_place("--subnet-file", tmp_path / "file")
    for path, why in (
        (tmp_path, "is no file"),
        (tmp_path / "file" / "x", "Not a directory"),
        (tmp_path / ("x" * 300), "too long"),
    ):
        with pytest.raises(ConfigError, match=why):
            check_place("--subnet-file", path)


def test_file_without_end_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "snapshot.json").touch()
    os.truncate(tmp_path / "snapshot.json", 1 << 40)
    with pytest.raises(StoreDataError, match=r"snapshot.json: cannot be read: File too large"):
        read_kept(tmp_path)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "host-id")
    (tmp_path / "snapshot.json").mkdir()
    with pytest.raises(ConfigError, match="host-id': cannot be read: it is no file"):
        host_id(tmp_path)
    with pytest.raises(StoreDataError, match=r"snapshot.json: cannot be read: it is no file"):
        read_kept(tmp_path)

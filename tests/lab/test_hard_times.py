"""What a machine does to a daemon: it is stopped for long, its wall clock is stepped, its disk is full, its folders vanish."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from overlaynet.control.client import ask
from overlaynet.errors import OverlaynetError
from overlaynet.lab.lab import Lab
from overlaynet.lab.numbered import flowing
from overlaynet.lab.topology import Plan, plan_lab
from overlaynet.model.kept import decode_kept

from tests.contract.clock import DAY_S, compiled_shim
from tests.lab.conftest import lab_name
from tests.lab.kernel_state import monitored, ours, status, until
from tests.lab.one_host import VXLAN, OneHost

TTL_S = 4


@pytest.fixture(scope="module")
def lab(bring_up: Callable[[Plan], Lab]) -> Iterator[Lab]:
    """Three hosts whose leases are short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("overlaynet.lab.daemons.LEASE_TTL", f"{TTL_S}s")
        yield bring_up(plan_lab(lab_name("hard"), hosts=3, backend="vxlan"))


def lease_of(lab: Lab, number: int) -> str:
    return str(status(lab, number)["lease"]["subnets"])


def known(lab: Lab, number: int) -> set[str]:
    """The subnets that this host has programmed."""
    return {peer["subnets"] for peer in status(lab, number)["peers"] if peer["state"] == "programmed"}


@pytest.mark.parametrize("ttls", [3, pytest.param(15, marks=pytest.mark.soak)])
def test_host_that_is_stopped_beyond_its_lease_is_forgotten_and_comes_back(lab: Lab, ttls: int) -> None:
    held, subnet, others = ours(lab, "host1"), lease_of(lab, 3), known(lab, 1) - {lease_of(lab, 3)}
    process = lab.files.host(lab.plan.hosts[2]).daemon
    assert process is not None
    with flowing(lab, "pod1", "pod2") as flow:
        os.kill(process.pid, signal.SIGSTOP)
        try:
            flow.run_for(ttls * TTL_S)
            assert (known(lab, 1), known(lab, 2)) == (others, {lease_of(lab, 1)})
            assert subnet.replace("-", "/") not in ours(lab, "host1")
        finally:
            os.kill(process.pid, signal.SIGCONT)
        until(lambda: subnet in known(lab, 1) & known(lab, 2), wait_s=60)
        loss = flow.end()
    assert loss.lost == 0
    assert lease_of(lab, 3) == subnet
    assert ours(lab, "host1") == held


def test_wall_clock_that_is_stepped_by_a_day_changes_nothing(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, shift = lab.plan.hosts[0], tmp_path / "shift"
    shift.write_text("0")
    subnet, database = lease_of(lab, 1), lab.store.removeprefix("sqlite:///")
    lab.stop_daemon(host)
    monkeypatch.setenv("LD_PRELOAD", str(compiled_shim(tmp_path)))
    monkeypatch.setenv("CLOCK_SHIFT_FILE", str(shift))
    lab.start_daemons([host])
    monkeypatch.undo()
    until(lambda: subnet in known(lab, 2))

    def renewed() -> int:
        """The end of host1's lease, which moves with each renewal."""
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10) as store:
            ends: int = store.execute("SELECT expires FROM lease WHERE key LIKE ?", (f"%{subnet}",)).fetchone()[0]
        store.close()
        return ends

    with monitored(lab, "host2") as heard, flowing(lab, "pod1", "pod2") as flow:
        for step in (DAY_S, -DAY_S, 0):
            shift.write_text(str(step))
            for _ in range(2):
                until_more(renewed)
            told = status(lab, 1)["lease"]
            assert (told["subnets"], told["expired"]) == (subnet, False)
            assert 0 < told["remaining_s"] <= TTL_S
        loss = flow.end()
        assert heard() == []
    assert loss.lost == 0
    assert status(lab, 1)["kernel_writes"] == 0
    lab.stop_daemon(host)
    lab.start_daemons([host])


def until_more(count: Callable[[], int]) -> None:
    before = count()
    until(lambda: count() > before)


@pytest.fixture
def host(host: OneHost) -> OneHost:
    host.configure(VXLAN)
    return host


def told(folder: Path) -> dict[str, object]:
    try:
        found: dict[str, object] = ask(folder, "status")["status"]
    except OverlaynetError:
        return {}
    return found


def fill(path: Path) -> None:
    """Let the file grow until its file system is full."""
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 512)


@pytest.fixture
def small() -> Iterator[Path]:
    """A folder with a path so short that a socket in it can be named by way of /proc, too."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_full_disk_ends_nothing_and_leaves_no_half_written_file(host: OneHost, small: Path) -> None:
    # All that the daemon writes is on a file system of its own, the store too.
    mounted = f'mount -t tmpfs -o size=512k none {small} && cp -a {host.folder}/store {small}/store && exec "$@"'
    places = [f"--{flag}={small}/{name}" for flag, name in (("state-dir", "state"), ("run-dir", "run"), ("subnet-file", "env"))]
    flags = [*places, f"--store=sqlite:///{small}/store/store.db", "--subnet-lease-ttl=6s", "--log-format=json"]
    running = host.start(*flags, before=("sh", "-c", mounted, "sh"))
    running.hear("READY=1")
    inside = Path(f"/proc/{running.process.pid}/root{small}")
    env = (inside / "env").read_text()

    ballast = inside / "ballast"
    fill(ballast)
    (inside / "env").unlink()
    fill(ballast)
    until(lambda: told(inside / "run").get("store_error"))
    until(lambda: "subnet.env cannot be written" in running.text)
    # The kernel's part goes on, and says what it is about.
    host.ip("link delete ovl.1")
    until(lambda: " ovl.1: " in host.ip("-o link"))
    assert decode_kept((inside / "state" / "snapshot.json").read_bytes()) is not None
    assert running.process.poll() is None

    ballast.unlink()
    until(lambda: (inside / "env").exists() and (inside / "env").read_text() == env)
    until(lambda: told(inside / "run").get("store_error") == "" and not told(inside / "run")["lease"]["expired"])  # type: ignore[index]
    assert sorted(path.name for path in (inside / "state").iterdir() if path.name.startswith(".")) == []
    assert running.text.count("subnet.env cannot be written") == 1
    assert running.stop() == 0


def test_folders_that_were_removed_are_made_again_with_what_was_in_them(host: OneHost) -> None:
    running = host.start()
    running.hear("READY=1")
    env = host.subnet_env.read_text()
    shutil.rmtree(host.run)
    shutil.rmtree(host.subnet_env.parent)
    until(lambda: told(host.run).get("ready"))
    until(lambda: host.subnet_env.exists())
    assert host.subnet_env.read_text() == env
    assert stat.S_IMODE((host.run / "control.sock").stat().st_mode) == 0o600
    assert running.stop() == 0
    assert not (host.run / "control.sock").exists()


def test_state_directory_that_was_removed_is_there_again_with_the_same_identity(host: OneHost) -> None:
    running = host.start()
    running.hear("READY=1")
    until(lambda: (host.state / "snapshot.json").exists())
    identity = host.state / "host-id"
    text = identity.read_text()
    shutil.rmtree(host.state)
    until(lambda: identity.exists() and (host.state / "snapshot.json").exists())
    assert identity.read_text() == text
    assert stat.S_IMODE(identity.stat().st_mode) == 0o600
    assert stat.S_IMODE(host.state.stat().st_mode) == 0o700
    assert running.stop() == 0


def test_state_directory_that_others_may_write_is_refused(host: OneHost) -> None:
    host.state.mkdir()
    host.state.chmod(0o770)
    done = host.daemon_end()
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert str(host.state) in done.stderr
    assert "chmod go-w" in done.stderr

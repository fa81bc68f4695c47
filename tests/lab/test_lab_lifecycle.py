"""Up, list, exec, down: what they leave, and what they leave when they are cut short."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from overlaynet.errors import LabError
from overlaynet.lab import lab as labs
from overlaynet.lab import system
from overlaynet.lab.daemons import program
from overlaynet.lab.files import LabFiles
from overlaynet.lab.topology import plan_lab

from tests.lab.conftest import lab_name, links_of_the_machine, run_overlaynet, traces


def until(condition: Callable[[], object], *, wait_s: float = 20.0) -> None:
    deadline = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_up_list_exec_down_by_the_command_line(name: str) -> None:
    machine = links_of_the_machine()
    up = run_overlaynet("lab", "up", "--name", name, "--hosts", "2", "--bridges", "2")
    assert up.returncode == 0, up.stderr
    assert "pod2b" in up.stdout

    rows = {row["name"]: row for row in json.loads(run_overlaynet("lab", "list", "--json").stdout)}
    assert rows[name] | {"store": ""} == {
        "name": name,
        "state": "up",
        "hosts": 2,
        "daemons": 2,
        "backend": "vxlan",
        "family": "v4",
        "underlay": "bridge",
        "bridges": 2,
        "store": "",
    }
    again = run_overlaynet("lab", "up", "--name", name)
    assert again.returncode == 10
    assert len(again.stderr.splitlines()) == 1
    assert f"lab {name} exists" in again.stderr

    inside = run_overlaynet("lab", "exec", "--name", name, "pod1a", "--", "ip", "-o", "-4", "address", "show", "dev", "eth0")
    assert inside.returncode == 0
    assert "/25" in inside.stdout
    assert run_overlaynet("lab", "exec", "--name", name, "host2", "--", "sh", "-c", "exit 37").returncode == 37
    for number in (1, 2):
        on_host = ("lab", "exec", "--name", name, f"host{number}", "--", program("overlaynet"))
        status = json.loads(run_overlaynet(*on_host, "status", "--json").stdout)
        assert status["public_addresses"] == [f"198.18.0.{number}"]
        leases = run_overlaynet(*on_host, "leases")
        assert "198.18.0.1" in leases.stdout, leases.stderr
        assert "198.18.0.2" in leases.stdout
    unknown = run_overlaynet("lab", "exec", "--name", name, "pod9", "--", "true")
    assert unknown.returncode == 2
    assert len(unknown.stderr.splitlines()) == 1
    assert "pod2b" in unknown.stderr

    down = run_overlaynet("lab", "down", "--name", name)
    assert down.returncode == 0
    assert traces(name) == []
    assert links_of_the_machine() == machine
    again = run_overlaynet("lab", "down", "--name", name)
    assert (again.returncode, again.stdout) == (0, f"{name}: there was nothing\n")
    gone = run_overlaynet("lab", "exec", "--name", name, "pod1a", "--", "true")
    assert gone.returncode == 10
    assert len(gone.stderr.splitlines()) == 1


def half_made(name: str) -> dict[str, Callable[[], object]]:
    files = LabFiles(name)
    return {
        "first namespaces": lambda: labs.namespaces_of(name),
        "a daemon runs": lambda: any(files.folder.glob("host*/daemon.json")),
        "a subnet is leased": lambda: any(files.folder.glob("host*/subnet.env")),
    }


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", half_made(""))
def test_up_that_is_cut_short_leaves_nothing_once_down_was_called(name: str, moment: str, number: signal.Signals) -> None:
    up = subprocess.Popen(
        [program("overlaynet"), "lab", "up", "--name", name, "--hosts", "6"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(half_made(name)[moment])
    finally:
        up.send_signal(number)
        code = up.wait(20)
    if number == signal.SIGKILL:
        assert run_overlaynet("lab", "down", "--name", name).returncode == 0
    else:
        # It took everything down by itself.
        assert code == 128 + number
    assert traces(name) == []


def test_up_that_fails_leaves_nothing_and_shows_the_end_of_the_log(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overlaynet.lab.daemons.LEASE_TTL", "no span of time")
    with pytest.raises(LabError, match=r"host\d: overlaynet-daemon ended before it was ready") as caught:
        labs.up(plan_lab(name, hosts=2))
    assert "no span of time" in caught.value.__notes__[0]
    assert traces(name) == []


def test_down_ends_whatever_runs_inside_and_nothing_else(name: str) -> None:
    lab = labs.up(plan_lab(name, hosts=1), daemons=False)
    # Both ignore SIGTERM; the second is no child of a lab's process, and outside the lab.
    stubborn = ["sh", "-c", "trap '' TERM; echo begun; while :; do read -r line; done"]
    inside = subprocess.Popen(system.enter(lab.plan.member("pod1"), *stubborn), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    outside = subprocess.Popen(stubborn, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        for process in (inside, outside):
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
        assert labs.down(name)
        assert inside.wait(5) == -signal.SIGKILL
        assert outside.poll() is None
    finally:
        for process in (inside, outside):
            process.kill()
            process.communicate()
    assert traces(name) == []


def test_number_of_a_recycled_process_is_not_signalled(name: str) -> None:
    lab = labs.up(plan_lab(name, hosts=1), daemons=False)
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        now = system.Process.of(bystander.pid)
        assert now is not None
        lab.files.host(lab.plan.hosts[0]).record(system.Process(now.pid, now.started - 1))
        lab.stop_daemon(lab.plan.hosts[0])
        labs.down(name)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_lab_of_a_process_that_is_gone_is_replaced_and_another_is_not(name: str) -> None:
    plan = plan_lab(name, hosts=1)
    labs.up(plan, daemons=False, passing=True)
    with pytest.raises(LabError, match="exists"):
        labs.up(plan, daemons=False)

    record = LabFiles(name).folder / "plan.json"
    kept = json.loads(record.read_text())
    kept["owner"]["started"] -= 1
    record.write_text(json.dumps(kept))
    labs.up(plan, daemons=False)


def test_lock_is_held_by_one_and_left_by_none(name: str) -> None:
    files = LabFiles(name)
    with files.lock(), pytest.raises(LabError, match="another process"), files.lock(wait_s=0.1):
        pass
    with files.lock(wait_s=0.1):
        pass
    assert traces(name) == []


def test_store_that_holds_another_network_is_not_overwritten(name: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    theirs = tmp_path / "network.json"
    theirs.write_text('{"Network": "10.9.0.0/16", "Backend": {"Type": "udp"}}')
    assert run_overlaynet("--store", url, "network", "set", str(theirs)).returncode == 0
    before = run_overlaynet("--store", url, "network", "show", "--json").stdout
    assert "10.9.0.0/16" in before

    up = run_overlaynet("lab", "up", "--name", name, "--hosts", "1", "--store", url)
    assert up.returncode == 10
    assert "holds another network" in up.stderr
    assert traces(name) == []
    assert run_overlaynet("--store", url, "network", "show", "--json").stdout == before


def test_two_labs_share_nothing_but_their_folder() -> None:
    one, other = lab_name("one"), lab_name("other")
    try:
        labs.up(plan_lab(one, hosts=1), daemons=False)
        labs.up(plan_lab(other, hosts=1), daemons=False)
        assert labs.down(one)
        assert traces(one) == []
        assert labs.namespaces_of(other) == set(plan_lab(other, hosts=1).namespaces)
    finally:
        labs.down(one)
        labs.down(other)


def test_without_root_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(LabError, match="must run as root"):
        labs.up(plan_lab(lab_name("nobody")))

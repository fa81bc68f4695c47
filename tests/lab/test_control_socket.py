"""Who may ask a daemon over its socket, and that no secret is among what it says."""

from __future__ import annotations

import grp
import json
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from overlaynet.control.client import ask
from overlaynet.lab.daemons import program

from tests.lab.one_host import HOST_GW, OneHost, Running, one_line
from tests.lab.service_unit import ServiceUnit, account, as_service

GROUP = grp.getgrgid(1)
"""A group that every system has, and none of the processes here is in."""

STRANGER = 54_321
SECRET = "correct-horse-battery"

ASKING = """
import json, os, socket, sys
path, uid, gid, groups = json.loads(sys.argv[1])
os.chdir(os.path.dirname(path))  # opened as root: the folders above are closed to others
os.setgroups(groups), os.setgid(gid), os.setuid(uid)
asking = socket.socket(socket.AF_UNIX)
try:
    asking.connect(os.path.basename(path))
    asking.sendall(b'{"request": "status"}\\n')
    print(b"".join(iter(lambda: asking.recv(65536), b"")).decode())
except PermissionError:
    print('{"refused": "by the kernel"}')
"""


def asked_as(host: OneHost, uid: int, gid: int, groups: Sequence[int] = ()) -> set[str]:
    """The keys of what a process with these numbers is answered."""
    who = json.dumps([str(host.run / "control.sock"), uid, gid, list(groups)])
    done = subprocess.run([sys.executable, "-I", "-c", ASKING, who], capture_output=True, text=True, check=True, timeout=30)
    return set(json.loads(done.stdout))


def ready(host: OneHost, *flags: str) -> Running:
    host.configure(HOST_GW)
    running = host.start(*flags)
    running.hear("READY=1")
    return running


def test_socket_is_for_root_alone_without_a_group(host: OneHost) -> None:
    running = ready(host)
    place = host.run / "control.sock"
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert asked_as(host, 0, 0) == {"status"}
    assert asked_as(host, STRANGER, STRANGER) == {"refused"}
    # Whoever can change its mode does not change who is answered.
    place.chmod(0o666)
    assert asked_as(host, STRANGER, STRANGER, [GROUP.gr_gid]) == {"error"}
    assert running.stop() == 0


def test_members_of_the_group_are_answered_and_nobody_else(host: OneHost) -> None:
    running = ready(host, "--socket-group", GROUP.gr_name)
    place = host.run / "control.sock"
    assert (stat.S_IMODE(place.stat().st_mode), place.stat().st_gid) == (0o660, GROUP.gr_gid)
    assert asked_as(host, 0, 0) == {"status"}
    assert asked_as(host, STRANGER, GROUP.gr_gid) == {"status"}
    assert asked_as(host, STRANGER, STRANGER, [7, GROUP.gr_gid]) == {"status"}
    assert asked_as(host, STRANGER, STRANGER, [7]) == {"refused"}
    place.chmod(0o666)
    assert asked_as(host, STRANGER, STRANGER, [7]) == {"error"}
    # More groups than one call tells of: those of an unknown user are none.
    assert asked_as(host, STRANGER, STRANGER, range(1, 1000)) == {"error"}
    assert running.stop() == 0


def test_group_that_is_not_there_is_named(host: OneHost) -> None:
    before = host.kernel()
    done = host.daemon_end("--socket-group", "no-such-group")
    line = one_line(done)
    assert done.returncode == 2
    assert line.startswith("--socket-group: 'no-such-group': no such group")
    assert host.kernel() == before
    assert host.files() == {}


def test_group_that_the_daemon_is_not_in_is_named(host: OneHost, tmp_path: Path) -> None:
    unit = ServiceUnit.read()
    numbers = account(tmp_path / "system", unit.one("User"))
    before = host.kernel()
    command = as_service(unit, numbers, {"/run/notify": str(host.notices)})
    flags = ("--store", "sqlite:////var/lib/overlaynet/store.db", "--iface", "eth0", "--socket-group", GROUP.gr_name)
    running = host.start(command=[*command, *flags], inside="/run/notify")
    assert running.wait() == 2
    last = running.text.splitlines()[-1]
    assert last.startswith(f"overlaynet-daemon: --socket-group: '{GROUP.gr_name}': the control socket cannot be given to it")
    assert "SupplementaryGroups=" in last
    assert host.kernel() == before


@pytest.mark.parametrize("given", ["flag", "file", "environment"])
def test_password_is_in_no_line_and_no_answer(host: OneHost, given: str) -> None:
    flags = ["--etcd-endpoints", "http://127.0.0.1:9", "--etcd-username", "overlay", "--log-level", "debug", "--iface", "eth0"]
    flags += ["--state-dir", str(host.state), "--run-dir", str(host.run), "--subnet-file", str(host.subnet_env)]
    before: tuple[str, ...] = ()
    match given:
        case "flag":
            flags += ["--etcd-password", SECRET]
        case "file":
            (host.folder / "password").write_text(SECRET + "\n")
            flags += ["--etcd-password-file", str(host.folder / "password")]
        case _:
            before = ("env", f"OVERLAYNET_ETCD_PASSWORD={SECRET}")

    running = host.start(command=[*before, program("overlaynet-daemon"), *flags])
    told = answered(host, running)

    assert told["store"] == "etcd://127.0.0.1:9/coreos.com/network"
    assert told["store_error"]
    warnings = [line for line in running.text.splitlines() if "--etcd-password:" in line]
    assert len(warnings) == (1 if given == "flag" else 0)
    assert running.stop() == 0
    assert SECRET not in json.dumps(told)
    assert SECRET not in running.text
    assert not any(SECRET.encode() in content for name, content in host.files().items() if name != "password")


def answered(host: OneHost, running: Running) -> dict[str, object]:
    """The daemon's status once it has found out that its store does not answer."""
    deadline = time.monotonic() + 60
    while True:
        assert running.process.poll() is None, running.text
        assert time.monotonic() < deadline, running.text
        if (host.run / "control.sock").exists():
            told: dict[str, object] = ask(host.run, "status")["status"]
            if told["store_error"]:
                return told
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("flag", "url"),
    [("--store", f"etcd://overlay:{SECRET}@127.0.0.1:9/p"), ("--etcd-endpoints", f"http://o:{SECRET}@127.0.0.1:9")],
)
def test_password_in_a_url_is_refused_without_being_shown(host: OneHost, flag: str, url: str) -> None:
    words = [word for word in host.daemon_command() if word not in ("--store", host.store)]
    done = host.end(*words, flag, url)
    line = one_line(done)
    assert done.returncode == 2
    assert line.startswith(f"{flag}: ")
    assert "***@127.0.0.1:9" in line
    assert "--etcd-password-file" in line
    assert SECRET not in line

"""The daemon as a process: how it starts, what it tells the service manager, and how it ends."""

from __future__ import annotations

import json
import signal
import stat
import time

import pytest
from overlaynet.control.client import ask

from tests.lab.one_host import HOST_GW, UDP, VXLAN, OneHost, Running

NETWORKS = {"vxlan": VXLAN, "host-gw": HOST_GW, "udp": UDP}


def ready(host: OneHost, *flags: str) -> Running:
    running = host.start(*flags)
    running.hear("READY=1")
    return running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("backend", NETWORKS)
def test_signal_ends_it_with_success_and_leaves_the_kernel(host: OneHost, backend: str, number: signal.Signals) -> None:
    host.configure(NETWORKS[backend])
    running = ready(host)
    mode = stat.S_IMODE((host.run / "control.sock").stat().st_mode)
    objects = ours(host)

    assert running.stop(number) == 0

    assert mode == 0o600
    assert running.told.count("READY=1") == 1
    assert running.told.count("STOPPING=1") >= 1
    assert running.told.index("READY=1") < running.told.index("STOPPING=1")
    assert objects
    assert ours(host) == objects
    assert not (host.run / "control.sock").exists()
    assert host.subnet_env.exists()
    assert "Traceback" not in running.text
    (lease,) = leases(host)
    assert lease["remaining_s"] > 80_000


def ours(host: OneHost) -> list[str]:
    """The links and routes that the daemon made, without what a stopped engine changes."""
    links = [line.split(":")[1].strip() for line in host.ip("-o link").splitlines() if ": ovl" in line]
    return links + [line.replace(" linkdown", "").strip() for line in host.ip("route show proto 79").splitlines()]


def leases(host: OneHost) -> list[dict[str, float]]:
    found = json.loads(host.overlaynet("leases", "--json").stdout)["leases"]
    assert isinstance(found, list)
    return found


def test_lease_is_given_back_where_that_is_asked_for(host: OneHost) -> None:
    host.configure(NETWORKS["host-gw"])
    running = ready(host, "--release-on-exit")
    assert len(leases(host)) == 1
    assert running.stop() == 0
    assert leases(host) == []


def test_second_signal_ends_it_at_once(host: OneHost) -> None:
    host.configure(NETWORKS["host-gw"])
    running = ready(host)
    running.process.send_signal(signal.SIGSTOP)
    # Both are pending before it runs again, and the two are not of one number, which would be one.
    running.process.send_signal(signal.SIGTERM)
    running.process.send_signal(signal.SIGINT)
    running.process.send_signal(signal.SIGCONT)
    assert running.wait() in (0, -signal.SIGINT, -signal.SIGTERM)


def test_killed_daemon_is_followed_by_one_with_the_same_subnet(host: OneHost) -> None:
    host.configure(NETWORKS["vxlan"])
    first = ready(host)
    env, objects = host.subnet_env.read_text(), ours(host)
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    assert (host.run / "control.sock").exists()

    second = ready(host)
    assert host.subnet_env.read_text() == env
    assert ours(host) == objects
    assert second.stop() == 0


def test_host_waits_for_a_network_and_says_so(host: OneHost) -> None:
    running = host.start("--healthz-ip", "127.0.0.1", "--healthz-port", "8081")
    deadline = time.monotonic() + 20
    while "no network configured" not in running.text:
        assert time.monotonic() < deadline
        assert running.process.poll() is None
        time.sleep(0.05)
    status = ask(host.run, "status")["status"]
    assert (status["ready"], status["lease"]) == (False, None)
    assert "503" in host.shell("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8081/readyz")
    assert "READY=1" not in running.told
    assert not host.subnet_env.exists()

    host.configure(NETWORKS["vxlan"])
    running.hear("READY=1")
    assert "200" in host.shell("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8081/readyz")
    assert host.subnet_env.exists()
    assert running.stop() == 0
    assert running.told.count("READY=1") == 1


def test_host_that_waits_ends_by_a_signal(host: OneHost) -> None:
    running = host.start()
    deadline = time.monotonic() + 20
    while "no network configured" not in running.text:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert running.stop() == 0
    assert "READY=1" not in running.told


def test_log_is_json_where_that_is_asked_for(host: OneHost) -> None:
    host.configure(NETWORKS["host-gw"])
    running = ready(host, "--log-format", "json", "-v=5")
    assert running.stop() == 0
    events = [json.loads(line) for line in running.text.splitlines()]
    assert [event["event"] for event in events if event["event"] in ("ready", "stopped")] == ["ready", "stopped"]
    assert all({"level", "timestamp"} <= event.keys() for event in events)


def test_files_are_as_private_as_documented(host: OneHost) -> None:
    host.configure(NETWORKS["vxlan"])
    running = ready(host)
    modes = {
        path: stat.S_IMODE((host.folder / path).stat().st_mode)
        for path in ("store", "store/store.db", "state", "state/host-id", "state/snapshot.json", "run", "run/control.sock")
    }
    assert modes == {
        "store": 0o700,
        "store/store.db": 0o600,
        "state": 0o700,
        "state/host-id": 0o600,
        "state/snapshot.json": 0o600,
        "run": 0o755,
        "run/control.sock": 0o600,
    }
    assert stat.S_IMODE(host.subnet_env.stat().st_mode) == 0o644
    assert running.stop() == 0

"""The shipped service unit: systemd takes it, and a daemon with its user, one capability and its directories does its work."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from overlaynet.control.client import ask
from overlaynet.lab import lab as labs
from overlaynet.lab.daemons import program
from overlaynet.lab.topology import plan_lab

from tests.lab.conftest import lab_name
from tests.lab.one_host import HOST_GW, UDP, VXLAN, VXLAN_USER, OneHost, Running, one_line
from tests.lab.service_unit import UNIT, ServiceUnit, account, as_service

BACKENDS = {"vxlan": VXLAN, "vxlan in user mode": VXLAN_USER, "host-gw": HOST_GW, "udp": UDP}
CAP_NET_ADMIN = 1 << 12


@pytest.fixture
def unit() -> ServiceUnit:
    return ServiceUnit.read()


@pytest.fixture
def numbers(tmp_path: Path, unit: ServiceUnit) -> tuple[int, int]:
    return account(tmp_path / "system", unit.one("User"))


def test_systemd_takes_the_unit(tmp_path: Path, unit: ServiceUnit) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(unit.one("ExecStart"), program("overlaynet-daemon")))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # And it would have said something.
    copy.write_text(copy.read_text().replace("Restart=on-failure", "Restart=sometimes"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False)
    assert "sometimes" in done.stderr


def test_unit_waits_for_readiness_and_grants_one_capability(unit: ServiceUnit) -> None:
    assert unit.one("Type") == "notify"
    assert unit.one("TimeoutStartSec") == "infinity"
    assert unit.words("AmbientCapabilities") == unit.words("CapabilityBoundingSet") == ["CAP_NET_ADMIN"]
    assert unit.one("User") not in ("", "root")
    assert unit.one("StateDirectoryMode") == "0700"


def started(host: OneHost, unit: ServiceUnit, numbers: tuple[int, int], **settings: object) -> Running:
    """The unit's program in this host, with its store in a folder of its own."""
    folder = host.folder / "store"
    for path in (folder, *folder.iterdir()):
        os.chown(path, *numbers)
    command = as_service(unit, numbers, {"/run/store": str(folder), "/run/notify": str(host.notices)}, **settings)  # type: ignore[arg-type]
    return host.start(command=[*command, "--store", "sqlite:////run/store/store.db", "--iface", "eth0"], inside="/run/notify")


def rights(running: Running) -> dict[str, str]:
    text = Path(f"/proc/{running.process.pid}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


@pytest.mark.parametrize("backend", BACKENDS)
def test_daemon_with_the_units_rights_makes_what_the_backend_needs(
    host: OneHost, unit: ServiceUnit, numbers: tuple[int, int], backend: str
) -> None:
    host.configure(BACKENDS[backend])

    running = started(host, unit, numbers)
    running.hear("READY=1")

    found = rights(running)
    assert found["Uid"].split() == [str(numbers[0])] * 4
    assert found["Gid"].split() == [str(numbers[1])] * 4
    assert found["Groups"].strip() == ""
    assert found["NoNewPrivs"] == "1"
    assert found["Seccomp"].strip() == "2", "without the unit's SystemCallFilter"
    assert {int(found[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd")} == {CAP_NET_ADMIN}

    root = Path(f"/proc/{running.process.pid}/root")
    status = ask(root / "run/overlaynet", "status")["status"]
    assert status["ready"]
    assert (status["warnings"], status["conflicts"]) == ([], [])
    assert "warning" not in running.text
    assert "error" not in running.text
    assert host.shell("cat /proc/sys/net/ipv4/ip_forward") == "1\n"
    link = {"vxlan": "ovl.1", "vxlan in user mode": "ovl-vxlan", "host-gw": "", "udp": "ovl-udp"}[backend]
    assert not link or f" {link}: " in host.ip("-o link")
    routes, sockets = host.ip("route show proto 79"), host.shell("ss -Huln")
    match backend:
        case "vxlan" | "host-gw":
            assert "unreachable 10.1.0.0/16" in routes
        case "vxlan in user mode":
            assert ":8472" in sockets
        case _:
            assert "10.1.0.0/16 dev ovl-udp" in routes
            assert ":8285" in sockets
    modes = {
        path: (stat.S_IMODE((root / path).stat().st_mode), (root / path).stat().st_uid)
        for path in ("var/lib/overlaynet", "var/lib/overlaynet/host-id", "run/overlaynet/control.sock", "run/flannel/subnet.env")
    }
    assert modes == {
        "var/lib/overlaynet": (0o700, numbers[0]),
        "var/lib/overlaynet/host-id": (0o600, numbers[0]),
        "run/overlaynet/control.sock": (0o600, numbers[0]),
        "run/flannel/subnet.env": (0o644, numbers[0]),
    }
    assert running.stop() == 0
    assert running.told.count("READY=1") == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_the_capability_the_line_names_it(
    host: OneHost, unit: ServiceUnit, numbers: tuple[int, int], backend: str
) -> None:
    host.configure(BACKENDS[backend])
    before = host.kernel()

    running = started(host, unit, numbers, capabilities=False)

    assert running.wait() == 6
    line = one_line(subprocess.CompletedProcess([], 6, "", running.text))
    assert "CAP_NET_ADMIN" in line
    assert "READY=1" not in running.told
    assert host.kernel() == before


def test_tun_device_for_root_alone_is_named(host: OneHost, unit: ServiceUnit, numbers: tuple[int, int]) -> None:
    host.configure(BACKENDS["udp"])
    before = host.kernel()

    running = started(host, unit, numbers, tun_mode=0o600)

    assert running.wait() == 6
    line = one_line(subprocess.CompletedProcess([], 6, "", running.text))
    assert "/dev/net/tun: Permission denied" in line
    assert "this path must be writable" in line
    assert host.kernel() == before


@pytest.mark.parametrize("backend", ["vxlan", "host-gw", "udp"])
def test_traffic_flows_through_a_host_whose_daemon_has_no_more_than_the_unit_grants(
    tmp_path: Path, unit: ServiceUnit, numbers: tuple[int, int], backend: str
) -> None:
    plan = plan_lab(lab_name("unit"), hosts=2, backend=backend)
    with labs.running(plan) as lab:
        first = plan.hosts[0]
        lab.stop_daemon(first)
        kept = lab.files.host(first).state
        cleaned = lab.run("host1", program("overlaynet"), "cleanup")
        assert cleaned.returncode == 0, cleaned.stderr
        lab.run("host1", "sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
        assert lab.run("pod1", "ping", "-c1", "-W1", lab.pod_address("pod2")).returncode != 0

        # The host's identity, so that its pods' subnet stays its own; and the lab's store.
        store = tmp_path / "store"
        store.mkdir()
        shutil.copy(kept / "host-id", store / "host-id")
        folder = Path(lab.store.removeprefix("sqlite:///")).parent
        host = OneHost(first.namespace, tmp_path)
        for path in (folder / "store.db", *folder.glob("store.db-*"), store / "host-id"):
            os.chown(path, *numbers)
        owner = folder.stat().st_uid
        os.chown(folder, *numbers)
        try:
            binds = {"/run/store": str(folder), "/run/notify": str(host.notices), "/run/identity": str(store)}
            begin = ("sh", "-c", 'cp /run/identity/host-id /var/lib/overlaynet && exec "$@"', "sh")
            command = as_service(unit, numbers, binds, before=begin)
            flags = ("--store", "sqlite:////run/store/store.db", "--iface", "eth0")
            running = host.start(command=[*command, *flags], inside="/run/notify")
            running.hear("READY=1")
            done = lab.run("pod1", "ping", "-c3", "-i0.2", "-W5", lab.pod_address("pod2"))
            assert done.returncode == 0, done.stdout + running.text
            back = lab.run("pod2", "ping", "-c3", "-i0.2", "-W5", lab.pod_address("pod1"))
            assert back.returncode == 0, back.stdout + running.text
            assert running.stop() == 0
        finally:
            for running in host.running:
                running.close()
            os.chown(folder, owner, -1)

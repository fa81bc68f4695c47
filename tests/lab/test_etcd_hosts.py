"""Hosts over the lab's etcd while it is lost, while leases are revoked, deleted and reserved, and when a host leaves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from overlaynet.control.client import ask
from overlaynet.control.protocol import SOCKET_NAME
from overlaynet.errors import AddressInUseError, DaemonUnreachableError
from overlaynet.lab import lab as labs
from overlaynet.lab import traffic
from overlaynet.lab.daemons import HEALTHZ_PORT, clean_environment, program
from overlaynet.lab.etcd import PREFIX, LabEtcd
from overlaynet.lab.topology import plan_lab

from tests.lab.conftest import lab_name
from tests.lab.test_lab_lifecycle import until


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[labs.Lab]:
    monkeypatch.setattr("overlaynet.lab.daemons.LEASE_TTL", "8s")
    name = lab_name("etcd")
    yield labs.up(plan_lab(name, hosts=2), store="etcd")
    labs.down(name)


def status(lab: labs.Lab, number: int) -> dict[str, Any]:
    told: dict[str, Any] = ask(lab.files.host(lab.plan.hosts[number]).run, "status")["status"]
    return told


def answers(lab: labs.Lab, number: int) -> bool:
    try:
        status(lab, number)
    except DaemonUnreachableError:
        return False
    return True


def subnet(lab: labs.Lab, number: int) -> str:
    return str(status(lab, number)["lease"]["subnets"])


def overlaynet(lab: labs.Lab, *words: str) -> str:
    done = lab.run("host2", program("overlaynet"), "--store", lab.store, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def readyz(lab: labs.Lab, member: str) -> str:
    """The body and the status."""
    return lab.run(member, "curl", "-s", "-w", "%{http_code}", f"http://127.0.0.1:{HEALTHZ_PORT}/readyz").stdout


def env(lab: labs.Lab, number: int) -> str:
    return lab.files.host(lab.plan.hosts[number]).subnet_env.read_text()


def knows(lab: labs.Lab, number: int, other: Callable[[], str]) -> bool:
    return any(peer["subnets"] == other() and peer["state"] == "programmed" for peer in status(lab, number)["peers"])


def test_lost_etcd_leaves_forwarding_and_readiness_until_the_lease_ends(lab: labs.Lab) -> None:
    etcd, before = LabEtcd(lab.plan), [subnet(lab, number) for number in (0, 1)]
    assert readyz(lab, "host1") == "overlaynet-daemon is ready\n200"
    etcd.stop()
    until(lambda: "the store has been lost since" in readyz(lab, "host1"))
    assert status(lab, 0)["store_lost_since_s"] is not None
    until(lambda: readyz(lab, "host1").endswith("503"))
    assert "its lease has expired" in readyz(lab, "host1")
    assert status(lab, 0)["lease"]["expired"]
    assert traffic.ping_all(lab, count=2, interval_s=0.05).lost == 0
    lab.stop_daemon(lab.plan.hosts[0])
    with contextlib.closing(lab.daemon(lab.plan.hosts[0]).start()) as start:
        until(lambda: answers(lab, 0))
        until(lambda: knows(lab, 0, lambda: before[1]))
        assert traffic.ping_all(lab, count=2, interval_s=0.05).lost == 0
        assert (status(lab, 0)["ready"], readyz(lab, "host1")[-3:]) == (False, "503")
        etcd.run()
        start.ready(time.monotonic() + 60)
    until(lambda: readyz(lab, "host1") == "overlaynet-daemon is ready\n200")
    until(lambda: knows(lab, 0, lambda: subnet(lab, 1)) and knows(lab, 1, lambda: subnet(lab, 0)))
    assert [subnet(lab, number) for number in (0, 1)] == before
    assert traffic.ping_all(lab, count=2, interval_s=0.05).lost == 0


def test_hosts_come_back_to_their_subnets_when_etcd_goes_on_after_their_leases_ends(lab: labs.Lab) -> None:
    before = [subnet(lab, number) for number in (0, 1)]
    etcd = LabEtcd(lab.plan).process
    assert etcd is not None
    os.kill(etcd.pid, signal.SIGSTOP)
    try:
        until(lambda: all(status(lab, number)["lease"]["expired"] for number in (0, 1)))
    finally:
        os.kill(etcd.pid, signal.SIGCONT)
    until(lambda: all(readyz(lab, host) == "overlaynet-daemon is ready\n200" for host in ("host1", "host2")))
    assert [subnet(lab, number) for number in (0, 1)] == before
    assert status(lab, 0)["warnings"] == []


def test_revoked_host_moves_says_so_and_its_peer_follows(lab: labs.Lab) -> None:
    old = subnet(lab, 0)
    assert overlaynet(lab, "lease", "revoke", old) == f"{old}: revoked\n"
    until(lambda: subnet(lab, 0) != old and not status(lab, 0)["lease"]["expired"])
    new = subnet(lab, 0)
    until(lambda: new.split("-")[0].rsplit(".", 1)[0] in env(lab, 0))
    assert old.split("-")[0].rsplit(".", 1)[0] + "." not in env(lab, 0).split("FLANNEL_SUBNET")[1]
    assert any(f"changed from {old} to {new}" in text for text in status(lab, 0)["warnings"])
    log = lab.files.host(lab.plan.hosts[0]).log.read_text()
    assert f"changed from {old} to {new}" in log
    until(lambda: knows(lab, 1, lambda: new))
    until(lambda: old.split("-")[0] not in lab.run("host1", "ip", "-4", "-o", "address").stdout)
    until(lambda: old.split("-")[0] not in lab.run("host2", "ip", "route").stdout)


def ctl(lab: labs.Lab, *words: str) -> str:
    """What etcdctl says."""
    endpoint, _, _ = lab.store.removeprefix("etcd://").partition("/")
    done = lab.run("host2", "env", "ETCDCTL_API=3", "etcdctl", "--endpoints", endpoint, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lease_id(lab: labs.Lab, key: str) -> int:
    """The etcd lease of a key; 0: it is not there."""
    return sum(int(pair.get("lease", 0)) for pair in json.loads(ctl(lab, "get", key, "-w", "json")).get("kvs", []))


def test_lease_that_is_meddled_with_by_hand_is_held_again_on_the_same_subnet(lab: labs.Lab) -> None:
    held = subnet(lab, 0)
    key, owner = f"{PREFIX}/subnets/{held}", f"{PREFIX}/overlaynet/owner/{held}"
    value = ctl(lab, "get", key, "--print-value-only").rstrip("\n")
    for words in ("del {key}", "del {owner}", "lease revoke {before:x}"):
        before = lease_id(lab, key)
        ctl(lab, *words.format(key=key, owner=owner, before=before).split())
        until(lambda: lease_id(lab, key) == lease_id(lab, owner) not in (0, before))  # noqa: B023
        until(lambda: not status(lab, 0)["lease"]["expired"])
    before = lease_id(lab, owner)
    ctl(lab, "put", key, value)
    until(lambda: lease_id(lab, owner) not in (0, before))
    assert lease_id(lab, key) == 0
    assert subnet(lab, 0) == held
    assert status(lab, 0)["warnings"] == []
    assert (lab.files.host(lab.plan.hosts[0]).log.read_text()).count("subnet.env published") == 1
    assert traffic.ping_all(lab, count=2, interval_s=0.05).lost == 0


def test_configuration_that_is_not_valid_or_needs_a_restart_is_named_and_changes_nothing(lab: labs.Lab) -> None:
    key = f"{PREFIX}/config"
    good, routes = ctl(lab, "get", key, "--print-value-only").rstrip("\n"), lab.run("host1", "ip", "route").stdout
    for text, named in (("{", "JSON"), ('{"Network":"10.1.0.0/99"}', "Network"), (good.replace("vxlan", "host-gw"), "(Backend)")):
        ctl(lab, "put", key, text)
        until(lambda: any(named in warning for warning in status(lab, 0)["warnings"]))  # noqa: B023
    ctl(lab, "del", key)
    until(lambda: "network set" in status(lab, 0)["store_error"])
    ctl(lab, "put", key, good)
    until(lambda: status(lab, 0)["warnings"] == [] and not status(lab, 0)["store_error"])
    assert lab.run("host1", "ip", "route").stdout == routes
    assert status(lab, 0)["ready"]


def test_deleted_lease_is_claimed_again_on_the_same_subnet(lab: labs.Lab) -> None:
    old = subnet(lab, 0)
    file = lab.files.host(lab.plan.hosts[0]).subnet_env
    written = file.stat().st_ino
    overlaynet(lab, "lease", "release", old)
    until(lambda: old in overlaynet(lab, "leases"))
    until(lambda: not status(lab, 0)["lease"]["expired"])
    assert subnet(lab, 0) == old
    assert file.stat().st_ino == written
    until(lambda: knows(lab, 1, lambda: old))


def test_reservation_is_used_by_its_host_and_outlives_it(lab: labs.Lab) -> None:
    host, daemon = lab.plan.hosts[0], lab.daemon(lab.plan.hosts[0])
    lab.stop_daemon(host)
    overlaynet(lab, "lease", "release", _leased(lab, "198.18.0.1"))
    overlaynet(lab, "lease", "reserve", "10.1.77.0/24", "--public-ip", "198.18.0.1")
    lab.start_daemons([host])
    assert subnet(lab, 0) == "10.1.77.0-24"
    shown = json.loads(overlaynet(lab, "lease", "show", "10.1.77.0/24", "--json"))
    assert (shown["reserved"], shown["remaining_s"], shown["owner"]) == (True, None, status(lab, 0)["host"])
    lab.stop_daemon(host)
    until(lambda: json.loads(overlaynet(lab, "lease", "show", "10.1.77.0/24", "--json"))["owner"] is None)
    assert json.loads(overlaynet(lab, "lease", "show", "10.1.77.0/24", "--json"))["reserved"]
    (daemon.files.state / "host-id").unlink()
    lab.start_daemons([host])
    assert subnet(lab, 0) == "10.1.77.0-24"


def test_second_host_with_a_public_address_ends_with_one_clear_line_and_takes_nothing(lab: labs.Lab, tmp_path: Path) -> None:
    held = overlaynet(lab, "leases", "--json")
    lab.stop_daemon(lab.plan.hosts[1])
    done = lab.run(
        *("host2", program("overlaynet-daemon"), "--store", lab.store, "--iface", "eth0", "--public-ip", "198.18.0.1"),
        *("--state-dir", str(tmp_path / "state"), "--run-dir", str(tmp_path / "run"), "--subnet-file", str(tmp_path / "env")),
    )
    assert done.returncode == AddressInUseError.exit_code, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("overlaynet-daemon: ")]
    owner = next(row["owner"] for row in json.loads(held)["leases"] if row["public_ip"] == "198.18.0.1")
    assert f"public address 198.18.0.1: in use by host {owner} (subnet {_leased(lab, '198.18.0.1')})" in line
    assert not (tmp_path / "env").exists()
    assert {row["subnet"] for row in json.loads(overlaynet(lab, "leases", "--json"))["leases"]} <= {
        row["subnet"] for row in json.loads(held)["leases"]
    }


def test_host_whose_identity_was_copied_ends_and_comes_back_as_another(lab: labs.Lab) -> None:
    """A machine cloned with its state directory: the first to hear of it gives way, and both have subnets of their own."""
    first, second = lab.plan.hosts
    held = subnet(lab, 0)
    lab.stop_daemon(second)
    identity = lab.files.host(first).state / "host-id"
    (lab.files.host(second).state / "host-id").write_text(identity.read_text())
    (lab.files.host(second).state / "snapshot.json").unlink()
    lab.start_daemons([second])
    assert subnet(lab, 1) == held
    until(lambda: not (lab.files.host(first).run / SOCKET_NAME).exists())
    until(lambda: not identity.exists())
    (line,) = [line for line in lab.files.host(first).log.read_text().splitlines() if line.startswith("overlaynet-daemon: ")]
    assert "in use by another host too, at 198.18.0.2" in line
    lab.start_daemons([first])
    assert subnet(lab, 0) != held
    assert status(lab, 0)["host"] != status(lab, 1)["host"]
    until(lambda: knows(lab, 1, lambda: subnet(lab, 0)))
    until(lambda: [peer["subnets"] for peer in status(lab, 0)["peers"]] == [held])


def _leased(lab: labs.Lab, address: str) -> str:
    rows = json.loads(overlaynet(lab, "leases", "--json"))["leases"]
    return next(str(row["subnet"]) for row in rows if row["public_ip"] == address)


def test_lease_is_given_back_at_the_end_only_if_asked_for(lab: labs.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.stop_daemon(lab.plan.hosts[0])
    kept = _leased(lab, "198.18.0.1")
    monkeypatch.setattr(
        "overlaynet.lab.daemons.clean_environment", lambda name: clean_environment(name) | {"OVERLAYNET_RELEASE_ON_EXIT": "true"}
    )
    lab.start_daemons([lab.plan.hosts[0]])
    assert subnet(lab, 0) == kept
    lab.stop_daemon(lab.plan.hosts[0])
    assert kept not in overlaynet(lab, "leases")


@pytest.mark.parametrize("backend", ["vxlan", "host-gw", "udp"])
def test_host_whose_address_changes_keeps_its_lease_and_is_reached(name: str, backend: str) -> None:
    lab = labs.up(plan_lab(name, hosts=2, backend=backend), store="etcd")
    held = subnet(lab, 0)
    for words in (("del", "198.18.0.1/16"), ("add", "198.18.0.101/16")):
        done = lab.run("host1", "ip", "address", *words, "dev", "eth0")
        assert done.returncode == 0, done.stderr
    until(lambda: answers(lab, 0) and status(lab, 0)["public_addresses"] == ["198.18.0.101"])
    until(lambda: [peer["public_address"] for peer in status(lab, 1)["peers"]] == ["198.18.0.101"])
    until(lambda: _leased(lab, "198.18.0.101") == held)
    assert subnet(lab, 0) == held
    until(lambda: knows(lab, 0, lambda: subnet(lab, 1)) and knows(lab, 1, lambda: held))
    until(lambda: traffic.ping_all(lab, count=2, interval_s=0.05).lost == 0)
    labs.down(name)

"""The demonstration: its report, its table, its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from overlaynet.lab import lab as labs
from overlaynet.lab import traffic
from overlaynet.lab.daemons import program
from overlaynet.lab.demo import Shown, Size, demonstrate, plan_demo
from overlaynet.lab.topology import plan_lab

from tests.lab.conftest import run_overlaynet, traces


@pytest.mark.parametrize("family", ["v4", pytest.param("v6", marks=pytest.mark.soak), "dual"])
def test_all_backends_lose_nothing(name: str, family: str) -> None:
    steps: list[tuple[str, str]] = []
    shown = demonstrate(
        plan_demo(name, hosts=2, backends="vxlan,host-gw,udp", family=family),
        size=Size(pings=3, file_bytes=4 * traffic.MIB, tcp_s=1),
        progress=lambda backend, step: steps.append((backend, step)),
    )
    assert {backend: one.error for backend, one in shown.items()} == {"vxlan": "", "host-gw": "", "udp": ""}
    for one in shown.values():
        assert one.ok
        assert list(one.figures) == ["ok", "pings_sent", "pings_lost", "file_sha256_equal", "tcp_gbit_s", "rtt_us_median"]
        sent = 12 if family == "dual" else 6
        assert (one.figures["pings_sent"], one.figures["pings_lost"], one.figures["file_sha256_equal"]) == (sent, 0, True)
    assert {backend for backend, _ in steps} == set(shown)
    assert traces(name) == []


def test_report_and_table_by_the_command_line(name: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = run_overlaynet(
        *("lab", "demo", "--name", name, "--hosts", "2", "--backend", "host-gw", "--json", str(report)), timeout_s=90
    )
    assert done.returncode == 0, done.stdout + done.stderr
    backends = json.loads(report.read_text())["backends"]
    assert list(backends) == ["host-gw"]
    assert backends["host-gw"]["ok"] is True
    head, row = done.stdout.splitlines()
    assert head.split()[:4] == ["backend", "ok", "pings", "lost"]
    assert row.split()[:5] == ["host-gw", "yes", "10", "0", "equal"]
    assert "host-gw: daemons" in done.stderr
    assert traces(name) == []


def test_one_lost_ping_is_not_ok() -> None:
    assert Shown(traffic.Pings(10, 0), file_sha256_equal=True, tcp_gbit_s=1.0).ok
    assert not Shown(traffic.Pings(10, 1), file_sha256_equal=True, tcp_gbit_s=1.0).ok
    assert not Shown(traffic.Pings(10, 0), file_sha256_equal=False, tcp_gbit_s=1.0).ok
    assert not Shown(traffic.Pings(10, 0), file_sha256_equal=True, tcp_gbit_s=0.0).ok
    assert not Shown().ok


def test_loss_is_counted(name: str) -> None:
    """What the table says comes from the wire: a pod without its route loses every packet, and a file does not arrive."""
    lab = labs.up(plan_lab(name, hosts=2, backend="host-gw"))
    assert traffic.ping_all(lab, count=2, interval_s=0.05).lost == 0
    assert lab.run("pod2", "ip", "route", "delete", "default").returncode == 0
    assert traffic.ping_all(lab, count=2, interval_s=0.05) == traffic.Pings(4, 4)
    assert not traffic.move_file(lab, "pod1", "pod2", size_bytes=1000, wait_s=1)
    assert traffic.tcp_gbit_s(lab, "pod2", "pod1", seconds=1) == 0.0


@pytest.mark.parametrize(("option", "value"), [("--backend", "vxlan,gre"), ("--family", "v5"), ("--hosts", "1")])
def test_unknown_value_is_one_line_and_exit_code_2(name: str, option: str, value: str) -> None:
    done = run_overlaynet("lab", "demo", "--name", name, option, value)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert option in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_program_is_one_line_that_names_its_package(name: str, tmp_path: Path) -> None:
    (tmp_path / "ip").symlink_to("/usr/sbin/ip")
    done = subprocess.run(
        [program("overlaynet"), "lab", "demo", "--name", name],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PATH": str(tmp_path)},
    )
    assert done.returncode == 10
    assert len(done.stderr.splitlines()) == 1
    assert "iputils-ping curl iperf3" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_leaves_nothing(name: str, number: signal.Signals) -> None:
    demo = subprocess.Popen(
        [program("overlaynet"), "lab", "demo", "--name", name, "--hosts", "2", "--backend", "vxlan"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert demo.stderr is not None
    for line in demo.stderr:
        if "pings" in line:
            break
    demo.send_signal(number)
    demo.communicate(timeout=30)
    assert demo.returncode == 128 + number
    assert traces(name) == []

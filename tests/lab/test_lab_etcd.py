"""Labs over an etcd of their own: brought up with each underlay and family, demonstrated, cut short, without the program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from overlaynet.errors import LabError
from overlaynet.lab import lab as labs
from overlaynet.lab import system, traffic
from overlaynet.lab.daemons import program
from overlaynet.lab.demo import Size, demonstrate, plan_demo
from overlaynet.lab.etcd import LabEtcd
from overlaynet.lab.files import LabFiles
from overlaynet.lab.topology import Families, Underlay, plan_lab

from tests.lab.conftest import links_of_the_machine, run_overlaynet, traces
from tests.lab.test_lab_lifecycle import until


@pytest.mark.parametrize(
    ("underlay", "families"),
    [
        (Underlay.BRIDGE, Families.DUAL),
        (Underlay.ROUTED, Families.V4),
        (Underlay.BRIDGE, Families.V6),
        (Underlay.ROUTED, Families.V6),
    ],
)
def test_hosts_reach_the_labs_etcd_over_every_underlay(name: str, underlay: Underlay, families: Families) -> None:
    lab = labs.up(plan_lab(name, hosts=2, backend="vxlan", families=families, underlay=underlay), store="etcd")
    assert traffic.ping_all(lab, count=2, interval_s=0.05).lost == 0
    held = json.loads(run_overlaynet("lab", "exec", "--name", name, "host1", "--", "overlaynet", "leases", "--json").stdout)
    assert [row["reserved"] for row in held["leases"]] == [False, False]
    assert all(0 < row["remaining_s"] <= 60 for row in held["leases"])
    labs.down(name)
    assert traces(name) == []


def test_all_backends_lose_nothing_over_etcd(name: str) -> None:
    shown = demonstrate(
        plan_demo(name, hosts=2, backends="vxlan,host-gw,udp", family="v4"),
        size=Size(pings=3, file_bytes=4 * traffic.MIB, tcp_s=1),
        progress=lambda *_: None,
        store="etcd",
    )
    assert {backend: one.error for backend, one in shown.items()} == {"vxlan": "", "host-gw": "", "udp": ""}
    assert all(one.ok for one in shown.values())
    assert traces(name) == []


def half_made(name: str) -> dict[str, Callable[[], object]]:
    files = LabFiles(name)
    return {
        "etcd is started": lambda: (files.folder / "etcd").exists(),
        "etcd is on record": lambda: files.etcd.daemon is not None,
        "a daemon runs": lambda: any(files.folder.glob("host*/daemon.json")),
    }


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("moment", half_made(""))
def test_etcd_goes_with_a_lab_that_was_cut_short(name: str, moment: str, number: signal.Signals) -> None:
    machine = links_of_the_machine()
    up = subprocess.Popen(
        [program("overlaynet"), "lab", "up", "--name", name, "--hosts", "2", "--store", "etcd"],
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
        assert code == 128 + number
    assert traces(name) == []
    assert links_of_the_machine() == machine


def test_etcd_that_cannot_start_ends_up_with_its_own_words(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overlaynet.lab.etcd._PEER_URL", "http://198.18.77.77:2380")
    with pytest.raises(LabError, match="etcd ended") as caught:
        labs.up(plan_lab(name, hosts=1), store="etcd")
    assert "198.18.77.77" in caught.value.__notes__[0]
    assert traces(name) == []


def test_without_etcd_the_package_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "ip").symlink_to("/usr/sbin/ip")
    command = [program("overlaynet"), "lab", "up", "--name", name, "--store", "etcd"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PATH": str(tmp_path)})
    assert done.returncode == 10
    assert done.stderr.splitlines() == ["overlaynet: etcd: not found: apt-get install etcd-server"]


def test_etcd_that_was_stopped_goes_on_with_its_data(name: str) -> None:
    lab = labs.up(plan_lab(name, hosts=1), store="etcd")
    etcd = LabEtcd(lab.plan)
    first = etcd.process
    etcd.stop()
    assert first is not None
    assert not first.is_alive
    etcd.run()
    assert isinstance(etcd.process, system.Process)
    asked = lab.run("host1", program("overlaynet"), "--store", lab.store, "network", "show", "--json")
    assert json.loads(asked.stdout)["Network"] == "10.1.0.0/16"

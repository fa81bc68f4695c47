"""Simulated networks: the same run each time, what must hold in every run, and what each kind of host does in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from overlaynet.errors import ConfigError, SubnetsExhaustedError
from overlaynet.lab.simulation import scenario, service
from overlaynet.lab.simulation.checks import Overlaps
from overlaynet.lab.simulation.hosts import Host
from overlaynet.lab.simulation.plot import plot
from overlaynet.lab.simulation.scenario import NETWORK, Plan, Scenario, growth, parse_plan, run
from overlaynet.lab.simulation.timeline import Signal, Timeline, wait
from overlaynet.lab.simulation.world import TTL_S, World
from overlaynet.model.kernel import Route
from overlaynet.model.lease_text import parse_lease_key
from overlaynet.model.snapshot import Changes, LeaseGone, LeasePut

from tests.unit.host_world import peer

OVERLAYNET = Path(sys.executable).with_name("overlaynet")


def test_what_is_due_comes_in_order_and_at_one_moment_in_the_order_asked_for() -> None:
    timeline, seen = Timeline(), list[str]()
    timeline.at(2.0, lambda: seen.append("late"))
    timeline.at(1.0, lambda: seen.append("one"))
    timeline.at(1.0, lambda: timeline.at(0.5, lambda: seen.append("asked for in the past")))
    timeline.at(1.0, lambda: seen.append("two"))
    timeline.run(1.5)
    assert (seen, timeline.now) == (["one", "two", "asked for in the past"], 1.5)
    timeline.run(9.0, lambda: bool(seen[3:]))
    assert (seen[3:], timeline.now) == (["late"], 2.0)


def test_task_goes_on_after_its_time_or_a_signal_and_not_after_its_end() -> None:
    timeline, news, seen = Timeline(), Signal(), list[float]()

    async def waits() -> None:
        for seconds in (1.0, 5.0, None):
            await wait(seconds, news)
            seen.append(timeline.now)

    task = timeline.start(waits())
    timeline.run(3.0)
    news.give()
    timeline.run(20.0)
    assert seen == [1.0, 3.0]
    task.cancel()
    news.give()
    timeline.run(30.0)
    assert (seen, task.is_over) == ([1.0, 3.0], True)


def test_check_for_overlaps_finds_one() -> None:
    overlaps = Overlaps()
    overlaps.note(Changes(1, (LeasePut(peer(7)),)))
    overlaps.note(Changes(2, (LeaseGone(peer(7).subnets), LeasePut(peer(7)))))
    assert overlaps.found == []
    wide = parse_lease_key("10.5.0.0-16")
    lease = peer(7)
    overlaps.note(Changes(3, (LeasePut(type(lease)(wide, lease.attributes)),)))
    assert overlaps.found == ["revision 3: 10.5.0.0-16 overlaps another lease"]


@pytest.mark.parametrize("hosts", [1, 2, 50])
def test_network_of_whole_hosts_agrees_and_holds_what_it_must(hosts: int) -> None:
    outcome = run(Plan(hosts, 4.0, "unit"))
    assert (outcome.faults, outcome.refused, outcome.whole) == ((), 0, hosts)
    assert outcome.reached_s is not None
    assert outcome.start_writes == 5 + 4 * (hosts - 1)
    assert outcome.turns.followed_s is not None
    assert (outcome.traffic.events > 0) == (outcome.joins + outcome.leaves + outcome.cuts > 0)


def test_hosts_of_which_only_the_lease_is_simulated_take_part_in_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenario, "ALL_WHOLE", 3)
    monkeypatch.setattr(scenario, "WHOLE", 4)
    one = Scenario(Plan(40, 4.0, "unit"))
    one.start()
    leases = one.world.present.leases
    assert len(leases) == 40
    whole = [host for host in one.world.hosts if host.reconciler is not None]
    assert [len(routes(host)) for host in whole] == [39] * 4
    one.churn()
    one.rest()
    outcome = one.outcome(one.outage(turns=True), one.outage(turns=False))
    assert outcome.faults == ()
    assert outcome.returns


def routes(host: Host) -> set[str]:
    return {str(item.prefix) for item in host.kernel.fake.objects if isinstance(item, Route) and item.type == "unicast"}


def three_hosts() -> tuple[World, list[Host]]:
    world = World(NETWORK, Random(7))
    hosts = [world.add(world.settings(number), whole=number != 1) for number in range(3)]
    for host in hosts:
        host.start()
    world.timeline.run(world.timeline.now + 1.0)
    return world, hosts


def subnet(host: Host) -> str:
    own = host.decisions.lease.own
    assert own is not None
    return str(own.subnets.v4)


@pytest.mark.parametrize("number", [0, 1])
def test_host_that_is_cut_off_is_dropped_by_the_others_and_claims_again(number: int) -> None:
    world, hosts = three_hosts()
    host, watcher, before = hosts[number], hosts[2], subnet(hosts[number])
    left = routes(host) if number == 0 else set()
    world.cut(host, 2 * TTL_S)
    world.timeline.run(world.timeline.now + 0.9 * TTL_S / 3)
    assert before in routes(watcher)
    world.timeline.run(world.timeline.now + 1.8 * TTL_S - 0.9 * TTL_S / 3)
    assert before not in routes(watcher)
    assert host.decisions.lease.expired(world.timeline.now)
    assert number != 0 or routes(host) == left, "a host that is cut off goes on forwarding"
    world.timeline.run(world.timeline.now + TTL_S)
    assert (subnet(host), before in routes(watcher)) == (before, True)
    assert not host.decisions.lease.expired(world.timeline.now)
    assert len(world.returns) == 1
    assert (world.overlaps.found, world.beliefs.found, world.unlike()) == ([], [], [])


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("release", [True, False])
def test_host_that_leaves_is_dropped_at_once_or_when_its_lease_ends(number: int, release: bool) -> None:
    world, hosts = three_hosts()
    gone, watcher, before = hosts[number], hosts[2], subnet(hosts[number])
    if release:
        gone.stop(release=True)
    else:
        gone.kill()
    world.timeline.run(world.timeline.now + 1.0)
    assert (before in routes(watcher)) == (not release)
    world.timeline.run(world.timeline.now + TTL_S)
    assert (before in routes(watcher), gone.ended) == (False, True)
    assert world.unlike() == []


def test_hosts_without_a_subnet_end_and_the_others_go_on() -> None:
    config = b'{"Network": "10.9.0.0/26", "SubnetLen": 30, "Backend": {"Type": "vxlan"}}'
    one = Scenario(Plan(24, 0.0, "unit", config))
    one.start()
    failures = [host.failure for host in one.world.hosts if host.failure is not None]
    leased = len(one.world.present.leases)
    assert 10 < leased < 17
    assert len(failures) == 24 - leased
    assert all(isinstance(error, SubnetsExhaustedError) for error in failures)
    assert one.world.unlike() == []


def test_kernel_that_differs_is_found() -> None:
    world, hosts = three_hosts()
    hosts[0].kernel.fake.flush_routes()
    assert [line.split()[2] for line in world.unlike()] == ["route"] * 3


def test_turns_keep_the_queue_of_a_store_that_comes_back_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LEASE_READ_S", 1e-3)
    one = Scenario(Plan(50, 0.0, "unit"))
    one.start()
    for host in one.world.hosts:
        host.decisions.store.leases_read_per_s = 800.0
    turns, no_turns = one.outage(turns=True), one.outage(turns=False)
    assert no_turns.behind_s > 1.0
    assert turns.behind_s < no_turns.behind_s / 3
    assert turns.loads == no_turns.loads == 50


def simulate(folder: Path, *arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [OVERLAYNET, "lab", "simulate", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=folder,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
    )


def test_same_seed_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    seen = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        done = simulate(
            folder,
            "--hosts",
            "10",
            "--minutes",
            "3",
            "--seed",
            "a b",
            "--json",
            "s.json",
            "--plot",
            "s.svg",
            hash_seed=str(number),
        )
        assert done.returncode == 0, done.stderr
        report = json.loads((folder / "s.json").read_text())
        assert report["command"] == "overlaynet lab simulate --hosts 10 --minutes 3 --seed 'a b' --json s.json --plot s.svg"
        rows = [row for row in report["rows"] if not row["figure"].startswith("processor time")]
        assert len(rows) == len(report["rows"]) - 2
        seen.append((done.stdout, json.dumps(rows), (folder / "s.svg").read_bytes()))
    assert seen[0] == seen[1]
    assert simulate(tmp_path, "--hosts", "10", "--minutes", "3", "--seed", "b").stdout != seen[0][0]


def test_same_seed_gives_the_same_actions_and_another_others() -> None:
    lines = [dict[int, list[str]]() for _ in range(3)]
    for seed, into in zip(("1", "1", "2"), lines, strict=True):
        run(Plan(8, 2.0, seed), lines=into)
    assert lines[0] == lines[1] != lines[2]


def test_drawing_names_every_curve_and_has_a_point_for_each_size() -> None:
    drawing = plot([run(Plan(hosts, 3.0, "unit")) for hosts in (3, 6)])
    assert drawing.count("<polyline") >= 8
    assert "in turns: until all follow" in drawing
    assert drawing.startswith("<svg")
    assert drawing.endswith("</svg>\n")


def test_sizes_lead_to_the_largest() -> None:
    assert growth(5000) == [5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
    assert growth(300) == [5, 10, 20, 50, 100, 200, 300]
    assert (growth(5), growth(1)) == ([5], [1])


@pytest.mark.parametrize(
    ("hosts", "minutes", "seed"), [(0, 1.0, "1"), (10**9, 1.0, "1"), (5, -1.0, "1"), (5, float("inf"), "1"), (5, 1.0, "")]
)
def test_values_that_make_no_sense_are_refused(hosts: int, minutes: float, seed: str) -> None:
    with pytest.raises(ConfigError):
        parse_plan(hosts, minutes, seed)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--hosts", "-3"),
        ("--hosts", "many"),
        ("--minutes", "nan"),
        ("--seed", ""),
        ("--json", "none/x.json"),
        ("--plot", "none/x.svg"),
    ],
)
def test_bad_value_is_one_line_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = simulate(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert arguments[0] in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_interrupt_ends_it_without_a_trace(tmp_path: Path) -> None:
    command = [str(OVERLAYNET), "lab", "simulate", "--hosts", "20000", "--only", "--json", "s.json"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert "start" in running.stderr.readline()
        running.send_signal(signal.SIGINT)
        _, rest = running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGINT
    assert rest == ""
    assert list(tmp_path.iterdir()) == []

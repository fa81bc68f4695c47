"""Whatever befalls a host's kernel state, its daemon has all of it back, and stays calm about it.

host1 --- segment --- host2 --- ... of the plan's drawing; a flow of numbered datagrams between their pods runs meanwhile
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from overlaynet.lab import system
from overlaynet.lab.breaking import break_at_random
from overlaynet.lab.daemons import program
from overlaynet.lab.healing import CAUSES, Cause, Watcher, heal
from overlaynet.lab.lab import Lab
from overlaynet.lab.numbered import flowing
from overlaynet.lab.topology import Plan, plan_lab

from tests.lab.conftest import lab_name

WITHIN_S = 10.0
"""Ten times what the slowest healing may take on a quiet machine."""


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, bring_up: Callable[[Plan], Lab]) -> Lab:
    return bring_up(plan_lab(lab_name("heal"), hosts=3, backend=request.param))


@pytest.fixture
def watcher(lab: Lab) -> Iterator[Watcher]:
    with Watcher(lab) as made:
        yield made


@pytest.mark.parametrize(
    ("lab", "cause"),
    [pytest.param(cause.backend, cause, id=f"{cause.backend}: {cause.name}") for cause in CAUSES],
    indirect=["lab"],
)
def test_all_is_back_whatever_happened(lab: Lab, watcher: Watcher, cause: Cause) -> None:
    before = watcher.text()
    assert before.count("\n") > 3
    healing = heal(lab, watcher, cause, within_s=WITHIN_S)
    assert healing.loss is not None
    # As long as the outage lasted at most, and the flow runs both ways again.
    assert healing.loss.lost <= 2_000 * (healing.seconds + 2.0)
    assert watcher.text() == before


def test_without_next_hops_routes_have_gateways_and_all_else_is_the_same(bring_up: Callable[[Plan], Lab]) -> None:
    lab = bring_up(plan_lab(lab_name("nohops"), hosts=2, backend="vxlan", daemon_flags=("--next-hops=false",)))
    host = lab.plan.hosts[0]
    assert lab.run(host.name, "ip", "nexthop", "show").stdout == ""
    assert " onlink" in lab.run(host.name, "ip", "route", "show", "proto", "79").stdout
    with Watcher(lab) as watcher:
        before = watcher.text()
        for cause in CAUSES:
            if cause.name in {"device deleted", "routes removed"} and cause.backend == "vxlan":
                heal(lab, watcher, cause, within_s=WITHIN_S)
        lab.kill_daemon(host)
        lab.start_daemons([host])
        assert writes(lab) == 0
        assert watcher.text() == before


@pytest.mark.parametrize("lab", ["vxlan", "host-gw", "udp"], indirect=True)
def test_underlay_address_that_changes_is_followed_by_all_and_back(lab: Lab, watcher: Watcher) -> None:
    host, other = lab.plan.hosts[:2]
    old = host.address
    new = f"{old.ip + 100}/{old.network.prefixlen}"
    before = watcher.text()
    moved = before.replace(f"local {old.ip}", f"local {old.ip + 100}")
    with Watcher(lab, other) as peer, flowing(lab, host.pods[0].name, other.pods[0].name) as flow:
        seen = peer.text()
        reached = seen.replace(str(old.ip), str(old.ip + 100))
        start = time.monotonic()
        for words, mine, theirs in ((f"delete {old}; add {new}", moved, reached), (f"delete {new}; add {old}", before, seen)):
            for line in words.split("; "):
                done = lab.run(host.name, "ip", "address", *line.split(), "dev", "eth0")
                assert done.returncode == 0, done.stderr
            watcher.await_text(mine, time.monotonic() + WITHIN_S)
            peer.await_text(theirs, time.monotonic() + WITHIN_S)
        lasted = time.monotonic() - start
        flow.run_for(0.5)
        loss = flow.end()
    # As long as the outages lasted at most, and the flow runs both ways again.
    assert loss.lost <= 2_000 * (lasted + 1.0)
    assert min(loss.there.received, loss.back.received) > 0


@pytest.mark.parametrize("lab", ["vxlan"], indirect=True)
def test_a_program_that_deletes_in_a_loop_meets_calm_and_a_warning(lab: Lab, watcher: Watcher) -> None:
    before = watcher.text()
    host = lab.plan.hosts[0]
    loop = system.enter(host.namespace, "sh", "-c", "while :; do ip link delete ovl.1 2>&-; sleep 0.02; done")
    counted = writes(lab)
    fighter = subprocess.Popen(loop)
    try:
        deadline = time.monotonic() + 60.0
        while "kernel-fight" not in lab.files.host(host).log.read_text():
            assert time.monotonic() < deadline, "no warning"
            time.sleep(0.05)
        calm = writes(lab)
        time.sleep(3.0)
        # Every 20 ms it would be 150 devices with all that is on them.
        assert writes(lab) - calm < 20 * before.count("\n")
    finally:
        fighter.kill()
        fighter.wait()
    assert calm > counted
    watcher.await_text(before, time.monotonic() + 60.0)


@pytest.mark.parametrize("seconds", [8, pytest.param(600, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
@pytest.mark.parametrize("lab", ["vxlan", "host-gw", "udp"], indirect=True)
def test_host_that_is_broken_at_random_ends_as_it_began(lab: Lab, watcher: Watcher, seconds: int) -> None:
    text = watcher.text()
    broken = break_at_random(lab, watcher, seconds=seconds, seed=1)
    assert watcher.text() == text
    assert len(broken.causes) == seconds
    assert broken.last_seconds < WITHIN_S
    # Two thousand a second: each breakage may cost some, and the flow runs both ways at the end.
    assert broken.loss.lost < 2_000 * seconds
    for before, after in zip(broken.before, broken.after, strict=True):
        assert after.tasks == before.tasks
        # The second of those for what blocks comes when both are needed at once.
        assert after.threads - before.threads in (0, 1)
        # One that is open for a moment only may be counted.
        assert after.descriptors <= before.descriptors + 2
        assert after.resident <= before.resident + 8 * 2**20


def writes(lab: Lab) -> int:
    """How many operations the first host's daemon has sent to its kernel."""
    host = lab.plan.hosts[0]
    run_dir = f"OVERLAYNET_RUN_DIR={lab.files.host(host).run}"
    done = lab.run(host.name, "env", run_dir, program("overlaynet"), "status", "--json")
    assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout)["kernel_writes"])

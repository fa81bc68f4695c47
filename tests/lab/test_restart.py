"""What a daemon's end and its next start do to running traffic and to the kernel: nothing.

Loss is counted on numbered datagrams at 1,000 a second both ways; what the kernel is told is read from its own messages.
"""

from __future__ import annotations

import contextlib
import re
import select
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from overlaynet.lab import lab as labs
from overlaynet.lab import traffic
from overlaynet.lab.daemons import HEALTHZ_PORT, program
from overlaynet.lab.lab import Lab
from overlaynet.lab.numbered import flowing
from overlaynet.lab.topology import OVERLAY_NETWORKS, Host, Plan, plan_lab
from overlaynet.model.addresses import Family
from overlaynet.model.lease_text import parse_lease_key

from tests.lab.conftest import lab_name
from tests.lab.kernel_state import foreign, lines_of, monitored, ours, status, until

NETWORK = OVERLAY_NETWORKS[Family.IPV4]


@pytest.fixture(scope="module", params=["vxlan", "host-gw"])
def kernel_lab(request: pytest.FixtureRequest, bring_up: Callable[[Plan], Lab]) -> Lab:
    return bring_up(plan_lab(lab_name("restart"), hosts=3, backend=request.param))


@pytest.mark.parametrize("end", [Lab.kill_daemon, Lab.stop_daemon])
def test_end_and_restart_lose_no_packet_and_write_nothing(kernel_lab: Lab, end: Callable[[Lab, Host], None]) -> None:
    lab, host = kernel_lab, kernel_lab.plan.hosts[0]
    held, subnet = ours(lab, "host1"), lab.files.host(host).subnet_env.read_text()
    with monitored(lab, "host1") as heard, flowing(lab, "pod1", "pod2") as flow:
        flow.run_for(0.3)
        end(lab, host)
        flow.run_for(1.0)
        lab.start_daemons([host])
        flow.run_for(0.5)
        loss = flow.end()
        messages = heard()
    assert loss.there.sent > 1_500
    assert (loss.there.lost, loss.back.lost) == (0, 0)
    assert messages == []
    assert ours(lab, "host1") == held
    assert status(lab, 1)["kernel_writes"] == 0
    assert lab.files.host(host).subnet_env.read_text() == subnet


def test_host_that_was_removed_while_a_daemon_was_down_leaves_nothing_behind(kernel_lab: Lab) -> None:
    lab = kernel_lab
    first, _, last = lab.plan.hosts
    held, subnet = ours(lab, "host1"), leased(lab)[2]
    words = {str(last.address.ip), subnet}
    assert all(word in held for word in words)
    lab.kill_daemon(first)
    lab.stop_daemon(last)
    released = lab.run("host2", program("overlaynet"), "--store", lab.store, "lease", "release", subnet)
    assert released.returncode == 0, released.stderr
    until(lambda: subnet not in ours(lab, "host2"))
    assert ours(lab, "host1") == held
    lab.start_daemons([first])
    until(lambda: not any(word in ours(lab, "host1") for word in words))
    assert subnet not in peers(lab)
    lab.start_daemons([last])
    lab.await_peers(time.monotonic() + 30)
    assert traffic.ping(lab, "pod1", lab.pod_address("pod3"), count=2, interval_s=0.05).lost == 0


def test_peer_that_a_restored_store_lacks_is_kept_and_named(kernel_lab: Lab) -> None:
    lab = kernel_lab
    first, _, last = lab.plan.hosts
    held, subnet = ours(lab, "host1"), leased(lab)[2]
    store = Path(lab.store.removeprefix("sqlite:///"))
    lab.stop_daemon(last)
    released = lab.run("host1", program("overlaynet"), "--store", lab.store, "lease", "release", subnet)
    assert released.returncode == 0, released.stderr
    backup = store.with_name("backup.db")
    with contextlib.closing(sqlite3.connect(store)) as source, contextlib.closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    lab.start_daemons([last])
    lab.await_peers(time.monotonic() + 30)
    assert (leased(lab)[2], ours(lab, "host1")) == (subnet, held)
    for host in lab.plan.hosts:
        lab.stop_daemon(host)

    backup.replace(store)
    lab.start_daemons([first])
    until(lambda: status(lab, 1)["warnings"])
    (warning,) = [text for text in status(lab, 1)["warnings"] if "went back" in text]
    assert subnet.replace("/", "-") in warning
    assert peers(lab)[subnet] == "programmed"
    assert (ours(lab, "host1"), status(lab, 1)["kernel_writes"]) == (held, 0)

    lab.start_daemons(lab.plan.hosts[1:])
    until(lambda: not status(lab, 1)["warnings"])
    assert (leased(lab)[2], ours(lab, "host1")) == (subnet, held)


@pytest.mark.parametrize("turns", [30, pytest.param(1_000, marks=[pytest.mark.soak, pytest.mark.timeout(3_600)])])
def test_fast_restarts_leave_what_one_leaves(kernel_lab: Lab, turns: int) -> None:
    with flowing(lab := kernel_lab, "pod1", "pod2") as flow:
        restart_fast(lab, turns)
        loss = flow.end()
    assert loss.lost == 0


def restart_fast(lab: Lab, turns: int) -> None:
    """Start host1's daemon and end it `turns` times; then all is as after one start."""
    host = lab.plan.hosts[0]
    files = lab.files.host(host)
    held, others, subnet = ours(lab, "host1"), foreign(lab, "host1"), files.subnet_env.read_text()
    kept, peer, doors = names(files.state), footprint(lab, 2), listening(lab)
    lab.stop_daemon(host)
    for turn in range(turns):
        start = lab.daemon(host).start()
        try:
            if turn % 30 == 29:
                # Where the machine is slow, no other may live long enough to renew the lease, which would run out in the end.
                start.ready(time.monotonic() + 60)
            else:
                # At another moment of its start each time, sometimes just before or after it is ready.
                time.sleep(0.04 * (turn % 30))
        finally:
            start.close()
        (lab.stop_daemon if turn % 3 == 2 else lab.kill_daemon)(host)
    lab.start_daemons([host])
    until(lambda: ours(lab, "host1") == held)
    assert foreign(lab, "host1") == others
    assert files.subnet_env.read_text() == subnet
    assert names(files.state) == kept
    assert listening(lab) == doors
    assert len(subprocess.run(["ip", "netns", "pids", host.namespace], capture_output=True, check=True).stdout.split()) == 1
    # And its peers' daemons, which saw it all, have grown by nothing.
    threads, descriptors, resident_kib = (after - before for after, before in zip(footprint(lab, 2), peer, strict=True))
    assert threads <= 0
    assert descriptors <= 0
    assert resident_kib < 8 * 1024


def listening(lab: Lab) -> list[str]:
    """The addresses and ports at which host1 hears anything."""
    return sorted(line.split()[4] for line in lab.run("host1", "ss", "-Hlntu").stdout.splitlines())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def footprint(lab: Lab, number: int) -> tuple[int, int, int]:
    """A daemon's threads, open descriptors and resident memory in KiB."""
    process = lab.files.host(lab.plan.hosts[number - 1]).daemon
    assert process is not None
    proc = Path(f"/proc/{process.pid}")
    resident = re.search(r"^VmRSS:\s+(\d+) kB", (proc / "status").read_text(), re.MULTILINE)
    assert resident is not None
    return len(list((proc / "task").iterdir())), len(list((proc / "fd").iterdir())), int(resident[1])


def test_packet_to_a_missing_subnet_ends_here_and_takes_no_default_route(kernel_lab: Lab) -> None:
    lab = kernel_lab
    missing = next(str(one[7]) for one in NETWORK.subnets(new_prefix=24) if str(one) not in str(leased(lab)))
    out = "add table inet look; add chain inet look out { type filter hook postrouting priority 0; }"
    rule = f"add rule inet look out ip daddr {missing} counter"
    assert lab.run("host1", "ip", "route", "add", "default", "via", str(lab.plan.hosts[1].address.ip)).returncode == 0
    try:
        assert lab.run("host1", "nft", f"{out}; {rule}").returncode == 0
        said = lab.run("pod1", "ping", "-c", "2", "-i", "0.2", "-W", "2", missing).stdout
        counted = lab.run("host1", "nft", "list", "table", "inet", "look").stdout
    finally:
        lab.run("host1", "ip", "route", "delete", "default")
        lab.run("host1", "nft", "delete", "table", "inet", "look")
    assert said.count("Destination Host Unreachable") == 2, said
    assert "packets 0 " in counted, counted


def leased(lab: Lab) -> list[str]:
    """Each host's subnet, host1's first."""
    return [str(parse_lease_key(status(lab, number)["lease"]["subnets"]).v4) for number in (1, 2, 3)]


def peers(lab: Lab) -> dict[str, str]:
    """The state of each peer of host1, by its subnet."""
    return {str(parse_lease_key(peer["subnets"]).v4): peer["state"] for peer in status(lab, 1)["peers"]}


LOOK_ALIKES = (
    "ip link add ovl.77 type bridge",
    "ip link add ovlan0 type vxlan id 77 dev eth0 dstport 8473 nolearning",
    "ip link set ovlan0 addrgenmode none",
    "ip link set ovlan0 up",
    "ip address add 198.51.100.1/24 dev ovlan0",
    # Inside the network by another protocol, and outside of it by ours, on the underlay and on a link that is not ours.
    "ip route add {missing} via {second} dev eth0 proto static metric 7",
    "ip route add 203.0.113.0/24 via {second} dev eth0 proto 79",
    "ip route add 203.0.114.0/24 dev ovlan0 proto 79 metric 9",
    "ip route add {missing} via {second} dev eth0 table 100",
    "ip neighbour add 198.51.100.9 lladdr 02:00:00:00:00:09 dev ovlan0 nud permanent",
    "ip neighbour add {second} lladdr 02:00:00:00:00:08 dev ovlan0 nud permanent",
    "bridge fdb append 02:00:00:00:00:09 dev ovlan0 dst {second} self permanent",
    "ip nexthop add id 79 via {second} dev eth0",
    "ip rule add to {network} lookup 100 priority 7900",
)


def test_what_looks_like_ours_and_is_not_stays_through_kill_restart_and_cleanup(kernel_lab: Lab) -> None:
    lab, host = kernel_lab, kernel_lab.plan.hosts[0]
    missing = next(str(one) for one in NETWORK.subnets(new_prefix=24) if str(one) not in str(leased(lab)))
    words = {"missing": missing, "second": str(lab.plan.hosts[1].address.ip), "network": str(NETWORK)}
    held = set(lines_of(lab, "host1"))
    try:
        for line in LOOK_ALIKES:
            done = lab.run("host1", *line.format(**words).split())
            assert done.returncode == 0, f"{line}: {done.stderr}"
        foreigners = set(lines_of(lab, "host1")) - held
        assert len(foreigners) >= len(LOOK_ALIKES) - 2
        before = ours(lab, "host1")
        lab.kill_daemon(host)
        lab.start_daemons([host])
        assert ours(lab, "host1") == before
        assert foreigners <= set(lines_of(lab, "host1"))
        assert status(lab, 1)["conflicts"] == []
        subnets = leased(lab)
        lab.stop_daemon(host)
        cleaned = lab.run("host1", program("overlaynet"), "cleanup")
        assert cleaned.returncode == 0, cleaned.stderr
        # cleanup knows of no network: a route of our protocol is ours wherever it leads.
        assert {line for line in foreigners if "proto 79" not in line} <= set(lines_of(lab, "host1"))
        assert not set(subnets[1:]) & set(ours(lab, "host1").split())
    finally:
        for line in ("ip rule delete priority 7900", "ip nexthop delete id 79", "ip link delete ovlan0", "ip link delete ovl.77"):
            lab.run("host1", *line.split())
        lab.run("host1", "ip", "route", "flush", "table", "100")
        for prefix in ("203.0.113.0/24", "203.0.114.0/24", missing):
            lab.run("host1", "ip", "route", "delete", prefix)
        lab.start_daemons([host])
    lab.await_peers(time.monotonic() + 30)
    assert traffic.ping(lab, "pod1", lab.pod_address("pod2"), count=2, interval_s=0.05).lost == 0


def test_foreign_entry_in_the_place_of_ours_is_shown_and_left_until_it_goes(kernel_lab: Lab) -> None:
    lab, host = kernel_lab, kernel_lab.plan.hosts[0]
    held, subnet = ours(lab, "host1"), leased(lab)[1]
    lab.kill_daemon(host)
    foreigner = ("ip", "route", "replace", "prohibit", subnet, "proto", "static")
    assert lab.run("host1", *foreigner).returncode == 0
    try:
        lab.start_daemons([host])
        until(lambda: status(lab, 1)["conflicts"])
        (conflict,) = status(lab, 1)["conflicts"]
        assert subnet in conflict
        assert "proto static" in conflict
        states = peers(lab)
        assert (states.pop(subnet), set(states.values())) == ("conflict", {"programmed"})
        assert "prohibit" in lab.run("host1", "ip", "route", "show", subnet).stdout
        assert traffic.ping(lab, "pod1", lab.pod_address("pod3"), count=2, interval_s=0.05).lost == 0
    finally:
        lab.run("host1", "ip", "route", "delete", "prohibit", subnet)
    until(lambda: ours(lab, "host1") == held)
    until(lambda: not status(lab, 1)["conflicts"])


@pytest.fixture(scope="module")
def udp_lab(bring_up: Callable[[Plan], Lab]) -> Lab:
    return bring_up(plan_lab(lab_name("restartudp"), hosts=2, backend="udp"))


def test_tun_its_address_and_routes_survive_a_killed_daemon(udp_lab: Lab) -> None:
    lab, host = udp_lab, udp_lab.plan.hosts[0]
    held = ours(lab, "host1")
    lab.kill_daemon(host)
    # Nobody holds its queue now, which is all that is to be seen of it.
    assert unqueued(ours(lab, "host1")) == unqueued(held)
    with monitored(lab, "host1") as heard:
        lab.start_daemons([host])
        assert [line for line in heard() if "Deleted" in line and "NOARP" not in line] == []
    until(lambda: ours(lab, "host1") == held)


@pytest.mark.parametrize("turns", [30, pytest.param(1_000, marks=[pytest.mark.soak, pytest.mark.timeout(3_600)])])
def test_fast_restarts_of_a_packet_engine_leave_what_one_leaves(udp_lab: Lab, turns: int) -> None:
    restart_fast(udp_lab, turns)
    pings = traffic.ping(udp_lab, "pod1", udp_lab.pod_address("pod2"), count=5, interval_s=0.05)
    assert pings.lost == 0


def unqueued(text: str) -> str:
    """Without what a link says of its carrier."""
    for word in ("NO-CARRIER,", "LOWER_UP,", ",LOWER_UP", " state UP", " state DOWN", " state UNKNOWN", " linkdown"):
        text = text.replace(word, "")
    return text


def readiness(lab: Lab, member: str) -> str:
    """The status line of /readyz."""
    url = f"http://127.0.0.1:{HEALTHZ_PORT}/readyz"
    return lab.run(member, "curl", "--noproxy", "*", "-s", "-o", "/dev/null", "-w", "%{http_code}", url).stdout


@pytest.mark.parametrize("backend", ["vxlan", "udp"])
def test_daemon_that_cannot_reach_its_store_forwards_from_what_it_kept(name: str, backend: str) -> None:
    lab = labs.up(plan_lab(name, hosts=2, backend=backend))
    host = lab.plan.hosts[0]
    files = lab.files.host(host)
    assert (files.state / "snapshot.json").stat().st_mode & 0o777 == 0o600
    until(lambda: str(lab.plan.hosts[1].address.ip) in (files.state / "snapshot.json").read_text())
    before, published = ours(lab, "host1"), files.subnet_env.stat().st_mtime_ns
    lab.kill_daemon(host)
    lock = sqlite3.connect(lab.store.removeprefix("sqlite:///"), isolation_level=None, timeout=30)
    lock.execute("BEGIN EXCLUSIVE")
    try:
        start = lab.daemon(host).start()
        try:
            until(lambda: status(lab, 1).get("kept") is True and status(lab, 1).get("store_error"))
            until(lambda: ours(lab, "host1") == before)
            shown = status(lab, 1)
            assert shown["ready"] is False
            assert [peer["state"] for peer in shown["peers"]] == ["programmed"]
            assert shown["kernel_writes"] == 0
            assert readiness(lab, "host1") == "503"
            with flowing(lab, "pod1", "pod2") as flow:
                flow.run_for(0.5)
                loss = flow.end()
            assert loss.lost == 0
            assert files.subnet_env.stat().st_mtime_ns == published
            assert not select.select([start.listening], [], [], 0)[0], "the service manager was told something"
            lock.execute("ROLLBACK")
            start.ready(time.monotonic() + 60)
        finally:
            start.close()
    finally:
        lock.close()
    until(lambda: readiness(lab, "host1") == "200")
    assert (status(lab, 1)["kept"], status(lab, 1)["kernel_writes"]) == (False, 0)

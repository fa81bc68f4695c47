"""Three etcd members in a namespace of the test's own: whatever befalls one, leases stay held and changes reach everyone.

Each member has its own loopback address and its own user, by which a packet filter there can cut it off, in both directions.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.contract.etcd_claimants import ClaimantServer
from tests.contract.etcd_evidence import Observer, judge, read_log
from tests.contract.namespaces import Namespace, namespace, stop

MEMBERS = 3
HOSTS = 4
TTL_S = 600
"""Longer than any test: a leader of etcd before 3.4.28 that was paused for longer than a TTL ends every lease when it goes on."""
RENEW_S = 3
PREFIX = "/three"
WITHIN_S = 120.0
"""Ten times what it takes: the machine that runs the tests may be busy."""
NAMES = "abc"
FIRST_UID = 30_011
CONFIG = '{"Network":"10.1.0.0/16","Backend":{"Type":"host-gw"}}'
FILTER = """table inet cut {
set members { type ipv4_addr; }
set users { type uid; }
chain out {
type filter hook output priority 0;
ip daddr @members drop
ip saddr @members drop
meta skuid @users drop
}
}
"""


def address(member: int) -> str:
    return f"127.0.0.{11 + member}"


class Cluster:
    """Members, claimants and the observer of all."""

    def __init__(self, space: Namespace, data: Path, folder: Path) -> None:
        self._space = space
        self._data = data
        self.folder = folder
        self._members: dict[int, subprocess.Popen[bytes]] = {}
        self._server = ClaimantServer(space)
        self._claimants = 0
        self._observer: Observer | None = None

    def start(self) -> None:
        """Start everything, and wait until each host knows all others."""
        self._space.run("nft", "-f", "-", stdin=FILTER)
        for member in range(MEMBERS):
            self.start_member(member)
        self.until("the cluster serves", lambda: all(self.status(member) is not None for member in range(MEMBERS)))
        self.ctl("put", f"{PREFIX}/config", CONFIG)
        self._observer = Observer(self._space, ",".join(f"{address(member)}:2379" for member in range(MEMBERS)), PREFIX)
        for _ in range(HOSTS):
            self.add_claimant()
        self.until_all_know_all()

    def start_member(self, member: int) -> None:
        uid = str(FIRST_UID + member)
        place = self._data / NAMES[member]
        place.mkdir(mode=0o700, exist_ok=True)
        os.chown(place, int(uid), int(uid))
        client, peer = f"http://{address(member)}:2379", f"http://{address(member)}:2380"
        everyone = ",".join(f"{NAMES[other]}=http://{address(other)}:2380" for other in range(MEMBERS))
        self._members[member] = self._space.start(
            *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--pdeathsig", "KILL"),
            *("etcd", "--name", NAMES[member], "--data-dir", str(place / "data"), "--logger", "zap", "--log-level", "error"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", everyone),
            out=self.folder / f"member-{NAMES[member]}",
        )

    def kill(self, member: int) -> None:
        self._members[member].kill()
        self._members[member].wait()

    def signal(self, member: int, number: signal.Signals) -> None:
        self._members[member].send_signal(number)

    def cut(self, member: int, how: str) -> None:
        """`add`: the member reaches nobody and nobody reaches it; `delete`: they do again."""
        self._space.run("nft", how, "element", "inet", "cut", "members", "{", address(member), "}")
        self._space.run("nft", how, "element", "inet", "cut", "users", "{", str(FIRST_UID + member), "}")

    def add_claimant(self) -> str:
        """A further host; the way it knows the members begins with another one for each."""
        number = self._claimants = self._claimants + 1
        host = f"{number:032x}"
        place = self.folder / host
        place.mkdir()
        endpoints = ",".join(f"{address((number + k) % MEMBERS)}:2379" for k in range(MEMBERS))
        arguments = (endpoints, PREFIX, host, str(number), str(TTL_S), str(place), str(TTL_S - RENEW_S))
        self._server.start(*arguments, out=place / "said")
        return host

    def logs(self) -> dict[str, list[dict[str, Any]]]:
        return {path.parent.name: read_log(path) for path in self.folder.glob("*/log")}

    def handles(self) -> dict[str, int]:
        """The etcd lease that each host believes in."""
        found = {}
        for host, lines in self.logs().items():
            beliefs = [line for line in lines if line["kind"] == "believes"]
            if beliefs and beliefs[-1]["key"]:
                found[host] = beliefs[-1]["handle"]
        return found

    def until_all_know_all(self) -> None:
        def known() -> bool:
            logs = self.logs()
            routes = [[line["routes"] for line in lines if line["kind"] == "routes"] for lines in logs.values()]
            count = self._claimants
            return len(logs) == count and all(said and len(said[-1]) == count - 1 for said in routes)

        self.until("every host routes to every other", known)

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WITHIN_S
        while not condition():
            assert time.monotonic() < deadline, f"not within {WITHIN_S:.0f} s: {what}\n{self.told()}"
            time.sleep(0.2)

    def told(self) -> str:
        """What everyone said, for a failure: each claimant's last lines without its routine, and the end of each output."""
        text = []
        for host, lines in self.logs().items():
            kinds = Counter(line["kind"] for line in lines)
            telling = [line for line in lines if line["kind"] not in {"acts", "gone"}]
            text += [f"{host}: {dict(kinds)}", *(f"  {json.dumps(line)}" for line in telling[-12:])]
        for path in [*self.folder.glob("*/said"), *self.folder.glob("member-*")]:
            if said := path.read_text(errors="replace").splitlines():
                text += [f"{path.relative_to(self.folder)}:", *(f"  {line}" for line in said[-12:])]
        return "\n".join(text)

    def renewed_since(self, moment: float) -> bool:
        """Whether every host has renewed its lease in a request that was sent after `moment`."""
        for lines in self.logs().values():
            asked = [
                n for n, line in enumerate(lines) if line["kind"] == "asks" and line["what"] == "renew" and line["t"] > moment
            ]
            if not asked or not any(line["kind"] == "granted" for line in lines[asked[0] :]):
                return False
        return True

    def status(self, member: int) -> dict[str, Any] | None:
        """What a member says of itself, or None."""
        command = self._space.command(
            *("env", "ETCDCTL_API=3", "etcdctl", "--endpoints", f"{address(member)}:2379", "--command-timeout", "2s"),
            *("endpoint", "status", "-w", "json"),
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        status: dict[str, Any] | None = json.loads(done.stdout)[0]["Status"] if done.returncode == 0 and done.stdout else None
        return status if status is not None and status.get("leader") else None

    def leader(self) -> int:
        for _ in range(100):
            for member in range(MEMBERS):
                status = self.status(member)
                if status is not None and status["leader"] == status["header"]["member_id"]:
                    return member
            time.sleep(0.2)
        raise AssertionError(f"no leader\n{self.told()}")

    def ctl(self, *arguments: str) -> str:
        return self._space.run("env", "ETCDCTL_API=3", "etcdctl", "--endpoints", f"{address(0)}:2379", *arguments)

    def judge(self) -> None:
        """Hold what was seen and said so far to the promises about uniqueness."""
        assert self._observer is not None
        verdict = judge(self._observer, self.logs(), set())
        assert not verdict.faults, f"{verdict.text}\n{self.told()}"

    def close(self) -> None:
        if self._observer is not None:
            self._observer.close()
        self._server.close()
        stop(list(self._members.values()))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ovt-etcd-")))
        data.chmod(0o711)
        space = stack.enter_context(namespace("three"))
        made = Cluster(space, data, tmp_path)
        stack.callback(made.close)
        made.start()
        yield made


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("fault", "whom"), [("kill", "follower"), ("kill", "leader"), ("pause", "leader"), ("cut", "leader")])
def test_leases_stay_held_and_changes_arrive_when_a_member_is_lost(cluster: Cluster, fault: str, whom: str) -> None:
    leader = cluster.leader()
    member = leader if whom == "leader" else (leader + 1) % MEMBERS
    before = cluster.handles()
    started = {host: len(lines) for host, lines in cluster.logs().items()}
    lost_at = time.clock_gettime(time.CLOCK_BOOTTIME)
    match fault:
        case "kill":
            cluster.kill(member)
        case "pause":
            cluster.signal(member, signal.SIGSTOP)
        case "cut":
            cluster.cut(member, "add")
    try:
        cluster.add_claimant()
        cluster.until_all_know_all()
        cluster.until("every host renews", lambda: cluster.renewed_since(lost_at + 1))
    finally:
        match fault:
            case "kill":
                cluster.start_member(member)
            case "pause":
                cluster.signal(member, signal.SIGCONT)
            case "cut":
                cluster.cut(member, "delete")
    cluster.until("the member is back", lambda: cluster.status(member) is not None)

    after = cluster.handles()
    assert {host: after.get(host) for host in before} == before, f"a lease was not held all the time\n{cluster.told()}"
    logs = cluster.logs()
    for host, count in started.items():
        said = {line["kind"] for line in logs[host][count:]}
        assert not {"noticed", "ends", "stops"} & said, f"{host} lost its lease for a time\n{cluster.told()}"
    cluster.judge()

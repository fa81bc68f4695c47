"""Forty claimants on one network and everything that can happen to them: kills, pauses, cuts, skewed clocks, new configurations.

Everything runs in one network namespace. Claimant N reaches etcd at 127.0.1.N, so that a packet filter there can cut off each by
itself. What happens when is drawn from a seed, which a failure names.
"""

from __future__ import annotations

import heapq
import json
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.contract.etcd_claimants import ClaimantServer, ForkedProcess
from tests.contract.etcd_evidence import Observer, Pauses, Verdict, boot_time, judge, read_log
from tests.contract.namespaces import Namespace, stop

HOSTS = 40
TTL_S = 4
PREFIX = "/fire"
DAY_S = 86_400
CALM_WITHIN_S = 180.0
"""How long it may take, once nothing more goes wrong, until every host has a lease and a route to every other."""

LOOK_EVERY_S = 12.0
ROUTED_WITHIN_S = 60.0
"""How long it may take until every connected host routes by what the store holds: hosts that were just started or have lost their
lease, which takes as long as another lease of their address lives, are among them."""

OFTEN_ENOUGH = {
    "looks at the routes": 2,
    "kills": 3,
    "pauses": 3,
    "cuts": 3,
    "configurations": 3,
    "starts with a clock a day off": 3,
    "deletions by hand": 1,
    "rushes": 3,
    "subnets that changed hands": 3,
    "expiries noticed": 3,
}
"""What must have happened, and how often, before the fire has shown anything."""

LONGER_AT_MOST = 4
"""How many times as long as planned it burns at most, while chance has not brought all of that yet."""

CONFIGS = (
    '{"Network":"10.1.0.0/20","SubnetLen":26,"Backend":{"Type":"host-gw"}}',
    '{"Network":"10.1.0.0/20","SubnetLen":27,"Backend":{"Type":"host-gw"}}',
    '{"EnableIPv6":true,"Network":"10.1.0.0/20","SubnetLen":26,"IPv6Network":"fd01::/58","IPv6SubnetLen":64,'
    '"Backend":{"Type":"host-gw"}}',
    '{"EnableIPv6":true,"Network":"10.1.0.0/20","SubnetLen":27,"IPv6Network":"fd01::/58","IPv6SubnetLen":65,'
    '"Backend":{"Type":"host-gw"}}',
)
"""Networks of 64 or 128 subnets. SubnetLen counts from the next claim, the families from the next start: so all are mixed."""


@dataclass(slots=True)
class Claimant:
    """One process and what is done to it."""

    number: int
    generation: int
    folder: Path
    process: ForkedProcess
    paused: bool = False
    cut: bool = False

    @property
    def host(self) -> str:
        return f"{self.generation:016x}{self.number:016x}"


class Fire:
    """The claimants, their etcd, the observer and the fire-raiser."""

    def __init__(self, space: Namespace, folder: Path, seed: int, shim: Path) -> None:
        self._space = space
        self._folder = folder
        self._chance = random.Random(seed)
        self._servers = {
            skew: ClaimantServer(space, {"LD_PRELOAD": str(shim), "CLOCK_SHIFT_S": str(skew)} if skew else None)
            for skew in (0, DAY_S, -DAY_S)
        }
        self._claimants: list[Claimant] = []
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._deleted: set[int] = set()
        self._pauses: Pauses = {}
        self._misrouted: list[str] = []
        self.done: Counter[str] = Counter()
        self._etcd = space.start(
            *("etcd", "--data-dir", str(folder / "data"), "--logger", "zap", "--log-level", "error"),
            *("--heartbeat-interval", "50", "--election-timeout", "500"),
            *("--listen-client-urls", "http://0.0.0.0:2379", "--advertise-client-urls", "http://127.0.0.1:2379"),
            out=folder / "etcd.log",
        )
        deadline = time.monotonic() + 60
        while not self._etcd_answers():
            assert time.monotonic() < deadline, (folder / "etcd.log").read_text()
        space.run(
            *("nft", "-f", "-"),
            stdin="table inet cut {\nset hosts { type ipv4_addr; }\nchain out {\ntype filter hook output priority 0;\n"
            "ip daddr @hosts drop\nip saddr @hosts drop\n}\n}\n",
        )
        self._ctl("put", f"{PREFIX}/config", CONFIGS[0])
        self._observer = Observer(space, "127.0.0.1:2379", PREFIX)

    def light(self) -> None:
        """Start all claimants at once, and wait until each has its lease."""
        for number in range(1, HOSTS + 1):
            self._claimants.append(self._start(number, 0))
        self._wait_for_calm()

    def burn(self, duration_s: float) -> None:
        """Let things happen for that long, longer if chance wants it, and hold still now and then to look at the routes."""
        ends_at = time.monotonic() + duration_s
        next_config = time.monotonic() + duration_s / 12
        next_look = time.monotonic() + LOOK_EVERY_S
        acts = (self._kill, self._kill, self._pause, self._pause, self._pause, self._cut, self._cut, self._cut, self._delete)
        out_at = ends_at + (LONGER_AT_MOST - 1) * duration_s
        while (now := time.monotonic()) < ends_at or (now < out_at and self.lacks()):
            if now >= next_config:
                next_config = now + duration_s / 12
                self._ctl("put", f"{PREFIX}/config", self._chance.choice(CONFIGS))
                self.done["configurations"] += 1
                self._rush()
            if now >= next_look:
                self._look()
                next_look = time.monotonic() + LOOK_EVERY_S
            self._chance.choice(acts)()
            self._do_what_is_due()
            self._restart_the_ended()
            time.sleep(self._chance.uniform(0.05, 0.5))

    def _look(self) -> None:
        """(e) Every host that is connected routes each subnet to its owner in the store, soon after the last change."""
        deadline = time.monotonic() + ROUTED_WITHIN_S
        while why := self._wrong_routes([one for one in self._claimants if not one.paused and not one.cut]):
            if time.monotonic() > deadline:
                self._misrouted.append(f"(e) after {ROUTED_WITHIN_S:.0f} s without change: {why}")
                return
            self._restart_the_ended()
            time.sleep(0.1)
        self.done["looks at the routes"] += 1

    def calm_down(self) -> Verdict:
        """Undo what is going on; what everything shows once each host has its lease and routes to all others."""
        for _, _, undo in self._later:
            undo()
        self._later.clear()
        why = self._wait_for_calm()
        verdict = self.judge()
        if why:
            verdict.faults.append(f"(e) after {CALM_WITHIN_S:.0f} s of calm: {why}")
        return verdict

    def _wait_for_calm(self) -> str:
        """Why it does not come."""
        deadline = time.monotonic() + CALM_WITHIN_S
        while (why := self._unrest()) and time.monotonic() < deadline:
            self._restart_the_ended()
            time.sleep(0.5)
        return why

    def judge(self) -> Verdict:
        """What is shown so far."""
        logs = {path.parent.name: read_log(path) for path in self._folder.glob("*/log")}
        verdict = judge(self._observer, logs, self._deleted, self._pauses)
        verdict.faults += self._misrouted
        for path in self._folder.glob("*/said"):
            if "Traceback" in (said := path.read_text()):
                verdict.faults.append(f"{path.parent.name} broke down: {said[said.index('Traceback') :][-2_000:]}")
        return verdict

    def lacks(self) -> dict[str, int]:
        """What has not happened often enough yet, and how often it did."""
        happened = self.done + self.judge().counts
        return {what: happened[what] for what, often in OFTEN_ENOUGH.items() if happened[what] < often}

    def put_out(self) -> None:
        """End everything."""
        self._observer.close()
        for server in self._servers.values():
            server.close()
        stop([self._etcd])

    def _start(self, number: int, generation: int) -> Claimant:
        claimant = Claimant(number, generation, Path(), None)  # type: ignore[arg-type]
        claimant.folder = self._folder / claimant.host
        claimant.folder.mkdir(exist_ok=True)
        skew = self._chance.choice((0, 0, DAY_S, -DAY_S))
        self.done[f"starts with a clock {'right' if skew == 0 else 'a day off'}"] += 1
        address = str(number + HOSTS * (generation % 3))
        arguments = (f"127.0.1.{number}:2379", PREFIX, claimant.host, address, str(TTL_S), str(claimant.folder))
        claimant.process = self._servers[skew].start(*arguments, out=claimant.folder / "said")
        return claimant

    def _kill(self) -> None:
        claimant = self._chance.choice(self._claimants)
        if claimant.paused:
            return
        claimant.process.close()
        self.done["kills"] += 1
        # The same host, or another in its place: with its address or with one of its own.
        self._replace(claimant, claimant.generation + self._chance.choice((0, 0, 1, 3)))

    def _restart_the_ended(self) -> None:
        for claimant in [one for one in self._claimants if one.process.has_ended()]:
            self.done["ends by themselves"] += 1
            self._replace(claimant, claimant.generation)

    def _replace(self, claimant: Claimant, generation: int) -> None:
        new = self._start(claimant.number, generation)
        claimant.generation, claimant.folder, claimant.process = new.generation, new.folder, new.process

    def _pause(self) -> None:
        claimant = self._chance.choice(self._claimants)
        if claimant.paused or claimant.process.has_ended():
            return
        since = boot_time()
        claimant.process.send_signal(signal.SIGSTOP)
        claimant.paused = True
        self.done["pauses"] += 1

        def resume() -> None:
            claimant.paused = False
            claimant.process.send_signal(signal.SIGCONT)
            self._pauses.setdefault(claimant.host, []).append((since, boot_time()))

        self._after(self._chance.uniform(0.2, 2.5) * TTL_S, resume)

    def _cut(self) -> None:
        claimant = self._chance.choice(self._claimants)
        if claimant.cut:
            return
        claimant.cut = True
        self._nft("add", claimant.number)
        self.done["cuts"] += 1

        def heal() -> None:
            claimant.cut = False
            self._nft("delete", claimant.number)

        self._after(self._chance.uniform(0.2, 3) * TTL_S, heal)

    def _delete(self) -> None:
        """Delete a lease key by hand, now and then."""
        if self._chance.random() < 0.5:
            return
        found = json.loads(self._ctl("get", "--prefix", f"{PREFIX}/subnets/", "-w", "json")).get("kvs", [])
        if not found:
            return
        pair = self._chance.choice(found)
        # Marked first: a belief that ends by it is judged by another rule, one that ends otherwise loses nothing by that.
        self._deleted.add(int(pair["lease"]))
        self._space.run("sh", "-c", f'ETCDCTL_API=3 etcdctl del "$(echo {pair["key"]} | base64 -d)"')
        self.done["deletions by hand"] += 1

    def _rush(self) -> None:
        """Delete all leases at once: where SubnetLen is another now, everyone then picks anew among the same subnets.

        So claims meet whose keys overlap and are not the same: only then is what they rest on put to the test.
        """
        gone = json.loads(self._ctl("del", "--prefix", "--prev-kv", f"{PREFIX}/subnets/", "-w", "json")).get("prev_kvs", [])
        self._deleted.update(int(pair["lease"]) for pair in gone)
        self.done["rushes"] += 1

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, self.done.total(), act))

    def _do_what_is_due(self) -> None:
        while self._later and self._later[0][0] <= time.monotonic():
            heapq.heappop(self._later)[2]()

    def _nft(self, what: str, number: int) -> None:
        self._space.run("nft", what, "element", "inet", "cut", "hosts", "{", f"127.0.1.{number}", "}")

    def _ctl(self, *arguments: str) -> str:
        return self._space.run("env", "ETCDCTL_API=3", "etcdctl", *arguments)

    def _etcd_answers(self) -> bool:
        command = self._space.command("env", "ETCDCTL_API=3", "etcdctl", "--command-timeout", "1s", "get", "none")
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _unrest(self) -> str:
        """Why it is not calm yet."""
        held = {seen.host for seen in judge(self._observer, {}, set()).leases.values()}
        hosts = {claimant.host for claimant in self._claimants}
        if held != hosts:
            return f"without a lease: {sorted(hosts - held)}, with one too many: {sorted(held - hosts)}"
        return self._wrong_routes(self._claimants)

    def _wrong_routes(self, claimants: Sequence[Claimant]) -> str:
        """Which of `claimants` does not know its own lease or does not route every other to its owner; empty: none."""
        leases = judge(self._observer, {}, set()).leases
        own = {seen.host: subnets for subnets, seen in leases.items()}
        gateways = {
            seen.host: {(str(subnets.v4), fields["PublicIP"]), (str(subnets.v6), fields.get("PublicIPv6"))}
            for subnets, seen in leases.items()
            for fields in [json.loads(seen.value)]
        }
        for claimant in claimants:
            lines = read_log(claimant.folder / "log")
            belief = next((line["key"] for line in reversed(lines) if line["kind"] == "believes"), "")
            if claimant.host not in own or belief != str(own[claimant.host]):
                return f"{claimant.host} believes in {belief!r} and has {own.get(claimant.host)}"
            routes: list[tuple[str, str]] = next((line["routes"] for line in reversed(lines) if line["kind"] == "routes"), [])
            found = {(prefix, gateway) for prefix, gateway in routes}
            both = own[claimant.host].v6 is not None
            everyone = set().union(*(pairs for host, pairs in gateways.items() if host != claimant.host))
            wanted = {(prefix, gateway) for prefix, gateway in everyone if prefix != "None" and (both or ":" not in prefix)}
            if found != wanted:
                return f"{claimant.host} routes {sorted(found - wanted)} and should {sorted(wanted - found)}"
        return ""

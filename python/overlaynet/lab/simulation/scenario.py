"""What happens to a simulated network, in phases, and what is measured in each.

    start     every host starts within a second, with nothing kept and an empty store
    churn     hosts join, leave (half give their lease back, half die), and are cut off from the store for a while
    outages   every host loses the store for 20 s, twice: with turns for those that load again, and without
    rest      long enough for every lease that nobody renews to end; then all is checked

Each host leaves about once in two hours, and as often one joins, and one is cut off.
"""

from __future__ import annotations

import gc
import math
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

from overlaynet.errors import ConfigError
from overlaynet.lab.simulation.hosts import Host
from overlaynet.lab.simulation.service import Traffic
from overlaynet.lab.simulation.world import TTL_S, Goal, World

NETWORK = b'{"Network": "10.0.0.0/8", "SubnetLen": 24, "Backend": {"Type": "vxlan"}}'
MOST_HOSTS = 20_000
"""The network has 65,536 subnets and the underlay 131,072 addresses; memory and patience end before."""
MOST_MINUTES = 1_440

ALL_WHOLE = 300
"""Up to so many hosts are simulated as a whole, kernel included."""
WHOLE = 100
"""Beyond that so many, chosen by chance; of the others the part that the store sees."""

START_S = 1.0
LIVES_S = 7_200.0
MOST_BETWEEN_S = 60.0
"""In small networks things happen this often at least."""
CUT_S = (5.0, 2.5 * TTL_S)
OUTAGE_S = 20.0
PATIENCE_S = 1_800.0

Progress = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    hosts: int
    minutes: float
    seed: str
    config: bytes = NETWORK


@dataclass(frozen=True, slots=True)
class Outage:
    """How the store came through: how far its queue was behind, how many loads were asked for, and when all hosts followed."""

    behind_s: float
    loads: int
    followed_s: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has shown. Spans are in seconds; `traffic` is that of the churn, writes are of whole hosts' kernels."""

    hosts: int
    whole: int
    minutes: float
    leased_s: float | None
    reached_s: float | None
    start_events: int
    start_batches: float
    start_writes: float
    lags: array[float]
    returns: array[float]
    joins: int
    leaves: int
    cuts: int
    traffic: Traffic
    churn_writes: float
    turns: Outage
    no_turns: Outage
    refused: int
    faults: tuple[str, ...]


def parse_plan(hosts: int, minutes: float, seed: str) -> Plan:
    """A plan for these values; ConfigError: one of them makes no sense."""
    if not 1 <= hosts <= MOST_HOSTS:
        raise ConfigError("--hosts", hosts, f"must be 1 to {MOST_HOSTS}")
    if not (math.isfinite(minutes) and 0 <= minutes <= MOST_MINUTES):
        raise ConfigError("--minutes", minutes, f"must be 0 to {MOST_MINUTES}")
    if not seed:
        raise ConfigError("--seed", seed, "must be any word or number, and not empty")
    return Plan(hosts, minutes, seed)


def growth(hosts: int) -> list[int]:
    """The sizes that lead to `hosts`, some three in each power of ten from 5 on, and itself."""
    steps = [first * 10**power for power in range(6) for first in (1, 2, 5)]
    return [size for size in steps if 5 <= size < hosts] + [hosts]


def run(plan: Plan, progress: Progress = lambda _who, _step: None, lines: dict[int, list[str]] | None = None) -> Outcome:
    """Simulate it. `lines`, if given, gets the actions of each whole host, in words, by the host's number."""
    who = f"{plan.hosts} hosts"
    with _undisturbed():
        scenario = Scenario(plan, lines)
        progress(who, "start")
        scenario.start()
        progress(who, "churn")
        scenario.churn()
        progress(who, "outages")
        outages = scenario.outage(turns=True), scenario.outage(turns=False)
        progress(who, "rest")
        scenario.rest()
        return scenario.outcome(*outages)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without the search for cycles, which would look at millions of objects that live to the end."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
        gc.collect()


class Scenario:
    """One run, phase by phase."""

    def __init__(self, plan: Plan, lines: dict[int, list[str]] | None = None) -> None:
        self.plan = plan
        self.chance = Random(f"{plan.seed}/{plan.hosts}")  # noqa: S311 - the same seed gives the same run
        self.world = World(plan.config, self.chance)
        self._lines = lines
        self._count = 0
        self._leased_s: float | None = None
        self._reached_s: float | None = None
        self._start = (0, 0.0, 0.0)
        self._lags, self._returns = array("d"), array("d")
        self._events = {"joins": 0, "leaves": 0, "cuts": 0}
        self._traffic = Traffic()
        self._churn_writes = 0.0

    @property
    def now(self) -> float:
        """Virtual time."""
        return self.world.timeline.now

    def _add(self, *, whole: bool) -> Host:
        number, self._count = self._count, self._count + 1
        lines = None if self._lines is None or not whole else self._lines.setdefault(number, [])
        return self.world.add(self.world.settings(number), whole=whole, lines=lines)

    def start(self) -> None:
        """Start every host, until each reaches each."""
        world, hosts = self.world, self.plan.hosts
        numbers = range(hosts)
        whole = set(numbers if hosts <= ALL_WHOLE else self.chance.sample(numbers, WHOLE))
        began = self.now
        for number in numbers:
            host = self._add(whole=number in whole)
            world.timeline.at(began + self.chance.uniform(0.0, START_S), host.start)
        world.timeline.run(began + START_S)
        self._until_leased()
        self._leased_s = world.granted_at - began
        goal = self._reach(world.service.memory.revision)
        self._reached_s = None if goal.left else world.progress_at - began
        kernels = self._whole
        self._start = (
            world.service.traffic.events,
            sum(host.programs for host in kernels) / max(1, len(kernels)),
            self._writes(kernels),
        )

    def _until_leased(self) -> None:
        """Let time pass until every host has a lease or has given up."""
        until = self.now + PATIENCE_S
        left = [host for host in self.world.hosts if host.decisions.lease.grant is None]
        while left and self.now < until:
            self.world.timeline.run(self.now + 0.01)
            left = [host for host in left if host.decisions.lease.grant is None and not host.ended]

    def _reach(self, revision: int) -> Goal:
        """Let time pass until every host is up to date with `revision`."""
        goal = self.world.goal = Goal(self.world.alive, revision, self.now)
        if goal.left:
            self.world.timeline.run(self.now + PATIENCE_S, lambda: not goal.left)
        self.world.goal = None
        return goal

    @property
    def _whole(self) -> list[Host]:
        return [host for host in self.world.alive if host.reconciler is not None]

    @staticmethod
    def _writes(kernels: list[Host]) -> float:
        return sum(host.kernel.writes for host in kernels) / max(1, len(kernels))

    def churn(self) -> None:
        """Let hosts come, go and be cut off."""
        world, chance = self.world, self.chance
        ends = self.now + 60.0 * self.plan.minutes
        rate = max(self.plan.hosts / LIVES_S, 1 / MOST_BETWEEN_S)
        for happen in (self._join, self._leave, self._cut):
            when = self.now + chance.expovariate(rate)
            while when < ends:
                world.timeline.at(when, happen)
                when += chance.expovariate(rate)
        before, begun = world.service.traffic.copy(), self._writes(self._whole)
        del world.lags[:], world.returns[:]
        world.timeline.run(ends)
        self._traffic = world.service.traffic.since(before)
        self._churn_writes = self._writes(self._whole) - begun
        world.timeline.run(self.now + CUT_S[1])
        self._lags, self._returns = array("d", world.lags), array("d", world.returns)

    def _join(self) -> None:
        whole = self.plan.hosts <= ALL_WHOLE or self.chance.random() < WHOLE / self.plan.hosts
        self._events["joins"] += 1
        self._add(whole=whole).start()

    def _leave(self) -> None:
        host = self._somebody()
        if host is not None:
            self._events["leaves"] += 1
            if self.chance.random() < 0.5:
                host.stop(release=True)
            else:
                host.kill()

    def _cut(self) -> None:
        host = self._somebody()
        if host is not None:
            self._events["cuts"] += 1
            self.world.cut(host, self.chance.uniform(*CUT_S))

    def _somebody(self) -> Host | None:
        """A connected host, if there are two."""
        there = [host for host in self.world.alive if not host.store.line.is_cut()]
        return self.chance.choice(there) if len(there) > 1 else None

    def outage(self, *, turns: bool) -> Outage:
        """Take the store away from every host, and give it back."""
        world, service = self.world, self.world.service
        hosts = world.alive
        spread = [host.decisions.store.leases_read_per_s for host in hosts]
        for host in hosts:
            if not turns:
                host.decisions.store.leases_read_per_s = math.inf
            world.cut(host, OUTAGE_S)
        world.timeline.run(self.now + OUTAGE_S)
        service.most_behind_s, loads = 0.0, service.traffic.loads
        goal = self._reach(service.memory.revision)
        for host, rate in zip(hosts, spread, strict=True):
            host.decisions.store.leases_read_per_s = rate
        outage = Outage(service.most_behind_s, service.traffic.loads - loads, goal.took_s)
        world.timeline.run(self.now + TTL_S)
        return outage

    def rest(self) -> None:
        """Let everything that is under way end."""
        self.world.timeline.run(self.now + 2 * TTL_S)

    def outcome(self, turns: Outage, no_turns: Outage) -> Outcome:
        """What the run has shown; `faults` is empty if everything held that must."""
        world = self.world
        events, batches, writes = self._start
        faults = [*world.overlaps.found, *world.beliefs.found, *world.unlike()]
        return Outcome(
            hosts=self.plan.hosts,
            whole=sum(host.reconciler is not None for host in world.hosts[: self.plan.hosts]),
            minutes=self.plan.minutes,
            leased_s=self._leased_s,
            reached_s=self._reached_s,
            start_events=events,
            start_batches=batches,
            start_writes=writes,
            lags=self._lags,
            returns=self._returns,
            joins=self._events["joins"],
            leaves=self._events["leaves"],
            cuts=self._events["cuts"],
            traffic=self._traffic,
            churn_writes=self._churn_writes,
            turns=turns,
            no_turns=no_turns,
            refused=sum(host.failure is not None for host in world.hosts),
            faults=tuple(faults),
        )

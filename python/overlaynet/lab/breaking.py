"""A host that is broken at random for as long as one likes, under traffic: it ends as it began, and its daemons hold no more.

Each second one of the causes befalls the lab's first host, whether the one before is healed yet or not. At the end the owned
state must read as at the beginning, and what every daemon holds (descriptors, threads, tasks, memory) is compared with what it
held after each cause had been played once: the first use of a thing may load and keep something.
"""

from __future__ import annotations

import random
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from overlaynet.control.client import ask
from overlaynet.errors import LabError
from overlaynet.lab.healing import CAUSES, Cause, Watcher, heal
from overlaynet.lab.lab import Lab
from overlaynet.lab.numbered import Loss, flowing

_WITHIN_S = 60.0
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Held:
    """What one daemon holds: open descriptors, threads, asyncio tasks, and resident memory in bytes."""

    descriptors: int
    threads: int
    tasks: int
    resident: int


@dataclass(frozen=True, slots=True)
class Broken:
    """What was broken in turn, what the flow lost, and each daemon's holdings.

    `healed` has the seconds that each breakage lasted, or None where the next came first; `last_seconds` is that of the last.
    """

    causes: tuple[str, ...]
    healed: tuple[float | None, ...]
    last_seconds: float
    loss: Loss
    before: tuple[Held, ...]
    after: tuple[Held, ...]


def break_at_random(lab: Lab, watcher: Watcher, *, seconds: float, seed: int, every_s: float = 1.0) -> Broken:
    """Break the first host every `every_s` for so long; the same seed plays the same causes.

    LabError: a script failed, a daemon died, or the state is not as before a minute after the last breakage.
    """
    chance = random.Random(seed)  # noqa: S311 - a choice of causes, no secret
    causes = [cause for cause in CAUSES if cause.backend == lab.plan.backend]
    for cause in causes:
        heal(lab, watcher, cause, within_s=_WITHIN_S, counted=False)
    before = holdings(lab)
    text = watcher.text()
    played: list[str] = []
    healed: list[float | None] = []
    with flowing(lab, lab.plan.hosts[0].pods[0].name, lab.plan.hosts[1].pods[0].name) as flow:
        due = time.monotonic()
        for _ in range(int(seconds / every_s)):
            cause = chance.choice(causes)
            _play(lab, cause)
            played.append(cause.name)
            due += every_s
            healed.append(_heals(watcher, text, due))
            time.sleep(max(0.0, due - time.monotonic()))
        start = time.monotonic()
        watcher.await_text(text, start + _WITHIN_S)
        last = time.monotonic() - start
        flow.run_for(0.5)
        loss = flow.end()
    return Broken(tuple(played), tuple(healed), last, loss, before, holdings(lab))


def _heals(watcher: Watcher, text: str, due: float) -> float | None:
    """The seconds until all reads as `text`; None: not before `due`. It looks seldom, to leave the processor to the daemons."""
    start = time.monotonic()
    try:
        watcher.await_text(text, due, pause_s=_LOOK_S)
    except LabError:
        return None
    return time.monotonic() - start


def _play(lab: Lab, cause: Cause) -> None:
    """Run the script. What it would remove may be gone already: then it fails, and nothing was to be broken."""
    lab.run(cause.member, "sh", "-c", cause.script)


def holdings(lab: Lab) -> tuple[Held, ...]:
    """What each daemon of the lab holds now. LabError: one has died."""
    found = []
    for host in lab.plan.hosts:
        files = lab.files.host(host)
        process = files.daemon
        if process is None:
            raise LabError(f"{host.name}: its daemon does not run")
        proc = Path("/proc") / str(process.pid)
        memory = int((proc / "statm").read_text().split()[1]) * resource.getpagesize()
        tasks = int(ask(files.run, "status")["status"]["tasks"])
        descriptors, threads = (sum(1 for _ in (proc / name).iterdir()) for name in ("fd", "task"))
        found.append(Held(descriptors, threads, tasks, memory))
    return tuple(found)

"""Ten minutes of breakage: each second something of a host's kernel state is broken at random, under traffic, with each backend.

Run as root: `make bench-breaking`. The labs of the three backends run side by side. The report is
benches/results/reliability.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from overlaynet.lab.breaking import Broken, break_at_random
from overlaynet.lab.figures import Figure, at_most, write_report
from overlaynet.lab.healing import Watcher
from overlaynet.lab.lab import running
from overlaynet.lab.topology import plan_lab

_BACKENDS = ("vxlan", "host-gw", "udp")
_SECONDS = 600.0
_REPORT = Path(__file__).parent.parent / "results" / "reliability.json"


def broken(backend: str, seconds: float, seed: int) -> Broken:
    """A lab of its own, broken for so long."""
    with (
        running(plan_lab(f"brk{_BACKENDS.index(backend)}{os.getpid()}", hosts=3, backend=backend)) as lab,
        Watcher(lab) as watcher,
    ):
        return break_at_random(lab, watcher, seconds=seconds, seed=seed)


def figures_of(backend: str, found: Broken) -> list[Figure]:
    """What is reported of one backend."""
    held = list(zip(found.before, found.after, strict=True))
    times = [seconds * 1e3 for seconds in found.healed if seconds is not None]
    counts = sorted(Counter(found.causes).items())
    return [
        *(Figure(f"{backend}: {cause}", times_played, "times") for cause, times_played in counts),
        Figure(f"{backend}: breakages in all", len(found.causes), "breakages"),
        Figure(f"{backend}: healed before the next, a second later", 100.0 * len(times) / len(found.healed), "%"),
        Figure(f"{backend}: these healed in, median", statistics.median(times), "ms", at_most(200)),
        Figure(f"{backend}: these healed in, 99th percentile", statistics.quantiles(times, n=100)[98], "ms", at_most(1000)),
        Figure(f"{backend}: state equal after the last breakage within", found.last_seconds * 1e3, "ms", at_most(1000)),
        Figure(f"{backend}: datagrams lost of 2,000 a second", 100.0 * found.loss.lost / found.loss.sent, "%"),
        Figure(f"{backend}: tasks, after over before, most of a daemon", max(b.tasks - a.tasks for a, b in held), "", at_most(0)),
        Figure(f"{backend}: threads, the same", max(b.threads - a.threads for a, b in held), "", at_most(1)),
        Figure(f"{backend}: descriptors, the same", max(b.descriptors - a.descriptors for a, b in held), "", at_most(0)),
        Figure(f"{backend}: resident memory, the same", max(b.resident - a.resident for a, b in held) / 2**20, "MiB", at_most(4)),
    ]


def main() -> None:
    """Break, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=_SECONDS)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with ThreadPoolExecutor(len(_BACKENDS)) as side_by_side:
        done = side_by_side.map(lambda backend: broken(backend, arguments.seconds, arguments.seed), _BACKENDS)
        figures = [figure for backend, found in zip(_BACKENDS, done, strict=True) for figure in figures_of(backend, found)]
    for figure in figures:
        met = "" if figure.target is None else f"{figure.target!s:>9} {'met' if figure.met else 'MISSED'}"
        print(f"{figure.figure:<75} {figure.value:10.4g} {figure.unit:<10} {met}")
    if arguments.seconds == _SECONDS:
        write_report(_REPORT, command="make bench-breaking", figures=figures)


if __name__ == "__main__":
    main()

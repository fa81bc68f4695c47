"""Healing times: every cause of `overlaynet.lab.healing`, several times over, and the share of each that the flow lost.

Run as root: `make bench-healing`. The report is benches/results/healing.json.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

from overlaynet.lab.figures import Figure, at_most, write_report
from overlaynet.lab.healing import CAUSES, Watcher, heal
from overlaynet.lab.lab import running
from overlaynet.lab.topology import plan_lab

_ROUNDS = 10
_REST_S = 0.7
_REPORT = Path(__file__).parent.parent / "results" / "healing.json"


def main() -> None:
    """Measure, print and write the report."""
    figures: list[Figure] = []
    every: list[float] = []
    for backend in dict.fromkeys(cause.backend for cause in CAUSES):
        with running(plan_lab(f"bench{os.getpid()}", hosts=3, backend=backend)) as lab, Watcher(lab) as watcher:
            for cause in [one for one in CAUSES if one.backend == backend]:
                found = []
                for _ in range(_ROUNDS):
                    found.append(heal(lab, watcher, cause, within_s=30.0))
                    time.sleep(_REST_S)
                times = [one.seconds * 1e3 for one in found]
                every += times
                losses = [one.loss.lost for one in found if one.loss is not None]
                name = f"{backend}: {cause.name}"
                figures.append(Figure(f"{name}: healed, median", statistics.median(times), "ms", at_most(200)))
                figures.append(Figure(f"{name}: healed, longest of {_ROUNDS}", max(times), "ms", at_most(1000)))
                figures.append(
                    Figure(f"{name}: datagrams lost of 2,000 a second, median", statistics.median(losses), "datagrams")
                )
    figures.append(Figure("every cause: healed, median", statistics.median(every), "ms", at_most(200)))
    figures.append(Figure("every cause: healed, 99th percentile", statistics.quantiles(every, n=100)[98], "ms", at_most(1000)))
    for figure in figures:
        print(f"{figure.figure:<75} {figure.value:10.4g} {figure.unit:<10} {'' if figure.target is None else figure.target}")
    _REPORT.parent.mkdir(exist_ok=True)
    write_report(_REPORT, command="make bench-healing", figures=figures)


if __name__ == "__main__":
    main()

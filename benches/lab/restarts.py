"""What a daemon's end and its next start cost traffic: loss and gaps on numbered datagrams, a thousand a second both ways.

Run as root: `python benches/lab/restarts.py`. The report is benches/results/restarts.json.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from overlaynet.control.client import ask
from overlaynet.lab.figures import Figure, at_most, write_report
from overlaynet.lab.lab import Lab, running
from overlaynet.lab.numbered import flowing
from overlaynet.lab.topology import Host, plan_lab

_ROUNDS = 5
_DOWN_S = 1.0
_RESUMED_MS = 400
_REPORT = Path(__file__).parent.parent / "results" / "restarts.json"
_PATHS = {
    "vxlan": ("vxlan", ()),
    "host-gw": ("host-gw", ()),
    "udp": ("udp", ()),
    "vxlan-user": ("vxlan", ("--vxlan-mode", "user")),
}
_ENDS: dict[str, Callable[[Lab, Host], None]] = {"kill -9": Lab.kill_daemon, "SIGTERM": Lab.stop_daemon}
_IN_KERNEL = ("vxlan", "host-gw")


def main() -> None:
    """Measure, print and write the report."""
    figures: list[Figure] = []
    for name, (backend, flags) in _PATHS.items():
        with running(plan_lab(f"restarts{os.getpid()}", hosts=2, backend=backend, daemon_flags=flags)) as lab:
            host = lab.plan.hosts[0]
            time.sleep(1.0)  # what the engine runs with is kept a moment after it is ready
            for word, end in _ENDS.items():
                found = [_round(lab, host, end) for _ in range(_ROUNDS)]
                lost, sent, gaps, writes = (list(column) for column in zip(*found, strict=True))
                what = f"{name}: {word}, restart"
                target = at_most(0) if name in _IN_KERNEL else None
                figures.append(Figure(f"{what} after {_DOWN_S:g} s: datagrams lost, most", max(lost), "datagrams", target))
                figures.append(Figure(f"{what}: datagrams sent a round, median", statistics.median(sent), "datagrams"))
                figures.append(Figure(f"{what}: kernel writes of the next start, most", max(writes), "writes", at_most(0)))
                figures.append(Figure(f"{what}: longest silence beyond the {_DOWN_S:g} s, median", statistics.median(gaps), "ms"))
            if name not in _IN_KERNEL:
                silences = [_gap(lab, host) for _ in range(_ROUNDS)]
                what = f"{name}: kill -9 and a start at once: silence"
                figures.append(Figure(f"{what}, median", statistics.median(silences), "ms", at_most(_RESUMED_MS)))
                figures.append(Figure(f"{what}, longest", max(silences), "ms", at_most(_RESUMED_MS)))
    for figure in figures:
        print(f"{figure.figure:<75} {figure.value:10.4g} {figure.unit:<10} {'' if figure.target is None else figure.target}")
    _REPORT.parent.mkdir(exist_ok=True)
    write_report(_REPORT, command="make bench-restarts", figures=figures)


def _round(lab: Lab, host: Host, end: Callable[[Lab, Host], None]) -> tuple[int, int, float, int]:
    """Lost and sent datagrams, the longest silence in ms beyond the time without a daemon, and the next start's kernel writes."""
    with flowing(lab, "pod1", "pod2") as flow:
        flow.run_for(0.3)
        end(lab, host)
        flow.run_for(_DOWN_S)
        lab.start_daemons([host])
        flow.run_for(0.5)
        loss = flow.end()
    silence = max(loss.there.longest_silence_ms, loss.back.longest_silence_ms)
    writes = int(ask(lab.files.host(host).run, "status")["status"]["kernel_writes"])
    return loss.lost, loss.sent, max(0.0, silence - _DOWN_S * 1e3), writes


def _gap(lab: Lab, host: Host) -> float:
    """The longest silence in ms when a killed daemon is started again at once."""
    with flowing(lab, "pod1", "pod2") as flow:
        flow.run_for(0.3)
        lab.kill_daemon(host)
        lab.start_daemons([host])
        flow.run_for(0.5)
        loss = flow.end()
    return max(loss.there.longest_silence_ms, loss.back.longest_silence_ms)


if __name__ == "__main__":
    main()

"""What the daemon tells the garbage collector, which belongs to a whole process: so each test has one of its own."""

from __future__ import annotations

import subprocess
import sys

MAKE_CYCLES = """
import gc
from overlaynet.daemon.collector import settle_collector, spare_collector

def most_cycles_at_once(count):
    most = 0
    for _ in range(count // 1_000):
        for _ in range(1_000):
            cycle = []
            cycle.append(cycle)
        most = max(most, len(gc.get_objects()))
    return most

spare_collector()
kept = [[] for _ in range(50_000)]
"""


def run(script: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", MAKE_CYCLES + script], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    return [int(word) for word in done.stdout.split()]


def test_daemon_that_is_ready_never_has_many_cycles_lying_about() -> None:
    (most,) = run("settle_collector(); print(most_cycles_at_once(300_000))")
    assert most < 10_000


def test_what_was_there_when_it_became_ready_is_never_looked_at_again() -> None:
    (never,) = run("settle_collector(); print(gc.get_freeze_count())")
    assert never > 50_000


def test_start_makes_many_objects_without_a_look_at_the_old() -> None:
    script = "kept += [[] for _ in range(500_000)]; print(before, gc.get_stats()[2]['collections'])"
    before, after = run(f"before = gc.get_stats()[2]['collections']; {script}")
    assert after == before

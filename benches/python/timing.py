"""Times of calls that are compared: their rounds are interleaved, so that what slows the machine down slows all of them."""

from __future__ import annotations

import gc
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ROUNDS = 60
ROUND_S = 0.004


def nanoseconds(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Nanoseconds a call: the best of interleaved rounds, less what an empty call takes."""
    calls = {"nothing": lambda: None, **calls}
    timers = {name: timeit.Timer(call) for name, call in calls.items()}
    numbers = {name: max(1, int(ROUND_S / max(timer.timeit(1), timer.timeit(1), 1e-7))) for name, timer in timers.items()}
    best = dict.fromkeys(calls, float("inf"))
    with collector_off():
        for _ in range(ROUNDS):
            for name, timer in timers.items():
                best[name] = min(best[name], timer.timeit(numbers[name]) / numbers[name] * 1e9)
    return {name: time_ns - best["nothing"] for name, time_ns in best.items()}


def seconds(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of long calls: the best of interleaved rounds. What a call returns is let go of untimed."""
    best = dict.fromkeys(calls, float("inf"))
    with collector_off():
        for _ in range(rounds):
            for name, call in calls.items():
                begun = time.perf_counter()
                result = call()
                best[name] = min(best[name], time.perf_counter() - begun)
                del result
    return best


@contextmanager
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()

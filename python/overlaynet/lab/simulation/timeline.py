"""Virtual time: what is to happen, in order of its moment, and coroutines that wait in it.

Time passes only by going to the next moment, so an hour costs what happens in it. What is due at one moment happens in the order
in which it was asked for: the same run, each time.
"""

from __future__ import annotations

import heapq
import types
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Wait:
    """What a coroutine waits for: one of `signals`, or until `seconds` have passed, whichever is first."""

    seconds: float | None
    signals: tuple[Signal, ...]


@types.coroutine
def wait(seconds: float | None, *signals: Signal) -> Generator[Wait, None, None]:
    """Let `seconds` pass, or less if one of `signals` comes. To be awaited in a task of a timeline."""
    yield Wait(seconds, signals)


class Signal:
    """Something that tasks wait for. Each `give` wakes those that wait now."""

    def __init__(self) -> None:
        self._waiting: dict[Task, int] = {}

    def add(self, task: Task, turn: int) -> None:
        """Wake the task in this turn of its, and in no earlier one."""
        self._waiting[task] = turn

    def give(self) -> None:
        """Wake all that wait."""
        waiting, self._waiting = self._waiting, {}
        for task, turn in waiting.items():
            task.wake(turn)


class Timeline:
    """Moments to come, in seconds."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call at the moment `when`; at once, after what is due already, if that is past."""
        self._count += 1
        heapq.heappush(self._due, (max(when, self.now), self._count, call))

    def start(self, coroutine: Coroutine[Any, Any, None]) -> Task:
        """Run the coroutine as far as its first wait, and on from there in its time."""
        task = Task(self, coroutine)
        task.step()
        return task

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        """Let everything happen up to the moment `until`, or until something is `done`."""
        due = self._due
        while due and due[0][0] <= until:
            self.now, _, call = heapq.heappop(due)
            call()
            if done():
                return
        self.now = until


class Task:
    """A coroutine on a timeline."""

    def __init__(self, timeline: Timeline, coroutine: Coroutine[Any, Any, None]) -> None:
        self._timeline = timeline
        self._coroutine = coroutine
        self._turn = 0
        self._over = False

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._over

    def step(self) -> None:
        """Run on to the next wait."""
        self._turn += 1
        try:
            asked = self._coroutine.send(None)
        except StopIteration:
            self._over = True
            return
        turn = self._turn
        for signal in asked.signals:
            signal.add(self, turn)
        if asked.seconds is not None:
            self._timeline.at(self._timeline.now + asked.seconds, lambda: self._go_on(turn))

    def wake(self, turn: int) -> None:
        """Run on at this moment, unless something else has woken it since."""
        if turn == self._turn and not self._over:
            self._timeline.at(self._timeline.now, lambda: self._go_on(turn))

    def _go_on(self, turn: int) -> None:
        if turn == self._turn and not self._over:
            self.step()

    def cancel(self) -> None:
        """End it where it waits."""
        if not self._over:
            self._over = True
            self._coroutine.close()

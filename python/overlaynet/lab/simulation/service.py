"""The store in memory as a service across a network: what each thing costs it, and who is told what.

The costs are assumptions, about what one etcd member does with a few processors: they turn numbers of messages into seconds. It
answers requests one after another, and sends events one after another, beside the requests. A host that gives a request up does
not take it out of the queue: that is how stores are crushed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

from overlaynet.lab.simulation.timeline import Signal, Timeline, wait
from overlaynet.model.snapshot import Changes
from overlaynet.store.memory import MemoryStore

T = TypeVar("T")

REQUEST_S = 50e-6
"""A request without what it reads."""
LEASE_READ_S = 0.4e-6
EVENT_S = 2e-6
"""One change for one watcher."""


@dataclass(slots=True)
class Traffic:
    """What went over the network and into the store. `events` counts each change once for each watcher that it is sent to."""

    requests: int = 0
    loads: int = 0
    events: int = 0
    writes: int = 0
    timeouts: int = 0

    def since(self, before: Traffic) -> Traffic:
        """What came after `before`."""
        return Traffic(
            self.requests - before.requests,
            self.loads - before.loads,
            self.events - before.events,
            self.writes - before.writes,
            self.timeouts - before.timeouts,
        )

    def copy(self) -> Traffic:
        """As it is now."""
        return self.since(Traffic())


class Reply(Generic[T]):
    """What the service answers, once it does."""

    def __init__(self) -> None:
        self.come = Signal()
        self._answer: Callable[[], T] | None = None

    @property
    def is_there(self) -> bool:
        """Whether the service has acted."""
        return self._answer is not None

    async def fill(self, call: Callable[[], Awaitable[T]]) -> None:
        """Act. What the store refuses is an answer too."""
        try:
            value = await call()
        except Exception as error:  # noqa: BLE001 - raised where the answer is taken
            self._answer = _raising(error)
        else:
            self._answer = lambda: value
        self.come.give()

    def take(self) -> T:
        """The answer, which is there."""
        assert self._answer is not None  # noqa: S101 - the caller has seen it
        return self._answer()


def _raising(error: Exception) -> Callable[[], NoReturn]:
    def answer() -> NoReturn:
        raise error

    return answer


class Service:
    """The store and its queues. `committed` is told each change, once."""

    def __init__(self, timeline: Timeline, committed: Callable[[Changes], None]) -> None:
        self.timeline = timeline
        self.memory = MemoryStore(lambda: timeline.now)
        self.traffic = Traffic()
        self.news = Signal()
        self.most_behind_s = 0.0
        self.watching = 0
        """How many hosts follow every change without being told each by itself."""
        self._committed = committed
        self._requests_until = 0.0
        self._events_until = 0.0
        self._told = self.memory.revision
        self._looks_at: float | None = None

    def ask(self, call: Callable[[], Awaitable[T]], *, leases: int = 0) -> Reply[T]:
        """Put a request into the queue; `leases` is how many it reads."""
        reply: Reply[T] = Reply()
        begins = max(self.timeline.now, self._requests_until)
        self._requests_until = begins + REQUEST_S + leases * LEASE_READ_S
        self.most_behind_s = max(self.most_behind_s, begins - self.timeline.now)

        async def act() -> None:
            await wait(self._requests_until - self.timeline.now)
            await reply.fill(call)
            self.look()

        self.timeline.start(act())
        return reply

    def send(self, events: int, watchers: int = 1) -> float:
        """Put events for watchers into the queue; in how many seconds they are sent."""
        self.traffic.events += events * watchers
        self._events_until = max(self.timeline.now, self._events_until) + events * watchers * EVENT_S
        return self._events_until - self.timeline.now

    @property
    def events_behind_s(self) -> float:
        """How long a change takes now until it is sent."""
        return max(0.0, self._events_until - self.timeline.now)

    def look(self) -> None:
        """Notice what has changed, what has ended included, and tell it."""
        for changes in self.memory.changes_after(self._told):
            self._told = changes.revision
            self.traffic.writes += 1
            self.send(1, self.watching)
            self._committed(changes)
            self.news.give()
        end = self.memory.next_end
        if end is not None and (self._looks_at is None or end < self._looks_at):
            self._looks_at = end
            self.timeline.at(end, self._look_again)

    def _look_again(self) -> None:
        self._looks_at = None
        self.look()

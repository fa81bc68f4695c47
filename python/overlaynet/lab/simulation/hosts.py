"""One simulated host: the daemon's decisions on a timeline, in the order in which its driver would bring events to them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, assert_never

from overlaynet.daemon.requests import Requests
from overlaynet.lab.simulation.lease_part import LeasePart
from overlaynet.lab.simulation.remote import RemoteStore, SlowKernel
from overlaynet.lab.simulation.timeline import Task, Timeline
from overlaynet.model.host import HostSettings
from overlaynet.model.lease import Grant
from overlaynet.reconcile import actions as do
from overlaynet.reconcile import events as it
from overlaynet.reconcile.coalescing import coalesced
from overlaynet.reconcile.following import StoreFollower
from overlaynet.reconcile.holding import LeaseHolder
from overlaynet.reconcile.reconciler import Reconciler
from overlaynet.reconcile.trace import trace


class Decisions(Protocol):
    """What a host decides by: a whole reconciler, or the part of it that the store sees."""

    lease: LeaseHolder

    @property
    def store(self) -> StoreFollower:
        """What it knows of the store."""

    def handle(self, event: it.Event, now: float) -> None:
        """Take in what has happened."""

    def take_actions(self) -> list[do.Action]:
        """What is to be done."""

    def next_deadline(self) -> float | None:
        """When to be told that time has passed."""


class Host:
    """A host that runs. `turned` is called after each of its turns; `lines` takes its actions in words, if they are asked for."""

    def __init__(
        self,
        timeline: Timeline,
        settings: HostSettings,
        store: RemoteStore,
        kernel: SlowKernel,
        decisions: Reconciler | LeasePart,
        turned: Callable[[Host], None],
        lines: list[str] | None = None,
    ) -> None:
        self.timeline = timeline
        self.settings = settings
        self.store = store
        self.kernel = kernel
        self.decisions: Decisions = decisions
        self.reconciler = decisions if isinstance(decisions, Reconciler) else None
        self.began_at = timeline.now
        self.ended = False
        self.failure: Exception | None = None
        self.turns = 0
        self.events = 0
        self.programs = 0
        self.mark: int | None = None
        """The first change that it has not yet brought to its kernel; None: it is not held to any."""
        self.was_ready = False
        self.back: tuple[float, int] | None = None
        """When its line was joined again, and the store's revision then; None: it has caught up."""
        self.said_grant: Grant | None = None
        self._turned = turned
        self._lines = lines
        self._requests = Requests(settings.host, store, kernel, lambda: timeline.now)
        self._events: list[it.Event] = []
        self._turn_due = False
        self._armed: float | None = None
        self._watch: Task | None = None
        self._tasks: list[Task] = []

    def start(self) -> None:
        """Begin, as a daemon does that has kept nothing."""
        self.decisions.handle(it.TimerFired(), self.timeline.now)
        self._act()

    def tell(self, event: it.Event) -> None:
        """Something has happened; it is looked at in this moment, with whatever else has."""
        self._events.append(event)
        if not self._turn_due:
            self._turn_due = True
            self.timeline.at(self.timeline.now, self._turn)

    def stop(self, *, release: bool) -> None:
        """Ask it to end."""
        self.tell(it.StopRequested(release))

    def kill(self) -> None:
        """End it as a lost machine ends."""
        self.ended = True
        for task in self._tasks:
            task.cancel()
        if self._watch is not None:
            self._watch.cancel()

    @property
    def is_up_to_date(self) -> bool:
        """Whether it holds a lease, hears of the store, and has brought to its kernel what it has heard."""
        decisions = self.decisions
        if self.ended or decisions.lease.grant is None or decisions.store.lost_since is not None or not decisions.store.loaded:
            return False
        return self.reconciler is None or (self.reconciler.ready and not self.reconciler.kernel.busy)

    def _turn(self) -> None:
        self._turn_due = False
        if self.ended:
            return
        now = self.timeline.now
        events, self._events = self._events, []
        deadline = self.decisions.next_deadline()
        if deadline is not None and now >= deadline:
            events.insert(0, it.TimerFired())
        if not events:
            self._arm()
            return
        self.turns += 1
        self.events += len(events)
        for event in coalesced(events):
            self.decisions.handle(event, now)
        self._act()

    def _act(self) -> None:
        for action in self.decisions.take_actions():
            if self._lines is not None:
                self._lines.append(trace(action))
            self._carry_out(action)
        self._turned(self)
        self._arm()

    def _arm(self) -> None:
        deadline = self.decisions.next_deadline()
        if deadline is None or self.ended:
            return
        deadline = max(deadline, self.timeline.now)
        if self._armed is None or deadline < self._armed:
            self._armed = deadline
            self.timeline.at(deadline, lambda: self._fire(deadline))

    def _fire(self, deadline: float) -> None:
        if self._armed == deadline:
            self._armed = None
            if not self._turn_due:
                self._turn()

    def _carry_out(self, action: do.Action) -> None:
        match action:
            case do.LoadSnapshot():
                if self._watch is not None:
                    self._watch.cancel()
                self._answer(action)
            case do.Watch(after):
                if self._watch is not None:
                    self._watch.cancel()
                self._watch = self.timeline.start(self._requests.follow(after, self.tell))
            case do.ClaimSubnet() | do.RenewLease() | do.UpdateLease() | do.ReleaseLease() | do.Observe():
                self._answer(action)
            case do.Program():
                self.programs += 1
                self._answer(action)
            case do.ConfigurePump():
                # The engine is a real machine's; here it does as it is told.
                self.tell(it.PumpConfigured())
            case do.KeepSnapshot() | do.PublishSubnetEnv() | do.AnnounceReady() | do.Report():
                pass
            case do.Stop(error):
                self.failure = error
                self.kill()
            case _:
                assert_never(action)

    def _answer(self, action: Any) -> None:
        async def carry_out() -> None:
            self.tell(await self._requests.answer(action))

        self._start(carry_out())

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._tasks = [task for task in self._tasks if not task.is_over]
        self._tasks.append(self.timeline.start(coroutine))

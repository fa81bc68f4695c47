"""The one loop: carries out the reconciler's actions and tells it what became of them.

Each action that takes time is a task; its answer is an event in the queue. The loop itself only waits, hands events over, and
starts tasks, so that nothing it does blocks. Its clock is CLOCK_BOOTTIME; after any pause the first thing the reconciler hears is
the time.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol, assert_never

import structlog

from overlaynet import __version__
from overlaynet.daemon.collector import settle_collector
from overlaynet.daemon.health import Health
from overlaynet.daemon.notify import notify
from overlaynet.daemon.out_file import OutFile
from overlaynet.daemon.requests import Requests
from overlaynet.daemon.resume import ENGINE
from overlaynet.daemon.state import HOST_ID, SNAPSHOT, host_id_text
from overlaynet.dataplane.kept import encode_running
from overlaynet.errors import DataplaneError, KernelError, OverlaynetError
from overlaynet.kernel import Kernel
from overlaynet.model.dataplane import PumpConfig
from overlaynet.model.kept import Kept, encode_kept
from overlaynet.model.kernel import Scope
from overlaynet.model.lease import HostId
from overlaynet.model.status import Status
from overlaynet.reconcile import actions as do
from overlaynet.reconcile import events as it
from overlaynet.reconcile.coalescing import coalesced
from overlaynet.reconcile.reconciler import Reconciler
from overlaynet.reconcile.trace import trace
from overlaynet.store import Store

log = structlog.get_logger()

_TICK_S = 1.0


class Engine(Protocol):
    """The packet engine, as `dataplane` provides it. Calls may block for milliseconds: they run in a thread."""

    def apply(self, config: PumpConfig | None) -> None:
        """Start, change or stop the engine. DataplaneError: it could not be done."""

    def counters(self) -> dict[str, object]:
        """Packets and drops so far, or nothing while it does not run."""

    @property
    def config(self) -> PumpConfig | None:
        """What it runs with; None while it is stopped."""

    @property
    def failure(self) -> str | None:
        """Why the engine ended by itself, or None."""


def boot_time() -> float:
    """Seconds on CLOCK_BOOTTIME."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Driver:
    """One run of the daemon, from its first event to `Stop`.

    `settings` are the words under which the next run may begin with this run's engine.
    """

    def __init__(
        self,
        host: HostId,
        reconciler: Reconciler,
        store: Store,
        kernel: Kernel,
        engine: Engine,
        health: Health,
        subnet_file: Path,
        state_dir: Path,
        settings: Sequence[str] = (),
    ) -> None:
        self._requests = Requests(host, store, kernel, boot_time)
        self._traces = logging.getLogger().isEnabledFor(logging.DEBUG)
        self._reconciler = reconciler
        self._store = store
        self._kernel = kernel
        self._engine = engine
        self._health = health
        self._settings = tuple(settings)
        self._events: asyncio.Queue[it.Event] = asyncio.Queue()
        self._tasks: asyncio.TaskGroup
        self._watch: asyncio.Task[None] | None = None
        self._monitor: asyncio.Task[None] | None = None
        self._monitored: Scope | None = None
        self._subnet_env = OutFile(subnet_file, 0o644, 0o755, "subnet.env")
        self._running = OutFile(state_dir / ENGINE, 0o600, 0o700, "what the packet engine runs with", spacing_s=_TICK_S)
        identity = OutFile(state_dir / HOST_ID, 0o600, 0o700, "this host's identity")
        identity.has(host_id_text(host).encode)
        self._snapshot = OutFile(state_dir / SNAPSHOT, 0o600, 0o700, "the snapshot for the next run")
        self._private_files = (identity, self._snapshot, self._running)
        self._keeping: asyncio.Task[None] | None = None
        self._pump_runs = engine.config is not None
        self._goes_on = False
        self._stop: do.Stop | None = None

    def stop(self, *, release: bool) -> None:
        """Ask for an end, from the loop's own thread."""
        # A daemon that keeps its lease is likely to come back, and then begins with what its engine ran with.
        self._goes_on = not release
        self._events.put_nowait(it.StopRequested(release))

    def status(self) -> Status:
        """This host's picture now."""
        status = self._reconciler.status(boot_time())
        return dataclasses.replace(
            status,
            version=__version__,
            store=self._store.traits.name,
            kernel_writes=self._kernel.writes,
            tasks=len(asyncio.all_tasks()),
            counters={**status.counters, **self._engine.counters()},
        )

    async def run(self, kept: Kept | None = None) -> OverlaynetError | None:
        """Run until `Stop`, beginning with what an earlier run kept; why the daemon cannot go on, or None."""
        async with asyncio.TaskGroup() as self._tasks:
            if kept is not None:
                self._reconciler.handle(it.KeptRead(kept), boot_time())
            self._reconciler.handle(it.TimerFired(), boot_time())
            while True:
                self._carry_out_all()
                if self._stop is not None:
                    break
                self._tell(coalesced(await self._happened()))
                self._health.unheld = self._reconciler.lease.unheld(boot_time())
                self._health.store_lost_since = self._reconciler.store.lost_since
                self._health.tick()
                self._look_around()
            for task in (self._watch, self._monitor):
                if task is not None:
                    task.cancel()
        for file in (self._snapshot, self._running):
            if file.unwritten:
                file.write()
        return self._stop.error

    # Loops of their own, so that the last action and the last event, which may hold all that a network needs, are not kept.

    def _carry_out_all(self) -> None:
        for action in self._reconciler.take_actions():
            self._carry_out(action)

    def _tell(self, events: list[it.Event]) -> None:
        for event in events:
            self._reconciler.handle(event, boot_time())

    async def _happened(self) -> list[it.Event]:
        """What has happened: events, or the deadline; nothing after a tick."""
        deadline = self._reconciler.next_deadline()
        wait = _TICK_S if deadline is None else min(_TICK_S, max(0.0, deadline - boot_time()))
        events: list[it.Event] = []
        try:
            async with asyncio.timeout(wait):
                events.append(await self._events.get())
        except TimeoutError:
            pass
        while not self._events.empty():
            events.append(self._events.get_nowait())
        if deadline is not None and boot_time() >= deadline:
            events.insert(0, it.TimerFired())
        return events

    def _look_around(self) -> None:
        """What no task tells: the engine's end, and files that are to be written."""
        if self._pump_runs and (why := self._engine.failure) is not None:
            self._pump_runs = False
            self._events.put_nowait(it.PumpFailed(why))
        if self._subnet_env.due:
            self._subnet_env.write()
        for file in self._private_files:
            if file.due and (self._keeping is None or self._keeping.done()):
                self._keeping = self._tasks.create_task(asyncio.to_thread(file.write))

    def _carry_out(self, action: do.Action) -> None:
        if self._traces and not isinstance(action, do.Report):
            log.debug(trace(action), topic="action")
        match action:
            case do.LoadSnapshot():
                if self._watch is not None:
                    self._watch.cancel()
                self._answer(self._requests.answer(action))
            case do.Watch(after):
                if self._watch is not None:
                    self._watch.cancel()
                self._watch = self._tasks.create_task(self._requests.follow(after, self._events.put_nowait))
            case do.ClaimSubnet() | do.RenewLease() | do.UpdateLease() | do.ReleaseLease() | do.Program():
                self._answer(self._requests.answer(action))
            case do.Observe(scope):
                self._monitor_scope(scope)
                self._answer(self._requests.answer(action))
            case do.ConfigurePump(config):
                self._answer(self._configure_pump(config))
            case do.KeepSnapshot(kept):
                self._snapshot.put(functools.partial(encode_kept, kept))
            case do.PublishSubnetEnv(env):
                # Before anything that is announced, since whoever hears of readiness reads it.
                self._subnet_env.put(env.text.encode)
                self._subnet_env.write()
                log.info(
                    "subnet.env published",
                    subnet=", ".join(str(one) for one in (env.v4_subnet, env.v6_subnet) if one),
                    mtu=env.mtu,
                )
            case do.AnnounceReady():
                settle_collector()
                self._health.ready = True
                notify("READY=1", "STATUS=ready")
                log.info("ready")
            case do.Report(level, topic, text):
                getattr(log, level)(text, topic=topic)
            case do.Stop():
                self._stop = action
            case _:
                assert_never(action)

    def _answer(self, answer: Coroutine[Any, Any, it.Event]) -> None:
        async def carry_out() -> None:
            self._events.put_nowait(await answer)

        self._tasks.create_task(carry_out())

    async def _configure_pump(self, config: PumpConfig | None) -> it.Event:
        try:
            await asyncio.to_thread(self._engine.apply, config)
        except DataplaneError as error:
            return it.PumpConfigured(f"{error.action}: {error.why}")
        except OverlaynetError as error:
            return it.PumpConfigured(str(error))
        self._pump_runs = config is not None
        if config is not None or not self._goes_on:
            self._running.put(functools.partial(encode_running, config, self._settings))
        return it.PumpConfigured()

    def _monitor_scope(self, scope: Scope) -> None:
        """Listen to the kernel for what `scope` covers, before it is observed, so that nothing falls between."""
        if scope == self._monitored:
            return
        self._monitored = scope
        if self._monitor is not None:
            self._monitor.cancel()
        self._monitor = self._tasks.create_task(self._listen(scope))

    async def _listen(self, scope: Scope) -> None:
        """Hear of changes; where the kernel cannot be listened to, the regular observations still find them."""
        while True:
            try:
                async for _ in self._kernel.changes(scope):
                    self._events.put_nowait(it.KernelChanged())
            except KernelError as error:
                log.warning("the kernel cannot be listened to", why=str(error))
            await asyncio.sleep(_TICK_S)

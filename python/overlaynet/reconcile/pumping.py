"""Keeping the packet engine: its configuration follows the desired state once the link that it reads from is there."""

from __future__ import annotations

from dataclasses import dataclass

from overlaynet.model.dataplane import PumpConfig
from overlaynet.reconcile.actions import ConfigurePump
from overlaynet.reconcile.backoff import Backoff
from overlaynet.reconcile.journal import Journal


@dataclass(slots=True)
class PumpKeeper:
    """The engine of one host. `attempted`: it was configured, or failed to be, at least once."""

    journal: Journal
    backoff: Backoff
    attempted: bool = False
    why: str = ""
    _wanted: PumpConfig | None = None
    _running: PumpConfig | None = None
    _asked: PumpConfig | None = None
    _busy: bool = False
    _restart: bool = False
    _has_link: bool = False
    _failures: int = 0
    _not_before: float = 0.0

    @property
    def busy(self) -> bool:
        """Whether an action is under way."""
        return self._busy

    @property
    def running(self) -> bool:
        """Whether the engine runs, as far as is known."""
        return self._running is not None

    def runs_as(self, wanted: PumpConfig | None) -> bool:
        """Whether the engine runs with exactly this configuration."""
        return self._running == wanted

    @property
    def deadline(self) -> float | None:
        """When to try again."""
        waits = not self._busy and self._failures and self._has_link and self._wanted != self._running
        return self._not_before if waits else None

    def resume(self, config: PumpConfig) -> None:
        """The engine runs with this configuration already, before anything was asked of it."""
        self._running, self.attempted = config, True

    def want(self, config: PumpConfig | None, *, has_link: bool) -> None:
        """From now on the engine should run with `config`; None: it should stop. It starts only if its link is there.

        One that runs on another link ends at once: that link is about to go.
        """
        moves = config is not None and self._running is not None and self._running.link != config.link
        self._restart = self._restart or moves
        self._wanted, self._has_link = config, has_link or (self.running and not moves)

    def link_made(self, name: str) -> None:
        """The link was made or changed: an engine that holds an earlier one must begin again."""
        if self._running is not None and self._running.link == name:
            self._restart = True

    def step(self, now: float) -> None:
        """Configure the engine, if it differs from what is wanted."""
        if self._busy or now < self._not_before:
            return
        if self._restart:
            self._restart = False
            self._ask(None)
        elif self._has_link and self._wanted != self._running:
            self._ask(self._wanted)

    def _ask(self, config: PumpConfig | None) -> None:
        self._busy, self._asked = True, config
        self.journal.act(ConfigurePump(config))

    def configured(self, why: str | None, now: float) -> None:
        """The engine was configured, or could not be."""
        self._busy = False
        self.attempted = self.attempted or self._asked is not None
        if why is None or self._asked is None:
            if why is not None:
                # An engine that could not be stopped in order is no longer ours to stop: asking again would change nothing.
                self.journal.say("warning", "pump", f"packet engine: not stopped in order: {why}")
            self._running, self._failures, self._not_before, self.why = self._asked, 0, 0.0, ""
            if self._asked is not None:
                self.journal.over("pump", "pump", "the packet engine runs")
            return
        # An engine that could not be brought to a configuration is stopped, whatever it ran with before.
        self._running = None
        self._fail(why, now)

    def failed(self, why: str, now: float) -> None:
        """The engine ended by itself."""
        self._running = None
        self._fail(why, now)

    def _fail(self, why: str, now: float) -> None:
        self._failures += 1
        self._not_before = now + self.backoff.delay_s(self._failures)
        self.why = why
        self.journal.trouble("pump", "pump", f"packet engine: {why}; trying again", level="error")

    def stop(self) -> None:
        """Stop the engine, if it runs and no action is under way."""
        self._wanted = None
        if not self._busy and self._running is not None:
            self._ask(None)

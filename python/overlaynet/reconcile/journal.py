"""Where the parts of the reconciler put their actions, and how they speak without repeating themselves."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from overlaynet.reconcile.actions import Action, Report


class Journal:
    """The actions to be taken, in order, and what was said: the first trouble of a kind is a line, the others are counted."""

    def __init__(self) -> None:
        self._actions: list[Action] = []
        self._troubles: Counter[tuple[str, str]] = Counter()
        self._totals: Counter[str] = Counter()

    def act(self, action: Action) -> None:
        """Have `action` carried out."""
        self._actions.append(action)

    def say(self, level: Literal["debug", "info", "warning", "error"], topic: str, text: str) -> None:
        """Say it each time."""
        self.act(Report(level, topic, text))

    def trouble(self, topic: str, about: str, text: str, level: Literal["warning", "error"] = "warning") -> None:
        """Say it the first time since `topic` about `about` was last over; count it always."""
        self._troubles[topic, about] += 1
        self._totals[topic] += 1
        if self._troubles[topic, about] == 1:
            self.act(Report(level, topic, text))

    def over(self, topic: str, about: str, text: str) -> None:
        """Say that the trouble is over, if there was any."""
        times = self._troubles.pop((topic, about), 0)
        if times:
            self.act(Report("info", topic, f"{text} (after {times} failure{'s' if times > 1 else ''})"))

    @property
    def totals(self) -> dict[str, object]:
        """How often each kind of trouble has come up."""
        return dict(sorted(self._totals.items()))

    def take(self) -> list[Action]:
        """The actions since the last call."""
        actions, self._actions = self._actions, []
        return actions

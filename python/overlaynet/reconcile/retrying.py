"""When each kernel object may be written again.

An object whose write failed waits for a growing span. So does one that has to be written again and again although the kernel
accepted it: somebody else keeps removing it, or the kernel keeps it in another form. The first few times are free, since a link
that is made again takes all that stood on it along, and with time they are free again.
"""

from __future__ import annotations

import math
from collections.abc import Container, Hashable, KeysView
from dataclasses import dataclass, field

from overlaynet.errors import KernelError
from overlaynet.reconcile.backoff import Backoff

_FREE_WRITES = 8
_LONGEST_FIGHT_S = 2.0
"""The longest wait for an object that others keep removing: calm enough, and back soon after they stop."""
_FORGETS_S = 1.0
"""How long it takes until one write is forgotten: what is removed more rarely than that is always written at once."""


@dataclass(slots=True)
class _History:
    writes: float = 0.0
    failures: int = 0
    last_at: float = 0.0
    not_before: float = 0.0
    why: str = ""


@dataclass(slots=True)
class Retries:
    """The histories of objects by key; only those that are young or in trouble are kept."""

    backoff: Backoff
    _histories: dict[Hashable, _History] = field(default_factory=dict)

    def waiting(self, now: float) -> dict[Hashable, float]:
        """The objects whose time has not come, and when it does."""
        return {key: history.not_before for key, history in self._histories.items() if history.not_before > now}

    def not_before(self, key: Hashable) -> float:
        """When the object's time comes."""
        history = self._histories.get(key)
        return 0.0 if history is None else history.not_before

    @property
    def noted(self) -> KeysView[Hashable]:
        """The objects that have a history."""
        return self._histories.keys()

    def wrote(self, key: Hashable, now: float, error: KernelError | None) -> None:
        """Note an answer of the kernel. Writes that succeed need not be noted where the object was only wanted anew."""
        history = self._histories.get(key)
        if history is None:
            history = self._histories[key] = _History()
        history.writes = max(0.0, history.writes - (now - history.last_at) / _FORGETS_S)
        history.last_at = now
        if error is None:
            history.writes += 1
            history.failures, history.why = 0, ""
            excess = math.ceil(history.writes - _FREE_WRITES)
            history.not_before = now + min(self.backoff.delay_s(excess), _LONGEST_FIGHT_S) if excess > 0 else 0.0
        else:
            history.failures += 1
            history.why = str(error)
            history.not_before = now + self.backoff.delay_s(history.failures)

    def fought_over(self, key: Hashable) -> bool:
        """Whether the object has to be written again and again although the kernel accepts it."""
        history = self._histories.get(key)
        return history is not None and history.writes > _FREE_WRITES

    def trouble(self, key: Hashable) -> str:
        """Why the last write failed, or an empty text."""
        history = self._histories.get(key)
        return "" if history is None else history.why

    def keep(self, keys: Container[Hashable], now: float) -> None:
        """Forget the histories of all but `keys`, and those that are calm."""
        self._histories = {
            key: history
            for key, history in self._histories.items()
            if (history.failures or now - history.last_at < history.writes * _FORGETS_S) and key in keys
        }

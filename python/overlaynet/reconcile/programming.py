"""Keeping the kernel: what it should hold, what it is believed to hold, and the operations between the two.

One kernel action is under way at a time: observe, compute the difference, program, and take the answers over into what is
believed. Belief is renewed by a full observation at the start, after every operation on a link or an address (both can take other
entries along, silently), after a failure, after the kernel said that something changed, and every few minutes. So links and
addresses are written by themselves, before all that stands on them: the observation that follows finds little, and what is
written after it needs none.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from overlaynet.backend import DesiredState
from overlaynet.errors import KernelError, KernelPermissionError, KernelVanishedError
from overlaynet.model.kernel import (
    Delete,
    KernelObject,
    ObjectKind,
    Observation,
    Operation,
    Put,
    Scope,
    TunLink,
    Underlay,
    VxlanLink,
    describe,
)
from overlaynet.model.status import PeerState
from overlaynet.reconcile.actions import Observe, Program
from overlaynet.reconcile.backoff import Backoff
from overlaynet.reconcile.diff import Difference, diff_by_key, link_of
from overlaynet.reconcile.journal import Journal
from overlaynet.reconcile.retrying import Retries

RESYNC_S = 300.0
_SPACING_S = 0.05
"""The least time between two observations that changes of the kernel bring about."""

_RESTS = 4
"""How many times as long as an observation takes is the rest after it, so that no storm of changes takes a processor."""

_GROUND = frozenset({ObjectKind.LINK, ObjectKind.ADDRESS})
"""What other objects stand on, and silently go with."""

_ROUNDS = 3
"""After so many rounds everything of the first desired state was attempted, even if others keep changing things."""


@dataclass(slots=True)
class KernelKeeper:
    """The kernel's side of one host. `settled`: everything wanted was attempted since there was something to want."""

    journal: Journal
    backoff: Backoff
    underlay: Underlay | None = None
    warnings: tuple[str, ...] = ()
    settled: bool = False
    sent: int = 0
    fatal: KernelError | None = None
    links_made: set[str] = field(default_factory=set)
    _wanted: DesiredState | None = None
    _complete: bool = False
    _wanted_by_key: dict[Hashable, KernelObject] = field(default_factory=dict)
    _scope: Scope | None = None
    _asked_scope: Scope | None = None
    _observed_scope: Scope | None = None
    _believed: dict[Hashable, KernelObject] = field(default_factory=dict)
    _foreign: tuple[tuple[Hashable, str], ...] = ()
    _conflicts: dict[Hashable, str] = field(default_factory=dict)
    _retries: Retries = field(init=False)
    _observe_at: float | None = 0.0
    _observing: bool = False
    _asked_at: float = 0.0
    _rested_at: float = 0.0
    _programming: bool = False
    _dirty: bool = False
    _touched: dict[Hashable, None] = field(default_factory=dict)
    _changed_mind: bool = False
    _again: bool = False
    _grounded: bool = False
    _repairing: bool = False
    _failures: int = 0
    _rounds: int = 0

    def __post_init__(self) -> None:
        self._retries = Retries(self.backoff)

    @property
    def looks(self) -> bool:
        """Whether it knows where to look."""
        return self._scope is not None

    @property
    def busy(self) -> bool:
        """Whether an action is under way."""
        return self._observing or self._programming

    @property
    def programming(self) -> bool:
        """Whether operations are under way."""
        return self._programming

    @property
    def deadline(self) -> float | None:
        """When to look again."""
        return None if self.busy else self._observe_at

    @property
    def conflicts(self) -> tuple[str, ...]:
        """What of somebody else's stands in the way, a line each."""
        return tuple(sorted({text for key, text in self._conflicts.items() if not self._follows(key)}))

    def _follows(self, key: Hashable) -> bool:
        """Whether an object is in conflict only because its link is, which says it all."""
        item = self._wanted_by_key.get(key)
        return item is not None and (ObjectKind.LINK, link_of(item)) in self._conflicts

    @property
    def holds_more(self) -> bool:
        """Whether the kernel may hold something of ours that it should not."""
        return (
            not self._complete
            or self._observed_scope != self._scope
            or any(key not in self._wanted_by_key for key in self._believed)
        )

    def want(self, state: DesiredState, scope: Scope, *, complete: bool) -> None:
        """From now on the kernel should hold `state`, and if it is `complete`, nothing else of ours; that is in `scope`."""
        self.look(scope)
        self._wanted, self._complete, self._changed_mind = state, complete, True
        self._wanted_by_key = {item.key: item for item in state.objects}
        self._dirty = True

    def vouch(self, *, complete: bool) -> None:
        """Whether what is wanted is all that the kernel should hold of ours."""
        if complete != self._complete:
            self._complete, self._dirty, self._changed_mind = complete, True, True

    def revise(self, gone: Iterable[KernelObject], come: Iterable[KernelObject]) -> None:
        """The kernel should hold what it should hold before, without `gone` and with `come`."""
        for item in gone:
            self._touched[item.key] = None
            self._wanted_by_key.pop(item.key, None)
        for item in come:
            self._touched[item.key] = None
            self._wanted_by_key[item.key] = item
        # A revision that asks for nothing new is no change of mind: what is written next is a repair.
        self._changed_mind = self._changed_mind or bool(self._touched)

    def look(self, scope: Scope) -> None:
        """From now on what may be ours is in `scope`: observe it before anything else."""
        if scope != self._scope:
            self._scope, self._observe_at = scope, 0.0

    def step(self, now: float) -> None:
        """Observe or program, if either is due."""
        if self.busy or self._scope is None:
            return
        if self._observe_at is not None and now >= self._observe_at:
            self._observing, self._again, self._observe_at = True, False, None
            self._asked_scope = self._scope
            self._asked_at = now
            self.journal.act(Observe(self._scope, self._wanted_by_key))
        elif (
            (self._dirty or self._touched)
            and self._wanted is not None
            and self.underlay is not None
            and self._observed_scope == self._scope
        ):
            self._program(now)

    def _program(self, now: float) -> None:
        difference = self._difference()
        self._dirty, self._touched = False, {}
        operations = difference.operations
        if waiting := self._retries.waiting(now):
            moments = [self._held_back(one.object, waiting) for one in operations]
            operations = tuple(one for one, moment in zip(operations, moments, strict=True) if not moment)
            if held_back := [moment for moment in moments if moment]:
                self._observe_by(min(held_back))
        ground = () if self._grounded else _ground(operations)
        self._grounded = bool(ground)
        if ground and len(ground) < len(operations):
            operations, self._dirty = ground, True
        if operations:
            self._repairing = self.settled and not self._changed_mind
            if self._repairing:
                self.journal.say("info", "kernel-repair", f"the kernel differs from what it should hold: {_summary(operations)}")
            self._programming, self._changed_mind = True, self._changed_mind and self._dirty
            self.sent += len(operations)
            self.journal.act(Program(operations))
        else:
            self.settled, self._changed_mind = True, False

    def _difference(self) -> Difference:
        """Between all that is wanted and all that is there; or, where only some of it was touched, between these."""
        foreign = dict(self._foreign)
        if not self._dirty and not self._conflicts and not any(key in foreign for key in self._touched):
            touched = [self._wanted_by_key[key] for key in self._touched if key in self._wanted_by_key]
            there = {key: self._believed[key] for key in self._touched if key in self._believed}
            return diff_by_key(touched, there, {}, complete=self._complete)
        if self._wanted_by_key == self._believed:
            # So it is nearly always, and dictionaries are compared many times faster than walked through.
            self._note_conflicts({})
            return Difference(())
        difference = diff_by_key(self._wanted_by_key.values(), self._believed, foreign, complete=self._complete)
        self._note_conflicts(dict(difference.conflicts))
        return difference

    def _note_conflicts(self, conflicts: dict[Hashable, str]) -> None:
        before, self._conflicts = self._conflicts, conflicts
        for key in before.keys() - conflicts.keys():
            self.journal.over("conflict", repr(key), f"no longer in the way: {before[key]}")
        for key, text in conflicts.items():
            if key not in before and not self._follows(key):
                item = self._wanted_by_key.get(key)
                name = describe(item) if item is not None else str(key)
                self.journal.trouble(
                    "conflict", repr(key), f"left alone, somebody else's entry is in the place of {name}: {text}"
                )

    def observed(self, observation: Observation, now: float) -> None:
        """Take over what the kernel holds."""
        self._observing, self._failures, self._observed_scope = False, 0, self._asked_scope
        self.journal.over("observe", "kernel", "the kernel can be read again")
        self._believed = {item.key: item for item in observation.objects}
        self._foreign = observation.foreign
        for warning in observation.warnings:
            if warning not in self.warnings:
                self.journal.say("warning", "kernel-setting", warning)
        self.warnings = observation.warnings
        if observation.underlay is None:
            name = self._observed_scope.underlay if self._observed_scope else ""
            self.journal.trouble("underlay", "link", f"underlay link {name} is missing: what the kernel holds is left as it is")
        else:
            self.journal.over("underlay", "link", f"underlay link {observation.underlay.link} is there again")
        self.underlay = observation.underlay
        self._dirty = True
        self._rested_at = now + max(_SPACING_S, _RESTS * (now - self._asked_at))
        self._retries.keep(ChainMap(self._wanted_by_key, self._believed), now)
        self._observe_at = self._rested_at if self._again else now + (1.0 if observation.underlay is None else RESYNC_S)

    def observation_failed(self, error: KernelError, now: float) -> None:
        """Observe again, later."""
        self._observing = False
        self._failures += 1
        self._observe_at = now + self.backoff.delay_s(self._failures)
        self.journal.trouble("observe", "kernel", f"{error}; trying again")
        if isinstance(error, KernelPermissionError):
            self.fatal = error

    def changed(self, now: float) -> None:
        """Somebody, perhaps we ourselves, changed something that concerns us: look again soon."""
        if self._observing:
            self._again = True
        self._observe_by(max(now, self._rested_at))

    def programmed(self, results: tuple[tuple[Operation, KernelError | None], ...], now: float) -> None:
        """Take the kernel's answers over."""
        self._programming = False
        self._rounds += 1
        believed, noted, ground = self._believed, self._retries.noted, False
        for operation, error in results:
            item = operation.object
            key = item.key
            if error is not None:
                self._refused(item, error, now)
                continue
            if self._repairing or key in noted:
                self._written_again(item, now)
            if isinstance(operation, Put):
                believed[key] = item
                if isinstance(item, VxlanLink | TunLink):
                    self.links_made.add(item.name)
            else:
                believed.pop(key, None)
            ground = ground or item.kind in _GROUND
        if ground:
            self._observe_by(now)
        elif not self._dirty:
            self.settled = True
        if self._rounds >= _ROUNDS:
            self.settled = True

    def _refused(self, item: KernelObject, error: KernelError, now: float) -> None:
        if isinstance(error, KernelVanishedError):
            # The kernel took it; that it does not stay is somebody else's doing.
            self._written_again(item, now)
            self._observe_by(max(self._rested_at, self._retries.not_before(item.key)))
            return
        if self._link_is_missing(item):
            # It failed with its link, and is tried again with it.
            self._observe_by(max(self._rested_at, self._retries.not_before((ObjectKind.LINK, link_of(item)))))
            return
        self._retries.wrote(item.key, now, error)
        self.journal.trouble("kernel", describe(item), f"{error}; trying again")
        if isinstance(error, KernelPermissionError) and item.kind is not ObjectKind.SYSCTL:
            self.fatal = error
        self._observe_by(self._retries.not_before(item.key))

    def _written_again(self, item: KernelObject, now: float) -> None:
        """Note a write that others, or a failure before it, have made necessary."""
        if self._retries.trouble(item.key):
            self.journal.over("kernel", describe(item), f"written: {describe(item)}")
        self._retries.wrote(item.key, now, None)
        if self._retries.fought_over(item.key):
            self.journal.trouble("kernel-fight", describe(item), f"does not stay as written, slowing down: {describe(item)}")

    def _observe_by(self, when: float) -> None:
        self._observe_at = when if self._observe_at is None else min(self._observe_at, when)

    def holds(self, key: Hashable) -> bool:
        """Whether the kernel is believed to hold the object with this key as wanted."""
        return key in self._believed and self._believed[key] == self._wanted_by_key.get(key)

    def state_of(self, keys: tuple[Hashable, ...]) -> tuple[PeerState, str]:
        """The state of a peer that needs the objects with `keys`, and for any but programmed the reason."""
        for key in keys:
            if key in self._conflicts:
                return "conflict", self._conflicts[key]
        missing = [key for key in keys if not self.holds(key)]
        for key in missing:
            trouble = self._trouble(key)
            if trouble:
                return "failed", trouble
        return ("pending", "about to be written") if missing else ("programmed", "")

    def troubles(self, keys: Iterable[Hashable]) -> tuple[str, ...]:
        """Why the objects with `keys` that the kernel does not hold could not be written; each reason once."""
        return tuple(dict.fromkeys(why for key in keys if not self.holds(key) and (why := self._trouble(key))))

    def _trouble(self, key: Hashable) -> str:
        """Why the last write of an object failed: because of its link, if that is missing."""
        item = self._wanted_by_key.get(key)
        return ("" if item is None else self._link_trouble(item)) or self._retries.trouble(key)

    def _link_trouble(self, item: KernelObject) -> str:
        """Why the link on which an object stands could not be made, if that is so."""
        return self._retries.trouble((ObjectKind.LINK, link_of(item))) if self._link_is_missing(item) else ""

    def _link_is_missing(self, item: KernelObject) -> bool:
        """Whether an object stands on a link that is wanted and not there."""
        link_key = (ObjectKind.LINK, link_of(item))
        return link_key in self._wanted_by_key and link_key not in self._believed

    def _held_back(self, item: KernelObject, waiting: Mapping[Hashable, float]) -> float:
        """When the object may be written; 0.0: now. What stands on a link that is not there waits with it."""
        moment = waiting.get(item.key, 0.0)
        return max(moment, waiting.get((ObjectKind.LINK, link_of(item)), 0.0)) if self._link_is_missing(item) else moment


def _ground(operations: tuple[Operation, ...]) -> tuple[Operation, ...]:
    """Those that make links and addresses, with what comes before them; nothing if there are none."""
    puts = tuple(one for one in operations if isinstance(one, Put) and one.object.kind <= ObjectKind.ADDRESS)
    return puts if any(one.object.kind in _GROUND for one in puts) else ()


def _summary(operations: tuple[Operation, ...]) -> str:
    first = operations[0]
    text = f"{'removing' if isinstance(first, Delete) else 'writing'} {describe(first.object)}"
    return text if len(operations) == 1 else f"{text} and {len(operations) - 1} more"

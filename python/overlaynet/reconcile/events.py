"""What the reconciler is told: things that have happened, in the past tense.

Every `sent_at` and every `now` is a moment on CLOCK_BOOTTIME, in seconds: it goes on during suspend and no one can set it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from overlaynet.errors import KernelError, StoreError
from overlaynet.model.kept import Kept
from overlaynet.model.kernel import Observation, Operation
from overlaynet.model.lease import Grant
from overlaynet.model.snapshot import Changes, Snapshot


@dataclass(frozen=True, slots=True)
class KeptRead:
    """This host kept the last good snapshot of an earlier run. Comes before everything else, if at all."""

    kept: Kept


@dataclass(frozen=True, slots=True)
class SnapshotLoaded:
    """The store answered `LoadSnapshot`."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class StoreChanged:
    """The watch brought changes."""

    changes: Changes


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """`LoadSnapshot` or `Watch` ended with an error; HistoryGoneError means: load again, nothing else is wrong."""

    error: StoreError


@dataclass(frozen=True, slots=True)
class LeaseGranted:
    """`ClaimSubnet`, `RenewLease` or `UpdateLease`, sent at `sent_at`, was answered with this grant."""

    grant: Grant
    sent_at: float


@dataclass(frozen=True, slots=True)
class LeaseRefused:
    """`ClaimSubnet`, `RenewLease` or `UpdateLease` ended with an error: a conflict, a lost lease, or no answer."""

    error: StoreError


@dataclass(frozen=True, slots=True)
class LeaseReleased:
    """`ReleaseLease` was carried out, or could not be: then `error` says why."""

    error: StoreError | None = None


@dataclass(frozen=True, slots=True)
class KernelObserved:
    """`Observe` was answered."""

    observation: Observation


@dataclass(frozen=True, slots=True)
class ObservationFailed:
    """`Observe` could not be carried out."""

    error: KernelError


@dataclass(frozen=True, slots=True)
class KernelChanged:
    """The kernel said that something which concerns us has changed."""


@dataclass(frozen=True, slots=True)
class Programmed:
    """`Program` was carried out: each operation with the kernel's refusal, or None where it succeeded."""

    results: tuple[tuple[Operation, KernelError | None], ...]


@dataclass(frozen=True, slots=True)
class PumpConfigured:
    """`ConfigurePump` was carried out, or could not be: then `why` says what stood in the way."""

    why: str | None = None


@dataclass(frozen=True, slots=True)
class PumpFailed:
    """The packet engine ended by itself."""

    why: str


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The moment that `next_deadline` named has come."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The daemon should end; with `release` it gives its lease back first."""

    release: bool


Event: TypeAlias = (
    KeptRead
    | SnapshotLoaded
    | StoreChanged
    | StoreFailed
    | LeaseGranted
    | LeaseRefused
    | LeaseReleased
    | KernelObserved
    | ObservationFailed
    | KernelChanged
    | Programmed
    | PumpConfigured
    | PumpFailed
    | TimerFired
    | StopRequested
)

"""What the reconciler wants done: imperatives, carried out by the daemon, each answered by an event.

At most one action of a class is under way at a time: the reconciler issues no second one before the first is answered. Store,
kernel and engine actions may run side by side.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from overlaynet.errors import OverlaynetError
from overlaynet.model.dataplane import PumpConfig
from overlaynet.model.kept import Kept
from overlaynet.model.kernel import KernelObject, Operation, Scope
from overlaynet.model.lease import Grant, Lease, LeaseAttributes, Subnets
from overlaynet.model.network import SubnetEnv
from overlaynet.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class LoadSnapshot:
    """Load the store; a watch that is under way ends without an answer. Answer: SnapshotLoaded or StoreFailed."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Follow the store's changes after revision `after`. Answers: StoreChanged, many; StoreFailed, once, at its end."""

    after: int


@dataclass(frozen=True, slots=True)
class ClaimSubnet:
    """Claim `subnets`, chosen from `seen`. Answer: LeaseGranted or LeaseRefused."""

    subnets: Subnets
    attributes: LeaseAttributes
    ttl_s: float
    seen: Snapshot
    features: tuple[str, ...] = ()
    takes_over: Lease | None = None


@dataclass(frozen=True, slots=True)
class RenewLease:
    """Renew `grant`. Answer: LeaseGranted or LeaseRefused."""

    grant: Grant


@dataclass(frozen=True, slots=True)
class UpdateLease:
    """Publish other attributes with `grant`. Answer: LeaseGranted or LeaseRefused."""

    grant: Grant
    attributes: LeaseAttributes


@dataclass(frozen=True, slots=True)
class ReleaseLease:
    """Give `grant` back. Answer: LeaseReleased."""

    grant: Grant


@dataclass(frozen=True, slots=True)
class Observe:
    """Read what the kernel holds. Answer: KernelObserved or ObservationFailed.

    `expected` is what it should hold, by keys: what reads like one of these may be that very value.
    """

    scope: Scope
    expected: Mapping[Hashable, KernelObject] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Program:
    """Perform the operations in order; one that fails does not stop the others. Answer: Programmed."""

    operations: tuple[Operation, ...]


@dataclass(frozen=True, slots=True)
class ConfigurePump:
    """Bring the packet engine to `config`; None: stop it. Answer: PumpConfigured."""

    config: PumpConfig | None


@dataclass(frozen=True, slots=True)
class KeepSnapshot:
    """Keep this for the next run, in place of what was kept before. No answer."""

    kept: Kept


@dataclass(frozen=True, slots=True)
class PublishSubnetEnv:
    """Write subnet.env. No answer."""

    env: SubnetEnv


@dataclass(frozen=True, slots=True)
class AnnounceReady:
    """The lease is held and every peer of the first complete snapshot was attempted. Given once. No answer."""


@dataclass(frozen=True, slots=True)
class Report:
    """Write a line to the log. `topic` is a stable name of the kind of thing that happened. No answer."""

    level: Literal["debug", "info", "warning", "error"]
    topic: str
    text: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Everything that had to be done before the end is done. `error`: why the daemon cannot go on, or None. No answer."""

    error: OverlaynetError | None = None


Action: TypeAlias = (
    LoadSnapshot
    | Watch
    | ClaimSubnet
    | RenewLease
    | UpdateLease
    | ReleaseLease
    | Observe
    | Program
    | ConfigurePump
    | KeepSnapshot
    | PublishSubnetEnv
    | AnnounceReady
    | Report
    | Stop
)

"""What a daemon says about itself: the value behind `overlaynet status` and the control socket.

All fields are plain texts and numbers, so that the value has one JSON form. Times are seconds; a `_since` is a moment on the
host's CLOCK_BOOTTIME.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

PeerState = Literal["programmed", "pending", "refused", "failed", "conflict"]


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One peer: its lease's subnets, where it is, and whether this host's kernel or engine can reach it.

    `why` says, for any state but `programmed`, what stands in the way.
    """

    subnets: str
    public_address: str
    backend: str
    state: PeerState
    path: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """This host's own lease; `remaining_s` is None while nothing is held or it never ends."""

    subnets: str
    remaining_s: float | None
    expired: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """One host's whole picture.

    `kept`: it rests on the snapshot of an earlier run, since the store has confirmed nothing in this one. `kernel_writes` counts
    the operations of this run, `tasks` the daemon's asyncio tasks at this moment.
    """

    host: str
    version: str
    network: tuple[str, ...]
    backend: str
    public_addresses: tuple[str, ...]
    underlay: str
    mtu: int | None
    lease: LeaseStatus | None
    ready: bool
    store: str
    store_error: str
    store_lost_since_s: float | None
    kept: bool
    peers: tuple[PeerStatus, ...]
    refused_leases: tuple[str, ...]
    unreadable_keys: int
    conflicts: tuple[str, ...]
    warnings: tuple[str, ...]
    kernel_writes: int
    tasks: int = 0
    counters: dict[str, object] = field(default_factory=dict)

"""What stores hand over: a whole snapshot at a revision, and the changes after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from overlaynet.model.lease import Lease, Subnets

__all__ = ["Change", "Changes", "ConfigPut", "LeaseGone", "LeasePut", "Snapshot", "StoreTraits", "Unreadable", "UnreadableGone"]


@dataclass(frozen=True, slots=True)
class StoreTraits:
    """What a store can do. `name` is its URL without secrets, for messages."""

    name: str
    expires: bool
    assigns_subnets: bool
    has_history: bool


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something at a lease's place in the store that is not a lease: its key, and what is wrong with it."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class UnreadableGone:
    """What could not be read at `key` was deleted, or can be read now."""

    key: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one revision. `config` is the network configuration's JSON text, or None where there is none yet."""

    revision: int
    config: bytes | None
    leases: tuple[Lease, ...]
    unreadable: tuple[Unreadable, ...] = ()


@dataclass(frozen=True, slots=True)
class LeasePut:
    """A lease was created or its attributes changed."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class LeaseGone:
    """A lease expired, was released or revoked."""

    subnets: Subnets


@dataclass(frozen=True, slots=True)
class ConfigPut:
    """The network configuration was written; None: it was deleted."""

    config: bytes | None


Change: TypeAlias = LeasePut | LeaseGone | ConfigPut | Unreadable | UnreadableGone


@dataclass(frozen=True, slots=True)
class Changes:
    """All changes to leases that lead to `revision`, in order; other changes come as soon as they are known.

    The revision never goes back, and stays where it is when no lease has changed.
    """

    revision: int
    changes: tuple[Change, ...]

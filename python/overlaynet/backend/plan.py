"""What a backend hands over: for each peer what makes it reachable or why nothing can, and all of a host's objects together."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol, TypeAlias

from overlaynet.model.addresses import Mtu
from overlaynet.model.dataplane import PumpConfig
from overlaynet.model.host import HostSettings
from overlaynet.model.kernel import KernelObject, Underlay
from overlaynet.model.lease import Lease, LeaseAttributes
from overlaynet.model.network import NetworkConfig


@dataclass(frozen=True, slots=True)
class PeerPlan:
    """The objects of one peer, and in a few words the way that packets to it take."""

    objects: tuple[KernelObject, ...]
    path: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing is written for a peer; `why` names what stands in the way, its value, and what would be right."""

    why: str


Outcome: TypeAlias = PeerPlan | Refused


@dataclass(frozen=True, slots=True)
class Base:
    """What a host holds whoever its peers are. `mtu` is for containers, in bytes of inner packet; `pump` lacks the peers."""

    objects: tuple[KernelObject, ...]
    mtu: Mtu
    pump: PumpConfig | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DesiredState:
    """Everything that a host's kernel and packet engine should hold.

    `base` is there whoever the peers are; `plans` has each peer's by its subnets, as text, and follows a few changed leases in
    place (`reconcile/revising.py`). A peer of the packet engine has no objects of its own. `refused` are the peers for which
    nothing is written, with the reason.
    """

    base: tuple[KernelObject, ...]
    plans: dict[str, PeerPlan]
    pump: PumpConfig | None
    mtu: Mtu
    refused: tuple[tuple[Lease, str], ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def objects(self) -> tuple[KernelObject, ...]:
        """All objects, in the order of their kinds."""
        every = [*self.base]
        for plan in self.plans.values():
            every += plan.objects
        return tuple(sorted(every, key=attrgetter("kind")))


class Backend(Protocol):
    """One way of carrying packets between hosts, settled on a network and a host."""

    def attributes(self) -> LeaseAttributes:
        """What this host publishes. ConfigError: the host lacks what the backend needs."""

    def base(self, own: Lease, underlay: Underlay) -> Base:
        """What is held whoever the peers are."""

    def peer(self, own: Lease, peer: Lease, underlay: Underlay) -> Outcome:
        """What makes `peer` reachable, or why nothing does."""

    def pump(self, base: Base, peers: tuple[Lease, ...]) -> PumpConfig | None:
        """The packet engine's configuration with `peers`; None for a backend whose packets the kernel carries."""


@dataclass(frozen=True, slots=True)
class Place:
    """A network and a host: what every backend is made of."""

    config: NetworkConfig
    settings: HostSettings

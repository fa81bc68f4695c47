"""From a network's configuration to its backend, and from all leases to one desired state."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import assert_never

from overlaynet.backend import vxlan_user
from overlaynet.backend.host_gw import HostGwBackend
from overlaynet.backend.plan import Backend, DesiredState, PeerPlan, Place, Refused
from overlaynet.backend.udp import TUN_NAME, UDP6, UdpBackend
from overlaynet.backend.vxlan import VxlanBackend, link_name
from overlaynet.backend.vxlan_user import UserVxlanBackend
from overlaynet.model.host import HostSettings
from overlaynet.model.kernel import Underlay
from overlaynet.model.lease import Lease, LeaseAttributes
from overlaynet.model.network import HostGwOptions, NetworkConfig, UdpOptions, VxlanOptions


def for_host(config: NetworkConfig, settings: HostSettings) -> NetworkConfig:
    """The configuration with this host's own choices in it."""
    if isinstance(config.backend, VxlanOptions) and settings.vxlan_mode is not None:
        return replace(config, backend=replace(config.backend, mode=settings.vxlan_mode))
    return config


def backend_for(config: NetworkConfig, settings: HostSettings) -> Backend:
    """The backend that `config` names, on this host."""
    config = for_host(config, settings)
    place = Place(config, settings)
    match config.backend:
        case VxlanOptions(mode="user") as options:
            return UserVxlanBackend(place, options)
        case VxlanOptions() as options:
            return VxlanBackend(place, options)
        case HostGwOptions():
            return HostGwBackend(place)
        case UdpOptions() as options:
            return UdpBackend(place, options.port)
        case _:
            assert_never(config.backend)


def attributes(config: NetworkConfig, settings: HostSettings) -> LeaseAttributes:
    """What this host publishes with its lease. ConfigError: the host lacks what the network's backend needs."""
    return backend_for(config, settings).attributes()


def features(config: NetworkConfig) -> tuple[str, ...]:
    """What this host says with its lease that it can do beyond flannel."""
    return (UDP6,) if isinstance(config.backend, UdpOptions) and config.v6 is not None else ()


def link_names(config: NetworkConfig) -> tuple[str, ...]:
    """The names of the links that the network's backend makes on a host."""
    match config.backend:
        case VxlanOptions() as options:
            if options.mode == "user":
                return (vxlan_user.TUN_NAME,)
            return tuple(link_name(options.vni, half.family) for half in config.families)
        case HostGwOptions():
            return ()
        case UdpOptions():
            return (TUN_NAME,)
        case _:
            assert_never(config.backend)


def desired(
    config: NetworkConfig, settings: HostSettings, own: Lease, peers: tuple[Lease, ...], underlay: Underlay
) -> DesiredState:
    """Everything that this host should hold to reach `peers`, which are acceptable leases that do not overlap."""
    backend = backend_for(config, settings)
    base = backend.base(own, underlay)
    plans: dict[str, PeerPlan] = {}
    refused: list[tuple[Lease, str]] = []
    taken: list[Lease] = []
    claimed: dict[Hashable, str] = {}
    for peer in peers:
        outcome = backend.peer(own, peer, underlay)
        if isinstance(outcome, PeerPlan):
            outcome = _without_clash(outcome, claimed)
        if isinstance(outcome, Refused):
            refused.append((peer, outcome.why))
            continue
        name = str(peer.subnets)
        for item in outcome.objects:
            claimed[item.key] = name
        plans[name] = outcome
        taken.append(peer)
    return DesiredState(
        base=tuple(base.objects),
        plans=plans,
        pump=backend.pump(base, tuple(taken)),
        mtu=base.mtu,
        refused=tuple(refused),
        warnings=base.warnings,
    )


def _without_clash(plan: PeerPlan, claimed: dict[Hashable, str]) -> PeerPlan | Refused:
    """`plan`, unless one of its objects has the place of an earlier peer's."""
    for item in plan.objects:
        if item.key in claimed:
            return Refused(f"needs the same kernel entry as peer {claimed[item.key]}: their link-layer addresses are equal")
    return plan

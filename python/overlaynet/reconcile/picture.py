"""The status of one host, out of what the reconciler's parts know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlaynet.model.addresses import Family
from overlaynet.model.lease import Lease
from overlaynet.model.status import LeaseStatus, PeerStatus, Status

if TYPE_CHECKING:
    from overlaynet.reconcile.reconciler import Reconciler


def picture(host: Reconciler, now: float) -> Status:
    """Everything that `host` knows at `now`. The version and the store's name are the daemon's to fill in."""
    config, state, settings = host.store.config, host.state, host.settings
    public = (settings.public_ipv4, settings.public_ipv6)
    backend_warnings = () if state is None else state.warnings
    invalid = (host.store.invalid,) if host.store.invalid else ()
    moved = (host.lease.moved,) if host.lease.moved else ()
    restart = (host.store.restart_needed,) if host.store.restart_needed else ()
    graced = tuple(f"peer {name} is kept though the store, which went back, lacks it" for name in host.store.graced)
    # Peers show what they lack by themselves.
    failed = () if state is None else host.kernel.troubles(item.key for item in state.base)
    missing = () if host.kernel.underlay is not None else (f"underlay link {settings.underlay} was not seen",)
    return Status(
        host=settings.host,
        version="",
        network=() if config is None else tuple(str(network) for network in config.networks),
        backend="" if config is None else config.backend.type,
        public_addresses=tuple(str(address) for address in public if address is not None),
        underlay=settings.underlay,
        mtu=None if state is None else state.mtu,
        lease=_lease(host, now),
        ready=host.ready,
        store="",
        store_error=host.store.error or (str(host.lease.error) if host.lease.error else ""),
        store_lost_since_s=host.store.lost_since,
        kept=host.kept,
        peers=_peers(host),
        refused_leases=tuple(f"{one.lease.subnets}: {one.why}" for one in host.refused),
        unreadable_keys=host.store.unreadable,
        conflicts=host.kernel.conflicts,
        warnings=(*host.kernel.warnings, *backend_warnings, *restart, *invalid, *moved, *graced, *missing, *failed),
        kernel_writes=host.kernel.sent,
        counters=host.journal.totals,
    )


def _lease(host: Reconciler, now: float) -> LeaseStatus | None:
    own, grant = host.lease.own, host.lease.grant
    if own is None:
        return None
    ends_at = host.lease.ends_at
    remaining = None if ends_at is None else max(0.0, ends_at - now)
    return LeaseStatus(str(own.subnets), remaining, expired=grant is None or host.lease.expired(now))


def _peers(host: Reconciler) -> tuple[PeerStatus, ...]:
    state = host.state
    if state is None:
        return ()
    refused = {lease.subnets: why for lease, why in state.refused}
    found: list[PeerStatus] = []
    for lease in host.peers.values():
        name = str(lease.subnets)
        if lease.subnets in refused:
            found.append(PeerStatus(name, _address(host, lease), _backend(lease), "refused", why=refused[lease.subnets]))
            continue
        now_is, why = host.kernel.state_of(tuple(item.key for item in state.plans[name].objects))
        if state.pump is not None and now_is == "programmed" and not host.pump.runs_as(state.pump):
            now_is, why = ("failed", host.pump.why) if host.pump.why else ("pending", "the packet engine is being configured")
        found.append(PeerStatus(name, _address(host, lease), _backend(lease), now_is, state.plans[name].path, why))
    found += [
        PeerStatus(str(one.lease.subnets), _address(host, one.lease), _backend(one.lease), "refused", why=one.why)
        for one in host.refused
    ]
    return tuple(sorted(found, key=lambda peer: peer.subnets))


def _address(host: Reconciler, lease: Lease) -> str:
    """Where the peer is: its public address in the network's first family that it has, else in any."""
    halves = () if host.store.config is None else host.store.config.families
    addresses = [lease.attributes.public(family) for family in (*(half.family for half in halves), *Family)]
    return next((str(address) for address in addresses if address is not None), "")


def _backend(lease: Lease) -> str:
    return lease.attributes.backend_type

"""The reconciler: events in, actions out, `now` a parameter; no I/O, no clock, no chance.

Four parts, each the keeper of one outside thing with its own retries: the store (`following`), the lease (`holding`), the
kernel (`programming`) and the packet engine (`pumping`). This module hands each event to the part that it concerns and then lets
every part take its next step. All of it is level-triggered: a step looks at what is wanted and what is known, never at which
event came, so a lost or repeated event costs time and nothing else.

    no config ---> no lease ---> lease held, kernel being written ---> ready ---> stopping
        wait          claim        observe, diff, program               follow      release, stop the engine

A host that kept the last good snapshot of an earlier run begins with it: it forwards before its store answers, or without.
Nothing is removed from a kernel, and nothing announced, before a whole snapshot with a valid configuration was seen in this run
and the lease is held. From then on an unreachable store, an expired lease or a configuration that is gone or not valid changes
nothing in the kernel; the status says so. A lease that is lost is claimed again, and until one is held the kernel is kept by the
last.
"""

from __future__ import annotations

from typing import assert_never

from overlaynet.backend import DesiredState, attributes, desired
from overlaynet.errors import ConfigError, LeaseLostError, StoreDataError
from overlaynet.model.addresses import Address, Prefix
from overlaynet.model.dataplane import PumpConfig
from overlaynet.model.host import HostSettings
from overlaynet.model.kept import Kept
from overlaynet.model.kernel import LinkAddress, Scope, Sysctl, Underlay
from overlaynet.model.lease import Lease, LeaseAttributes, Subnets
from overlaynet.model.network import NetworkConfig, SubnetEnv
from overlaynet.model.peers import AcceptedPeers, Refusal, accept_peers
from overlaynet.model.status import Status
from overlaynet.reconcile.actions import Action, AnnounceReady, KeepSnapshot, PublishSubnetEnv, Stop
from overlaynet.reconcile.allocate import fits
from overlaynet.reconcile.backoff import Backoff
from overlaynet.reconcile.events import (
    Event,
    KeptRead,
    KernelChanged,
    KernelObserved,
    LeaseGranted,
    LeaseRefused,
    LeaseReleased,
    ObservationFailed,
    Programmed,
    PumpConfigured,
    PumpFailed,
    SnapshotLoaded,
    StopRequested,
    StoreChanged,
    StoreFailed,
    TimerFired,
)
from overlaynet.reconcile.following import StoreFollower
from overlaynet.reconcile.holding import LeaseHolder
from overlaynet.reconcile.journal import Journal
from overlaynet.reconcile.picture import picture
from overlaynet.reconcile.programming import KernelKeeper
from overlaynet.reconcile.pumping import PumpKeeper
from overlaynet.reconcile.revising import Crowd, revise
from overlaynet.reconcile.serving import check_apart, check_servable

_KEEP_SPACING_S = 1.0
_KEEP_SPACING_EACH_S = 0.001
"""The least time between two snapshots that are kept, and more for each lease in them, so that writing them takes a percent of
a processor however many they are. What is newer is lost only to a crash, and the store has it."""


class Reconciler:
    """One host's decisions. Hand it events, take its actions, call it again at `next_deadline`.

    `running` is what the packet engine runs with already, if it does.
    """

    def __init__(self, settings: HostSettings, running: PumpConfig | None = None) -> None:
        self.settings = settings
        self.journal = Journal()
        self.store = StoreFollower(self.journal, Backoff(f"{settings.host}/store"), settings.store, settings.host)
        self.lease = LeaseHolder(self.journal, settings, Backoff(f"{settings.host}/lease"))
        self.kernel = KernelKeeper(self.journal, Backoff(f"{settings.host}/kernel", most_s=30.0))
        self.pump = PumpKeeper(self.journal, Backoff(f"{settings.host}/pump"))
        if running is not None:
            self.pump.resume(running)
        self.state: DesiredState | None = None
        self.peers: dict[Subnets, Lease] = {}
        self.refused: tuple[Refusal, ...] = ()
        self.ready = False
        self._refusals: set[tuple[str, str]] = set()
        self._published: SubnetEnv | None = None
        self._attributes: LeaseAttributes | None = None
        self._checked: NetworkConfig | None = None
        self._served: NetworkConfig | None = None
        self._crowd: Crowd | None = None
        self._made_of: tuple[int, bool, NetworkConfig, Lease, Underlay] | None = None
        self._confirmed = False
        self._kept_of: tuple[int, Lease, tuple[Prefix, ...]] | None = None
        self._keep_at = 0.0
        self._former_networks: tuple[Prefix, ...] = ()
        self._seen_locals: set[Address | None] = set()
        self._started = False
        self._stopping: StopRequested | None = None
        self._stopped = False

    def handle(self, event: Event, now: float) -> None:
        """Take in what has happened at `now`, and decide."""
        match event:
            case KeptRead(kept):
                self._restore(kept, now)
            case SnapshotLoaded(snapshot):
                self.store.loaded_snapshot(snapshot, now)
                self._look_at_own(now)
            case StoreChanged(changes):
                touched = self.store.changed(changes, now)
                if any(self.lease.holds(subnets) for subnets in touched):
                    self._look_at_own(now)
            case StoreFailed(error):
                self.store.failed(error, now)
                if isinstance(error, StoreDataError) and not self.store.known:
                    # It will not get better by waiting, and there is nothing to go on with.
                    self._stopped = True
                    self.journal.act(Stop(error))
            case LeaseGranted(grant, sent_at):
                self.lease.granted(grant, sent_at)
            case LeaseRefused(error):
                if isinstance(error, LeaseLostError) and self.lease.own is not None:
                    self.store.forget(self.lease.own.subnets, self.settings.host)
                self.lease.refused(error, now)
            case LeaseReleased(released_error):
                self.lease.released(released_error)
            case KernelObserved(observation):
                self.kernel.observed(observation, now)
                self._follow_addresses(observation.underlay)
            case ObservationFailed(kernel_error):
                self.kernel.observation_failed(kernel_error, now)
            case KernelChanged():
                self.kernel.changed(now)
            case Programmed(results):
                self.kernel.programmed(results, now)
            case PumpConfigured(trouble):
                self.pump.configured(trouble, now)
            case PumpFailed(why):
                self.pump.failed(why, now)
                self.kernel.changed(now)
            case TimerFired():
                self._started = True
            case StopRequested():
                self._stopping = event
            case _:
                assert_never(event)
        self._step(now)

    def take_actions(self) -> list[Action]:
        """What is to be done, in order, since the last call."""
        return self.journal.take()

    def next_deadline(self) -> float | None:
        """When to hand in `TimerFired`, at the latest; None: only another event changes anything."""
        if self._stopped or self._stopping is not None:
            return None
        moments = [self.store.deadline, self.kernel.deadline, self.pump.deadline]
        if self._may_ask_for_lease:
            moments.append(self.lease.deadline(self._attributes))
        if self._keepable != self._kept_of:
            moments.append(self._keep_at)
        return min((moment for moment in moments if moment is not None), default=None)

    def status(self, now: float) -> Status:
        """This host's whole picture at `now`."""
        return picture(self, now)

    def _step(self, now: float) -> None:
        if self._stopped:
            return
        if self._stopping is not None:
            self._wind_up(self._stopping, now)
            return
        if not self._started:
            return
        self.lease.look_at_clock(now)
        self.store.step(now)
        self._check_config()
        config = self.store.config
        if config is not None and self._attributes is not None and self._may_ask_for_lease:
            self.lease.step(self.store.claims or config, self._attributes, self.store, now)
        self._renew_picture(config)
        self.kernel.step(now)
        self._keep_pump(now)
        if self.kernel.fatal is not None and not self.ready:
            self._stopped = True
            self.journal.act(Stop(self.kernel.fatal))
            return
        self._announce(config, now)
        if now >= self._keep_at:
            self._keep(now)

    def _restore(self, kept: Kept, now: float) -> None:
        self.store.restore(kept, now)
        self._served = self.store.config
        here = () if self._served is None else self._served.networks
        self._former_networks = tuple(dict.fromkeys((*here, *kept.networks)))
        self.lease.resume(kept.own)
        self.journal.say(
            "info", "kept", f"going on from the last run's snapshot at revision {kept.revision} until the store answers"
        )

    @property
    def kept(self) -> bool:
        """Whether this host goes by what an earlier run kept, since the store has confirmed nothing yet."""
        return self.store.known and not self._confirmed

    @property
    def _may_ask_for_lease(self) -> bool:
        """A held lease is renewed whatever became of the configuration; a new one is claimed only under one."""
        return self.store.loaded and (self.lease.grant is not None or self.store.configured)

    @property
    def _keepable(self) -> tuple[int, Lease, tuple[Prefix, ...]] | None:
        """What a kept snapshot would be made of; None: it would be worse than the one before."""
        own = self.lease.own
        if not (self._confirmed and own is not None and self.store.configured):
            return self._kept_of
        return self.store.version, own, self._left_networks

    @property
    def _left_networks(self) -> tuple[Prefix, ...]:
        """Those networks of earlier runs that this one has not, while routes of ours may be left there."""
        config = self.store.config
        left = tuple(one for one in self._former_networks if config is None or one not in config.networks)
        return left if left and self.kernel.holds_more else ()

    def _keep(self, now: float) -> None:
        """Have what is known kept for the next run, if anything is new."""
        keepable = self._keepable
        if keepable is not None and keepable != self._kept_of:
            spacing_s = _KEEP_SPACING_S + _KEEP_SPACING_EACH_S * self.store.size
            self._kept_of, self._keep_at = keepable, now + spacing_s
            self.journal.act(KeepSnapshot(self.store.keep(*keepable[1:])))

    def _check_config(self) -> None:
        """Find out once for each configuration whether this host can serve it, before a lease is asked for under it.

        The one that the last run served is not looked at as closely: what it has already is not taken from it.
        """
        config = self.store.config
        if config is None or config is self._checked:
            return
        fresh = config != self._served
        if fresh and self.kernel.underlay is None:
            self._attributes = None
            return
        self._checked = config
        try:
            if fresh:
                check_servable(config, self.settings, self.kernel.underlay)
            self._attributes, self._served = attributes(config, self.settings), config
            if not fresh:
                self._warn_of_overlap(config)
        except ConfigError as error:
            why = self.store.reject_config(f"network configuration cannot be used on this host: {error}")
            self.journal.say("error", "network-invalid", why)
            self._check_config()

    def _warn_of_overlap(self, config: NetworkConfig) -> None:
        """Say that an address which this host has been given since lies in the network that it serves."""
        try:
            check_apart(config, self.settings)
        except ConfigError as error:
            self.journal.say("warning", "network-overlap", f"{error}; this host goes on, and may not be reached at it")

    def _follow_addresses(self, underlay: Underlay | None) -> None:
        """Take the underlay's best address in place of one that is gone. While there is none, the old one stays in use."""
        if underlay is None:
            return
        for local in (self.settings.local_ipv4, self.settings.local_ipv6):
            if local in underlay.addresses:
                self._seen_locals.add(local)
            elif local is not None and local in self._seen_locals:
                successor = next((address for address in underlay.usable if address.version == local.version), None)
                if successor is not None:
                    self._seen_locals.add(successor)
                    self.settings = self.lease.settings = self.settings.moved_to(successor)
                    self._checked = self._made_of = None
                    text = f"address {local} of {underlay.link} is gone: {successor} takes its place, in the lease too"
                    self.journal.say("warning", "address-changed", text)

    def _look_at_own(self, now: float) -> None:
        if self.lease.own is not None and self.store.loaded:
            self.lease.look_at(self.store.lease_on(self.lease.own.subnets), now)

    def _renew_picture(self, config: NetworkConfig | None) -> None:
        """Compute the desired state anew if anything that it is made of has changed and the kernel is free to take it."""
        own, underlay = self.lease.own, self.kernel.underlay
        if config is None or own is None or not self.store.known or not self.kernel.looks:
            self.kernel.look(Scope(self.settings.underlay, ours=False))
            return
        if self.kernel.busy or underlay is None:
            return
        self._confirmed = self._confirmed or (self.store.loaded and self.lease.grant is not None)
        if not self._confirmed and not fits(self.store.claims or config, own.subnets):
            # The lease of an earlier run, which the configuration of now does not lease: there is nothing to go by yet.
            return
        made_of = (self.store.version, self._confirmed, config, own, underlay)
        if made_of == self._made_of:
            return
        changes = self.store.take_changes()
        only_leases = self._made_of is not None and made_of[2:] == self._made_of[2:]
        self._made_of = made_of
        if changes is not None and only_leases and self._revise(config, own, underlay, changes):
            self.kernel.vouch(complete=self._confirmed)
            return
        self._crowd = None
        accepted = accept_peers(config, own.subnets, self._own_addresses(underlay), self._others(own))
        try:
            state = desired(config, self.settings, own, accepted.peers, underlay)
        except ConfigError as error:
            self.journal.trouble("network-invalid", "desired", f"{error}; what the kernel holds is left as it is", level="error")
            return
        self._tell_refusals(accepted, state)
        self.peers, self.refused, self.state = {lease.subnets: lease for lease in accepted.peers}, accepted.refused, state
        sysctls = tuple(item.path for item in state.base if isinstance(item, Sysctl))
        # The routes of the last run lie in its networks, which may be others.
        networks = tuple(dict.fromkeys((*config.networks, *self._former_networks)))
        self.kernel.want(state, Scope(self.settings.underlay, networks, sysctls), complete=self._confirmed)

    def _revise(
        self, config: NetworkConfig, own: Lease, underlay: Underlay, changes: dict[Subnets, tuple[Lease | None, Lease | None]]
    ) -> bool:
        """Take over a few changed leases, if that is enough."""
        if self.state is not None and not changes:
            return True
        ours = (lease for pair in changes.values() for lease in pair if lease is not None and lease.owner == self.settings.host)
        if self.state is None or any(lease != own for lease in ours):
            return False
        if self._crowd is None:
            leases = {lease.subnets: lease for lease in self.store.leases}
            leases.update({subnets: before for subnets, (before, _) in changes.items() if before is not None})
            for subnets, (before, _) in changes.items():
                if before is None:
                    del leases[subnets]
            self._crowd = Crowd.of(leases.values())
        addresses = self._own_addresses(underlay)
        revision = revise(config, self.settings, own, addresses, underlay, self._crowd, self.peers, self.state, changes)
        if revision is None:
            return False
        self.kernel.revise(revision.gone, revision.come)
        return True

    def _others(self, own: Lease) -> tuple[Lease, ...]:
        """All leases but this host's further ones: one that it has just claimed may be seen before the claim's own answer."""
        host = self.settings.host
        return tuple(lease for lease in self.store.leases if lease.owner != host or lease.subnets == own.subnets)

    def _own_addresses(self, underlay: Underlay) -> tuple[Address, ...]:
        settings = self.settings
        given = (settings.public_ipv4, settings.public_ipv6, settings.local_ipv4, settings.local_ipv6)
        return (*(address for address in given if address is not None), *underlay.addresses)

    def _tell_refusals(self, accepted: AcceptedPeers, state: DesiredState) -> None:
        refusals = [(one.lease, one.why) for one in accepted.refused] + list(state.refused)
        said = {(str(lease.subnets), why) for lease, why in refusals}
        for name, why in sorted(said - self._refusals):
            self.journal.trouble("peer-refused", f"{name} {why}", f"peer {name} refused: {why}")
        for name, why in sorted(self._refusals - said):
            self.journal.over("peer-refused", f"{name} {why}", f"peer {name} is no longer refused")
        for warning in state.warnings:
            if self.state is None or warning not in self.state.warnings:
                self.journal.say("error", "backend", warning)
        self._refusals = said

    def _keep_pump(self, now: float) -> None:
        made, self.kernel.links_made = self.kernel.links_made, set()
        for name in made:
            self.pump.link_made(name)
        if self.state is None:
            return
        config = self.state.pump
        if config is None:
            self.pump.want(None, has_link=False)
            self.pump.step(now)
            return
        link_keys = [item.key for item in self.state.objects if getattr(item, "name", None) == config.link]
        link_keys += [item.key for item in self.state.objects if isinstance(item, LinkAddress) and item.link == config.link]
        self.pump.want(config, has_link=all(self.kernel.holds(key) for key in link_keys))
        self.pump.step(now)

    def _announce(self, config: NetworkConfig | None, now: float) -> None:
        """Publish subnet.env and readiness once both can be vouched for."""
        if config is None or self.state is None or self.lease.grant is None or not self.kernel.settled or self.kernel.programming:
            return
        if self.lease.expired(now) or (self.state.pump is not None and not self.pump.attempted):
            return
        env = self._subnet_env(config, self.lease.grant.lease.subnets, self.state)
        if env != self._published:
            self._published = env
            self.journal.act(PublishSubnetEnv(env))
        if not self.ready:
            self.ready = True
            self.journal.act(AnnounceReady())

    def _subnet_env(self, config: NetworkConfig, own: Subnets, state: DesiredState) -> SubnetEnv:
        v4, v6 = config.v4, config.v6
        return SubnetEnv(
            v4_network=v4.network if v4 is not None and v4.network.version == 4 else None,
            v4_subnet=own.v4 if v4 is not None else None,
            v6_network=v6.network if v6 is not None and v6.network.version == 6 else None,
            v6_subnet=own.v6 if v6 is not None else None,
            mtu=state.mtu,
            ip_masquerade=self.settings.ip_masquerade,
        )

    def _wind_up(self, request: StopRequested, now: float) -> None:
        """Give the lease back if asked to, stop the engine, and end when nothing is under way. The kernel's part stays."""
        self._keep(now)
        if request.release:
            self.lease.release()
        self.pump.stop()
        if not (self.lease.busy or self.pump.busy or self.kernel.busy):
            self._stopped = True
            self.journal.act(Stop())

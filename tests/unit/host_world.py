"""One host in virtual time: a reconciler, a kernel in memory and a small store, driven by hand or to rest.

The store here is a dictionary with a log: it answers at once, when it is reachable. No action is carried out before it is asked
for, so a test can stop between any two.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network

from overlaynet.errors import ConflictError, KernelError, LeaseLostError, StaleSnapshotError, StoreUnavailableError
from overlaynet.kernel.fake import FakeKernel
from overlaynet.model.addresses import Family, MacAddress, Vni
from overlaynet.model.host import HostSettings
from overlaynet.model.kept import Kept, decode_kept, encode_kept
from overlaynet.model.lease import Grant, HostId, Lease, LeaseAttributes, Subnets
from overlaynet.model.lease_text import VxlanData, encode_vxlan_data
from overlaynet.model.snapshot import Change, Changes, ConfigPut, LeaseGone, LeasePut, Snapshot
from overlaynet.reconcile.actions import (
    Action,
    AnnounceReady,
    ClaimSubnet,
    ConfigurePump,
    KeepSnapshot,
    LoadSnapshot,
    Observe,
    Program,
    PublishSubnetEnv,
    ReleaseLease,
    RenewLease,
    Report,
    Stop,
    UpdateLease,
    Watch,
)
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
    SnapshotLoaded,
    StoreChanged,
    StoreFailed,
    TimerFired,
)
from overlaynet.reconcile.reconciler import Reconciler

VXLAN = b'{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}'
HOST_GW = b'{"Network": "10.5.0.0/16", "Backend": {"Type": "host-gw"}}'
UDP = b'{"Network": "10.5.0.0/16", "Backend": {"Type": "udp"}}'
HOST = HostId("00000000000000000000000000000001")


def settings(**changes: object) -> HostSettings:
    one = IPv4Address("192.0.2.1")
    base = HostSettings(HOST, "eth0", one, None, one, None, ttl_s=60.0)
    return replace(base, **changes)  # type: ignore[arg-type]


def subnets(number: int) -> Subnets:
    return Subnets(IPv4Network(f"10.5.{number}.0/24"))


def peer(number: int, *, mac: int | None = None, address: str = "", backend: str = "vxlan", vni: int = 1) -> Lease:
    public = IPv4Address(address or f"192.0.2.{number}")
    station = MacAddress(bytes([2, 0, 0, 0, 0, number if mac is None else mac]))
    data = encode_vxlan_data(VxlanData(Vni(vni), station)) if backend == "vxlan" else None
    attributes = LeaseAttributes(public, None, "" if backend == "udp" else backend, data)
    return Lease(subnets(number), attributes, owner=HostId(f"{number:032x}"), created=number)


@dataclass
class SmallStore:
    """Leases, a configuration, the log of changes, subnets that are taken though no lease shows it, and claims to be refused."""

    config: bytes | None = VXLAN
    leases: dict[Subnets, Lease] = field(default_factory=dict)
    revision: int = 1
    reachable: bool = True
    hidden: set[Subnets] = field(default_factory=set)
    stale_claims: int = 0
    log: list[Changes] = field(default_factory=list)

    def commit(self, change: Change) -> None:
        self.revision += 1
        self.log.append(Changes(self.revision, (change,)))
        match change:
            case LeasePut(lease):
                self.leases[lease.subnets] = lease
            case LeaseGone(gone):
                self.leases.pop(gone, None)
            case ConfigPut(text):
                self.config = text

    def answer(self, action: ClaimSubnet | RenewLease | UpdateLease, host: HostId, now: float) -> Event:
        if not self.reachable:
            return LeaseRefused(StoreUnavailableError("small", "cut off"))
        if isinstance(action, ClaimSubnet):
            if self.stale_claims:
                self.stale_claims -= 1
                return LeaseRefused(StaleSnapshotError(str(action.subnets), "was given up"))
            if action.subnets in self.hidden:
                return LeaseRefused(ConflictError(str(action.subnets), "taken, unseen"))
            for lease in self.leases.values():
                if lease.owner != host and lease.subnets.overlaps(action.subnets):
                    return LeaseRefused(ConflictError(str(action.subnets), "taken"))
            for old in [
                lease.subnets for lease in self.leases.values() if lease.owner == host and lease.subnets != action.subnets
            ]:
                self.commit(LeaseGone(old))
            lease = Lease(action.subnets, action.attributes, host, created=1_000)
            self.commit(LeasePut(lease))
            return LeaseGranted(Grant(lease, action.ttl_s, 1), now)
        there = self.leases.get(action.grant.lease.subnets)
        if there is None or there.owner != host:
            return LeaseRefused(LeaseLostError(str(action.grant.lease.subnets), "gone"))
        if isinstance(action, UpdateLease):
            there = there.with_attributes(action.attributes)
            self.commit(LeasePut(there))
        return LeaseGranted(Grant(there, 60.0, 1), now)


class World:
    """A host with its kernel and its store."""

    def __init__(self, config: bytes | None = VXLAN, *peers: Lease, host: HostSettings | None = None) -> None:
        self.host = host or settings()
        self.store = SmallStore(config, {lease.subnets: lease for lease in peers})
        self.kernel = FakeKernel()
        self.kernel.add_underlay("eth0", [(IPv4Address("192.0.2.1"), 24)])
        self.now = 1_000.0
        self.pump_trouble: str | None = None
        self.kept: Kept | None = None
        self.restart()

    def restart(self) -> None:
        """A new process: everything in memory is gone, and what was under way with it."""
        self.reconciler = Reconciler(self.host)
        self.pending: list[Action] = []
        self.done: list[Action] = []
        self.watching: int | None = None
        if self.kept is not None:
            self.tell(KeptRead(self.kept))
        self.tell(TimerFired())

    def tell(self, event: Event) -> None:
        self.reconciler.handle(event, self.now)
        self.pending += self.reconciler.take_actions()

    def carry_out(self, position: int = 0) -> None:
        """Carry one pending action out and tell its answer."""
        action = self.pending.pop(position)
        self.done.append(action)
        match action:
            case LoadSnapshot():
                self.watching = None
                self.tell(self._load())
            case Watch(after):
                if self.store.reachable:
                    self.watching = after
                else:
                    self.tell(StoreFailed(StoreUnavailableError("small", "cut off")))
            case ClaimSubnet() | RenewLease() | UpdateLease():
                self.tell(self.store.answer(action, self.host.host, self.now))
            case ReleaseLease(grant):
                if self.store.leases.get(grant.lease.subnets) == grant.lease:
                    self.store.commit(LeaseGone(grant.lease.subnets))
                self.tell(LeaseReleased())
            case Observe(scope):
                try:
                    self.tell(KernelObserved(asyncio.run(self.kernel.observe(scope))))
                except KernelError as error:
                    self.tell(ObservationFailed(error))
            case Program(operations):
                results = asyncio.run(self.kernel.perform(operations))
                self.tell(Programmed(tuple(zip(operations, results, strict=True))))
            case ConfigurePump():
                self.tell(PumpConfigured(self.pump_trouble))
            case KeepSnapshot(kept):
                self.kept = decode_kept(encode_kept(kept))
                assert self.kept == kept
            case PublishSubnetEnv() | AnnounceReady() | Report() | Stop():
                pass

    def _load(self) -> Event:
        if not self.store.reachable:
            return StoreFailed(StoreUnavailableError("small", "cut off"))
        return SnapshotLoaded(Snapshot(self.store.revision, self.store.config, tuple(self.store.leases.values())))

    def deliver(self) -> None:
        """Tell the watch what it has missed."""
        if self.watching is None:
            return
        for changes in [one for one in self.store.log if one.revision > self.watching]:
            self.watching = changes.revision
            self.tell(StoreChanged(changes))

    def cut(self) -> None:
        """The store is out of reach; a watch ends."""
        self.store.reachable = False
        if self.watching is not None:
            self.watching = None
            self.tell(StoreFailed(StoreUnavailableError("small", "cut off")))

    def settle(self, seconds: float = 0.0) -> None:
        """Carry out all there is, let `seconds` pass, timers included."""
        until = self.now + seconds
        for _ in range(20_000):
            if self.pending:
                self.carry_out()
                continue
            before = len(self.done)
            self.deliver()
            if self.pending or len(self.done) != before:
                continue
            due = self.reconciler.next_deadline()
            if due is None or due > until:
                self.now = until
                return
            self.now = max(self.now, due)
            self.tell(TimerFired())
        raise AssertionError(f"no rest: {self.done[-6:]}")

    def change(self, change: Change) -> None:
        self.store.commit(change)

    def disturbed(self) -> None:
        """Tell that the kernel was changed by another hand."""
        self.tell(KernelChanged())

    def text(self) -> str:
        return self.kernel.text()

    def reports(self, topic: str) -> list[str]:
        return [action.text for action in self.done if isinstance(action, Report) and action.topic == topic]

    def operations(self) -> int:
        return sum(len(action.operations) for action in self.done if isinstance(action, Program))

    def states(self) -> dict[str, str]:
        return {item.subnets: item.state for item in self.reconciler.status(self.now).peers}

    @property
    def own(self) -> str:
        lease = self.reconciler.status(self.now).lease
        assert lease is not None
        return lease.subnets

    def warnings(self) -> tuple[str, ...]:
        return self.reconciler.status(self.now).warnings

    @property
    def ready(self) -> bool:
        return any(isinstance(action, AnnounceReady) for action in self.done)


__all__ = ["HOST", "HOST_GW", "UDP", "VXLAN", "Family", "World", "peer", "settings", "subnets"]

"""Following the store: load, watch, and after any failure load again; the leases as last seen, and the configuration.

What was seen stays true for this host while the store does not answer: an unreachable or unconfigured store is never an empty
one. A load is issued only while no watch is under way, so a failure always has one meaning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from overlaynet.errors import ConfigError, HistoryGoneError, NetworkNotConfiguredError, StoreError
from overlaynet.model.lease import HostId, Lease, Subnets
from overlaynet.model.network import FamilyConfig, NetworkConfig, parse_network
from overlaynet.model.snapshot import Changes, ConfigPut, LeaseGone, LeasePut, Snapshot, Unreadable
from overlaynet.reconcile.actions import LoadSnapshot, Watch
from overlaynet.reconcile.backoff import Backoff
from overlaynet.reconcile.journal import Journal

_STEADY_S = 5.0
"""A watch that lasted so long was a success: the next failure starts the waits anew."""


@dataclass(slots=True)
class StoreFollower:
    """The store as last seen. `config` is the one that this host runs by; `claims` the one by which it chooses subnets."""

    journal: Journal
    backoff: Backoff
    config: NetworkConfig | None = None
    claims: NetworkConfig | None = None
    revision: int = 0
    loaded: bool = False
    error: str = ""
    lost_since: float | None = None
    restart_needed: str = ""
    _text: bytes | None = None
    _leases: dict[Subnets, Lease] | None = None
    _unreadable: dict[str, str] | None = None
    _load_at: float | None = 0.0
    _busy: bool = False
    _watching_since: float | None = None
    _failures: int = 0

    @property
    def leases(self) -> tuple[Lease, ...]:
        """Every lease, ours included."""
        return tuple((self._leases or {}).values())

    @property
    def unreadable(self) -> int:
        """How many places in the store hold something that is no lease."""
        return len(self._unreadable or {})

    @property
    def snapshot(self) -> Snapshot:
        """What was seen, as a snapshot at the last revision."""
        return Snapshot(self.revision, self._text, self.leases)

    @property
    def deadline(self) -> float | None:
        """When to look again."""
        return None if self._busy else self._load_at

    def lease_on(self, subnets: Subnets) -> Lease | None:
        """The lease on exactly these subnets."""
        return (self._leases or {}).get(subnets)

    def forget(self, subnets: Subnets, owner: HostId) -> None:
        """Take for gone the lease on `subnets` if it is `owner`'s: the store has just said so, before the watch did."""
        lease = self.lease_on(subnets)
        if lease is not None and lease.owner == owner and self._leases is not None:
            del self._leases[subnets]

    def step(self, now: float) -> None:
        """Load, if it is time."""
        if not self._busy and self._load_at is not None and now >= self._load_at:
            self._busy, self._load_at = True, None
            self.journal.act(LoadSnapshot())

    def loaded_snapshot(self, snapshot: Snapshot, now: float) -> None:
        """Take over a whole snapshot, unless it lacks a configuration where there was one; then follow from its revision."""
        self.error, self.lost_since = "", None
        self.journal.over("store", "store", "the store answers again")
        self._watching_since = now
        self.journal.act(Watch(snapshot.revision))
        self.revision = snapshot.revision
        self._take_config(snapshot.config)
        if snapshot.config is None and self.config is not None:
            return
        self._leases = {lease.subnets: lease for lease in snapshot.leases}
        self._unreadable = {}
        for item in snapshot.unreadable:
            self._note_unreadable(item)
        self.loaded = True

    def changed(self, changes: Changes) -> set[Subnets]:
        """Apply the watch's changes; the subnets whose lease is another now."""
        if changes.revision <= self.revision and self.revision:
            return set()
        self.revision = changes.revision
        touched: set[Subnets] = set()
        leases = self._leases if self._leases is not None else {}
        self._leases = leases
        for change in changes.changes:
            match change:
                case LeasePut(lease):
                    if leases.get(lease.subnets) != lease:
                        leases[lease.subnets] = lease
                        touched.add(lease.subnets)
                    self._forget_unreadable(str(lease.subnets))
                case LeaseGone(subnets):
                    if leases.pop(subnets, None) is not None:
                        touched.add(subnets)
                    self._forget_unreadable(str(subnets))
                case ConfigPut(text):
                    self._take_config(text)
                case Unreadable():
                    self._note_unreadable(change)
        return touched

    def failed(self, error: StoreError, now: float) -> None:
        """Load again: at once where only history is missing, else after a growing wait."""
        if self._watching_since is not None and now - self._watching_since > _STEADY_S:
            self._failures = 0
        self._busy, self._watching_since = False, None
        self._failures += 1
        if isinstance(error, HistoryGoneError):
            self._load_at = now if self._failures == 1 else now + self.backoff.delay_s(self._failures - 1)
            self.journal.say("info", "store-history", f"{error}")
            return
        self._load_at = now + self.backoff.delay_s(self._failures)
        topic = "network-missing" if isinstance(error, NetworkNotConfiguredError) else "store"
        self.journal.trouble(topic, "store", f"{error}: what is known stays; trying again")
        self.error = str(error)
        if self.lost_since is None:
            self.lost_since = now

    def _note_unreadable(self, item: Unreadable) -> None:
        if self._unreadable is None:
            self._unreadable = {}
        self._unreadable[item.key] = item.why
        self.journal.trouble("lease-unreadable", item.key, f"{item.key}: skipped: {item.why}")

    def _forget_unreadable(self, name: str) -> None:
        for key in [key for key in self._unreadable or () if key == name or key.endswith("/" + name)]:
            (self._unreadable or {}).pop(key, None)

    def _take_config(self, text: bytes | None) -> None:
        if text is None:
            self.journal.trouble(
                "network-missing",
                "config",
                "the store holds no network configuration: `overlaynet network set FILE` creates one; "
                + ("waiting" if self.config is None else "the last one stays in force"),
            )
            return
        if text == self._text:
            return
        self._text = text
        try:
            config, warnings = parse_network(text)
        except ConfigError as error:
            stays = "waiting for a valid one" if self.config is None else "the last valid one stays in force"
            self.journal.say("error", "network-invalid", f"network configuration: {error}; {stays}")
            return
        self.journal.over("network-missing", "config", "the network is configured")
        self.journal.over("network-missing", "store", "the network is configured")
        for warning in warnings:
            self.journal.say("warning", "network-warning", f"network configuration: {warning}")
        if self.config is None:
            self.config = self.claims = config
        elif _lasting(config) == _lasting(self.config):
            self.claims, self.restart_needed = config, ""
        else:
            self.restart_needed = "the network's configuration has changed: restart needed to apply it"
            self.journal.say("warning", "restart-needed", self.restart_needed)

    def reject_config(self) -> None:
        """Go back to waiting for a configuration: the one that was read cannot be used on this host."""
        self.config = self.claims = None


def _lasting(config: NetworkConfig) -> NetworkConfig:
    """`config` without what counts only when a subnet is chosen."""

    def plain(half: FamilyConfig | None) -> FamilyConfig | None:
        if half is None:
            return None
        return replace(half, subnet_len=0, subnet_min=half.network.network_address, subnet_max=half.network.network_address)

    return replace(config, v4=plain(config.v4), v6=plain(config.v6))

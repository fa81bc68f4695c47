"""Following the store: load, watch, and after any failure load again; the leases as last seen, and the configuration.

What was seen stays true for this host while the store does not answer: an unreachable or unconfigured store is never an empty
one. That holds from one run to the next, by the snapshot that the host kept. A store whose revision went back, or that says that
its past is another, was restored or replaced by an older copy: peers that it lacks are kept for a grace time, in which they come
back by themselves if they live.

So there is no haste. Where all hosts may turn to the store at once, since they lost it together or were switched on together,
each waits for a turn of its own. N hosts that load N leases read N x N; the turns are spread over so long that all of them read
`LEASES_READ_PER_S`, however many they are: milliseconds for 100 hosts, half a second for 1,000, 12 s for 5,000.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from overlaynet.errors import ConfigError, HistoryGoneError, NetworkNotConfiguredError, StoreError
from overlaynet.model.addresses import Family, Prefix
from overlaynet.model.kept import Kept
from overlaynet.model.lease import HostId, Lease, Subnets
from overlaynet.model.network import NetworkConfig, parse_network
from overlaynet.model.snapshot import Changes, ConfigPut, LeaseGone, LeasePut, Snapshot, Unreadable, UnreadableGone
from overlaynet.reconcile.actions import LoadSnapshot, Watch
from overlaynet.reconcile.backoff import Backoff
from overlaynet.reconcile.journal import Journal

GRACE_S = 600.0
"""How long peers are kept that a store which went back lacks: every living host publishes its lease again long before."""

LEASES_READ_PER_S = 2_000_000.0
"""What a whole network asks of its store at once: some 400 MB a second, near what a store has in processors and network."""

BOOTED_S = 300.0
"""A host that is up for less than this was switched on, perhaps with all others."""

_STEADY_S = 5.0
"""A watch that lasted so long was a success: the next failure starts the waits anew."""

_NAMED = 10


@dataclass(slots=True)
class StoreFollower:
    """The store as last seen. `config` is the one that this host runs by; `claims` the one by which it chooses subnets.

    `known`: there are leases to go by, from this run (`loaded`) or from the last. `configured`: the store itself holds a
    configuration now. `invalid` says why the one that it holds is not used, while it is not. `version` grows whenever the leases
    change. `leases_read_per_s` is the network's, not the host's.
    """

    journal: Journal
    backoff: Backoff
    store: str
    host: HostId
    config: NetworkConfig | None = None
    claims: NetworkConfig | None = None
    text: bytes = b""
    revision: int = 0
    known: bool = False
    loaded: bool = False
    configured: bool = False
    version: int = 0
    error: str = ""
    lost_since: float | None = None
    restart_needed: str = ""
    invalid: str = ""
    leases_read_per_s: float = LEASES_READ_PER_S
    _good: tuple[NetworkConfig, bytes] | None = None
    _seen_text: bytes | None = None
    _leases: dict[Subnets, Lease] = field(default_factory=dict)
    _touched: dict[Subnets, Lease | None] | None = None
    _graced: dict[Subnets, Lease] = field(default_factory=dict)
    _grace_ends_at: float | None = None
    _newest: int = 0
    _replaced: bool = False
    _unreadable: dict[str, str] = field(default_factory=dict)
    _load_at: float | None = 0.0
    _busy: bool = False
    _watching_since: float | None = None
    _failures: int = 0

    @property
    def leases(self) -> tuple[Lease, ...]:
        """Every lease, ours included, and those that are kept though the store lacks them."""
        return (*self._leases.values(), *self._graced.values())

    @property
    def unreadable(self) -> int:
        """How many places in the store hold something that is no lease."""
        return len(self._unreadable)

    @property
    def graced(self) -> tuple[str, ...]:
        """The subnets of the peers that are kept for a grace time."""
        return tuple(str(subnets) for subnets in self._graced)

    @property
    def snapshot(self) -> Snapshot:
        """What a claim goes by: the leases, kept ones included, at the revision last seen."""
        return Snapshot(self.revision, self._seen_text, self.leases)

    @property
    def deadline(self) -> float | None:
        """When to look again."""
        moments = [self._grace_ends_at, None if self._busy else self._load_at]
        return min((moment for moment in moments if moment is not None), default=None)

    def take_changes(self) -> dict[Subnets, tuple[Lease | None, Lease | None]] | None:
        """What has become of leases since the last call, as pairs of before and now; None: it may be anything."""
        touched, self._touched = self._touched, {}
        if touched is None or self._graced:
            return None
        now = {subnets: self._leases.get(subnets) for subnets in touched}
        return {subnets: (before, now[subnets]) for subnets, before in touched.items() if before is not now[subnets]}

    @property
    def size(self) -> int:
        """How many hosts there are, as far as is known."""
        return len(self._leases) + len(self._graced)

    def _turn_s(self, attempt: int) -> float:
        """How long this host waits for its turn to load, where all may want to."""
        return self.backoff.share(attempt) * self.size**2 / self.leases_read_per_s

    def restore(self, kept: Kept, now: float) -> None:
        """Begin with what an earlier run kept. ConfigError: its configuration is not valid."""
        config, _ = parse_network(kept.config)
        self._good = config, kept.config
        self._go_by(*self._good)
        self._newest = kept.revision
        self._leases, self._touched = {lease.subnets: lease for lease in kept.leases}, None
        self.known = True
        self.version += 1
        if now < BOOTED_S:
            self._load_at = now + self._turn_s(0)

    def keep(self, own: Lease, networks: tuple[Prefix, ...]) -> Kept:
        """What the next run should begin with; `networks` are those of earlier runs in which something may be left."""
        return Kept(self.store, self.text, self._newest, own, self.leases, networks)

    def lease_on(self, subnets: Subnets) -> Lease | None:
        """The lease on exactly these subnets."""
        return self._leases.get(subnets)

    def forget(self, subnets: Subnets, owner: HostId) -> None:
        """Take for gone the lease on `subnets` if it is `owner`'s: the store has just said so, before the watch did."""
        lease = self.lease_on(subnets)
        if lease is not None and lease.owner == owner:
            del self._leases[subnets]
            self._touched = None
            self.version += 1

    def step(self, now: float) -> None:
        """Load, and end a grace time, if it is time."""
        if self._grace_ends_at is not None and now >= self._grace_ends_at:
            self.journal.say("warning", "store-went-back", f"no longer kept: {_names(self._graced)}: not heard of again")
            self._end_grace()
        if not self._busy and self._load_at is not None and now >= self._load_at:
            self._busy, self._load_at = True, None
            self.journal.act(LoadSnapshot())

    def loaded_snapshot(self, snapshot: Snapshot, now: float) -> None:
        """Take over a whole snapshot, unless it lacks a configuration where there was one; then follow from its revision."""
        if snapshot.config is None and self.config is not None:
            self._unconfigured(now)
            return
        self.error, self.lost_since = "", None
        self.journal.over("store", "store", "the store answers again")
        self._watching_since = now
        self.journal.act(Watch(snapshot.revision))
        leases = {lease.subnets: lease for lease in snapshot.leases}
        if self._replaced or snapshot.revision < self._newest:
            self._begin_grace(leases, snapshot.revision, now)
            self._replaced = False
        self._note_differences(leases)
        self._leases, self.revision = leases, snapshot.revision
        self._take_config(snapshot.config)
        self._unreadable = {}
        for item in snapshot.unreadable:
            self._note_unreadable(item)
        self.loaded = self.known = True
        self._settle_revision()

    def changed(self, changes: Changes, now: float) -> set[Subnets]:
        """Apply the watch's changes; the subnets whose lease is another now.

        A configuration that is deleted takes no lease along: what the same and later changes do to leases counts only once there
        is a configuration again, by a whole snapshot.
        """
        if changes.revision < self.revision:
            return set()
        texts = [change.config for change in changes.changes if isinstance(change, ConfigPut)]
        if texts and texts[-1] is None and self.config is not None:
            self._unconfigured(now)
        if self.config is not None and not self.configured:
            return set()
        # Only now: a claim rests on the leases up to this revision, so they must have been taken in.
        self.revision = changes.revision
        touched: set[Subnets] = set()
        for change in changes.changes:
            match change:
                case LeasePut(lease):
                    before = self._leases.get(lease.subnets)
                    if before != lease:
                        self._note_before(lease.subnets, before)
                        self._leases[lease.subnets] = lease
                        touched.add(lease.subnets)
                    self._forget_unreadable(str(lease.subnets))
                case LeaseGone(subnets):
                    before = self._leases.pop(subnets, None)
                    if before is not None:
                        self._note_before(subnets, before)
                        touched.add(subnets)
                    self._forget_unreadable(str(subnets))
                case ConfigPut(text):
                    self._take_config(text)
                case Unreadable():
                    self._note_unreadable(change)
                case UnreadableGone(key):
                    self._forget_unreadable(key)
        self._settle_revision()
        return touched

    def _note_differences(self, leases: dict[Subnets, Lease]) -> None:
        """Note what is other in a whole snapshot; a lease that is the same stays the very value that others know."""
        for subnets, before in self._leases.items():
            after = leases.get(subnets)
            if after == before:
                leases[subnets] = before
            else:
                self._note_before(subnets, before)
        for subnets in leases:
            if subnets not in self._leases:
                self._note_before(subnets, None)

    def _note_before(self, subnets: Subnets, before: Lease | None) -> None:
        if self._touched is not None:
            self._touched.setdefault(subnets, before)

    def failed(self, error: StoreError, now: float) -> None:
        """Load again in this host's turn: the first where only history is missing, else after a growing wait."""
        if self._watching_since is not None and now - self._watching_since > _STEADY_S:
            self._failures = 0
        self._busy, self._watching_since = False, None
        self._failures += 1
        turn_s = self._turn_s(self._failures)
        if isinstance(error, HistoryGoneError):
            self._replaced = self._replaced or error.replaced
            self._load_at = now + turn_s + (0.0 if self._failures == 1 else self.backoff.delay_s(self._failures - 1))
            self.journal.say("info", "store-history", f"{error}")
            return
        self._load_at = now + turn_s + self.backoff.delay_s(self._failures)
        topic = "network-missing" if isinstance(error, NetworkNotConfiguredError) else "store"
        self.journal.trouble(topic, "store", f"{error}: what is known stays; trying again")
        self.error = str(error)
        if self.lost_since is None:
            self.lost_since = now

    def _unconfigured(self, now: float) -> None:
        """The configuration is gone from the store: until it is there again, the store counts as out of reach."""
        self.configured, self.invalid, self._seen_text = False, "", None
        self.failed(NetworkNotConfiguredError(self.store), now)

    def _begin_grace(self, leases: dict[Subnets, Lease], revision: int, now: float) -> None:
        """Keep what `leases`, from a store that went back, lacks."""
        known = self._leases | self._graced
        missing = {subnets: lease for subnets, lease in known.items() if subnets not in leases and lease.owner != self.host}
        self._graced, self._grace_ends_at = missing, now + GRACE_S
        named = f"kept for {GRACE_S:.0f} s: {_names(missing)}" if missing else "no peer is missing from it"
        what = f"went back from revision {self._newest} to {revision}" if revision < self._newest else "has another past"
        self.journal.say("error", "store-went-back", f"the store {what} (restored?); {named}")

    def _settle_revision(self) -> None:
        """Let go of kept peers that are heard of again, or whose place is taken; know the newest revision."""
        self.version += 1
        if self._graced:
            self._touched = None
            owners = {lease.owner for lease in self._leases.values() if lease.owner is not None}
            self._graced = {
                subnets: lease
                for subnets, lease in self._graced.items()
                if lease.owner not in owners and not any(subnets.overlaps(other) for other in self._leases)
            }
        if self._graced:
            self._newest = max(self._newest, self.revision)
        else:
            self._newest, self._grace_ends_at = self.revision, None

    def _end_grace(self) -> None:
        self._graced, self._touched = {}, None
        self._settle_revision()

    def _note_unreadable(self, item: Unreadable) -> None:
        self._unreadable[item.key] = item.why
        self.journal.trouble("lease-unreadable", item.key, f"{item.key}: skipped: {item.why}")

    def _forget_unreadable(self, name: str) -> None:
        for key in [key for key in self._unreadable if key == name or key.endswith("/" + name)]:
            self._unreadable.pop(key, None)

    def _take_config(self, text: bytes | None) -> None:
        if text is None:
            self.configured, self.invalid = False, ""
            self.journal.trouble(
                "network-missing",
                "config",
                f"{NetworkNotConfiguredError(self.store)}; waiting",
            )
            return
        self.configured = True
        if text == self._seen_text:
            return
        self._seen_text = text
        try:
            config, warnings = parse_network(text)
        except ConfigError as error:
            stays = "waiting for a valid one" if self.config is None else "the last valid one stays in force"
            self.invalid = f"network configuration: {error}; {stays}"
            self.journal.say("error", "network-invalid", self.invalid)
            return
        self.invalid = ""
        self.journal.over("network-missing", "config", "the network is configured")
        self.journal.over("network-missing", "store", "the network is configured")
        for warning in warnings:
            self.journal.say("warning", "network-warning", f"network configuration: {warning}")
        if self.config is None or not self.loaded:
            self._go_by(config, text)
        elif not (changed := _changed(self.config, config)):
            self.claims, self.text, self.restart_needed = config, text, ""
        else:
            self.restart_needed = f"the network's configuration has changed ({', '.join(changed)}): restart needed to apply it"
            self.journal.say("warning", "restart-needed", self.restart_needed)

    def _go_by(self, config: NetworkConfig, text: bytes) -> None:
        self.config = self.claims = config
        self.text = text

    def reject_config(self, why: str) -> str:
        """Go back to the last run's configuration, or to waiting for one: that of now cannot be used on this host.

        `why` with what is done about it.
        """
        good, self._good = self._good, None
        if good is None or good[0] == self.config:
            self.config = self.claims = None
            self.invalid = f"{why}; waiting for another"
        else:
            self._go_by(*good)
            self.invalid = f"{why}; the last valid one stays in force"
        return self.invalid


def _changed(before: NetworkConfig, after: NetworkConfig) -> list[str]:
    """The fields of a configuration that are other than before and count only from the next start."""
    found = []
    for family, network in ((Family.IPV4, "Network"), (Family.IPV6, "IPv6Network")):
        old, new = before.of(family), after.of(family)
        if (old is None) != (new is None):
            found.append(f"EnableIPv{family.value}")
        elif old is not None and new is not None and old.network != new.network:
            found.append(network)
    if before.enable_nftables != after.enable_nftables:
        found.append("EnableNFTables")
    if before.backend != after.backend:
        found.append("Backend")
    return found


def _names(leases: dict[Subnets, Lease]) -> str:
    """Peers for a message; the first few, if they are many."""
    shown = ", ".join(f"{subnets} at {_address(lease)}" for subnets, lease in list(leases.items())[:_NAMED])
    return shown if len(leases) <= _NAMED else f"{shown} and {len(leases) - _NAMED} more"


def _address(lease: Lease) -> str:
    return str(lease.attributes.public_ipv4 or lease.attributes.public_ipv6)

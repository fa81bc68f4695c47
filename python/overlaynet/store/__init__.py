"""Where leases are kept: the `Store` protocol, its values, and the way from a URL to a store.

A store says which leases exist and answers yes or no to a claim; which subnet to claim is chosen elsewhere
(`reconcile/allocate.py`). At every revision no two leases overlap. What a store cannot do is said by its `traits`, never by an
exception.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from overlaynet.model.lease import Grant, HostId, Lease, LeaseAttributes, Subnets
from overlaynet.model.snapshot import Changes, Snapshot, StoreTraits

__all__ = ["AdministeredStore", "Store", "StoreAdmin"]


class Store(Protocol):
    """What a daemon may do with its network's leases. Every call raises StoreUnavailableError when the store does not answer."""

    @property
    def traits(self) -> StoreTraits:
        """What this store can and cannot do."""

    async def load(self) -> Snapshot:
        """The network's configuration and every lease, at one revision."""

    def watch(self, after: int) -> AsyncIterator[Changes]:
        """Every change after revision `after`, in order; an expiry is a change.

        Never ends by itself. HistoryGoneError: changes after `after` are no longer kept, load again.
        """

    async def claim(
        self,
        host: HostId,
        subnets: Subnets,
        attributes: LeaseAttributes,
        *,
        ttl_s: float,
        seen: Snapshot,
        features: Sequence[str] = (),
        takes_over: Lease | None = None,
    ) -> Grant:
        """The lease on `subnets`, created if no lease overlaps them.

        `takes_over` is a lease on exactly these subnets, as seen in `seen`, that is this host's to take: its own from an earlier
        run, or one without owner that carries this host's public address. A reservation stays one. ConflictError: something
        overlaps, `takes_over` has changed since, or the subnets were revoked from this host (see `revoke`). A claim that is sent
        again after its answer was lost gives the same lease.
        """

    async def renew(self, grant: Grant) -> Grant:
        """`grant` for a further full TTL from now. LeaseLostError: it is gone or another's."""

    async def update(self, grant: Grant, attributes: LeaseAttributes) -> Grant:
        """`grant` with other attributes and the same end. LeaseLostError: it is gone or another's."""

    async def release(self, grant: Grant) -> None:
        """Give the lease back. No error if it is gone already or another's; nothing of another's is touched.

        A reservation stays, without owner.
        """

    async def aclose(self) -> None:
        """End watches and let go of files and connections."""


class StoreAdmin(Protocol):
    """What an operator may do; a daemon never holds this."""

    async def put_config(self, text: bytes) -> None:
        """Replace the network's configuration. The caller has validated it."""

    async def reserve(self, subnets: Subnets, attributes: LeaseAttributes) -> Lease:
        """Keep `subnets` for the host with these public addresses, without end. ConflictError: something overlaps."""

    async def revoke(self, subnets: Subnets, *, bar: bool = True) -> Lease:
        """Remove the lease or reservation on exactly `subnets`, whoever holds it. ConflictError: there is none.

        With `bar` its holder, if it had one, cannot claim them again for the TTL of that lease, and so takes others; a
        reservation ends that. Without, a holder that lives comes back to them.
        """

    async def remaining(self, leases: Sequence[Lease]) -> list[float | None]:
        """For each lease the seconds until it ends, or None for one that does not end."""


class AdministeredStore(Store, StoreAdmin, Protocol):
    """Both sides of a store, as operators' commands and tests use it."""

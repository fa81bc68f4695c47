"""What makes a claim right, for the stores that check it themselves."""

from __future__ import annotations

from collections.abc import Iterable

from overlaynet.errors import AddressInUseError, ConflictError
from overlaynet.model.addresses import Family
from overlaynet.model.lease import HostId, Lease, LeaseAttributes, Subnets


def barred(subnets: Subnets) -> ConflictError:
    """Why a host does not come back to subnets that were revoked from it."""
    return ConflictError(f"subnet {subnets}", "was revoked from this host by an administrator")


def may_take(there: Lease, host: HostId, takes_over: Lease | None) -> bool:
    """Whether `host` may have the lease `there`: it is its own, or the anonymous one that it saw, unchanged."""
    if there.owner == host:
        return True
    return there.owner is None and takes_over is not None and takes_over.attributes == there.attributes


def check_free(host: HostId | None, subnets: Subnets, attributes: LeaseAttributes, leases: Iterable[Lease]) -> None:
    """ConflictError: another's lease overlaps `subnets`. AddressInUseError: one of another owner has our public address."""
    addresses = [(family, address) for family in Family if (address := attributes.public(family)) is not None]
    for lease in leases:
        if lease.subnets.overlaps(subnets) and (host is None or (lease.owner != host and lease.subnets != subnets)):
            raise ConflictError(f"subnet {subnets}", f"overlaps the lease {lease.subnets}")
        if host is not None and lease.owner is not None and lease.owner != host:
            for family, address in addresses:
                if lease.attributes.public(family) == address:
                    raise AddressInUseError(str(address), str(lease.subnets), lease.owner)

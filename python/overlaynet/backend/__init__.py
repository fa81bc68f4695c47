"""Backends: from leases to the complete picture of what a host's kernel and packet engine should hold.

`desired` gives that picture, `attributes` what the host publishes with its lease. Both are pure: the same values in, the same
values out, with no look at the kernel, the store or a clock. IPv4 and IPv6 are values; no backend has a code path for one of
them alone, unless its packets have one.
"""

from __future__ import annotations

from overlaynet.backend.dispatch import attributes, backend_for, desired, features, for_host, link_names
from overlaynet.backend.plan import Backend, DesiredState, PeerPlan, Refused

__all__ = [
    "Backend",
    "DesiredState",
    "PeerPlan",
    "Refused",
    "attributes",
    "backend_for",
    "desired",
    "features",
    "for_host",
    "link_names",
]

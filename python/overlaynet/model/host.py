"""What is settled about this host before anything else starts."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from overlaynet.model.lease import HostId, Subnets


@dataclass(frozen=True, slots=True)
class HostSettings:
    """This host, as its flags and its state directory describe it.

    `underlay` names the link that carries encapsulated packets; `local_ipv4` and `local_ipv6` are its own addresses, the outer
    sources; `public_ipv4` and `public_ipv6` are published to peers and differ from them behind address translation. `previous`
    is the subnet of an earlier run (subnet.env). `renew_margin_s` None means: the smaller of an hour and two thirds of the TTL.
    `vxlan_mode` overrides the network's.
    `store` is the store's URL without secrets. `next_hops` says that the kernel knows next-hop objects and may use them.
    """

    host: HostId
    underlay: str
    public_ipv4: IPv4Address | None
    public_ipv6: IPv6Address | None
    local_ipv4: IPv4Address | None
    local_ipv6: IPv6Address | None
    ttl_s: float = 86_400.0
    renew_margin_s: float | None = None
    previous: Subnets | None = None
    enable_forwarding: bool = True
    ip_masquerade: bool = False
    vxlan_mode: Literal["kernel", "user"] | None = None
    store: str = ""
    next_hops: bool = False

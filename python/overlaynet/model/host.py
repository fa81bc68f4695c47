"""What is settled about this host before anything else starts; of it only the addresses may change later."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from overlaynet.model.addresses import Address
from overlaynet.model.lease import HostId, Subnets


@dataclass(frozen=True, slots=True)
class HostSettings:
    """This host, as its flags and its state directory describe it.

    `underlay` names the link that carries encapsulated packets; `local_ipv4` and `local_ipv6` are its own addresses, the outer
    sources; `public_ipv4` and `public_ipv6` are published to peers and differ from them behind address translation. `previous`
    is the subnet of an earlier run (subnet.env). `renew_margin_s` None means: the smaller of an hour and two thirds of the TTL.
    `vxlan_mode` overrides the network's, `vxlan_tap` asks for a TAP device beside the packet engine's TUN.
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
    vxlan_tap: bool = False
    store: str = ""
    next_hops: bool = False

    def moved_to(self, address: Address) -> HostSettings:
        """The same host with `address` for its local one of that family, and for its public one where the two were the same."""
        if isinstance(address, IPv4Address):
            public_ipv4 = address if self.public_ipv4 == self.local_ipv4 else self.public_ipv4
            return replace(self, local_ipv4=address, public_ipv4=public_ipv4)
        public_ipv6 = address if self.public_ipv6 == self.local_ipv6 else self.public_ipv6
        return replace(self, local_ipv6=address, public_ipv6=public_ipv6)

"""vxlan: Ethernet frames in UDP by the kernel's VXLAN device (RFC 7348), one device for each family of the overlay.

A peer needs three entries, flannel's: a route to its subnet through the subnet's own base address, the link-layer address of
that address (the peer's device), and the underlay address to which frames for that link-layer address go. Nothing is flooded.
Where the kernel knows next hops, the gateway is one of these, and the route points to it: a fourth entry, and no search.
With DirectRouting a peer that is a neighbour on the underlay gets one plain route in their place.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

from overlaynet.backend.host import host_objects, local_address, own_subnet, public_address, route_metric
from overlaynet.backend.plan import Base, Outcome, PeerPlan, Place, Refused
from overlaynet.errors import ConfigError, StoreDataError
from overlaynet.model.addresses import Address, Family, MacAddress, Mtu, Prefix, Vni
from overlaynet.model.dataplane import PumpConfig
from overlaynet.model.kernel import (
    NEXT_HOP_IDS,
    FdbEntry,
    KernelObject,
    LinkAddress,
    Neighbour,
    NextHop,
    Route,
    Sysctl,
    Underlay,
    VxlanLink,
)
from overlaynet.model.lease import HostId, Lease, LeaseAttributes
from overlaynet.model.lease_text import VxlanData, decode_vxlan_data, encode_vxlan_data
from overlaynet.model.network import FamilyConfig, VxlanOptions

_INNER_BYTES = 8 + 8 + 14
"""What stands between the outer and the inner IP header: UDP (RFC 768), VXLAN (RFC 7348 section 5) and Ethernet headers."""


_EACH = len(NEXT_HOP_IDS) // 2
"""How many next hops a family has numbers for."""


@lru_cache(maxsize=16)
def link_name(vni: Vni, family: Family) -> str:
    """The name of the device that carries the overlay of `family`; at most 13 bytes."""
    return f"ovl.{vni}" if family is Family.IPV4 else f"ovl6.{vni}"


@lru_cache(maxsize=256)
def vtep_mac(host: HostId, vni: Vni, family: Family) -> MacAddress:
    """The device's link-layer address, made of the host's identity, so that a device made again is the one that peers know."""
    return MacAddress.from_random(hashlib.sha256(f"{host}/vxlan/{vni}/{family.value}".encode()).digest()[:6])


def next_hop_id(half: FamilyConfig, subnet: Prefix) -> int | None:
    """The number of the next hop to `subnet`, its place in the network; None for one so far back that no number is left.

    IPv4 has the lower half of `NEXT_HOP_IDS`, IPv6 the upper. The same subnet always has the same number, so a restart finds
    everything as it was left.
    """
    offset = int(subnet.network_address) - int(half.network.network_address)
    place = offset >> (subnet.max_prefixlen - half.subnet_len)
    if subnet.prefixlen != half.subnet_len or not 0 <= place < _EACH:
        return None
    return NEXT_HOP_IDS.start + place + (0 if half.family is Family.IPV4 else _EACH)


@dataclass(frozen=True, slots=True)
class Vtep:
    """Where frames for a peer go, and the link-layer address that they carry."""

    address: Address
    mac: MacAddress


@dataclass(frozen=True, slots=True)
class VxlanBackend:
    """vxlan on one host."""

    place: Place
    options: VxlanOptions

    def attributes(self) -> LeaseAttributes:
        """The public addresses, and for each family the VNI and the device's link-layer address."""
        data: dict[Family, bytes] = {}
        for half in self.place.config.families:
            local_address(self.place, half.family)
            mac = vtep_mac(self.place.settings.host, self.options.vni, half.family)
            data[half.family] = encode_vxlan_data(VxlanData(self.options.vni, mac))
        settings = self.place.settings
        return LeaseAttributes(settings.public_ipv4, settings.public_ipv6, "vxlan", data.get(Family.IPV4), data.get(Family.IPV6))

    def mtu(self, family: Family, underlay: Underlay) -> Mtu:
        """What of the underlay's MTU is left for an inner packet. ConfigError: too little, or more than the link carries."""
        outer = self.options.mtu if self.options.mtu is not None else underlay.mtu
        if outer > underlay.mtu:
            raise ConfigError(
                "Backend.MTU", outer, f"is above the MTU of {underlay.link}, {underlay.mtu}: lower it, or raise that"
            )
        mtu = Mtu(outer - family.header_bytes - _INNER_BYTES)
        if mtu < family.minimum_mtu:
            left = f"leaves {mtu} bytes for IPv{family.value}, which needs {family.minimum_mtu}"
            if self.options.mtu is None:
                raise ConfigError("--iface", underlay.link, f"its MTU, {outer}, {left}: raise it, or choose another link")
            raise ConfigError("Backend.MTU", outer, f"{left}: raise it")
        return mtu

    def base(self, own: Lease, underlay: Underlay) -> Base:
        """The devices with their addresses.

        A device's outer source is the underlay's own address, never the public one: behind address translation that is nobody's
        here, and the kernel drops every packet that should leave from it.
        """
        objects = host_objects(self.place)
        mtus: list[Mtu] = []
        for half in self.place.config.families:
            family = half.family
            name = link_name(self.options.vni, family)
            mtus.append(self.mtu(family, underlay))
            objects.append(
                VxlanLink(
                    name=name,
                    vni=self.options.vni,
                    underlay=underlay.link,
                    local=local_address(self.place, family),
                    port=self.options.port,
                    mtu=mtus[-1],
                    mac=vtep_mac(self.place.settings.host, self.options.vni, family),
                    learning=self.options.learning,
                    gbp=self.options.gbp,
                )
            )
            objects.append(Sysctl(f"ipv6/conf/{name}/accept_ra", "0", link=name))
            subnet = own_subnet(own, family)
            if subnet is not None:
                objects.append(LinkAddress(name, subnet.network_address))
        return Base(tuple(objects), min(mtus))

    def peer(self, own: Lease, peer: Lease, underlay: Underlay) -> Outcome:  # noqa: ARG002
        """Three entries in each family (four with a next hop), or one where the peer is a neighbour and DirectRouting is on."""
        if (foreign := self.foreign(peer)) is not None:
            return foreign
        options = self.options
        objects: list[KernelObject] = []
        ways: list[str] = []
        for half in self.place.config.families:
            family = half.family
            subnet = peer.subnets.of(family)
            if subnet is None:
                continue
            vtep = self.vtep(peer, family)
            if isinstance(vtep, Refused):
                return vtep
            metric = route_metric(family)
            if options.direct_routing and underlay.reaches_directly(vtep.address):
                objects.append(Route(subnet, link=underlay.link, gateway=vtep.address, metric=metric))
                ways.append(f"direct via {vtep.address}")
                continue
            name, base = link_name(options.vni, family), subnet.network_address
            objects += (Neighbour(name, base, vtep.mac), FdbEntry(name, vtep.mac, vtep.address))
            hop = next_hop_id(half, subnet) if self.place.settings.next_hops else None
            if hop is None:
                objects.append(Route(subnet, link=name, gateway=base, onlink=True, metric=metric))
            else:
                objects += (NextHop(hop, name, base), Route(subnet, link=name, metric=metric, next_hop=hop))
            ways.append(f"vxlan {vtep.address}")
        return PeerPlan(tuple(objects), ", ".join(ways))

    def foreign(self, peer: Lease) -> Refused | None:
        """Why the peer is of no vxlan network at all, or None."""
        if peer.attributes.backend_type == "vxlan":
            return None
        return Refused(f"backend is {peer.attributes.backend_type or 'udp'!r}, this network's is 'vxlan'")

    def vtep(self, peer: Lease, family: Family) -> Vtep | Refused:
        """The peer's VTEP for `family`, or why it cannot be one of this network."""
        public = peer.attributes.public(family)
        if public is None:
            return Refused(f"no public IPv{family.value} address")
        if public == public_address(self.place, family):
            return Refused(f"public address {public} is this host's own")
        try:
            data = decode_vxlan_data(peer.attributes.data(family))
        except StoreDataError as error:
            return Refused(str(error))
        if data.vni != self.options.vni:
            return Refused(f"VNI is {data.vni}, this network's is {self.options.vni}")
        if data.mac == vtep_mac(self.place.settings.host, self.options.vni, family):
            return Refused(f"VTEP MAC {data.mac} is this host's own")
        return Vtep(public, data.mac)

    def pump(self, base: Base, peers: tuple[Lease, ...]) -> PumpConfig | None:  # noqa: ARG002
        """None: the kernel carries the packets."""
        return None

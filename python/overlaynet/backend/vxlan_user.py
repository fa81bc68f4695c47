"""vxlan without the kernel's device: the same frames in UDP, carried by the packet engine through a TUN device.

What a host publishes and what it accepts from peers is the kernel backend's, so that both kinds of host meet in one network. The
kernel's part is one route for each family of the network, whoever the peers are; VTEPs and subnets are the engine's table.

With a TAP device whole frames come from it, outer headers included, as if from a neighbour, and the host forwards them to the
underlay. Their source is this host itself, which a host takes for forged unless it is told otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from overlaynet.backend.host import host_objects, local_address, own_subnet, route_metric
from overlaynet.backend.plan import Base, Outcome, PeerPlan, Place, Refused
from overlaynet.backend.vxlan import VxlanBackend, vtep_mac
from overlaynet.model.addresses import Family, Prefix
from overlaynet.model.dataplane import PumpConfig, PumpPeer, Vteps
from overlaynet.model.kernel import KernelObject, LinkAddress, Route, Sysctl, TunLink, Underlay
from overlaynet.model.lease import Lease, LeaseAttributes
from overlaynet.model.network import VxlanOptions

TUN_NAME = "ovl-vxlan"

TAP_NAME = "ovl-tap"
"""The device from which the host forwards the engine's whole super-packets, where that is asked for."""

_QUEUE_PACKETS = 1_000


@dataclass(frozen=True, slots=True)
class UserVxlanBackend:
    """vxlan by the packet engine on one host."""

    place: Place
    options: VxlanOptions

    @property
    def _kernel(self) -> VxlanBackend:
        """The backend whose wire form and leases this one shares."""
        return VxlanBackend(self.place, self.options)

    def attributes(self) -> LeaseAttributes:
        """What the kernel backend publishes."""
        return self._kernel.attributes()

    def base(self, own: Lease, underlay: Underlay) -> Base:
        """The TUN with a route for each family of the network, and the engine without peers."""
        kernel, host = self._kernel, self.place.settings.host
        families = [half.family for half in self.place.config.families]
        mtu = min(kernel.mtu(family, underlay) for family in families)
        objects = host_objects(self.place)
        objects.append(TunLink(TUN_NAME, mtu, _QUEUE_PACKETS))
        objects.append(Sysctl(f"ipv4/conf/{TUN_NAME}/accept_local", "1", link=TUN_NAME))
        local = []
        for half in self.place.config.families:
            subnet = own_subnet(own, half.family)
            if subnet is not None:
                local.append(subnet)
                objects.append(LinkAddress(TUN_NAME, subnet.network_address))
                objects.append(Route(half.network, link=TUN_NAME, metric=route_metric(half.family)))
        tap = TAP_NAME if self.place.settings.vxlan_tap and local else None
        if tap is not None:
            objects += _tap(underlay, tuple(local))
        warnings = []
        if self.options.gbp:
            warnings.append("Backend.GBP is ignored: the packet engine carries no group policies")
        if self.options.learning:
            warnings.append("Backend.Learning is ignored: the packet engine learns nothing from frames")
        vni = self.options.vni
        pump = PumpConfig(
            link=TUN_NAME,
            listen=tuple(local_address(self.place, family) for family in families),
            port=self.options.port,
            mtu=mtu,
            local=tuple(local),
            addresses=tuple(subnet.network_address for subnet in local),
            tap=tap,
            vteps=Vteps(vni, vtep_mac(host, vni, Family.IPV4), vtep_mac(host, vni, Family.IPV6)),
        )
        return Base(tuple(objects), mtu, pump if local else None, tuple(warnings))

    def peer(self, own: Lease, peer: Lease, underlay: Underlay) -> Outcome:  # noqa: ARG002
        """No objects, but for a peer that is a neighbour while DirectRouting is on: a plain route."""
        objects: list[KernelObject] = []
        ways: list[str] = []
        if (foreign := self._kernel.foreign(peer)) is not None:
            return foreign
        for half in self.place.config.families:
            subnet = peer.subnets.of(half.family)
            if subnet is None:
                continue
            vtep = self._kernel.vtep(peer, half.family)
            if isinstance(vtep, Refused):
                return vtep
            if self.options.direct_routing and underlay.reaches_directly(vtep.address):
                metric = route_metric(half.family)
                objects.append(Route(subnet, link=underlay.link, gateway=vtep.address, metric=metric))
                ways.append(f"direct via {vtep.address}")
            else:
                ways.append(f"vxlan {vtep.address} by the packet engine")
        return PeerPlan(tuple(objects), ", ".join(ways))

    def pump(self, base: Base, peers: tuple[Lease, ...]) -> PumpConfig | None:
        """The engine with an entry for each peer and family, in the order of their subnets."""
        if base.pump is None:
            return None
        table = []
        for peer in peers:
            for half in self.place.config.families:
                subnet, vtep = peer.subnets.of(half.family), self._kernel.vtep(peer, half.family)
                if subnet is not None and not isinstance(vtep, Refused):
                    table.append(PumpPeer((subnet,), vtep.address, self.options.port, vtep.mac))
        return replace(base.pump, peers=tuple(sorted(table, key=lambda peer: peer.order)))


def _tap(underlay: Underlay, local: tuple[Prefix, ...]) -> list[KernelObject]:
    """The TAP device, and what lets the host forward IPv4 from it (net/ipv4/fib_frontend.c, fib_validate_source).

    A loose reverse path filter in `all`, which ours cannot lower, lets pass what comes in on a link with an address of its own.
    """
    settings = {"accept_local": "1", "rp_filter": "0", "forwarding": "1"}
    objects: list[KernelObject] = [TunLink(TAP_NAME, underlay.mtu, _QUEUE_PACKETS, ethernet=True)]
    objects += [Sysctl(f"ipv4/conf/{TAP_NAME}/{name}", value, link=TAP_NAME) for name, value in settings.items()]
    objects += [LinkAddress(TAP_NAME, subnet.network_address) for subnet in local if Family.of(subnet) is Family.IPV4]
    return objects

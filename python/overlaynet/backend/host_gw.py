"""host-gw: packets travel as they are, over plain routes through the peers' own addresses.

Each peer must be a neighbour on the underlay; one that is not is refused before anything is written, since the kernel would
refuse its gateway and a router between could not know the overlay's subnets.
"""

from __future__ import annotations

from dataclasses import dataclass

from overlaynet.backend.host import host_objects, local_address, public_address, route_metric
from overlaynet.backend.plan import Base, Outcome, PeerPlan, Place, Refused
from overlaynet.model.dataplane import PumpConfig
from overlaynet.model.kernel import KernelObject, Route, Underlay
from overlaynet.model.lease import Lease, LeaseAttributes


@dataclass(frozen=True, slots=True)
class HostGwBackend:
    """host-gw on one host."""

    place: Place

    def attributes(self) -> LeaseAttributes:
        """The public addresses; host-gw has no data of its own."""
        for half in self.place.config.families:
            local_address(self.place, half.family)
        settings = self.place.settings
        return LeaseAttributes(settings.public_ipv4, settings.public_ipv6, backend_type="host-gw")

    def base(self, own: Lease, underlay: Underlay) -> Base:  # noqa: ARG002
        """Forwarding and the last route; the MTU is the underlay's, since nothing is added to a packet."""
        return Base(tuple(host_objects(self.place)), underlay.mtu, warnings=self._translated())

    def _translated(self) -> tuple[str, ...]:
        lines = []
        for half in self.place.config.families:
            public, local = public_address(self.place, half.family), local_address(self.place, half.family)
            if public != local:
                lines.append(
                    f"host-gw: public address {public} is not {self.place.settings.underlay}'s address {local}: peers cannot "
                    "route through it: use vxlan or udp behind address translation"
                )
        return tuple(lines)

    def peer(self, own: Lease, peer: Lease, underlay: Underlay) -> Outcome:  # noqa: ARG002
        """One route for each family, through the peer."""
        translated = self._translated()
        if translated:
            return Refused(translated[0])
        if peer.attributes.backend_type != "host-gw":
            return Refused(f"backend is {peer.attributes.backend_type or 'udp'!r}, this network's is 'host-gw'")
        objects: list[KernelObject] = []
        for half in self.place.config.families:
            subnet, gateway = peer.subnets.of(half.family), peer.attributes.public(half.family)
            if subnet is None:
                continue
            if gateway is None:
                return Refused(f"no public IPv{half.family.value} address")
            if not underlay.reaches_directly(gateway):
                return Refused(
                    f"public address {gateway} is not on-link at {underlay.link}: host-gw needs every host on one network; "
                    "use vxlan or udp across routers"
                )
            objects.append(Route(subnet, link=underlay.link, gateway=gateway, metric=route_metric(half.family)))
        return PeerPlan(tuple(objects), f"via {objects[0].gateway}" if objects and isinstance(objects[0], Route) else "")

    def pump(self, base: Base, peers: tuple[Lease, ...]) -> PumpConfig | None:  # noqa: ARG002
        """None: the kernel carries the packets."""
        return None

"""udp: inner IP packets in UDP datagrams, carried by the packet engine through a TUN device (flannel's udp wire form).

The TUN holds one route for the whole network, whoever the peers are: which peer a packet goes to is the engine's table, so the
kernel's part does not change with leases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from overlaynet.backend.host import host_objects, local_address, own_subnet, public_address, route_metric
from overlaynet.backend.plan import Base, Outcome, PeerPlan, Place, Refused
from overlaynet.errors import ConfigError
from overlaynet.model.addresses import Address, Family, Mtu
from overlaynet.model.dataplane import PumpConfig, PumpPeer
from overlaynet.model.kernel import LinkAddress, Route, Sysctl, TunLink, Underlay
from overlaynet.model.lease import Lease, LeaseAttributes

TUN_NAME = "ovl-udp"

UDP6 = "udp6"
"""What a host says of itself that takes IPv6 inside. flannel's takes every packet for IPv4, and would corrupt others."""

_UDP_HEADER_BYTES = 8  # RFC 768

_QUEUE_PACKETS = 1_000
"""The TUN's transmit queue. The engine reads in batches; flannel's 500 overflow under one fast TCP stream."""


@dataclass(frozen=True, slots=True)
class UdpBackend:
    """udp on one host. `port` is every host's."""

    place: Place
    port: int

    @property
    def outer(self) -> Family:
        """The family of the datagrams: the network's first that the underlay has, so that all hosts choose the same; else any."""
        settings = self.place.settings
        has = {Family.IPV4: settings.local_ipv4 is not None, Family.IPV6: settings.local_ipv6 is not None}
        wanted = (*(half.family for half in self.place.config.families), *Family)
        return next((family for family in wanted if has[family]), Family.IPV4)

    @property
    def listen(self) -> Address:
        """Where the engine listens. ConfigError: the underlay has no address."""
        return local_address(self.place, self.outer)

    def attributes(self) -> LeaseAttributes:
        """The public addresses; flannel's udp publishes no type and no data."""
        local_address(self.place, self.outer)
        settings = self.place.settings
        return LeaseAttributes(settings.public_ipv4, settings.public_ipv6)

    def base(self, own: Lease, underlay: Underlay) -> Base:
        """The TUN with the network's route in each family, and the engine without peers."""
        mtu = Mtu(underlay.mtu - self.outer.header_bytes - _UDP_HEADER_BYTES)
        for half in self.place.config.families:
            if mtu < half.family.minimum_mtu:
                needed = f"which needs {half.family.minimum_mtu}: raise it, or choose another link"
                why = f"the link's MTU, {underlay.mtu}, leaves {mtu} bytes for IPv{half.family.value}, {needed}"
                raise ConfigError("--iface", underlay.link, why)
        objects = host_objects(self.place)
        objects.append(TunLink(TUN_NAME, mtu, _QUEUE_PACKETS))
        # The engine's ICMP errors come from this host's own address, which fib_frontend.c takes for martian without this.
        objects.append(Sysctl(f"ipv4/conf/{TUN_NAME}/accept_local", "1", link=TUN_NAME))
        local = []
        for half in self.place.config.families:
            subnet = own_subnet(own, half.family)
            if subnet is not None:
                local.append(subnet)
                objects.append(LinkAddress(TUN_NAME, subnet.network_address))
                objects.append(Route(half.network, link=TUN_NAME, metric=route_metric(half.family)))
        if not local:
            return Base(tuple(objects), mtu)
        addresses = tuple(subnet.network_address for subnet in local)
        return Base(tuple(objects), mtu, PumpConfig(TUN_NAME, (self.listen,), self.port, mtu, tuple(local), addresses))

    def peer(self, own: Lease, peer: Lease, underlay: Underlay) -> Outcome:  # noqa: ARG002
        """No objects: the engine's table has the peer. Any backend type is taken, as flannel's udp does."""
        address = peer.attributes.public(self.outer)
        if address is None:
            return Refused(f"no public IPv{self.outer.value} address")
        if address == public_address(self.place, self.outer):
            return Refused(f"public address {address} is this host's own")
        path = f"udp {address}:{self.port}"
        if peer.subnets.v6 is not None and UDP6 not in peer.features:
            why = f"IPv6 is not sent: the host does not say that it takes it (feature {UDP6})"
            return Refused(why) if peer.subnets.v4 is None else PeerPlan((), f"{path}; {why}")
        return PeerPlan((), path)

    def pump(self, base: Base, peers: tuple[Lease, ...]) -> PumpConfig | None:
        """The engine with `peers`, in the order of their subnets."""
        if base.pump is None:
            return None
        table = []
        for peer in peers:
            address = peer.attributes.public(self.outer)
            v6 = peer.subnets.v6 if UDP6 in peer.features else None
            subnets = tuple(subnet for subnet in (peer.subnets.v4, v6) if subnet is not None)
            if address is not None and subnets:
                table.append(PumpPeer(subnets, address, self.port))
        return replace(base.pump, peers=tuple(sorted(table, key=lambda peer: peer.order)))

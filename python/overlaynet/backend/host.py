"""What all backends have in common on a host: its addresses by family, forwarding, and the end of packets to nobody."""

from __future__ import annotations

from overlaynet.backend.plan import Place
from overlaynet.errors import ConfigError
from overlaynet.model.addresses import Address, Family, Prefix
from overlaynet.model.kernel import UNREACHABLE_METRIC, KernelObject, Route, Sysctl
from overlaynet.model.lease import Lease

IPV6_METRIC = 1024
"""What the kernel gives an IPv6 route without a metric (include/uapi/linux/ipv6_route.h, IP6_RT_PRIO_USER)."""

_FORWARDING = {Family.IPV4: "ipv4/ip_forward", Family.IPV6: "ipv6/conf/all/forwarding"}


def local_address(place: Place, family: Family) -> Address:
    """The underlay's own address of `family`. ConfigError: the underlay has none."""
    settings = place.settings
    address = settings.local_ipv4 if family is Family.IPV4 else settings.local_ipv6
    if address is None:
        kinds = " (a link-local or duplicate one is none)" if family is Family.IPV6 else ""
        why = f"has no usable IPv{family.value} address{kinds}, which the network's backend needs: give it one"
        raise ConfigError("--iface", settings.underlay, why)
    return address


def public_address(place: Place, family: Family) -> Address:
    """The address of `family` under which peers reach this host. ConfigError: there is none."""
    settings = place.settings
    address = settings.public_ipv4 if family is Family.IPV4 else settings.public_ipv6
    return local_address(place, family) if address is None else address


def own_subnet(own: Lease, family: Family) -> Prefix | None:
    """This host's subnet of `family`."""
    return own.subnets.of(family)


def route_metric(family: Family) -> int:
    """The metric of an overlay route: the kernel's own default, so that it is seen as it was written."""
    return 0 if family is Family.IPV4 else IPV6_METRIC


def host_objects(place: Place) -> list[KernelObject]:
    """Forwarding in each family, and a last route for each network.

    The last route is preferred to none other, and more general than all: it ends packets to subnets that nobody leases with an
    ICMP error, where they would leave through the default route.
    """
    networks = [half.network for half in place.config.families]
    ends = (Route(network, link=None, metric=UNREACHABLE_METRIC, type="unreachable") for network in networks)
    return [*forwarding(place), *ends]


def forwarding(place: Place) -> tuple[Sysctl, ...]:
    """Forwarding in each family of the network, unless that is not asked for."""
    if not place.settings.enable_forwarding:
        return ()
    return tuple(Sysctl(_FORWARDING[half.family], "1") for half in place.config.families)

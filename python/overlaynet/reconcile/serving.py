"""Whether this host can serve a network: what its configuration, the host's addresses and its underlay tell beforehand; pure."""

from __future__ import annotations

from overlaynet.backend import attributes, desired
from overlaynet.errors import ConfigError
from overlaynet.model.addresses import Family
from overlaynet.model.host import HostSettings
from overlaynet.model.kernel import Underlay
from overlaynet.model.lease import Lease
from overlaynet.model.network import NetworkConfig
from overlaynet.reconcile.allocate import choose


def check_servable(config: NetworkConfig, settings: HostSettings, underlay: Underlay | None) -> None:
    """Return if this host can serve the network, whichever subnet it gets. ConfigError names the field or flag that forbids it.

    Without an underlay, what depends on its MTU is not looked at.
    """
    check_apart(config, settings)
    published = attributes(config, settings)
    if underlay is not None:
        desired(config, settings, Lease(choose(config, settings, ()).subnets, published, settings.host), (), underlay)


def check_apart(config: NetworkConfig, settings: HostSettings) -> None:
    """ConfigError: the network holds an address by which this host is reached, so that its packets would go into themselves."""
    for half in config.families:
        name = "Network" if half.family is Family.IPV4 else "IPv6Network"
        for address in (settings.public_ipv4, settings.public_ipv6, settings.local_ipv4, settings.local_ipv6):
            if address is not None and address in half.network:
                why = f"overlaps the underlay: it holds {address} of {settings.underlay}: choose a prefix that no host has"
                raise ConfigError(name, str(half.network), why)

"""What is ours, by name and by place; knows no mechanism."""

from __future__ import annotations

import re
from collections.abc import Iterable

from overlaynet.model.addresses import Family, Prefix

_OURS = re.compile(r"ovl6?\.[0-9]{1,8}|ovl-udp|ovl-vxlan|ovl-tap")


def is_our_link(name: str) -> bool:
    """Whether a link of this name belongs to overlaynet."""
    return _OURS.fullmatch(name) is not None


def is_within(prefix: Prefix, networks: Iterable[Prefix]) -> bool:
    """Whether the prefix lies inside one of the networks, or is one."""
    return any(
        Family.of(network) is Family.of(prefix) and network.prefixlen <= prefix.prefixlen and prefix.network_address in network
        for network in networks
    )

"""What a lab consists of, as a value: `plan_lab` turns a few numbers into namespaces, links and addresses, and does nothing.

A lab with two hosts, two bridges each, on a bridged underlay (names of namespaces in capitals; each is `ovl-LAB-NAME`):

    +- HOST1 ------------------------------+         +- HOST2 ------------------------------+
    |  br-a (.1)          br-b (.129)      |         |  br-a (.1)          br-b (.129)      |
    |    |                  |              |         |    |                  |              |
    |  pod1a              pod1b            |         |  pod2a              pod2b            |
    |    |                  |              |         |    |                  |              |
    |    |                  |   overlaynet |         |    |                  |   overlaynet |
    |    |                  |   -daemon    |         |    |                  |   -daemon    |
    |    |                  |     eth0     |         |    |                  |     eth0     |
    +----|------------------|-------|------+         +----|------------------|-------|------+
         |                  |       | 198.18.0.1/16       |                  |       | 198.18.0.2/16
    +----|----+        +----|----+  |                +----|----+        +----|----+  |
    |  eth0   |        |  eth0   |  |                |  eth0   |        |  eth0   |  |
    |  (.2)   |        |  (.130) |  |                |  (.2)   |        |  (.130) |  |
    +- POD1A -+        +- POD1B -+  |                +- POD2A -+        +- POD2B -+  |
                                    |                                                |
    +- UNDERLAY --------------------|------------------------------------------------|------+
    |                             host1 ----------------- underlay ---------------- host2   |
    |                                                     (bridge)                          |
    +---------------------------------------------------------------------------------------+

With one bridge a host has `br0`, and the pod is `pod1`. On a routed underlay every host is alone on a network, 198.18.I.2/24,
and UNDERLAY is a router that is 198.18.I.1 on each of them:

    HOST1 eth0 198.18.1.2/24 --- host1 198.18.1.1 [ UNDERLAY, forwarding ] host2 198.18.2.1 --- 198.18.2.2/24 eth0 HOST2

The drawing shows IPv4. A lab of IPv6 has no IPv4 address anywhere, and a dual lab has an address of each family wherever the
drawing shows one: 2001:2::I/64 on one segment, 2001:2:0:I::2/64 and 2001:2:0:I::1 beside a router. A `mixed` lab is one whose
odd hosts have both families on the underlay, whatever the lab's own.

Underlay addresses come from the ranges for measurements (RFC 2544 section C.2.2, RFC 5180 section 8), which no real network
routes; labs may use the same ones at once, since they never meet. Pods get theirs from the subnets that their host's daemon
leased.
"""

from __future__ import annotations

import enum
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_interface, ip_network
from typing import TypeAlias

from overlaynet.errors import ConfigError
from overlaynet.model.addresses import Address, Family, Prefix

__all__ = [
    "BACKENDS",
    "MOST_BRIDGES",
    "MOST_HOSTS",
    "NAMESPACE_PREFIX",
    "OVERLAY_NETWORKS",
    "Attachment",
    "Families",
    "Host",
    "Interface",
    "Plan",
    "Pod",
    "Underlay",
    "attachments",
    "lab_of_namespace",
    "parse_families",
    "plain_subnets",
    "plan_lab",
]

NAMESPACE_PREFIX = "ovl-"
MOST_HOSTS = 250
MOST_BRIDGES = 8
OVERLAY_NETWORKS: Mapping[Family, Prefix] = {
    Family.IPV4: IPv4Network("10.1.0.0/16"),
    Family.IPV6: IPv6Network("fd00:10:1::/48"),
}
BACKENDS = ("vxlan", "host-gw", "udp")

Interface: TypeAlias = IPv4Interface | IPv6Interface
"""An address with the length of its network's prefix."""

_SUBNET_LEN: Mapping[Family, int] = {Family.IPV4: 24, Family.IPV6: 64}
_UNDERLAY_NETWORKS: Mapping[Family, Prefix] = {Family.IPV4: IPv4Network("198.18.0.0/16"), Family.IPV6: IPv6Network("2001:2::/48")}
_SEGMENT_LEN: Mapping[Family, int] = {Family.IPV4: 16, Family.IPV6: 64}

_STORE_NUMBER = 0xFFFE
"""The last address of the IPv4 segment: no host and no network of a routed underlay has it."""

_LAB_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,22}[a-z0-9])?")
_NAMESPACE = re.compile(r"ovl-(?P<lab>.+)-(?P<member>underlay|(host|pod)[0-9]+[a-z]?)")


class Underlay(enum.Enum):
    """What joins the hosts: one Ethernet segment, or a router with a network for each host."""

    BRIDGE = "bridge"
    ROUTED = "routed"


class Families(enum.Enum):
    """The IP versions of a lab: of its network, and of its underlay."""

    V4 = "v4"
    V6 = "v6"
    DUAL = "dual"

    @property
    def members(self) -> tuple[Family, ...]:
        """The families, IPv4 first."""
        match self:
            case Families.V4:
                return (Family.IPV4,)
            case Families.V6:
                return (Family.IPV6,)
            case Families.DUAL:
                return (Family.IPV4, Family.IPV6)


def parse_families(text: str) -> Families:
    """The families that a flag names; ConfigError: there are none of that name."""
    try:
        return Families(text)
    except ValueError:
        known = ", ".join(one.value for one in Families)
        raise ConfigError("--family", text, f"a family is one of {known}") from None


@dataclass(frozen=True, slots=True)
class Pod:
    """A namespace behind a host's bridge; `name` is also the name of the bridge's port."""

    name: str
    namespace: str
    bridge: str


@dataclass(frozen=True, slots=True)
class Host:
    """A namespace with a daemon; `name` is also the name of its port in the underlay.

    `addresses` has one of each family of the underlay, IPv4 first; `gateways` are the router's addresses on the host's networks,
    none where the underlay is one segment.
    """

    name: str
    namespace: str
    addresses: tuple[Interface, ...]
    gateways: tuple[Interface, ...]
    pods: tuple[Pod, ...]

    @property
    def address(self) -> Interface:
        """The first of its addresses."""
        return self.addresses[0]


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole lab. Equal arguments of `plan_lab` give equal plans."""

    name: str
    backend: str
    families: Families
    underlay: Underlay
    mixed: bool
    underlay_namespace: str
    hosts: tuple[Host, ...]
    daemon_flags: tuple[str, ...] = ()

    @property
    def store_address(self) -> Interface:
        """Where a store of the lab's own is reached, in the underlay's namespace: an address of the segment, or of the router."""
        family = self.families.members[0]
        network = _UNDERLAY_NETWORKS[family]
        length = _SEGMENT_LEN[family] if self.underlay is Underlay.BRIDGE else network.max_prefixlen
        return _interface(network, length, 0, _STORE_NUMBER)

    @property
    def pods(self) -> tuple[Pod, ...]:
        """Every pod, host by host."""
        return tuple(pod for host in self.hosts for pod in host.pods)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Every namespace of the lab, the underlay's first."""
        return (self.underlay_namespace, *(host.namespace for host in self.hosts), *(pod.namespace for pod in self.pods))

    @property
    def members(self) -> dict[str, str]:
        """The namespace of each member by its name: hosts, pods, `underlay`."""
        named = {member.name: member.namespace for member in self.hosts} | {member.name: member.namespace for member in self.pods}
        return named | {"underlay": self.underlay_namespace}

    def member(self, name: str) -> str:
        """The namespace of `host1`, `pod2b` or `underlay`; ConfigError names the members that there are."""
        if name not in self.members:
            raise ConfigError("member", name, f"lab {self.name} has {', '.join(self.members)}")
        return self.members[name]


def plan_lab(
    name: str,
    *,
    hosts: int = 3,
    bridges: int = 1,
    backend: str = "vxlan",
    families: Families = Families.V4,
    underlay: Underlay = Underlay.BRIDGE,
    mixed: bool = False,
    daemon_flags: tuple[str, ...] = (),
) -> Plan:
    """The plan of a lab. ConfigError: the name is not usable, a number is out of range, or the backend is unknown."""
    if not _LAB_NAME.fullmatch(name):
        raise ConfigError("--name", name, "a name is 1 to 24 of a-z, 0-9, - and _, with a letter or digit at both ends")
    if not 1 <= hosts <= MOST_HOSTS:
        raise ConfigError("--hosts", hosts, f"a lab has 1 to {MOST_HOSTS} hosts")
    if not 1 <= bridges <= MOST_BRIDGES:
        raise ConfigError("--bridges", bridges, f"a host has 1 to {MOST_BRIDGES} bridges")
    if backend not in BACKENDS:
        raise ConfigError("--backend", backend, f"a backend is one of {', '.join(BACKENDS)}")
    return Plan(
        name=name,
        backend=backend,
        families=families,
        underlay=underlay,
        mixed=mixed,
        underlay_namespace=f"{NAMESPACE_PREFIX}{name}-underlay",
        hosts=tuple(
            _host(name, number, bridges, Families.DUAL if mixed and number % 2 else families, underlay)
            for number in range(1, hosts + 1)
        ),
        daemon_flags=daemon_flags,
    )


def _host(lab: str, number: int, bridges: int, families: Families, underlay: Underlay) -> Host:
    addresses: tuple[Interface, ...]
    gateways: tuple[Interface, ...]
    match underlay:
        case Underlay.BRIDGE:
            addresses = tuple(
                _interface(_UNDERLAY_NETWORKS[family], _SEGMENT_LEN[family], 0, number) for family in families.members
            )
            gateways = ()
        case Underlay.ROUTED:
            addresses, gateways = (
                tuple(_interface(_UNDERLAY_NETWORKS[family], _SUBNET_LEN[family], number, member) for family in families.members)
                for member in (2, 1)
            )
    letters = [""] if bridges == 1 else list(string.ascii_lowercase[:bridges])
    return Host(
        name=f"host{number}",
        namespace=f"{NAMESPACE_PREFIX}{lab}-host{number}",
        addresses=addresses,
        gateways=gateways,
        pods=tuple(
            Pod(
                name=f"pod{number}{letter}",
                namespace=f"{NAMESPACE_PREFIX}{lab}-pod{number}{letter}",
                bridge=f"br-{letter}" if letter else "br0",
            )
            for letter in letters
        ),
    )


def _interface(network: Prefix, length: int, part: int, member: int) -> Interface:
    """The address `member` in the part `part` of the network, which is cut into prefixes of `length`."""
    return ip_interface((_address(network, length, part) + member, length))


def _address(network: Prefix, length: int, part: int) -> Address:
    return network.network_address + (part << (network.max_prefixlen - length))


def plain_subnets(families: Families, number: int) -> tuple[Prefix, ...]:
    """The subnets that a host of this number could have leased, without any daemon."""
    return tuple(
        ip_network((_address(OVERLAY_NETWORKS[family], _SUBNET_LEN[family], number), _SUBNET_LEN[family]))
        for family in families.members
    )


@dataclass(frozen=True, slots=True)
class Attachment:
    """How one pod is attached once its host has subnets: the bridge's addresses and the pod's, in one part of each subnet."""

    pod: Pod
    gateways: tuple[Interface, ...]
    addresses: tuple[Interface, ...]


def attachments(host: Host, subnets: Sequence[Prefix]) -> tuple[Attachment, ...]:
    """The addresses of the host's bridges and pods: each subnet, halved until every bridge has a part of its own.

    In each part the first address is the bridge's and the second the pod's, as a container runtime would choose. ConfigError:
    a subnet is too small for the number of bridges.
    """
    halvings = (len(host.pods) - 1).bit_length()
    for subnet in subnets:
        if subnet.prefixlen + halvings > subnet.max_prefixlen - 2:
            raise ConfigError("--bridges", len(host.pods), f"{subnet} is too small to be split over so many")
    return tuple(
        Attachment(
            pod=pod,
            gateways=tuple(_interface(subnet, subnet.prefixlen + halvings, part, 1) for subnet in subnets),
            addresses=tuple(_interface(subnet, subnet.prefixlen + halvings, part, 2) for subnet in subnets),
        )
        for part, pod in enumerate(host.pods)
    )


def lab_of_namespace(namespace: str) -> str | None:
    """The name of the lab to which a namespace of this name belongs; None for a namespace that is no lab's."""
    found = _NAMESPACE.fullmatch(namespace)
    return found["lab"] if found and _LAB_NAME.fullmatch(found["lab"]) else None

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

Underlay addresses come from the range for measurements (RFC 2544 section C.2.2), which no real network routes; labs may use the
same ones at once, since they never meet. Pods get theirs from the subnet that their host's daemon leased.
"""

from __future__ import annotations

import enum
import re
import string
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from overlaynet.errors import ConfigError
from overlaynet.model.addresses import Prefix

NAMESPACE_PREFIX = "ovl-"
MOST_HOSTS = 250
MOST_BRIDGES = 8
OVERLAY_NETWORK = IPv4Network("10.1.0.0/16")
BACKENDS = ("vxlan", "host-gw", "udp")
FAMILIES = ("v4",)

_LAB_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,22}[a-z0-9])?")
_NAMESPACE = re.compile(r"ovl-(?P<lab>.+)-(?P<member>underlay|(host|pod)[0-9]+[a-z]?)")


class Underlay(enum.Enum):
    """What joins the hosts: one Ethernet segment, or a router with a network for each host."""

    BRIDGE = "bridge"
    ROUTED = "routed"


@dataclass(frozen=True, slots=True)
class Pod:
    """A namespace behind a host's bridge; `name` is also the name of the bridge's port."""

    name: str
    namespace: str
    bridge: str


@dataclass(frozen=True, slots=True)
class Host:
    """A namespace with a daemon; `name` is also the name of its port in the underlay.

    `gateway` is the router's address on the host's network; None: the underlay is one segment.
    """

    name: str
    namespace: str
    address: IPv4Interface
    gateway: IPv4Interface | None
    pods: tuple[Pod, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole lab. Equal arguments of `plan_lab` give equal plans."""

    name: str
    backend: str
    underlay: Underlay
    underlay_namespace: str
    hosts: tuple[Host, ...]
    daemon_flags: tuple[str, ...] = ()

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
    underlay: Underlay = Underlay.BRIDGE,
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
        underlay=underlay,
        underlay_namespace=f"{NAMESPACE_PREFIX}{name}-underlay",
        hosts=tuple(_host(name, number, bridges, underlay) for number in range(1, hosts + 1)),
        daemon_flags=daemon_flags,
    )


def _host(lab: str, number: int, bridges: int, underlay: Underlay) -> Host:
    match underlay:
        case Underlay.BRIDGE:
            address, gateway = IPv4Interface(f"198.18.0.{number}/16"), None
        case Underlay.ROUTED:
            address, gateway = IPv4Interface(f"198.18.{number}.2/24"), IPv4Interface(f"198.18.{number}.1/24")
    letters = [""] if bridges == 1 else list(string.ascii_lowercase[:bridges])
    return Host(
        name=f"host{number}",
        namespace=f"{NAMESPACE_PREFIX}{lab}-host{number}",
        address=address,
        gateway=gateway,
        pods=tuple(
            Pod(
                name=f"pod{number}{letter}",
                namespace=f"{NAMESPACE_PREFIX}{lab}-pod{number}{letter}",
                bridge=f"br-{letter}" if letter else "br0",
            )
            for letter in letters
        ),
    )


@dataclass(frozen=True, slots=True)
class Attachment:
    """How one pod is attached once its host has a subnet: the bridge's address and the pod's, in one part of the subnet."""

    pod: Pod
    gateway: IPv4Interface
    address: IPv4Interface


def attachments(host: Host, subnet: Prefix) -> tuple[Attachment, ...]:
    """The addresses of the host's bridges and pods: its subnet, halved until every bridge has a part of its own.

    In each part the first address is the bridge's and the second the pod's, as a container runtime would choose. ConfigError:
    the subnet is too small for the number of bridges.
    """
    halvings = (len(host.pods) - 1).bit_length()
    if not isinstance(subnet, IPv4Network) or subnet.prefixlen + halvings > 30:
        raise ConfigError("--bridges", len(host.pods), f"{subnet} is too small to be split over so many")
    parts = subnet.subnets(prefixlen_diff=halvings)
    return tuple(
        Attachment(
            pod=pod,
            gateway=IPv4Interface((IPv4Address(int(part.network_address) + 1), part.prefixlen)),
            address=IPv4Interface((IPv4Address(int(part.network_address) + 2), part.prefixlen)),
        )
        for pod, part in zip(host.pods, parts, strict=False)
    )


def lab_of_namespace(namespace: str) -> str | None:
    """The name of the lab to which a namespace of this name belongs; None for a namespace that is no lab's."""
    found = _NAMESPACE.fullmatch(namespace)
    return found["lab"] if found and _LAB_NAME.fullmatch(found["lab"]) else None

"""A plan as commands for `ip -batch`: pure texts, grouped by the namespace in which they run.

Guarantees that no command names the machine's own namespace, except to add a namespace: veth pairs are made inside the underlay
or a host, with the other end straight in its namespace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Interface

from overlaynet.lab.topology import Attachment, Host, Interface, Plan, Underlay
from overlaynet.model.addresses import Mtu


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines for one `ip -batch` inside `namespace`; None: outside any, for lines that add namespaces and nothing else."""

    namespace: str | None
    lines: tuple[str, ...]


def underlay_batches(plan: Plan) -> Iterator[Batch]:
    """The commands that make every namespace, the underlay, and each host's way into it."""
    yield Batch(None, tuple(f"netns add {namespace}" for namespace in plan.namespaces))
    underlay = ["link set lo up"]
    if plan.underlay is Underlay.BRIDGE:
        # A switch that has no say of its own: with snooping the bridge would join groups, and its reports be on the underlay.
        underlay += ["link add name underlay type bridge mcast_snooping 0", "link set underlay up"]
    for host in plan.hosts:
        underlay.append(f"link add name {host.name} type veth peer name eth0 netns {host.namespace}")
        underlay += _addresses(host.name, host.gateways)
        if not host.gateways:
            underlay.append(f"link set {host.name} master underlay")
        underlay.append(f"link set {host.name} up")
    yield Batch(plan.underlay_namespace, tuple(underlay))
    for host in plan.hosts:
        yield Batch(
            host.namespace, ("link set lo up", *_addresses("eth0", host.addresses), "link set eth0 up", *_ways_out(host.gateways))
        )


def store_batches(plan: Plan) -> Iterator[Batch]:
    """The commands that give the underlay's namespace the address of a store that runs there."""
    match plan.underlay:
        case Underlay.BRIDGE:
            lines = tuple(_addresses("underlay", (plan.store_address,)))
        case Underlay.ROUTED:
            lines = (f"address add {plan.store_address} dev lo",)
    yield Batch(plan.underlay_namespace, lines)


def attachment_batches(host: Host, attachments: Sequence[Attachment], mtu: Mtu) -> Iterator[Batch]:
    """The commands that put the host's bridges and pods in place, as a container runtime does after reading subnet.env."""
    lines: list[str] = []
    for attachment in attachments:
        pod = attachment.pod
        lines += [
            f"link add name {pod.bridge} mtu {mtu} type bridge",
            *_addresses(pod.bridge, attachment.gateways),
            f"link add name {pod.name} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {pod.namespace}",
            f"link set {pod.name} master {pod.bridge}",
            f"link set {pod.name} up",
            f"link set {pod.bridge} up",
        ]
    yield Batch(host.namespace, tuple(lines))
    for attachment in attachments:
        yield Batch(
            attachment.pod.namespace,
            (
                "link set lo up",
                *_addresses("eth0", attachment.addresses),
                "link set eth0 up",
                *_ways_out(attachment.gateways),
            ),
        )


def _addresses(link: str, addresses: Sequence[Interface]) -> Iterator[str]:
    """The lines that give a link its addresses, before it is up.

    With an IPv6 address it gets a link-local one of the same interface identifier (RFC 4291 section 2.5.1). The kernel would make
    one by itself, and for the second or two of its detection of duplicates (RFC 4862 section 5.4) the link could not ask for the
    neighbours of forwarded packets: a lab is whole when its commands are done.
    """
    for address in addresses:
        if not isinstance(address, IPv6Interface):
            yield f"address add {address} dev {link}"
            continue
        local = IPv6Address((0xFE80 << 112) | (int(address) & 0xFFFF_FFFF_FFFF_FFFF))
        yield f"link set {link} addrgenmode none"
        yield f"address add {local}/64 dev {link} nodad"
        yield f"address add {address} dev {link} nodad"


def _ways_out(gateways: Sequence[Interface]) -> Iterator[str]:
    """The default routes."""
    for gateway in gateways:
        yield f"route add default via {gateway.ip}"

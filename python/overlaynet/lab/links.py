"""A plan as commands for `ip -batch`: pure texts, grouped by the namespace in which they run.

Guarantees that no command names the machine's own namespace, except to add a namespace: veth pairs are made inside the underlay
or a host, with the other end straight in its namespace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from overlaynet.lab.topology import Attachment, Host, Plan, Underlay
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
        if host.gateway is None:
            underlay.append(f"link set {host.name} master underlay")
        else:
            underlay.append(f"address add {host.gateway} dev {host.name}")
        underlay.append(f"link set {host.name} up")
    yield Batch(plan.underlay_namespace, tuple(underlay))
    for host in plan.hosts:
        lines = ["link set lo up", f"address add {host.address} dev eth0", "link set eth0 up"]
        if host.gateway is not None:
            lines.append(f"route add default via {host.gateway.ip}")
        yield Batch(host.namespace, tuple(lines))


def attachment_batches(host: Host, attachments: Sequence[Attachment], mtu: Mtu) -> Iterator[Batch]:
    """The commands that put the host's bridges and pods in place, as a container runtime does after reading subnet.env."""
    lines: list[str] = []
    for attachment in attachments:
        pod = attachment.pod
        lines += [
            f"link add name {pod.bridge} mtu {mtu} type bridge",
            f"address add {attachment.gateway} dev {pod.bridge}",
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
                f"address add {attachment.address} dev eth0",
                "link set eth0 up",
                f"route add default via {attachment.gateway.ip}",
            ),
        )

"""What the packet engine of the `udp` backend should do, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from overlaynet.model.addresses import Address, Mtu, Prefix

OFFLOADS = ("tso", "uso", "gso", "gro", "batch", "poll")
"""What the engine may leave to the kernel in bulk: TCP and UDP super-packets through the TUN, several datagrams in one send, in
one receive, in one system call; and looking for more packets for some microseconds before it sleeps."""


@dataclass(frozen=True, slots=True)
class PumpPeer:
    """A host on the other side: the subnets behind it, and where its datagrams come from and go to."""

    subnets: tuple[Prefix, ...]
    address: Address
    port: int


@dataclass(frozen=True, slots=True)
class PumpConfig:
    """One engine: the TUN `link`, the UDP socket at `listen` and `port`, and the tables.

    `local` are this host's subnets, `addresses` its own overlay addresses (the source of ICMP errors). `mtu` is the TUN's, in
    bytes of inner packet.
    """

    link: str
    listen: Address
    port: int
    mtu: Mtu
    local: tuple[Prefix, ...]
    addresses: tuple[Address, ...]
    peers: tuple[PumpPeer, ...] = ()

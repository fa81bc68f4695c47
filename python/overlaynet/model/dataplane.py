"""What the packet engine should do, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from overlaynet.model.addresses import Address, MacAddress, Mtu, Prefix, Vni

OFFLOADS = ("tso", "uso", "gso", "gro", "batch", "poll")
"""What the engine may leave to the kernel in bulk: TCP and UDP super-packets through the TUN, several datagrams in one send, in
one receive, in one system call; and looking for more packets for some microseconds before it sleeps."""

TAP = "tap"
"""The offload that is used only when it is asked for: whole tunnelled TCP super-packets, which the host forwards from a TAP
device (Linux 6.17)."""


SourceCheck: TypeAlias = Literal["strict", "inner", "off"]
"""How far the sources of incoming packets must fit: the datagram's and the packet's, the packet's only (for peers behind address
translation), or neither."""


@dataclass(frozen=True, slots=True)
class PumpPeer:
    """A host on the other side: the subnets behind it, and where its datagrams come from and go to.

    With VXLAN it has the link-layer address of its VTEP, and the subnets are of one family.
    """

    subnets: tuple[Prefix, ...]
    address: Address
    port: int
    vtep: MacAddress | None = None

    @property
    def order(self) -> tuple[int, int, int]:
        """What peers are sorted by: their first subnets, IPv4 before IPv6."""
        first = self.subnets[0]
        return first.version, int(first.network_address), first.prefixlen


@dataclass(frozen=True, slots=True)
class Vteps:
    """This host's VTEPs: the VNI, and the link-layer addresses for IPv4 and IPv6 inside."""

    vni: Vni
    v4: MacAddress
    v6: MacAddress


@dataclass(frozen=True, slots=True)
class PumpConfig:
    """One engine: the TUN `link`, a UDP socket at each address of `listen` (one of a family) and `port`, and the tables.

    `local` are this host's subnets, `addresses` its own overlay addresses (the source of ICMP errors). `mtu` is the TUN's, in
    bytes of inner packet. With `vteps` the datagrams are VXLAN frames, else plain IP packets; with `tap`, which names a TAP
    device, TCP super-packets among the frames may leave whole through that.
    """

    link: str
    listen: tuple[Address, ...]
    port: int
    mtu: Mtu
    local: tuple[Prefix, ...]
    addresses: tuple[Address, ...]
    peers: tuple[PumpPeer, ...] = ()
    vteps: Vteps | None = None
    tap: str | None = None

"""Simulated peers for benches: their leases, the stores that hold them, what they need in the kernel, and a host among them."""

from __future__ import annotations

# ruff: noqa: SLF001, S101 - stores are filled from inside: ten thousand claims, each checked against all before it, are not measured
import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from overlaynet.backend.vxlan import vtep_mac
from overlaynet.model.addresses import Family, Vni
from overlaynet.model.kernel import FdbEntry, KernelObject, Neighbour, NextHop, Route
from overlaynet.model.lease import HostId, Lease, LeaseAttributes, Subnets
from overlaynet.model.lease_text import VxlanData, encode_vxlan_data
from overlaynet.model.snapshot import LeaseGone, LeasePut
from overlaynet.store.holdings import Held
from overlaynet.store.memory import MemoryStore
from overlaynet.store.sqlite import SqliteStore

NETWORK = IPv4Network("10.0.0.0/8")
CONFIG = json.dumps({"Network": str(NETWORK), "SubnetLen": 24, "Backend": {"Type": "vxlan"}}).encode()
OWN = Subnets(IPv4Network("10.255.0.0/24"))
ADDRESS = IPv4Address("192.168.0.1")
_VNI = Vni(1)
_FIRST_HOP = 0x4F000000
_TTL_S = 1e7


def attributes(number: int, *, moved: int = 0, renewed: int = 0) -> LeaseAttributes:
    """What peer `number` publishes; `moved` gives it another public address, `renewed` another MAC address."""
    mac = vtep_mac(HostId(f"peer{number}/{renewed}"), _VNI, Family.IPV4)
    public = IPv4Address(int(IPv4Address("192.168.0.0")) + 256 + number + moved * 20_000)
    return LeaseAttributes(public, None, "vxlan", encode_vxlan_data(VxlanData(_VNI, mac)), None)


def subnets(number: int) -> Subnets:
    """The subnet of peer `number`."""
    return Subnets(IPv4Network((int(NETWORK.network_address) + (number + 1) * 256, 24)))


def lease_of(number: int, *, moved: int = 0, renewed: int = 0) -> Lease:
    """The lease of peer `number`."""
    published = attributes(number, moved=moved, renewed=renewed)
    return Lease(subnets(number), published, owner=HostId(f"peer{number}"), created=number + 1)


async def store_of(peers: int) -> MemoryStore:
    """A store in memory with so many peers' leases, which do not end."""
    store = MemoryStore(keep=100_000)
    await store.put_config(CONFIG)
    for number in range(peers):
        place(store, lease_of(number))
    return store


def place(store: MemoryStore, lease: Lease) -> None:
    """Give the store a peer's lease, and its watchers the change."""
    store._held.put(Held(lease, lease.created, _TTL_S, None))
    store._commit(LeasePut(lease))


def remove(store: MemoryStore, gone: Subnets) -> None:
    """Take a peer's lease from the store, and tell its watchers."""
    store._held.remove(gone)
    store._commit(LeaseGone(gone))


async def file_of(path: Path, peers: int) -> None:
    """An SQLite store at `path` with so many peers' leases."""
    store = SqliteStore(path)
    await store.put_config(CONFIG)

    def fill() -> None:
        def body(db: object) -> None:
            for number in range(peers):
                store._ledger.insert(db, lease_of(number), _TTL_S)  # type: ignore[arg-type]

        store._write(body)

    await store._run(fill)
    await store.aclose()


def entries(peers: int, *, next_hops: bool) -> list[KernelObject]:
    """What the peers need in the kernel."""
    found: list[KernelObject] = []
    for number in range(peers):
        subnet, published = subnets(number).v4, attributes(number)
        assert subnet is not None
        assert published.public_ipv4 is not None
        base, mac = subnet.network_address, vtep_mac(HostId(f"peer{number}/0"), _VNI, Family.IPV4)
        found += [Neighbour("ovl.1", base, mac), FdbEntry("ovl.1", mac, published.public_ipv4)]
        if next_hops:
            hop = _FIRST_HOP + number + 1
            found += [NextHop(hop, "ovl.1", base), Route(subnet, "ovl.1", next_hop=hop)]
        else:
            found.append(Route(subnet, "ovl.1", base, onlink=True))
    return sorted(found, key=lambda item: item.kind)


def iproute2_lines(peers: int, *, next_hops: bool) -> tuple[str, str]:
    """The same for `ip -batch` and for `bridge -batch`."""
    ip, bridge = [], []
    for item in entries(peers, next_hops=next_hops):
        match item:
            case Neighbour():
                ip.append(f"neighbour add {item.address} lladdr {item.mac} dev ovl.1 nud permanent")
            case FdbEntry():
                bridge.append(f"fdb add {item.mac} dev ovl.1 dst {item.destination} self permanent")
            case NextHop():
                ip.append(f"nexthop add id {item.id} via {item.gateway} dev ovl.1 onlink proto 79")
            case Route(next_hop=None):
                ip.append(f"route add {item.prefix} via {item.gateway} dev ovl.1 onlink proto 79")
            case Route():
                ip.append(f"route add {item.prefix} nhid {item.next_hop} proto 79")
            case _:
                raise AssertionError(item)
    return "\n".join(ip), "\n".join(bridge)


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """A namespace with an underlay, `eth0`, that has its carrier."""
    name = f"ovb-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        lines = (
            "link set lo up",
            "link add eth0 type veth peer name eth1",
            f"address add {ADDRESS}/16 dev eth0",
            "link set eth1 up",
            "link set eth0 up",
        )
        subprocess.run(["ip", "-n", name, "-batch", "-"], input="\n".join(lines), text=True, check=True)
        deadline = time.monotonic() + 10.0
        show = ["ip", "-n", name, "link", "show", "eth0"]
        while "state UP" not in subprocess.run(show, capture_output=True, text=True, check=True).stdout:
            if time.monotonic() > deadline:
                raise TimeoutError("eth0 has no carrier")
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def clear(netns: str, *, device: bool) -> None:
    """Take the device away, and everything on it; `device` makes an empty one again, for iproute2."""
    subprocess.run(["ip", "-n", netns, "link", "delete", "ovl.1"], check=False, capture_output=True)
    subprocess.run(["ip", "-n", netns, "route", "flush", "proto", "79"], check=False, capture_output=True)
    if device:
        lines = (
            f"link add ovl.1 type vxlan id 1 dev eth0 local {ADDRESS} dstport 8472 nolearning",
            "address add 10.255.0.0/32 dev ovl.1",
            "link set ovl.1 up",
        )
        subprocess.run(["ip", "-n", netns, "-batch", "-"], input="\n".join(lines), text=True, check=True)

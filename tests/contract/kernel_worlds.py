"""Two kernels under one set of hands: the fake one, and the real one in a namespace of its own.

ovt-k...:  under0 192.0.2.1/24, fd00::1/64 -- veth -- under1, which only gives under0 its carrier
"""

from __future__ import annotations

import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address, ip_network
from typing import Protocol

from overlaynet.errors import KernelError
from overlaynet.kernel import Kernel
from overlaynet.kernel.fake import FakeKernel
from overlaynet.kernel.netlink import NetlinkKernel
from overlaynet.model.kernel import (
    FdbEntry,
    KernelObject,
    LinkAddress,
    Neighbour,
    NextHop,
    Observation,
    Operation,
    Route,
    Scope,
    TunLink,
    VxlanLink,
    describe,
    in_order,
)

UNDERLAY = "under0"
NETWORKS = (ip_network("10.1.0.0/16"), ip_network("fd01::/48"))
SCOPE = Scope(UNDERLAY, NETWORKS, ("ipv4/ip_forward",))


class World(Protocol):
    """A kernel, and what somebody else does to it."""

    @property
    def kernel(self) -> Kernel: ...

    def remove_link(self, name: str) -> None: ...

    def set_link(self, name: str, *, up: bool | None = None, mtu: int | None = None) -> None: ...

    def add_foreign_link(self, name: str) -> None: ...

    def add_foreign_route(self, route: Route) -> None: ...

    def add_foreign_next_hop(self, hop: NextHop) -> None: ...

    def remove(self, item: KernelObject) -> None: ...


class FakeWorld:
    def __init__(self) -> None:
        self.fake = FakeKernel()
        self.fake.add_underlay(UNDERLAY, [(ip_address("192.0.2.1"), 24), (ip_address("fd00::1"), 64)])

    @property
    def kernel(self) -> Kernel:
        return self.fake

    def remove_link(self, name: str) -> None:
        self.fake.remove_link(name)

    def set_link(self, name: str, *, up: bool | None = None, mtu: int | None = None) -> None:
        self.fake.set_link(name, up=up, mtu=mtu)

    def add_foreign_link(self, name: str) -> None:
        self.fake.add_foreign_link(name)

    def add_foreign_route(self, route: Route) -> None:
        self.fake.add_foreign_route(route)

    def add_foreign_next_hop(self, hop: NextHop) -> None:
        self.fake.add_foreign_next_hop(hop)

    def remove(self, item: KernelObject) -> None:
        self.fake.remove(item)


class RealWorld:
    def __init__(self, namespace: str, kernel: NetlinkKernel) -> None:
        self.namespace = namespace
        self._kernel = kernel

    @property
    def kernel(self) -> Kernel:
        return self._kernel

    def run(self, words: str, program: str = "ip") -> str:
        inside = ["ip", "netns", "exec", self.namespace]
        done = subprocess.run([*inside, program, *words.split()], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{program} {words}: {done.stderr}"
        return done.stdout

    def remove_link(self, name: str) -> None:
        self.run(f"link delete {name}")

    def set_link(self, name: str, *, up: bool | None = None, mtu: int | None = None) -> None:
        if mtu is not None:
            self.run(f"link set {name} mtu {mtu}")
        if up is not None:
            self.run(f"link set {name} {'up' if up else 'down'}")

    def add_foreign_link(self, name: str) -> None:
        self.run(f"link add {name} type bridge")

    def add_foreign_route(self, route: Route) -> None:
        words = describe(route).removeprefix("route ")
        self.run(f"-{route.prefix.version} route add {words} proto static")

    def add_foreign_next_hop(self, hop: NextHop) -> None:
        self.run(f"nexthop add {describe(hop).removeprefix('nexthop ')} proto static")

    def remove(self, item: KernelObject) -> None:
        match item:
            case VxlanLink() | TunLink():
                self.remove_link(item.name)
            case LinkAddress():
                self.run(f"address delete {item} dev {item.link}")
            case Neighbour():
                self.run(f"neighbour delete {item.address} dev {item.link}")
            case FdbEntry():
                self.run(f"fdb delete {item.mac} dev {item.link} dst {item.destination} self", program="bridge")
            case NextHop():
                self.run(f"nexthop delete id {item.id}")
            case Route():
                self.run(f"-{item.prefix.version} route delete {describe(item).removeprefix('route ')} proto 79")
            case _:
                raise AssertionError(item)


@asynccontextmanager
async def fake_world() -> AsyncIterator[World]:
    yield FakeWorld()


def wait_for_carrier(namespace: str) -> None:
    """Return when the underlay has its carrier, which the kernel announces some time after both ends are up."""
    deadline = time.monotonic() + 20
    shown = ""
    while "state UP" not in shown:
        assert time.monotonic() < deadline, shown
        show = ["ip", "-n", namespace, "link", "show", "dev", UNDERLAY]
        shown = subprocess.run(show, capture_output=True, text=True, check=True).stdout


@contextmanager
def fresh_namespace() -> Iterator[str]:
    """The name of a new network namespace, as drawn above; it is deleted at the end."""
    namespace = f"ovt-k{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    try:
        lines = [
            "link set lo up",
            f"link add {UNDERLAY} type veth peer name under1",
            f"address add 192.0.2.1/24 dev {UNDERLAY}",
            f"address add fd00::1/64 dev {UNDERLAY} nodad",
            # No link-local addresses: their duplicate detection ends seconds later, with an event that no scenario expects.
            f"link set {UNDERLAY} addrgenmode none",
            "link set under1 addrgenmode none",
            f"link set {UNDERLAY} up",
            "link set under1 up",
        ]
        text = "".join(f"{line}\n" for line in lines)
        subprocess.run(["ip", "-n", namespace, "-batch", "-"], input=text, text=True, check=True)
        wait_for_carrier(namespace)
        yield namespace
    finally:
        subprocess.run(["ip", "netns", "delete", namespace], check=True)


@asynccontextmanager
async def real_world() -> AsyncIterator[World]:
    with fresh_namespace() as namespace:
        async with await NetlinkKernel.open(namespace) as kernel:
            yield RealWorld(namespace, kernel)


async def observe(world: World) -> Observation:
    return await world.kernel.observe(SCOPE)


async def state(world: World) -> list[str]:
    """What is ours, a line each, sysctls apart."""
    seen = await observe(world)
    return [line for line in map(describe, in_order(seen.objects)) if not line.startswith("sysctl")]


async def errnos(world: World, *operations: Operation) -> list[int | None]:
    """Perform; the errno of each operation, or None."""
    results: list[KernelError | None] = await world.kernel.perform(operations)
    return [None if error is None else error.errno for error in results]

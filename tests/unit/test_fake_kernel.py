"""What tests and simulations do with the fake kernel; tests/contract/test_kernel.py shows that it behaves as the real one."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
from collections.abc import AsyncGenerator
from contextlib import aclosing
from ipaddress import ip_address, ip_network
from typing import cast

import pytest
from overlaynet.errors import KernelBusyError, KernelError, KernelPermissionError
from overlaynet.kernel import Kernel
from overlaynet.kernel.fake import FakeKernel
from overlaynet.kernel.route_table import RouteTable
from overlaynet.model.addresses import MacAddress, Mtu, Vni
from overlaynet.model.kernel import Delete, LinkAddress, ObjectKind, Put, Route, Scope, Sysctl, VxlanLink

SCOPE = Scope("eth0", (ip_network("10.1.0.0/16"),), ("ipv4/ip_forward",))
MAC = MacAddress.parse("02:00:00:00:00:01")
VXLAN = VxlanLink("ovl.1", Vni(1), "eth0", ip_address("192.0.2.1"), 8472, Mtu(1450), MAC)
ADDRESS = LinkAddress("ovl.1", ip_address("10.1.3.0"))
ROUTE = Route(ip_network("10.1.4.0/24"), "eth0", ip_address("192.0.2.2"))


@pytest.fixture
def kernel() -> FakeKernel:
    made = FakeKernel()
    made.add_underlay("eth0", [(ip_address("192.0.2.1"), 24)])
    return made


async def errnos(kernel: Kernel, *operations: Put | Delete) -> list[int | None]:
    return [None if error is None else error.errno for error in await kernel.perform(operations)]


async def test_the_nth_operation_of_a_kind_fails_and_no_other(kernel: FakeKernel) -> None:
    kernel.fail(errno.ENOMEM, kind=ObjectKind.ROUTE, skip=1)
    routes = [dataclasses.replace(ROUTE, metric=metric) for metric in range(3)]
    assert await errnos(kernel, Put(VXLAN), *map(Put, routes)) == [None, None, errno.ENOMEM, None]
    assert routes[1] not in kernel.objects
    assert await errnos(kernel, Put(routes[1])) == [None]


async def test_a_fault_strikes_as_often_as_told_and_can_be_healed(kernel: FakeKernel) -> None:
    kernel.fail(errno.EPERM, times=3)
    results = await kernel.perform([Put(VXLAN), Put(VXLAN)])
    assert all(isinstance(error, KernelPermissionError) for error in results)
    kernel.heal()
    assert await errnos(kernel, Put(VXLAN)) == [None]


def test_routes_over_a_next_hop_are_counted_however_they_come_and_go() -> None:
    one, two, three = (Route(ip_network(f"10.1.{n}.0/24"), "ovl.1", next_hop=7) for n in range(3))
    table = RouteTable()
    table.update({one.key: one, two.key: two})
    table.setdefault(three.key, three)
    assert table.over[7] == 3
    table[one.key] = dataclasses.replace(one, next_hop=8)
    assert table.over == {7: 2, 8: 1}
    table.pop(two.key)
    assert table.over == {7: 1, 8: 1}
    table.popitem()
    table.clear()
    assert not any(table.over.values())


async def test_an_observation_can_fail(kernel: FakeKernel) -> None:
    kernel.fail_observe(errno.EBUSY)
    with pytest.raises(KernelBusyError):
        await kernel.observe(SCOPE)
    assert (await kernel.observe(SCOPE)).objects == {Sysctl("ipv4/ip_forward", "0")}


async def test_the_text_shows_ours_foreign_and_changed_sysctls_in_order(kernel: FakeKernel) -> None:
    kernel.add_foreign_route(Route(ip_network("10.1.7.0/24"), "eth0", ip_address("192.0.2.9")))
    kernel.put(ROUTE, VXLAN, ADDRESS, Sysctl("ipv4/ip_forward", "1"))
    assert kernel.text() == (
        "address 10.1.3.0/32 dev ovl.1\n"
        "foreign route 10.1.7.0/24 via 192.0.2.9 dev eth0 proto static\n"
        "link ovl.1 vxlan id 1 local 192.0.2.1 dev eth0 dstport 8472 nolearning mtu 1450 address 02:00:00:00:00:01\n"
        "route 10.1.4.0/24 via 192.0.2.2 dev eth0\n"
        "sysctl net/ipv4/ip_forward = 1\n"
    )


async def test_other_hands_are_announced_and_our_own_are_not(kernel: FakeKernel) -> None:
    async with aclosing(cast("AsyncGenerator[None, None]", kernel.changes(SCOPE))) as changes:
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        await errnos(kernel, Put(VXLAN), Put(ADDRESS), Put(ROUTE))
        await asyncio.sleep(0)
        assert not waiting.done()
        kernel.remove(ROUTE)
        kernel.remove_link("ovl.1")
        await waiting
        assert kernel.objects == frozenset()
        once_more = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        assert not once_more.done(), "a burst is one item"
        once_more.cancel()
        await asyncio.wait([once_more])


async def test_what_is_put_and_removed_behind_our_back_is_not_counted(kernel: FakeKernel) -> None:
    kernel.put(VXLAN, ADDRESS)
    kernel.remove(ADDRESS)
    assert kernel.writes == 0
    assert await errnos(kernel, Put(ROUTE)) == [None]
    assert kernel.writes == 1


async def test_a_strict_reverse_path_filter_is_a_warning(kernel: FakeKernel) -> None:
    kernel.put(Sysctl("ipv4/conf/all/rp_filter", "1"))
    (warning,) = (await kernel.observe(SCOPE)).warnings
    assert warning.startswith("net.ipv4.conf.eth0.rp_filter is 1 (strict)")
    kernel.put(Sysctl("ipv4/conf/eth0/rp_filter", "2"))
    assert (await kernel.observe(SCOPE)).warnings == ()


async def test_errors_name_the_operation(kernel: FakeKernel) -> None:
    (error,) = await kernel.perform([Put(ADDRESS)])
    assert isinstance(error, KernelError)
    assert str(error) == "kernel: create address 10.1.3.0/32 dev ovl.1: there is no link ovl.1 (errno 19)"

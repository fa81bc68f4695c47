"""What only the real kernel can show: other namespaces, lost events, what others put on our links, a loop that stays free."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio
from overlaynet.errors import KernelError, KernelVanishedError
from overlaynet.kernel import namespace as namespace_module
from overlaynet.kernel.bulk import BulkSocket
from overlaynet.kernel.entries import Fields
from overlaynet.kernel.monitor import Monitor
from overlaynet.kernel.namespace import NamespaceThread
from overlaynet.kernel.netlink import NetlinkKernel
from overlaynet.model.addresses import MacAddress, Mtu, Vni
from overlaynet.model.kernel import (
    NEXT_HOP_IDS,
    Delete,
    FdbEntry,
    KernelObject,
    Link,
    LinkAddress,
    Neighbour,
    NextHop,
    Put,
    Route,
    Sysctl,
    TunLink,
    VxlanLink,
    describe,
)

from tests.contract.kernel_worlds import SCOPE, UNDERLAY, RealWorld, errnos, fresh_namespace, observe, state

MAC = MacAddress.parse("02:00:00:00:00:01")
OTHER_MAC = MacAddress.parse("02:00:00:00:00:02")
VXLAN = VxlanLink("ovl.1", Vni(1), UNDERLAY, ip_address("192.0.2.1"), 8472, Mtu(1450), MAC)
ROUTE = Route(ip_network("10.1.5.0/24"), UNDERLAY, ip_address("192.0.2.2"))


@pytest_asyncio.fixture
async def world() -> AsyncIterator[RealWorld]:
    with fresh_namespace() as name:
        async with await NetlinkKernel.open(name) as kernel:
            yield RealWorld(name, kernel)


async def test_a_namespace_that_is_not_there_is_named() -> None:
    with pytest.raises(KernelError, match="network namespace ovt-none"):
        await NetlinkKernel.open("ovt-none")


async def test_devices_and_sysctls_are_those_of_the_namespace(world: RealWorld) -> None:
    here = namespace_module.read_sysctl("ipv4/ip_forward")
    assert here is not None
    seen = Sysctl("ipv4/ip_forward", here)
    flipped = Sysctl("ipv4/ip_forward", "1" if here == "0" else "0")
    for wanted in (flipped, seen, flipped):
        assert await errnos(world, Put(wanted), Put(TunLink("ovl-udp", Mtu(1400)))) in ([None, None], [None, errno.EEXIST])
        assert wanted in (await observe(world)).objects
    assert namespace_module.read_sysctl("ipv4/ip_forward") == here
    assert "ovl-udp" not in [name for _, name in socket.if_nameindex()]


async def test_what_the_kernel_and_others_put_on_our_links_is_no_object_of_ours(world: RealWorld) -> None:
    assert await errnos(world, Put(VXLAN)) == [None]
    world.run("fdb append 00:00:00:00:00:00 dev ovl.1 dst 192.0.2.9", program="bridge")
    world.run("neighbour add 10.1.7.1 lladdr 02:00:00:00:00:09 nud reachable dev ovl.1")
    world.run("address add fe80::7/64 dev ovl.1 nodad")
    world.run("route add 10.1.7.0/24 dev ovl.1 proto static")
    assert await state(world) == [describe(VXLAN)]


async def test_packets_for_a_tun_wait_in_no_queue_before_its_own(world: RealWorld) -> None:
    assert await errnos(world, Put(TunLink("ovl-udp", Mtu(1400)))) == [None]
    assert world.run("qdisc show dev ovl-udp", program="tc").split()[:2] == ["qdisc", "noqueue"]


async def test_tap_device_carries_frames_and_is_known_again(world: RealWorld) -> None:
    tap = TunLink("ovl-tap", Mtu(1500), 1000, ethernet=True)
    assert await errnos(world, Put(tap)) == [None]
    assert "link/ether" in world.run("link show dev ovl-tap")
    assert await state(world) == [describe(tap)]
    assert await errnos(world, Delete(tap)) == [None]
    assert await state(world) == []


async def test_devices_get_no_link_local_address(world: RealWorld) -> None:
    assert await errnos(world, Put(VXLAN), Put(TunLink("ovl-udp", Mtu(1400)))) == [None] * 2
    for name in ("ovl.1", "ovl-udp"):
        underlay = (await world.kernel.observe(dataclasses.replace(SCOPE, underlay=name))).underlay
        assert underlay is not None
        assert underlay.addresses == ()


async def test_a_route_that_became_foreign_survives_our_delete(world: RealWorld) -> None:
    assert await errnos(world, Put(ROUTE)) == [None]
    world.run("route replace 10.1.5.0/24 via 192.0.2.2 proto static")
    assert await errnos(world, Delete(ROUTE)) == [None]
    assert dict((await observe(world)).foreign)[ROUTE.key] == f"10.1.5.0/24 via 192.0.2.2 dev {UNDERLAY} proto static"


async def test_a_device_of_another_program_on_our_port_is_named(world: RealWorld) -> None:
    world.run(f"link add flannel.1 type vxlan id 1 dev {UNDERLAY} local 192.0.2.1 dstport 8472 nolearning")
    (refused,) = await world.kernel.perform([Put(VXLAN)])
    assert refused is not None
    assert refused.errno == errno.EEXIST
    assert "link flannel.1 has VNI 1 on UDP port 8472 already" in str(refused)


async def test_a_missing_tun_device_is_named(world: RealWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace_module, "_TUN_DEVICE", Path("/dev/net/no-tun"))
    (refused,) = await world.kernel.perform([Put(TunLink("ovl-udp", Mtu(1400)))])
    assert refused is not None
    assert (refused.errno, "/dev/net/no-tun is missing" in str(refused)) == (errno.ENOENT, True)


@pytest.mark.parametrize("link", [VXLAN, TunLink("ovl-udp", Mtu(1400))], ids=lambda link: link.name)
@pytest.mark.parametrize("step", ["_finish", "_settle"])
async def test_a_device_that_vanishes_while_it_is_made_is_said_to_have_vanished(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch, link: Link, step: str
) -> None:
    goes_on = getattr(NetlinkKernel, step)

    async def snatched(*arguments: object) -> None:
        world.remove_link(link.name)
        await goes_on(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(NetlinkKernel, step, snatched)
        (refused,) = await world.kernel.perform([Put(link)])
    assert type(refused) is KernelVanishedError
    assert (refused.errno, "removed before it was set up" in str(refused)) == (errno.ENODEV, True)
    assert await state(world) == []
    assert await errnos(world, Put(link)) == [None]
    assert await state(world) == [describe(link)]


async def test_a_strict_reverse_path_filter_is_warned_of(world: RealWorld) -> None:
    assert (await observe(world)).warnings == ()
    await errnos(world, Put(Sysctl(f"ipv4/conf/{UNDERLAY}/rp_filter", "1")))
    (warning,) = (await observe(world)).warnings
    assert f"net.ipv4.conf.{UNDERLAY}.rp_filter is 1 (strict)" in warning


async def test_lost_events_are_an_item_and_later_ones_are_heard(world: RealWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace_module, "_RECEIVE_BYTES", 4096)
    async with aclosing(cast("AsyncGenerator[None, None]", world.kernel.changes(SCOPE))) as changes:
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0.3)
        # The loop stands still meanwhile, so that the queue fills up with what is no concern of ours.
        for number in range(40):
            world.run(f"address add 203.0.113.{number}/32 dev lo")
        await asyncio.wait_for(waiting, 5)
        again = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0.3)
        world.add_foreign_route(ROUTE)
        await asyncio.wait_for(again, 5)


async def test_an_observation_waits_for_subscriptions_so_that_nothing_falls_between(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_at_once = Monitor.open

    async def open_late(thread: NamespaceThread) -> Monitor:
        await asyncio.sleep(0.3)
        return await open_at_once(thread)

    monkeypatch.setattr(Monitor, "open", open_late)
    async with aclosing(cast("AsyncGenerator[None, None]", world.kernel.changes(SCOPE))) as changes:
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        await observe(world)
        world.add_foreign_route(ROUTE)
        await asyncio.wait_for(waiting, 5)


async def test_what_concerns_others_is_not_heard(world: RealWorld) -> None:
    async with aclosing(cast("AsyncGenerator[None, None]", world.kernel.changes(SCOPE))) as changes:
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0.3)
        world.run("address add 203.0.113.1/32 dev lo")
        world.run("link add other type bridge")
        world.run("link set other up")
        world.run("route add 10.9.0.0/16 dev other")
        world.run("neighbour add 203.0.113.7 lladdr 02:00:00:00:00:09 dev other")
        await asyncio.sleep(0.3)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_two_tasks_share_a_kernel_and_the_loop_stays_free(world: RealWorld) -> None:
    peers = [
        Route(ip_network((int(ip_address("10.1.0.0")) + number * 16, 28)), UNDERLAY, ip_address("192.0.2.2"))
        for number in range(2000)
    ]
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - before)

    watching = asyncio.create_task(watch())
    async with asyncio.TaskGroup() as group:
        first = group.create_task(errnos(world, *(Put(route) for route in peers[:1000])))
        second = group.create_task(errnos(world, *(Put(route) for route in peers[1000:])))
        group.create_task(observe(world))
    assert set(first.result()) | set(second.result()) == {None}
    async with asyncio.TaskGroup() as group:
        seen = [group.create_task(observe(world)) for _ in range(2)]
    assert all(len([item for item in task.result().objects if isinstance(item, Route)]) == 2000 for task in seen)
    watching.cancel()
    await asyncio.wait([watching])
    assert longest < 0.5, f"the loop stood still for {longest:.3f} s"


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
async def test_a_kernel_that_knows_no_next_hops_is_used_without(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(_: BulkSocket) -> list[Fields]:
        raise OSError(number, "Operation not supported")

    monkeypatch.setattr(BulkSocket, "next_hops", refuse)
    with fresh_namespace() as name:
        async with await NetlinkKernel.open(name) as kernel:
            world = RealWorld(name, kernel)
            assert not kernel.next_hops
            route = Route(ip_network("10.1.5.0/24"), "ovl.1", ip_address("10.1.5.0"), onlink=True)
            puts = (VXLAN, LinkAddress("ovl.1", ip_address("10.1.3.0")), Neighbour("ovl.1", ip_address("10.1.5.0"), MAC), route)
            assert await errnos(world, *(Put(item) for item in puts)) == [None] * 4
            assert (await observe(world)).objects >= set(puts)


async def test_ten_thousand_peers_are_read_without_holding_up_the_loop(world: RealWorld) -> None:
    """Counted in processor time of the loop's own thread: on a busy machine it may wait for its turn longer than it works."""
    assert await errnos(world, Put(VXLAN), Put(LinkAddress("ovl.1", ip_address("10.1.3.0")))) == [None] * 2
    entries: list[KernelObject] = []
    for number in range(10_000):
        base, mac = ip_address(int(ip_address("10.1.16.0")) + number), MacAddress(b"\x02\x01" + number.to_bytes(4))
        entries += [Neighbour("ovl.1", base, mac), FdbEntry("ovl.1", mac, ip_address("192.0.2.2"))]
        entries += [NextHop(NEXT_HOP_IDS.start + number, "ovl.1", base)]
        entries += [Route(ip_network(base), "ovl.1", next_hop=NEXT_HOP_IDS.start + number)]
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.001)
            longest = max(longest, time.thread_time() - before)

    puts = [Put(item) for item in entries]
    watching = asyncio.create_task(watch())
    results = await world.kernel.perform(puts)
    seen = await observe(world)
    watching.cancel()
    await asyncio.wait([watching])
    assert set(results) == {None}
    assert len(seen.objects) >= len(entries)
    assert longest < 0.05, f"the loop was at work for {longest:.3f} s without a pause"


async def test_what_reads_as_expected_is_that_very_value_and_what_differs_is_not(world: RealWorld) -> None:
    ground: list[KernelObject] = [VXLAN, LinkAddress("ovl.1", ip_address("10.1.3.0"))]
    base, base6, hop = ip_address("10.1.4.0"), ip_address("fd01:0:0:4::"), NEXT_HOP_IDS.start
    entries: list[Neighbour | FdbEntry | NextHop | Route] = [
        Neighbour("ovl.1", base, MAC),
        Neighbour("ovl.1", base6, MAC),
        FdbEntry("ovl.1", MAC, ip_address("192.0.2.2")),
        NextHop(hop, "ovl.1", base),
        NextHop(hop + 1, "ovl.1", ip_address("10.1.5.0")),
        NextHop(hop + 2, "ovl.1", base6),
        Route(ip_network("10.1.4.0/24"), "ovl.1", next_hop=hop),
        Route(ip_network("fd01:0:0:4::/64"), "ovl.1", metric=1024, next_hop=hop + 2),
    ]
    assert await errnos(world, *map(Put, [*ground, *entries])) == [None] * 10
    copies = [dataclasses.replace(item) for item in entries]
    async with await NetlinkKernel.open(world.namespace) as fresh:
        seen = {item.key: item for item in (await fresh.observe(SCOPE, {item.key: item for item in copies})).objects}
    assert [seen[item.key] is item for item in copies] == [True] * len(copies)

    others: list[KernelObject] = [
        Neighbour("ovl.1", base, OTHER_MAC),
        FdbEntry("ovl.1", MAC, ip_address("192.0.2.3")),
        NextHop(hop, "ovl.1", ip_address("10.1.6.0")),
        Route(ip_network("10.1.4.0/24"), "ovl.1", next_hop=hop + 1),
    ]
    async with await NetlinkKernel.open(world.namespace) as fresh:
        found = (await fresh.observe(SCOPE, {item.key: item for item in others})).objects
    assert set(entries) <= found
    assert not found & set(others)


async def test_a_task_that_is_cancelled_leaves_the_kernel_usable(world: RealWorld) -> None:
    assert await errnos(world, Put(VXLAN), Put(LinkAddress("ovl.1", ip_address("10.1.3.0")))) == [None] * 2
    entries = [Put(Neighbour("ovl.1", ip_address(f"10.1.4.{last}"), MAC)) for last in range(200)]
    for turns in range(1, 40, 4):
        for work in (observe(world), errnos(world, *entries)):
            task = asyncio.ensure_future(work)
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
    assert set(await errnos(world, *entries)) <= {None, errno.EEXIST}
    fdb = FdbEntry("ovl.1", MAC, ip_address("192.0.2.2"))
    assert await errnos(world, Put(fdb)) == [None]
    assert len([item for item in (await observe(world)).objects if isinstance(item, Neighbour)]) == 200


async def test_a_neighbour_that_the_kernel_is_resolving_is_no_obstacle(world: RealWorld) -> None:
    wanted = Neighbour("ovl.1", ip_address("10.1.7.1"), MAC)
    assert await errnos(world, Put(VXLAN)) == [None]
    world.run("neighbour add 10.1.7.1 dev ovl.1 nud incomplete")
    assert await errnos(world, Put(wanted)) == [None]
    assert await errnos(world, Put(wanted)) == [errno.EEXIST]
    assert wanted in (await observe(world)).objects


async def test_our_own_entries_are_no_news_and_what_others_do_to_them_is(world: RealWorld) -> None:
    first, second = ip_address("192.0.2.2"), ip_address("192.0.2.3")
    stations = [FdbEntry("ovl.1", MacAddress(bytes([2, 0, 0, 0, 1, number])), first) for number in range(50)]
    made = [Put(VXLAN), Put(LinkAddress("ovl.1", ip_address("10.1.3.0")))]
    assert await errnos(world, *made) == [None] * 2
    async with aclosing(cast("AsyncGenerator[None, None]", world.kernel.changes(SCOPE))) as changes:
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0.3)
        assert set(await errnos(world, *(Put(item) for item in stations))) == {None}
        await asyncio.sleep(0.1)
        moved = [Put(dataclasses.replace(item, destination=second), item) for item in stations]
        assert set(await errnos(world, *moved)) == {None}
        await asyncio.sleep(0.1)
        assert await errnos(world, Delete(moved[0].object)) == [None]
        assert await errnos(world, Put(Neighbour("ovl.1", ip_address("10.1.4.0"), MAC))) == [None]
        await asyncio.sleep(0.3)
        assert not waiting.done()
        world.run(f"fdb replace {stations[1].mac} dev ovl.1 dst {first} self permanent", program="bridge")
        await asyncio.wait_for(waiting, 5)
        again = asyncio.ensure_future(anext(changes))
        await observe(world)
        world.run(f"fdb delete {stations[2].mac} dev ovl.1 self", program="bridge")
        await asyncio.wait_for(again, 5)

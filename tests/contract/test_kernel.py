"""What the fake kernel and the real one must do alike: same operations, same errno, same state afterwards."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from ipaddress import ip_address, ip_network
from typing import cast

import pytest
import pytest_asyncio
from overlaynet.model.addresses import MacAddress, Mtu, Vni
from overlaynet.model.kernel import (
    NEXT_HOP_IDS,
    UNREACHABLE_METRIC,
    Delete,
    FdbEntry,
    KernelObject,
    LinkAddress,
    Neighbour,
    NextHop,
    ObjectKind,
    Put,
    Route,
    Sysctl,
    TunLink,
    VxlanLink,
    describe,
    in_order,
    route_key,
)

from tests.contract.kernel_worlds import SCOPE, UNDERLAY, World, errnos, fake_world, observe, real_world, state

MAC = MacAddress.parse("02:00:00:00:00:01")
PEER_MAC = MacAddress.parse("02:00:00:00:00:02")
OTHER_MAC = MacAddress.parse("02:00:00:00:00:03")

VXLAN = VxlanLink("ovl.1", Vni(1), UNDERLAY, ip_address("192.0.2.1"), 8472, Mtu(1450), MAC)
VXLAN6 = VxlanLink("ovl6.1", Vni(1), UNDERLAY, ip_address("fd00::1"), 8472, Mtu(1430), MAC)
TUN = TunLink("ovl-udp", Mtu(1472))
TUN_ADDRESS = LinkAddress("ovl-udp", ip_address("10.1.9.0"))
TUN_ROUTE = Route(ip_network("10.1.0.0/16"), "ovl-udp", source=ip_address("10.1.9.0"))
TUN_ROUTE6 = Route(ip_network("fd01::/48"), "ovl-udp", metric=100)
ADDRESS = LinkAddress("ovl.1", ip_address("10.1.3.0"))
ADDRESS6 = LinkAddress("ovl6.1", ip_address("fd01:0:0:3::"))
NEIGHBOUR = Neighbour("ovl.1", ip_address("10.1.4.0"), PEER_MAC)
NEIGHBOUR6 = Neighbour("ovl6.1", ip_address("fd01:0:0:4::"), PEER_MAC)
FDB = FdbEntry("ovl.1", PEER_MAC, ip_address("192.0.2.2"))
FDB6 = FdbEntry("ovl6.1", PEER_MAC, ip_address("fd00::2"))
ROUTE = Route(ip_network("10.1.4.0/24"), "ovl.1", ip_address("10.1.4.0"), onlink=True, source=ip_address("10.1.3.0"))
ROUTE6 = Route(
    ip_network("fd01:0:0:4::/64"),
    "ovl6.1",
    ip_address("fd01:0:0:4::"),
    onlink=True,
    metric=100,
    source=ip_address("fd01:0:0:3::"),
)
HOP = NextHop(NEXT_HOP_IDS[8], "ovl.1", ip_address("10.1.8.0"))
HOP6 = NextHop(NEXT_HOP_IDS[-6], "ovl6.1", ip_address("fd01:0:0:6::"))
OVER_HOP = Route(ip_network("10.1.8.0/24"), "ovl.1", next_hop=HOP.id)
OVER_HOP6 = Route(ip_network("fd01:0:0:6::/64"), "ovl6.1", metric=100, next_hop=HOP6.id)
UNREACHABLE = Route(ip_network("10.1.0.0/16"), None, metric=UNREACHABLE_METRIC, type="unreachable")
UNREACHABLE6 = Route(ip_network("fd01::/48"), None, metric=UNREACHABLE_METRIC, type="unreachable")
DIRECT = Route(ip_network("10.1.5.0/24"), UNDERLAY, ip_address("192.0.2.2"))
DIRECT6 = Route(ip_network("fd01:0:0:5::/64"), UNDERLAY, ip_address("fd00::2"), metric=100)

V4: tuple[KernelObject, ...] = (VXLAN, ADDRESS, NEIGHBOUR, FDB, HOP, ROUTE, OVER_HOP, UNREACHABLE, DIRECT)
V6: tuple[KernelObject, ...] = (VXLAN6, ADDRESS6, NEIGHBOUR6, FDB6, HOP6, ROUTE6, OVER_HOP6, UNREACHABLE6, DIRECT6)
TUNNEL: tuple[KernelObject, ...] = (TUN, TUN_ADDRESS, TUN_ROUTE, TUN_ROUTE6)
EVERYTHING = (*V4, *V6, *TUNNEL)


@pytest_asyncio.fixture(params=["fake", "real"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with fake_world() if request.param == "fake" else real_world() as made:
        yield made


async def make(world: World, *items: KernelObject) -> None:
    made = await errnos(world, *(Put(item) for item in items))
    assert made == [None] * len(items), [str(error) for error in made]


def lines(*items: KernelObject) -> list[str]:
    return [describe(item) for item in in_order(items)]


async def test_what_is_made_is_seen_exactly_as_it_was_wanted(world: World) -> None:
    await make(world, *in_order(EVERYTHING))
    assert await state(world) == lines(*EVERYTHING)
    assert set(EVERYTHING) <= (await observe(world)).objects


async def test_a_look_at_the_underlay_alone_sees_nothing_of_ours(world: World) -> None:
    await make(world, *in_order(EVERYTHING))
    alone = await world.kernel.observe(dataclasses.replace(SCOPE, sysctls=(), ours=False))
    assert (alone.objects, alone.foreign) == (frozenset(), ())
    assert alone.underlay == (await observe(world)).underlay is not None


async def test_a_device_with_group_policy_and_learning_is_seen_as_such(world: World) -> None:
    odd = dataclasses.replace(VXLAN, gbp=True, learning=True, port=4789, vni=Vni(77))
    await make(world, odd)
    assert await state(world) == lines(odd)


async def test_nothing_is_made_over_what_is_there(world: World) -> None:
    await make(world, *in_order(EVERYTHING))
    assert await errnos(world, *(Put(item) for item in EVERYTHING)) == [errno.EEXIST] * len(EVERYTHING)
    assert await state(world) == lines(*EVERYTHING)


async def test_what_is_gone_can_be_deleted(world: World) -> None:
    await make(world, *in_order(EVERYTHING))
    backwards = [Delete(item) for item in reversed(in_order(EVERYTHING))]
    assert await errnos(world, *backwards) == [None] * len(EVERYTHING)
    assert await state(world) == []
    assert await errnos(world, *backwards) == [None] * len(EVERYTHING)


async def test_a_changed_entry_is_replaced_where_it_stands(world: World) -> None:
    await make(world, *in_order(EVERYTHING))
    neighbour = dataclasses.replace(NEIGHBOUR, mac=OTHER_MAC)
    fdb = dataclasses.replace(FDB, destination=ip_address("192.0.2.7"))
    route = dataclasses.replace(ROUTE, gateway=ip_address("10.1.4.9"))
    route6 = dataclasses.replace(ROUTE6, gateway=ip_address("fd01:0:0:4::9"))
    direct = dataclasses.replace(DIRECT, gateway=ip_address("192.0.2.9"))
    changed = ((neighbour, NEIGHBOUR), (fdb, FDB), (route, ROUTE), (route6, ROUTE6), (direct, DIRECT))
    assert await errnos(world, *(Put(new, old) for new, old in changed)) == [None] * 5
    kept = [item for item in EVERYTHING if item not in [old for _, old in changed]]
    assert await state(world) == lines(*kept, *(new for new, _ in changed))


async def test_a_next_hop_takes_its_routes_along(world: World) -> None:
    await make(world, *in_order(EVERYTHING))
    world.remove(HOP)
    assert await errnos(world, Delete(HOP6)) == [None]
    assert await state(world) == lines(*(item for item in EVERYTHING if item not in (HOP, HOP6, OVER_HOP, OVER_HOP6)))
    assert await errnos(world, Put(OVER_HOP), Put(OVER_HOP6)) == [errno.EINVAL] * 2


async def test_a_next_hop_is_replaced_under_its_route_and_a_route_between_both_forms(world: World) -> None:
    await make(world, *in_order(EVERYTHING))
    elsewhere = dataclasses.replace(HOP, gateway=ip_address("10.1.8.9"))
    plain = Route(OVER_HOP.prefix, "ovl.1", ip_address("10.1.8.0"), onlink=True)
    over = Route(ROUTE6.prefix, "ovl6.1", metric=100, next_hop=HOP6.id)
    changes = (Put(elsewhere, HOP), Put(plain, OVER_HOP), Put(over, ROUTE6))
    assert await errnos(world, *changes) == [None] * 3
    kept = [item for item in EVERYTHING if item not in (HOP, OVER_HOP, ROUTE6)]
    assert await state(world) == lines(*kept, elsewhere, plain, over)


async def test_a_next_hop_needs_its_link_to_be_there_and_up(world: World) -> None:
    assert await errnos(world, Put(HOP)) == [errno.ENODEV]
    await make(world, VXLAN)
    world.set_link("ovl.1", up=False)
    assert await errnos(world, Put(HOP)) == [errno.ENETDOWN]


async def test_next_hops_of_others_with_numbers_of_ours_are_foreign_and_stay(world: World) -> None:
    await make(world, VXLAN)
    world.add_foreign_next_hop(HOP)
    assert await errnos(world, Put(HOP)) == [errno.EEXIST]
    seen = await observe(world)
    assert dict(seen.foreign)[HOP.key] == f"{describe(HOP).removesuffix(' onlink')} proto static"
    assert HOP not in seen.objects


async def test_a_smaller_mtu_leaves_a_device_and_all_on_it_in_place(world: World) -> None:
    await make(world, *in_order(V4))
    smaller = dataclasses.replace(VXLAN, mtu=Mtu(1300))
    assert await errnos(world, Put(smaller, VXLAN)) == [None]
    assert await state(world) == lines(smaller, *V4[1:])


async def test_another_mac_ends_the_neighbour_entries_of_a_device(world: World) -> None:
    await make(world, *in_order(V4))
    renamed = dataclasses.replace(VXLAN, mac=OTHER_MAC)
    assert await errnos(world, Put(renamed, VXLAN)) == [None]
    assert await state(world) == lines(renamed, ADDRESS, FDB, HOP, ROUTE, OVER_HOP, UNREACHABLE, DIRECT)


@pytest.mark.parametrize("change", [{"port": 4789}, {"local": ip_address("192.0.2.9")}, {"vni": Vni(2)}, {"gbp": True}], ids=str)
async def test_what_cannot_change_makes_a_device_anew_and_takes_all_on_it_along(world: World, change: dict[str, object]) -> None:
    await make(world, *in_order(V4))
    other = dataclasses.replace(VXLAN, **change)  # type: ignore[arg-type] # one field of its own type
    assert await errnos(world, Put(other, VXLAN)) == [None]
    assert await state(world) == lines(other, UNREACHABLE, DIRECT)


async def test_a_deleted_device_takes_all_on_it_along(world: World) -> None:
    await make(world, *in_order(EVERYTHING))
    world.remove_link("ovl.1")
    assert await state(world) == lines(UNREACHABLE, DIRECT, *V6, *TUNNEL)
    assert await errnos(world, Delete(VXLAN6)) == [None]
    assert await state(world) == lines(UNREACHABLE, DIRECT, UNREACHABLE6, DIRECT6, *TUNNEL)


async def test_a_device_that_is_set_down_loses_what_the_kernel_takes(world: World) -> None:
    await make(world, *in_order(EVERYTHING))
    for name in ("ovl.1", "ovl6.1"):
        world.set_link(name, up=False)
    down, down6 = dataclasses.replace(VXLAN, up=False), dataclasses.replace(VXLAN6, up=False)
    assert await state(world) == lines(down, ADDRESS, FDB, UNREACHABLE, DIRECT, down6, FDB6, UNREACHABLE6, DIRECT6, *TUNNEL)
    assert await errnos(world, Put(VXLAN, down), Put(VXLAN6, down6), Put(NEIGHBOUR), Put(ROUTE)) == [None] * 4
    restored = (ADDRESS, NEIGHBOUR, FDB, ROUTE, UNREACHABLE, DIRECT)
    assert await state(world) == lines(VXLAN, *restored, VXLAN6, FDB6, UNREACHABLE6, DIRECT6, *TUNNEL)


async def test_an_underlay_that_is_set_down_takes_its_routes_and_leaves_the_devices(world: World) -> None:
    await make(world, *in_order(V4))
    world.set_link(UNDERLAY, up=False)
    assert await state(world) == lines(*(item for item in V4 if item is not DIRECT))
    underlay = (await observe(world)).underlay
    assert underlay is not None
    assert not underlay.up
    assert underlay.onlink == ()
    assert await errnos(world, Put(DIRECT), Put(DIRECT6)) == [errno.ENETUNREACH, errno.EHOSTUNREACH]
    onlink = dataclasses.replace(DIRECT, onlink=True)
    onlink6 = dataclasses.replace(DIRECT6, onlink=True)
    assert await errnos(world, Put(onlink), Put(onlink6)) == [errno.ENETDOWN] * 2


async def test_an_underlay_that_is_deleted_takes_the_devices_over_it_along(world: World) -> None:
    await make(world, *in_order(EVERYTHING))
    world.remove_link(UNDERLAY)
    assert await state(world) == lines(UNREACHABLE, UNREACHABLE6, *TUNNEL)
    assert (await observe(world)).underlay is None
    assert await errnos(world, Put(VXLAN)) == [errno.ENODEV]


async def test_a_tunnel_keeps_all_on_it_when_its_size_changes_and_loses_it_when_set_down(world: World) -> None:
    await make(world, *TUNNEL)
    other = TunLink(TUN.name, Mtu(1400), queue_length=1000)
    assert await errnos(world, Put(other, TUN)) == [None]
    assert await state(world) == lines(other, *TUNNEL[1:])
    world.set_link(TUN.name, up=False)
    assert await state(world) == lines(dataclasses.replace(other, up=False), TUN_ADDRESS)


async def test_the_last_ipv4_address_takes_routes_and_neighbours_along(world: World) -> None:
    plain = dataclasses.replace(ROUTE, prefix=ip_network("10.1.6.0/24"), gateway=ip_address("10.1.6.0"), source=None)
    await make(world, *in_order((*V4, plain)))
    world.remove(ADDRESS)
    assert await state(world) == lines(VXLAN, FDB, HOP, OVER_HOP, UNREACHABLE, DIRECT)


async def test_an_address_that_is_not_the_last_takes_only_routes_from_it_along(world: World) -> None:
    second = LinkAddress("ovl.1", ip_address("10.1.3.7"))
    plain = dataclasses.replace(ROUTE, prefix=ip_network("10.1.6.0/24"), gateway=ip_address("10.1.6.0"), source=None)
    await make(world, *in_order((*V4, second, plain)))
    assert await errnos(world, Delete(ADDRESS)) == [None]
    assert await state(world) == lines(VXLAN, second, NEIGHBOUR, FDB, HOP, plain, OVER_HOP, UNREACHABLE, DIRECT)


async def test_a_lost_ipv6_address_leaves_the_route_without_source(world: World) -> None:
    await make(world, *in_order(V6))
    world.remove(ADDRESS6)
    kept = [item for item in V6 if item not in (ADDRESS6, ROUTE6)]
    assert await state(world) == lines(*kept, dataclasses.replace(ROUTE6, source=None))


async def test_an_address_of_another_length_is_seen_and_can_be_removed(world: World) -> None:
    wide = dataclasses.replace(ADDRESS, length=16)
    wide6 = dataclasses.replace(ADDRESS6, length=64)
    await make(world, VXLAN, VXLAN6, wide, wide6)
    assert await state(world) == lines(VXLAN, VXLAN6, wide, wide6)
    assert await errnos(world, Put(ADDRESS), Put(ADDRESS6)) == [None, errno.EEXIST]
    assert await errnos(world, Delete(wide), Delete(wide6), Put(ADDRESS6)) == [None] * 3
    assert await state(world) == lines(VXLAN, VXLAN6, ADDRESS, ADDRESS6)


async def test_entries_on_links_that_are_not_there_are_refused(world: World) -> None:
    wanted = (ADDRESS, NEIGHBOUR, FDB, ROUTE, dataclasses.replace(VXLAN, underlay="nowhere"))
    assert await errnos(world, *(Put(item) for item in wanted)) == [errno.ENODEV] * 5


async def test_a_gateway_off_the_link_is_refused_and_nothing_else_is(world: World) -> None:
    far = dataclasses.replace(DIRECT, gateway=ip_address("198.51.100.1"))
    far6 = dataclasses.replace(DIRECT6, gateway=ip_address("2001:db8::1"))
    results = await errnos(world, Put(far), Put(far6), Put(UNREACHABLE))
    assert results == [errno.ENETUNREACH, errno.EHOSTUNREACH, None]
    assert await state(world) == lines(UNREACHABLE)


async def test_a_source_that_is_nobodys_is_refused(world: World) -> None:
    await make(world, VXLAN, VXLAN6)
    assert await errnos(world, Put(ROUTE), Put(ROUTE6)) == [errno.EINVAL] * 2


async def test_an_mtu_that_does_not_fit_is_refused_and_the_device_can_be_mended(world: World) -> None:
    large = dataclasses.replace(VXLAN, mtu=Mtu(1490))
    assert await errnos(world, Put(large)) == [errno.EINVAL]
    (seen,) = (item for item in (await observe(world)).objects if isinstance(item, VxlanLink))
    assert seen == dataclasses.replace(VXLAN, up=False)
    assert await errnos(world, Put(VXLAN, seen), Put(large, VXLAN)) == [None, errno.EINVAL]
    assert await state(world) == lines(VXLAN)


async def test_a_second_device_of_the_same_number_and_port_is_refused_by_name(world: World) -> None:
    await make(world, VXLAN)
    twin = dataclasses.replace(VXLAN, name="ovl.2")
    (refused,) = await world.kernel.perform([Put(twin)])
    assert refused is not None
    assert refused.errno == errno.EEXIST
    assert "ovl.1 has VNI 1 on UDP port 8472" in str(refused)


async def test_a_foreign_link_with_our_name_is_shown_and_left_alone(world: World) -> None:
    world.add_foreign_link("ovl.1")
    seen = await observe(world)
    assert dict(seen.foreign)[(ObjectKind.LINK, "ovl.1")] == "link ovl.1 of kind bridge"
    assert seen.objects <= {Sysctl("ipv4/ip_forward", "0"), Sysctl("ipv4/ip_forward", "1")}
    assert await errnos(world, Put(VXLAN), Put(VXLAN, VXLAN), Delete(VXLAN)) == [errno.EEXIST] * 3
    assert dict((await observe(world)).foreign) == dict(seen.foreign)


@pytest.mark.parametrize("ours", [DIRECT, DIRECT6], ids=["v4", "v6"])
async def test_a_foreign_route_in_our_place_is_shown_and_left_alone(world: World, ours: Route) -> None:
    world.add_foreign_route(ours)
    seen = await observe(world)
    assert "proto static" in dict(seen.foreign)[ours.key]
    assert str(ours.prefix) in dict(seen.foreign)[ours.key]
    assert await errnos(world, Put(ours), Delete(ours)) == [errno.EEXIST, None]
    assert await state(world) == []
    assert dict((await observe(world)).foreign)[ours.key] == dict(seen.foreign)[ours.key]


async def test_a_foreign_route_at_another_metric_stands_beside_ours(world: World) -> None:
    world.add_foreign_route(dataclasses.replace(DIRECT, metric=7))
    await make(world, DIRECT)
    assert await state(world) == lines(DIRECT)
    assert await errnos(world, Delete(DIRECT)) == [None]
    assert route_key(DIRECT.prefix, 7) in dict((await observe(world)).foreign)


async def test_routes_outside_the_networks_are_no_concern(world: World) -> None:
    world.add_foreign_route(Route(ip_network("10.9.0.0/24"), UNDERLAY, ip_address("192.0.2.2")))
    await make(world, Route(ip_network("10.9.1.0/24"), UNDERLAY, ip_address("192.0.2.2")))
    seen = await observe(world)
    assert await state(world) == []
    assert not any(key[1] == ip_network("10.9.0.0/24") for key, _ in seen.foreign if isinstance(key, tuple))


async def test_the_underlay_is_seen_as_it_is(world: World) -> None:
    underlay = (await observe(world)).underlay
    assert underlay is not None
    assert (underlay.link, underlay.mtu, underlay.up) == (UNDERLAY, 1500, True)
    assert {ip_address("192.0.2.1"), ip_address("fd00::1")} <= set(underlay.addresses)
    assert set(underlay.onlink) == {ip_network("192.0.2.0/24"), ip_network("fd00::/64")}
    assert underlay.reaches_directly(ip_address("192.0.2.9"))
    assert not underlay.reaches_directly(ip_address("198.51.100.1"))


async def test_sysctls_are_set_and_never_taken_back(world: World) -> None:
    wanted = Sysctl("ipv4/ip_forward", "1")
    assert await errnos(world, Put(wanted), Put(Sysctl("ipv4/no_such", "1"))) == [None, errno.ENOENT]
    assert wanted in (await observe(world)).objects
    assert await errnos(world, Delete(wanted)) == [None]
    assert wanted in (await observe(world)).objects


async def test_writes_count_operations(world: World) -> None:
    before = world.kernel.writes
    await errnos(world, Put(VXLAN), Put(ADDRESS), Put(ADDRESS), Delete(VXLAN))
    assert world.kernel.writes - before == 4


async def test_other_hands_are_heard(world: World) -> None:
    await make(world, *in_order(V4))
    async with aclosing(cast("AsyncGenerator[None, None]", world.kernel.changes(SCOPE))) as changes:
        first = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0.3)  # subscribed by then; what was missed would fail the test, never pass it
        assert not first.done(), "nothing had changed"
        for item in (ROUTE, NEIGHBOUR, FDB, ADDRESS, VXLAN):
            world.remove(item)
            await asyncio.wait_for(first, 5)
            first = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0.1)
        world.set_link(UNDERLAY, up=False)
        await asyncio.wait_for(first, 5)

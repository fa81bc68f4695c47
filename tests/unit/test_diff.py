"""Differences between what is wanted and what was seen."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from overlaynet.model.addresses import MacAddress, Mtu, Vni
from overlaynet.model.kernel import (
    NEXT_HOP_IDS,
    Delete,
    FdbEntry,
    KernelObject,
    LinkAddress,
    Neighbour,
    NextHop,
    ObjectKind,
    Observation,
    Operation,
    Put,
    Route,
    Sysctl,
    VxlanLink,
)
from overlaynet.reconcile.diff import diff

MAC = MacAddress.parse("02:00:00:00:00:07")
LINK = VxlanLink("ovl.1", Vni(1), "eth0", ip_address("192.0.2.1"), 8472, Mtu(1450), MacAddress.parse("02:00:00:00:00:01"))
ADDRESS = LinkAddress("ovl.1", ip_address("10.5.1.0"))
NEIGHBOUR = Neighbour("ovl.1", ip_address("10.5.7.0"), MAC)
FDB = FdbEntry("ovl.1", MAC, ip_address("192.0.2.7"))
ROUTE = Route(ip_network("10.5.7.0/24"), "ovl.1", ip_address("10.5.7.0"), onlink=True)
HOP = NextHop(NEXT_HOP_IDS[8], "ovl.1", ip_address("10.5.8.0"))
OVER_HOP = Route(ip_network("10.5.8.0/24"), "ovl.1", next_hop=HOP.id)
FORWARD = Sysctl("ipv4/ip_forward", "1")
LINK_SYSCTL = Sysctl("ipv6/conf/ovl.1/accept_ra", "0", "ovl.1")
ALL = (OVER_HOP, ROUTE, HOP, FDB, NEIGHBOUR, ADDRESS, LINK_SYSCTL, LINK, FORWARD)


def operations(wanted: tuple[KernelObject, ...], *seen: KernelObject, complete: bool = True) -> tuple[Operation, ...]:
    return diff(wanted, Observation(frozenset(seen), None), complete=complete).operations


def test_equal_sides_give_no_operation() -> None:
    assert operations(ALL, *ALL) == ()


def test_puts_go_in_order_of_kind_and_a_links_sysctl_after_the_link() -> None:
    assert [one.object for one in operations(ALL)] == [FORWARD, LINK, LINK_SYSCTL, ADDRESS, NEIGHBOUR, FDB, HOP, OVER_HOP, ROUTE]


def test_deletes_go_in_reverse_order_and_leave_sysctls() -> None:
    assert [one.object for one in operations((), *ALL)] == [OVER_HOP, ROUTE, HOP, FDB, NEIGHBOUR, ADDRESS, LINK]


def test_nothing_is_deleted_while_the_wanted_side_is_incomplete() -> None:
    assert operations((), *ALL, complete=False) == ()


def test_puts_come_before_deletes() -> None:
    moved = replace(FDB, mac=MacAddress.parse("02:00:00:00:00:99"))
    assert operations((LINK, moved), LINK, FDB) == (Put(moved), Delete(FDB))


def test_peer_whose_address_changed_is_replaced_by_value() -> None:
    moved = replace(FDB, destination=ip_address("192.0.2.70"))
    assert operations((LINK, moved), LINK, FDB) == (Put(moved, replaces=FDB),)


def test_object_that_was_not_seen_is_created_exclusively() -> None:
    assert operations((ROUTE,)) == (Put(ROUTE, replaces=None),)


def test_foreign_entry_is_a_conflict_and_never_written() -> None:
    found = diff((ROUTE,), Observation(frozenset(), None, foreign=((ROUTE.key, "10.5.7.0/24 proto static"),)), complete=True)
    assert found.operations == ()
    assert found.conflicts == ((ROUTE.key, "10.5.7.0/24 proto static"),)


def test_no_route_leads_over_somebody_elses_next_hop() -> None:
    found = diff((HOP, OVER_HOP), Observation(frozenset({OVER_HOP}), None, foreign=((HOP.key, "nexthop id 5"),)), complete=True)
    assert found.operations == (Delete(OVER_HOP),)
    assert dict(found.conflicts) == {
        HOP.key: "nexthop id 5",
        OVER_HOP.key: "its next hop is somebody else's: nexthop id 5",
    }


def test_nothing_is_put_on_a_foreign_link_with_our_name() -> None:
    seen = Observation(frozenset(), None, foreign=((LINK.key, "link ovl.1 of kind bridge"),))
    found = diff(ALL, seen, complete=True)
    assert [one.object for one in found.operations] == [FORWARD]
    assert {key[0] for key, _ in found.conflicts if isinstance(key, tuple)} == {
        ObjectKind.SYSCTL, ObjectKind.LINK, ObjectKind.ADDRESS, ObjectKind.NEIGHBOUR, ObjectKind.FDB, ObjectKind.NEXT_HOP,
        ObjectKind.ROUTE,
    }  # fmt: skip


def test_foreign_look_alike_that_nobody_wants_is_no_conflict() -> None:
    found = diff((), Observation(frozenset(), None, foreign=((ROUTE.key, "10.5.7.0/24 proto static"),)), complete=True)
    assert (found.operations, found.conflicts) == ((), ())

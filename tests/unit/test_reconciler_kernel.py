"""One host and its kernel, told in scenes: writes that fail, things that vanish, others' entries, and devices made anew."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, ip_network
from typing import Any

import pytest
from overlaynet.errors import (
    KernelError,
    KernelPermissionError,
    KernelVanishedError,
)
from overlaynet.model.kernel import KernelObject, ObjectKind, Operation, Put, Route, VxlanLink
from overlaynet.model.snapshot import LeaseGone, LeasePut
from overlaynet.reconcile import programming
from overlaynet.reconcile.actions import (
    ClaimSubnet,
    Observe,
    Program,
    Stop,
)
from overlaynet.reconcile.diff import Difference, diff_by_key
from overlaynet.reconcile.events import KernelChanged

from tests.unit.host_world import VXLAN, World, peer, subnets


def test_link_that_cannot_be_made_is_the_reason_of_all_that_stands_on_it_said_once_and_in_the_status() -> None:
    world = World(VXLAN, peer(7), peer(8))
    world.kernel.fail(errno.EEXIST, kind=ObjectKind.LINK, times=10_000)
    world.settle(5.0)
    assert len(world.reports("kernel")) == 1
    (warning,) = world.warnings()
    assert "create link ovl.1" in warning
    peers = world.reconciler.status(world.now).peers
    assert [(one.state, one.why) for one in peers] == [("failed", warning)] * 2
    world.kernel.heal()
    world.settle(60.0)
    assert (world.warnings(), set(world.states().values())) == ((), {"programmed"})


def test_foreign_link_in_the_place_of_ours_is_one_conflict_whatever_stands_on_it() -> None:
    world = World(VXLAN, peer(7), peer(8))
    world.kernel.add_foreign_link("ovl.1")
    world.settle(5.0)
    assert world.reconciler.status(world.now).conflicts == ("link ovl.1 of kind bridge",)
    assert len(world.reports("conflict")) == 1
    assert set(world.states().values()) == {"conflict"}


def test_one_failing_peer_holds_up_nobody_and_is_retried() -> None:
    world = World(VXLAN, peer(7), peer(8))
    bad = ip_network("10.5.7.0/24")
    world.kernel.fail(errno.EINVAL, times=3, matches=lambda one: isinstance(one.object, Route) and one.object.prefix == bad)
    for _ in range(50):
        if world.ready or not world.pending:
            break
        world.carry_out()
    assert world.ready
    assert world.states() == {"10.5.7.0-24": "failed", "10.5.8.0-24": "programmed"}
    world.settle(5.0)
    assert world.states() == {"10.5.7.0-24": "programmed", "10.5.8.0-24": "programmed"}
    assert len(world.reports("kernel")) == 2


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EBUSY, errno.EINVAL])
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("kind", ObjectKind)
def test_whichever_write_of_a_kind_fails_everything_is_there_in_the_end(kind: ObjectKind, nth: int, number: int) -> None:
    whole = World(VXLAN, peer(7), peer(8), peer(9))
    whole.settle(1.0)
    world = World(VXLAN, peer(7), peer(8), peer(9))
    world.kernel.fail(number, kind=kind, skip=nth - 1)
    world.settle(5.0)
    assert world.ready
    assert world.text() == whole.text()
    assert set(world.states().values()) == {"programmed"}
    # Once more for what is removed, and what stands on it.
    world.kernel.remove_link("ovl.1")
    world.tell(KernelChanged())
    world.kernel.fail(number, kind=kind, skip=nth - 1)
    world.change(LeaseGone(subnets(9)))
    world.settle(5.0)
    whole.change(LeaseGone(subnets(9)))
    whole.settle(1.0)
    assert world.text() == whole.text()


def test_what_is_compared_after_a_change_is_what_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(VXLAN, *(peer(number) for number in range(7, 107)))
    world.settle(1.0)
    compared: list[int] = []

    def counting(wanted: Iterable[KernelObject], *rest: Any, complete: bool) -> Difference:
        several = list(wanted)
        compared.append(len(several))
        return diff_by_key(several, *rest, complete=complete)

    monkeypatch.setattr(programming, "diff_by_key", counting)
    for number in range(7, 17):
        world.change(LeasePut(peer(number, address="192.0.2.200")))
        world.settle(0.01)
    assert len(compared) == 10
    assert max(compared) <= 5


def test_entries_wait_for_their_link_and_are_not_read_back() -> None:
    world = World(VXLAN, peer(7), peer(8))
    world.settle(1.0)
    assert world.ready
    written = [[one.object.kind for one in action.operations] for action in world.done if isinstance(action, Program)]
    assert len(written) == 2
    assert max(written[0]) is ObjectKind.ADDRESS
    assert min(written[1]) is ObjectKind.NEIGHBOUR
    last = max(place for place, action in enumerate(world.done) if isinstance(action, Program))
    assert not any(isinstance(action, Observe) for action in world.done[last:])


def test_permanent_failure_is_retried_ever_more_rarely() -> None:
    world = World(VXLAN, peer(7))
    world.kernel.fail(errno.EINVAL, kind=ObjectKind.FDB, times=10_000)
    world.settle(600.0)
    assert 10 < sum(isinstance(action, Observe) for action in world.done) < 60


def test_missing_right_ends_the_start() -> None:
    world = World(VXLAN)
    world.kernel.fail(errno.EPERM, kind=ObjectKind.LINK, times=5)
    world.settle(1.0)
    assert [type(action.error) for action in world.done if isinstance(action, Stop)] == [KernelPermissionError]


def test_deleted_device_comes_back_with_everything_and_the_same_mac() -> None:
    world = World(VXLAN, peer(7), peer(8))
    world.settle()
    text = world.text()
    world.settle(30.0)
    world.kernel.remove_link("ovl.1")
    world.disturbed()
    world.settle(0.2)
    assert world.text() == text
    assert "ovl.1" in world.reports("kernel-repair")[0]


def test_device_that_has_to_be_made_again_at_start_gets_everything_back_untold() -> None:
    world = World(VXLAN, peer(7), peer(8))
    world.settle()
    text = world.text()
    link = next(item for item in world.kernel.objects if isinstance(item, VxlanLink))
    others = [item for item in world.kernel.objects if item.kind in {ObjectKind.ADDRESS, ObjectKind.NEIGHBOUR, ObjectKind.FDB}]
    routes = [item for item in world.kernel.objects if item.kind is ObjectKind.ROUTE]
    world.kernel.put(replace(link, port=4789), *others, *routes)
    world.restart()
    world.settle(1.0)
    assert world.text() == text


def test_host_is_not_ready_before_it_has_seen_its_kernel() -> None:
    world = World(VXLAN, peer(7))
    while not any(isinstance(action, ClaimSubnet) for action in world.done):
        world.carry_out()
    world.kernel.fail_observe(errno.EBUSY, times=3)
    while world.pending:
        world.carry_out()
    assert not world.ready
    world.settle(5.0)
    assert world.ready


def test_changed_mtu_of_the_underlay_is_followed() -> None:
    world = World(VXLAN, peer(7))
    world.settle()
    world.kernel.set_link("eth0", mtu=1400)
    world.disturbed()
    world.settle(1.0)
    assert "mtu 1350" in world.text()
    assert world.reconciler.status(world.now).mtu == 1350


def test_missing_underlay_is_said_and_its_return_repairs_all() -> None:
    world = World(VXLAN, peer(7))
    world.settle()
    text = world.text()
    world.kernel.remove_link("eth0")
    world.disturbed()
    world.settle(10.0)
    assert "underlay link eth0 is missing" in world.reports("underlay")[0]
    world.kernel.add_underlay("eth0", [(IPv4Address("192.0.2.1"), 24)])
    world.settle(3.0)
    assert world.text() == text


def test_somebody_who_keeps_deleting_is_answered_ever_more_slowly() -> None:
    world = World(VXLAN, peer(7))
    world.settle()
    writes = world.kernel.writes
    for _ in range(600):
        world.kernel.flush_routes()
        world.disturbed()
        world.settle(0.1)
    assert world.kernel.writes - writes < 150
    assert 1 <= len(world.reports("kernel-fight")) <= 2
    world.settle(60.0)
    assert "route 10.5.7.0/24" in world.text()


def test_what_is_removed_now_and_then_is_back_at_once_however_often() -> None:
    world = World(VXLAN, peer(7))
    world.settle()
    for _ in range(40):
        world.kernel.flush_routes()
        world.disturbed()
        world.settle(0.1)
        assert "route 10.5.7.0/24" in world.text()
        world.settle(1.5)
    assert world.reports("kernel-fight") == []


def test_device_that_vanishes_while_it_is_made_counts_as_fought_over_and_is_back_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(VXLAN, peer(7))
    world.settle()
    text, perform = world.text(), world.kernel.perform

    async def snatched(operations: Sequence[Operation]) -> list[KernelError | None]:
        results = await perform(operations)
        for place, operation in enumerate(operations):
            if isinstance(operation, Put) and isinstance(operation.object, VxlanLink):
                world.kernel.remove_link(operation.object.name)
                results[place] = KernelVanishedError(errno.ENODEV, "make", operation.object.name)
        return results

    with monkeypatch.context() as patch:
        patch.setattr(world.kernel, "perform", snatched)
        world.kernel.remove_link("ovl.1")
        writes = world.kernel.writes
        for _ in range(600):
            world.disturbed()
            world.settle(0.1)
        assert world.kernel.writes - writes < 300
        assert world.reports("kernel-fight")[0].startswith("does not stay as written, slowing down: link ovl.1 ")
    world.settle(2.5)
    assert world.text() == text


def test_foreign_route_in_our_place_is_shown_and_left() -> None:
    world = World(VXLAN, peer(7), peer(8))
    foreign = Route(ip_network("10.5.7.0/24"), "eth0", IPv4Address("192.0.2.254"))
    world.kernel.add_foreign_route(foreign)
    world.settle(60.0)
    assert world.states() == {"10.5.7.0-24": "conflict", "10.5.8.0-24": "programmed"}
    assert "foreign route 10.5.7.0/24 via 192.0.2.254" in world.text()
    assert world.ready
    assert len(world.reports("conflict")) == 1
    world.kernel.remove_foreign_route(foreign)
    world.disturbed()
    world.settle(1.0)
    assert world.states()["10.5.7.0-24"] == "programmed"


def test_stale_entries_of_an_earlier_run_go_at_start() -> None:
    world = World(VXLAN, peer(7))
    world.kernel.put(Route(ip_network("10.5.66.0/24"), "eth0", IPv4Address("192.0.2.66")))
    world.settle()
    assert "10.5.66.0" not in world.text()

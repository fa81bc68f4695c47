"""One host's life, told in scenes: start, peers, failures, restarts, loss, and the end."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, ip_network
from typing import Any

import pytest
from overlaynet.errors import (
    AddressInUseError,
    HistoryGoneError,
    KernelError,
    KernelPermissionError,
    KernelVanishedError,
    StoreUnavailableError,
    SubnetsExhaustedError,
)
from overlaynet.model.kernel import KernelObject, ObjectKind, Operation, Put, Route, VxlanLink
from overlaynet.model.lease import LeaseAttributes
from overlaynet.model.snapshot import ConfigPut, LeaseGone, LeasePut
from overlaynet.reconcile import programming
from overlaynet.reconcile.actions import (
    AnnounceReady,
    ClaimSubnet,
    ConfigurePump,
    LoadSnapshot,
    Observe,
    Program,
    PublishSubnetEnv,
    ReleaseLease,
    RenewLease,
    Stop,
    UpdateLease,
    Watch,
)
from overlaynet.reconcile.diff import Difference, diff_by_key
from overlaynet.reconcile.events import KernelChanged, PumpFailed, StopRequested, StoreFailed

from tests.unit.host_world import HOST_GW, UDP, VXLAN, World, peer, settings, subnets


def test_start_ends_ready_with_every_peer_programmed() -> None:
    world = World(VXLAN, peer(7), peer(8))
    world.settle()
    assert world.states() == {"10.5.7.0-24": "programmed", "10.5.8.0-24": "programmed"}
    kinds = [type(action) for action in world.done]
    assert kinds.index(Program) < kinds.index(PublishSubnetEnv) < kinds.index(AnnounceReady)
    assert kinds.count(AnnounceReady) == 1


def test_restart_finds_everything_right_and_writes_nothing() -> None:
    world = World(VXLAN, peer(7), peer(8))
    world.settle()
    own, writes = world.own, world.kernel.writes
    world.restart()
    world.settle()
    assert (world.own, world.kernel.writes, world.ready) == (own, writes, True)
    assert world.reports("kernel-repair") == []


def test_without_a_config_nothing_is_touched_until_there_is_one() -> None:
    world = World(None, peer(7))
    world.kernel.put(Route(ip_network("10.9.0.0/24"), None, type="unreachable", metric=1_048_576))
    before = world.text()
    world.settle(30.0)
    assert (world.text(), world.ready) == (before, False)
    assert len(world.reports("network-missing")) == 1
    assert "network set" in world.reports("network-missing")[0]
    world.change(ConfigPut(VXLAN))
    world.settle()
    assert world.ready
    assert world.states() == {"10.5.7.0-24": "programmed"}


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


def test_invalid_config_is_named_and_waited_out() -> None:
    world = World(b'{"Network": "10.5.0.0/33", "Backend": {"Type": "vxlan"}}')
    world.settle(10.0)
    assert "Network" in world.reports("network-invalid")[0]
    assert world.warnings() == tuple(world.reports("network-invalid"))
    assert not world.ready
    world.change(ConfigPut(VXLAN))
    world.settle()
    assert world.warnings() == ()
    assert world.ready


def test_config_that_this_host_cannot_serve_is_named_and_waited_out() -> None:
    world = World(b'{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00::/48", "Backend": {"Type": "vxlan"}}')
    world.settle(10.0)
    assert "no usable IPv6 address" in world.reports("network-invalid")[0]
    assert world.warnings() == tuple(world.reports("network-invalid"))
    world.change(ConfigPut(VXLAN))
    world.settle()
    assert world.ready
    assert world.warnings() == ()


def test_changed_config_needs_a_restart_and_an_invalid_one_changes_nothing() -> None:
    world = World(VXLAN, peer(7))
    world.settle()
    text = world.text()
    world.change(ConfigPut(HOST_GW))
    world.settle()
    assert world.text() == text
    assert world.warnings() == ("the network's configuration has changed (Backend): restart needed to apply it",)
    world.change(ConfigPut(VXLAN))
    world.settle()
    assert world.warnings() == ()
    world.change(ConfigPut(b"{"))
    world.settle()
    assert world.text() == text
    assert "last valid one" in world.reports("network-invalid")[0]
    assert world.warnings() == tuple(world.reports("network-invalid"))
    world.change(ConfigPut(VXLAN))
    world.settle()
    assert world.warnings() == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b'{"Network": "10.6.0.0/16", "Backend": {"Type": "vxlan"}}', "Network"),
        (b'{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "VNI": 7}}', "Backend"),
        (
            b'{"EnableIPv6": true, "Network": "10.6.0.0/16", "IPv6Network": "fd00::/48", "Backend": {"Type": "udp"}}',
            "Network, EnableIPv6, Backend",
        ),
    ],
)
def test_what_needs_a_restart_is_named(text: bytes, named: str) -> None:
    world = World(VXLAN)
    world.settle()
    world.change(ConfigPut(text))
    world.settle()
    assert world.warnings() == (f"the network's configuration has changed ({named}): restart needed to apply it",)


@pytest.mark.parametrize("change", [{"owner": None}, {"reserved": True}])
def test_own_lease_that_was_changed_by_hand_is_asked_for_at_once(change: dict[str, object]) -> None:
    world = World(VXLAN)
    world.settle()
    (own,) = world.store.leases.values()
    before = sum(isinstance(action, RenewLease) for action in world.done)
    world.change(LeasePut(replace(own, **change)))  # type: ignore[arg-type]
    world.settle()
    assert sum(isinstance(action, RenewLease) for action in world.done) == before + 1


def test_lease_just_claimed_is_no_peer_before_the_claims_answer() -> None:
    world = World(VXLAN)
    world.settle()
    (own,) = world.store.leases.values()
    world.change(LeasePut(replace(own, subnets=subnets(99))))
    world.settle()
    assert world.reports("peer-refused") == []


def test_new_subnet_length_counts_from_the_next_claim() -> None:
    world = World(VXLAN)
    world.settle()
    world.change(ConfigPut(b'{"Network": "10.5.0.0/16", "SubnetLen": 26, "Backend": {"Type": "vxlan"}}'))
    world.settle()
    assert world.own.endswith("-24")
    assert world.reconciler.status(world.now).warnings == ()
    world.change(LeaseGone(next(iter(world.store.leases))))
    world.settle()
    assert world.own.endswith("-26")


def test_peer_that_comes_changes_and_goes_is_followed_by_value() -> None:
    world = World(VXLAN)
    world.settle()
    empty = world.text()
    world.change(LeasePut(peer(7)))
    world.settle()
    assert "fdb 02:00:00:00:00:07 dst 192.0.2.7 dev ovl.1" in world.text()
    world.change(LeasePut(peer(7, mac=9, address="192.0.2.77")))
    world.settle()
    assert "fdb 02:00:00:00:00:09 dst 192.0.2.77 dev ovl.1" in world.text()
    assert "02:00:00:00:00:07" not in world.text()
    world.change(LeaseGone(subnets(7)))
    world.settle()
    assert world.text() == empty


def test_peer_with_changed_mac_is_reprogrammed_after_a_gap_in_history() -> None:
    world = World(VXLAN, peer(7))
    world.settle()
    world.watching = None
    world.change(LeasePut(peer(7, mac=9)))
    world.done.clear()
    world.tell(StoreFailed(HistoryGoneError(3)))
    world.settle(0.01)
    assert any(isinstance(action, LoadSnapshot) for action in world.done)
    assert "fdb 02:00:00:00:00:09 dst 192.0.2.7 dev ovl.1" in world.text()
    assert "02:00:00:00:00:07" not in world.text()


def test_unreachable_store_changes_nothing_and_is_reported_once() -> None:
    world = World(VXLAN, peer(7))
    world.settle()
    text = world.text()
    world.cut()
    world.settle(20.0)
    status = world.reconciler.status(world.now)
    assert world.text() == text
    assert "cut off" in status.store_error
    assert status.store_lost_since_s is not None
    assert len(world.reports("store")) == 1
    world.store.reachable = True
    world.settle(10.0)
    assert world.reconciler.status(world.now).store_error == ""
    assert "answers again" in world.reports("store")[-1]


def test_store_that_lost_its_config_is_not_an_empty_store() -> None:
    world = World(VXLAN, peer(7))
    world.settle()
    text = world.text()
    world.store.config, world.store.leases = None, {}
    world.watching = None
    world.tell(StoreFailed(StoreUnavailableError("small", "restored")))
    world.settle(3.0)
    assert world.text() == text


def test_lease_is_renewed_at_a_third_of_its_time() -> None:
    world = World(VXLAN)
    world.settle()
    world.settle(19.0)
    assert not any(isinstance(action, RenewLease) for action in world.done)
    world.settle(1.5)
    assert sum(isinstance(action, RenewLease) for action in world.done) == 1


def test_expired_lease_is_said_and_forwarding_goes_on() -> None:
    world = World(VXLAN, peer(7))
    world.settle()
    text = world.text()
    world.cut()
    world.settle(61.0)
    lease = world.reconciler.status(world.now).lease
    assert lease is not None
    assert lease.expired
    assert world.text() == text


def test_lost_lease_is_claimed_again_on_the_same_subnet() -> None:
    world = World(VXLAN, peer(7))
    world.settle()
    own, text = world.own, world.text()
    world.change(LeaseGone(next(one for one in world.store.leases if str(one) == own)))
    world.settle()
    assert (world.own, world.text()) == (own, text)
    assert sum(isinstance(action, ClaimSubnet) for action in world.done) == 2
    assert sum(isinstance(action, PublishSubnetEnv) for action in world.done) == 1


def test_lost_lease_is_claimed_again_on_the_same_subnet_though_claims_come_too_soon() -> None:
    world = World(VXLAN, peer(7))
    world.settle()
    own, world.store.stale_claims = world.own, 3
    world.change(LeaseGone(next(one for one in world.store.leases if str(one) == own)))
    world.settle(5.0)
    assert world.own == own
    assert sum(isinstance(action, ClaimSubnet) for action in world.done) == 5


def test_lease_given_to_another_is_given_up_loudly_for_another_subnet() -> None:
    world = World(VXLAN, peer(7))
    world.settle()
    own = world.own
    taken = next(one for one in world.store.leases if str(one) == own)
    world.change(LeasePut(replace(peer(9), subnets=taken, created=2_000)))
    world.settle(1.0)
    assert world.own != own
    assert "has changed from" in world.reports("subnet-changed")[0]
    assert f"address {str(taken.v4).split('/')[0]}/32" not in world.text()
    assert f"route {taken.v4} via" in world.text()
    assert sum(isinstance(action, PublishSubnetEnv) for action in world.done) == 2


def test_refused_claim_is_tried_elsewhere_after_a_wait() -> None:
    world = World(VXLAN)
    while not any(isinstance(action, ClaimSubnet) for action in world.pending):
        world.carry_out()
    claim = next(action for action in world.pending if isinstance(action, ClaimSubnet))
    world.change(LeasePut(replace(peer(9), subnets=claim.subnets)))
    world.settle(1.0)
    claims = [action.subnets for action in world.done if isinstance(action, ClaimSubnet)]
    assert len(claims) == 2
    assert claims[0] != claims[1]
    assert world.ready


def test_subnet_that_is_taken_unseen_is_not_asked_for_for_ever() -> None:
    world = World(VXLAN)
    while not any(isinstance(action, ClaimSubnet) for action in world.pending):
        world.carry_out()
    world.store.hidden = {action.subnets for action in world.pending if isinstance(action, ClaimSubnet)}
    world.settle(1.0)
    assert world.ready


def test_address_of_another_live_host_ends_the_start() -> None:
    world = World(VXLAN, peer(7, address="192.0.2.1"))
    world.settle(5.0)
    stops = [action for action in world.done if isinstance(action, Stop)]
    assert len(stops) == 1
    assert isinstance(stops[0].error, AddressInUseError)


def test_full_network_ends_the_start() -> None:
    small = b'{"Network": "10.5.0.0/16", "SubnetMin": "10.5.7.0", "SubnetMax": "10.5.7.0", "Backend": {"Type": "vxlan"}}'
    world = World(small, peer(7))
    world.settle(5.0)
    assert [type(action.error) for action in world.done if isinstance(action, Stop)] == [SubnetsExhaustedError]


def test_attributes_that_differ_from_the_stored_ones_are_published() -> None:
    world = World(VXLAN)
    world.settle()
    stored = next(iter(world.store.leases.values()))
    world.change(LeasePut(stored.with_attributes(LeaseAttributes(IPv4Address("192.0.2.55")))))
    world.settle()
    assert sum(isinstance(action, UpdateLease) for action in world.done) == 1
    assert next(iter(world.store.leases.values())).attributes == stored.attributes


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


def test_host_gw_refuses_an_off_link_peer_before_any_write_and_becomes_ready() -> None:
    world = World(HOST_GW, peer(7, backend="host-gw", address="198.51.100.7"), peer(8, backend="host-gw"))
    world.settle()
    assert world.ready
    assert world.states() == {"10.5.7.0-24": "refused", "10.5.8.0-24": "programmed"}
    written = [one for action in world.done if isinstance(action, Program) for one in action.operations]
    assert not any(isinstance(one, Put) and "10.5.7.0" in repr(one) for one in written)
    assert len(world.reports("peer-refused")) == 1


def test_udp_engine_starts_once_its_device_is_there_and_follows_peers() -> None:
    world = World(UDP, peer(7, backend="udp"))
    world.settle()
    kinds = [type(action) for action in world.done]
    assert kinds.index(Program) < kinds.index(ConfigurePump) < kinds.index(AnnounceReady)
    writes = world.kernel.writes
    world.change(LeasePut(peer(8)))
    world.settle()
    last = [action.config for action in world.done if isinstance(action, ConfigurePump)][-1]
    assert last is not None
    assert len(last.peers) == 2
    assert world.kernel.writes == writes
    assert world.states() == {"10.5.7.0-24": "programmed", "10.5.8.0-24": "programmed"}


def test_engine_that_fails_is_shown_retried_and_does_not_hold_up_readiness() -> None:
    world = World(UDP, peer(7, backend="udp"))
    world.pump_trouble = "port 8285 is in use"
    world.settle(2.0)
    assert world.ready
    assert world.states() == {"10.5.7.0-24": "failed"}
    world.pump_trouble = None
    world.settle(10.0)
    assert world.states() == {"10.5.7.0-24": "programmed"}
    world.tell(PumpFailed("device vanished"))
    world.settle(2.0)
    assert world.states() == {"10.5.7.0-24": "programmed"}


def test_engine_that_failed_to_change_is_started_again_when_the_change_is_taken_back() -> None:
    world = World(UDP, peer(7, backend="udp"))
    world.settle()
    world.pump_trouble = "no such device"
    world.change(LeasePut(peer(8)))
    world.settle(0.1)
    world.pump_trouble = None
    asked = sum(isinstance(action, ConfigurePump) for action in world.done)
    world.change(LeaseGone(peer(8).subnets))
    world.settle(30.0)
    later = [action.config for action in world.done if isinstance(action, ConfigurePump)][asked:]
    assert [config is not None and len(config.peers) for config in later] == [1]
    assert world.states() == {"10.5.7.0-24": "programmed"}


def test_deleted_tun_leads_to_an_engine_that_begins_again() -> None:
    world = World(UDP)
    world.settle(30.0)
    started = sum(isinstance(action, ConfigurePump) for action in world.done)
    world.kernel.remove_link("ovl-udp")
    world.disturbed()
    world.settle(1.0)
    later = [action.config for action in world.done if isinstance(action, ConfigurePump)][started:]
    assert [config is None for config in later] == [True, False]


def test_stop_leaves_kernel_and_lease() -> None:
    world = World(VXLAN, peer(7))
    world.settle()
    text = world.text()
    world.tell(StopRequested(release=False))
    world.settle(5.0)
    assert isinstance(world.done[-1], Stop)
    assert world.done[-1].error is None
    assert world.text() == text
    assert len(world.store.leases) == 2


def test_stop_with_release_gives_the_lease_back_and_stops_the_engine() -> None:
    world = World(UDP)
    world.settle()
    world.tell(StopRequested(release=True))
    world.settle(5.0)
    assert not world.store.leases
    assert any(isinstance(action, ReleaseLease) for action in world.done)
    assert [action.config for action in world.done if isinstance(action, ConfigurePump)][-1] is None
    assert isinstance(world.done[-1], Stop)


def test_stop_before_anything_was_learnt_is_a_stop() -> None:
    world = World(None)
    world.store.reachable = False
    world.settle(1.0)
    world.tell(StopRequested(release=True))
    world.settle(1.0)
    assert isinstance(world.done[-1], Stop)


def test_at_most_one_action_of_a_kind_is_under_way() -> None:
    world = World(VXLAN, peer(7))
    for number in range(8, 40):
        world.change(LeasePut(peer(number)))
        world.deliver()
        world.disturbed()
        under_way = [
            type(one) for one in world.pending if isinstance(one, LoadSnapshot | Watch | ClaimSubnet | Observe | Program)
        ]
        assert len(under_way) == len(set(under_way))
        if world.pending:
            world.carry_out(number % len(world.pending))
    world.settle(1.0)
    assert set(world.states().values()) == {"programmed"}
    assert len(world.states()) == 33


def readdress(world: World, *addresses: str) -> None:
    world.kernel.readdress_underlay("eth0", [(IPv4Address(address), 24) for address in addresses])
    world.disturbed()
    world.settle(5.0)


def published(world: World) -> str:
    (own,) = [lease for lease in world.store.leases.values() if str(lease.subnets) == world.own]
    return str(own.attributes.public_ipv4)


@pytest.mark.parametrize("config", [VXLAN, HOST_GW, UDP])
def test_public_address_that_changes_is_followed_in_the_kernel_and_in_the_lease_that_stays(config: bytes) -> None:
    backend = {VXLAN: "vxlan", HOST_GW: "host-gw", UDP: "udp"}[config]
    world = World(config, peer(7, backend=backend))
    world.settle()
    own = world.own
    readdress(world, "192.0.2.1", "192.0.2.50")
    assert world.reports("address-changed") == []
    readdress(world)
    assert published(world) == "192.0.2.1"
    readdress(world, "192.0.2.51", "192.0.2.50")
    (text,) = world.reports("address-changed")
    assert "192.0.2.51 takes its place" in text
    assert world.own == own
    assert published(world) == "192.0.2.51"
    assert world.reconciler.status(world.now).public_addresses == ("192.0.2.51",)
    assert world.states() == {"10.5.7.0-24": "programmed"}
    assert "192.0.2.1 " not in world.text()
    if config == VXLAN:
        assert "192.0.2.51" in world.text()
    if config == UDP:
        pumps = [action.config for action in world.done if isinstance(action, ConfigurePump) and action.config]
        assert pumps[-1].listen == (IPv4Address("192.0.2.51"),)
    # And back, with nothing seen of the kernel in between.
    readdress(world, "192.0.2.1")
    assert published(world) == "192.0.2.1"
    assert world.states() == {"10.5.7.0-24": "programmed"}


def test_public_address_behind_translation_stays_when_the_local_one_changes() -> None:
    world = World(VXLAN, host=replace(settings(), public_ipv4=IPv4Address("203.0.113.9")))
    world.settle()
    readdress(world, "192.0.2.51")
    assert world.reconciler.status(world.now).public_addresses == ("203.0.113.9",)
    assert "192.0.2.51" in world.text()

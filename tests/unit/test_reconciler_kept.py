"""A host whose store cannot be believed: out of reach at the start, without a configuration, gone back to an older state."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from overlaynet.errors import HistoryGoneError, StoreDataError
from overlaynet.kernel.fake import FakeKernel
from overlaynet.model.kept import Kept
from overlaynet.model.lease_text import parse_lease_key
from overlaynet.model.snapshot import ConfigPut, LeaseGone, LeasePut
from overlaynet.reconcile.actions import (
    ClaimSubnet,
    ConfigurePump,
    KeepSnapshot,
    LoadSnapshot,
    Program,
    PublishSubnetEnv,
    Stop,
)
from overlaynet.reconcile.events import StopRequested, StoreFailed
from overlaynet.reconcile.following import GRACE_S

from tests.unit.host_world import HOST, HOST_GW, UDP, VXLAN, World, peer, settings, subnets


def started(config: bytes = VXLAN) -> World:
    world = World(config, peer(7), peer(8))
    world.settle()
    return world


def with_an_empty_kernel(world: World) -> None:
    """The host was booted again."""
    world.kernel = FakeKernel()
    world.kernel.add_underlay("eth0", [(IPv4Address("192.0.2.1"), 24)])


def test_daemon_started_without_its_store_changes_nothing_that_is_there_and_announces_nothing() -> None:
    world = started()
    world.store.reachable = False
    writes, before = world.kernel.writes, world.text()
    world.restart()
    world.settle(300.0)
    assert (world.kernel.writes, world.text()) == (writes, before)
    assert world.states() == {"10.5.7.0-24": "programmed", "10.5.8.0-24": "programmed"}
    status = world.reconciler.status(world.now)
    assert (status.kept, status.ready, status.lease is not None and status.lease.expired) == (True, False, True)
    assert "cut off" in status.store_error
    assert not [action for action in world.done if isinstance(action, PublishSubnetEnv)]

    world.store.reachable = True
    world.settle(10.0)
    assert world.ready
    assert (world.kernel.writes, world.reconciler.status(world.now).kept) == (writes, False)


def test_booted_host_without_its_store_programs_what_it_kept() -> None:
    for config in (VXLAN, HOST_GW):
        world = started(config)
        whole = world.text()
        world.store.reachable = False
        with_an_empty_kernel(world)
        world.restart()
        world.settle(10.0)
        assert world.text() == whole


def test_routes_in_networks_that_the_configuration_no_longer_has_go_at_the_next_start() -> None:
    world = World(HOST_GW, peer(7, backend="host-gw"))
    world.settle()
    assert "10.5.7.0/24" in world.text()
    world.store.config = b'{"Network": "10.6.0.0/16", "Backend": {"Type": "host-gw"}}'
    world.restart()
    world.settle(5.0)
    assert world.ready
    assert "10.5." not in world.text()


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (b'{"Network": "192.0.0.0/16", "Backend": {"Type": "host-gw"}}', "Network: '192.0.0.0/16': overlaps the underlay"),
        (b'{"Network": "10.6.0.0/16", "Backend": {"Type": "vxlan", "MTU": 9000}}', "Backend.MTU: 9000"),
        (
            b'{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00::/48", "Backend": {"Type": "vxlan"}}',
            "no usable IPv6",
        ),
    ],
)
def test_configuration_that_this_host_cannot_serve_leaves_it_with_the_one_of_the_last_run(config: bytes, named: str) -> None:
    world = started()
    before, own = world.text(), world.own
    world.store.config = config
    for _ in range(2):
        world.restart()
        world.settle(100.0)
        assert (world.text(), world.own) == (before, own)
        assert [lease for lease in world.store.leases.values() if lease.owner == HOST] == [
            world.store.leases[parse_lease_key(own)]
        ]
        (warning,) = world.warnings()
        assert named in warning
        assert "the last valid one stays in force" in warning
        assert world.states() == {"10.5.7.0-24": "programmed", "10.5.8.0-24": "programmed"}
    world.store.config = VXLAN
    world.restart()
    world.settle(10.0)
    assert (world.text(), world.own, world.warnings()) == (before, own, ())


def test_address_that_lies_in_the_network_that_the_last_run_served_is_warned_of_and_ends_nothing() -> None:
    world = World(VXLAN, peer(7))
    world.settle()
    world.host = settings(public_ipv4=IPv4Address("10.5.7.9"))
    world.restart()
    world.settle()
    assert "it holds 10.5.7.9 of eth0" in world.reports("network-overlap")[0]
    assert world.ready


def test_routes_of_an_earlier_network_go_though_the_daemon_was_killed_before_it_had_removed_them() -> None:
    world = World(HOST_GW, peer(7, backend="host-gw"))
    world.settle()
    world.store.config = b'{"Network": "10.6.0.0/16", "Backend": {"Type": "host-gw"}}'
    world.restart()
    # All but writing to the kernel is done, over and over; then the process ends.
    while other := [at for at, action in enumerate(world.pending) if not isinstance(action, Program)]:
        world.carry_out(other[0])
    assert world.kept is not None
    assert b"10.6.0.0/16" in world.kept.config
    assert "10.5.7.0/24" in world.text()
    world.restart()
    world.settle(5.0)
    assert "10.5." not in world.text()
    assert world.kept.networks == ()


def test_engine_runs_from_the_kept_snapshot() -> None:
    world = started(UDP)
    world.store.reachable = False
    world.restart()
    world.settle(10.0)
    configured = [action.config for action in world.done if isinstance(action, ConfigurePump)]
    assert len(configured) == 1
    assert configured[0] is not None
    assert [str(one.address) for one in configured[0].peers] == ["192.0.2.7", "192.0.2.8"]


def test_peer_that_went_while_the_daemon_was_down_goes_once_the_store_says_so_and_not_before() -> None:
    world = started()
    world.change(LeaseGone(subnets(7)))
    world.store.reachable = False
    world.restart()
    world.settle(30.0)
    assert "10.5.7.0/24" in world.text()
    world.store.reachable = True
    world.settle(10.0)
    assert "10.5.7.0/24" not in world.text()
    assert world.states() == {"10.5.8.0-24": "programmed"}


def test_entries_that_the_kept_snapshot_lacks_stay_until_the_store_has_confirmed_it() -> None:
    world = started()
    older = world.kept
    world.change(LeasePut(peer(9)))
    world.settle(10.0)
    world.kept = older
    world.store.reachable = False
    before = world.text()
    world.restart()
    world.settle(30.0)
    assert world.text() == before
    world.store.reachable = True
    world.store.commit(LeaseGone(subnets(9)))
    world.settle(10.0)
    assert "10.5.9.0/24" not in world.text()


def test_configuration_that_changed_while_the_daemon_was_down_is_applied_at_its_start() -> None:
    world = started(UDP)
    world.change(ConfigPut(b'{"Network": "10.9.0.0/16", "Backend": {"Type": "host-gw"}}'))
    world.restart()
    world.settle(10.0)
    assert world.own.startswith("10.9.")
    assert "ovl-udp" not in world.text()
    (warning,) = world.reconciler.status(world.now).warnings
    assert "subnet has changed from" in warning
    assert [action.config for action in world.done if isinstance(action, ConfigurePump)][-1:] in ([], [None])
    assert world.reports("subnet-changed")


def test_deleted_configuration_takes_no_peer_along_and_a_new_one_is_a_whole_snapshot() -> None:
    world = started()
    before, own = world.text(), world.own
    world.change(ConfigPut(None))
    world.change(LeaseGone(subnets(7)))
    world.change(LeaseGone(subnets(8)))
    world.settle(20.0)
    assert world.text() == before
    assert "no network configured" in world.reconciler.status(world.now).store_error
    world.change(ConfigPut(VXLAN))
    world.change(LeasePut(peer(9)))
    world.settle(20.0)
    assert world.states() == {"10.5.9.0-24": "programmed"}
    assert world.own == own


def test_no_subnet_is_claimed_under_a_configuration_that_is_gone() -> None:
    world = started()
    own = world.own
    world.change(ConfigPut(None))
    world.change(LeaseGone(world.reconciler.lease.own.subnets if world.reconciler.lease.own else subnets(0)))
    world.done.clear()
    world.settle(100.0)
    assert not [action for action in world.done if isinstance(action, ClaimSubnet)]
    assert world.own == own
    world.change(ConfigPut(VXLAN))
    world.settle(20.0)
    assert [action for action in world.done if isinstance(action, ClaimSubnet)]
    assert world.own == own


def test_peers_missing_from_a_store_that_went_back_are_kept_named_and_let_go_in_the_end() -> None:
    world = started()
    world.change(LeasePut(peer(9)))
    world.settle(10.0)
    whole = world.text()
    world.cut()
    world.store.revision -= 2
    del world.store.leases[subnets(8)], world.store.leases[subnets(9)]
    world.store.log.clear()
    world.store.reachable = True
    world.settle(30.0)
    assert world.text() == whole
    (named,) = world.reports("store-went-back")
    assert "10.5.8.0-24 at 192.0.2.8" in named
    assert "10.5.9.0-24 at 192.0.2.9" in named
    assert len([line for line in world.reconciler.status(world.now).warnings if "went back" in line]) == 2

    world.change(LeasePut(peer(9)))
    world.settle(GRACE_S / 2)
    assert len([line for line in world.reconciler.status(world.now).warnings if "went back" in line]) == 1
    world.restart()
    world.settle(GRACE_S / 2)
    assert world.states() == dict.fromkeys(("10.5.7.0-24", "10.5.8.0-24", "10.5.9.0-24"), "programmed")
    world.settle(GRACE_S)
    assert world.states() == {"10.5.7.0-24": "programmed", "10.5.9.0-24": "programmed"}


def test_peers_missing_from_a_store_with_another_past_are_kept_however_far_it_is() -> None:
    world = started()
    whole = world.text()
    world.watching = None
    world.store.revision += 5
    del world.store.leases[subnets(8)]
    world.store.log.clear()
    world.tell(StoreFailed(HistoryGoneError(3, replaced=True)))
    world.settle(30.0)
    assert world.text() == whole
    (named,) = world.reports("store-went-back")
    assert "has another past" in named
    assert "10.5.8.0-24 at 192.0.2.8" in named
    world.settle(GRACE_S)
    assert world.states() == {"10.5.7.0-24": "programmed"}


def test_subnet_of_a_kept_peer_is_not_chosen_anew() -> None:
    world = started()
    world.cut()
    world.store.revision = 0
    world.store.leases.clear()
    world.store.log.clear()
    world.store.reachable = True
    own = world.own
    world.settle(30.0)
    assert world.own == own
    assert {str(lease.subnets) for lease in world.reconciler.store.snapshot.leases} == {own, "10.5.7.0-24", "10.5.8.0-24"}


def test_snapshots_are_kept_a_second_apart_and_at_the_end() -> None:
    world = started()
    world.settle(2.0)
    world.done.clear()
    for number in range(20, 60):
        world.change(LeasePut(peer(number)))
        world.settle(0.01)
    assert len([action for action in world.done if isinstance(action, KeepSnapshot)]) == 1
    world.tell(StopRequested(release=False))
    world.settle()
    assert isinstance(world.done[-1], Stop)
    assert isinstance(world.kept, Kept)
    assert subnets(59) in {lease.subnets for lease in world.kept.leases}


def test_renewals_keep_nothing_new() -> None:
    world = started()
    world.settle(2.0)
    world.done.clear()
    world.settle(600.0)
    assert not [action for action in world.done if isinstance(action, KeepSnapshot)]


def test_store_that_holds_something_else_ends_the_start_but_not_a_host_that_kept_its_snapshot() -> None:
    broken = StoreFailed(StoreDataError("/x.db", "is a database of another program: name another file"))
    world = World(VXLAN)
    world.pending.clear()
    world.tell(broken)
    assert [type(action) for action in world.pending if isinstance(action, Stop)] == [Stop]
    world = started()
    world.restart()
    world.pending = [action for action in world.pending if not isinstance(action, LoadSnapshot)]
    world.tell(broken)
    world.settle()
    assert not [action for action in world.done if isinstance(action, Stop)]
    assert world.states() == {"10.5.7.0-24": "programmed", "10.5.8.0-24": "programmed"}

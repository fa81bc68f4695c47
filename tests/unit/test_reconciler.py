"""One host's life, told in scenes: start, peers, restart, and the end."""

from __future__ import annotations

from overlaynet.errors import (
    HistoryGoneError,
)
from overlaynet.model.kernel import Put
from overlaynet.model.snapshot import LeaseGone, LeasePut
from overlaynet.reconcile.actions import (
    AnnounceReady,
    ClaimSubnet,
    ConfigurePump,
    LoadSnapshot,
    Observe,
    Program,
    PublishSubnetEnv,
    ReleaseLease,
    Stop,
    Watch,
)
from overlaynet.reconcile.events import StopRequested, StoreFailed

from tests.unit.host_world import HOST_GW, UDP, VXLAN, World, peer, subnets


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


def test_host_gw_refuses_an_off_link_peer_before_any_write_and_becomes_ready() -> None:
    world = World(HOST_GW, peer(7, backend="host-gw", address="198.51.100.7"), peer(8, backend="host-gw"))
    world.settle()
    assert world.ready
    assert world.states() == {"10.5.7.0-24": "refused", "10.5.8.0-24": "programmed"}
    written = [one for action in world.done if isinstance(action, Program) for one in action.operations]
    assert not any(isinstance(one, Put) and "10.5.7.0" in repr(one) for one in written)
    assert len(world.reports("peer-refused")) == 1


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

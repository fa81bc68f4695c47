"""One host and its packet engine: when it starts, what it follows, and how it comes back after a failure."""

from __future__ import annotations

from overlaynet.model.snapshot import LeaseGone, LeasePut
from overlaynet.reconcile.actions import (
    AnnounceReady,
    ConfigurePump,
    Program,
)
from overlaynet.reconcile.events import PumpFailed

from tests.unit.host_world import UDP, World, peer


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

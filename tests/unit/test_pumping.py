"""Keeping the packet engine: when it is asked for what, and how often."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from overlaynet.model.addresses import Mtu
from overlaynet.model.dataplane import PumpConfig
from overlaynet.reconcile.actions import ConfigurePump, Report
from overlaynet.reconcile.backoff import Backoff
from overlaynet.reconcile.journal import Journal
from overlaynet.reconcile.pumping import PumpKeeper

CONFIG = PumpConfig(
    "ovl-udp", (IPv4Address("192.0.2.1"),), 8285, Mtu(1472), (IPv4Network("10.1.1.0/24"),), (IPv4Address("10.1.1.0"),)
)


@pytest.fixture
def keeper() -> PumpKeeper:
    return PumpKeeper(Journal(), Backoff("test/pump"))


def asked(keeper: PumpKeeper) -> list[PumpConfig | None]:
    return [action.config for action in keeper.journal.take() if isinstance(action, ConfigurePump)]


def running(keeper: PumpKeeper) -> PumpKeeper:
    keeper.want(CONFIG, has_link=True)
    keeper.step(0.0)
    assert asked(keeper) == [CONFIG]
    keeper.configured(None, 0.0)
    assert keeper.running
    return keeper


def test_engine_waits_for_its_link(keeper: PumpKeeper) -> None:
    keeper.want(CONFIG, has_link=False)
    keeper.step(0.0)
    assert asked(keeper) == []
    assert not keeper.attempted
    running(keeper)
    assert keeper.attempted


def test_engine_on_another_link_ends_and_begins_again_once_the_new_link_is_there(keeper: PumpKeeper) -> None:
    moved = replace(CONFIG, link="ovl-vxlan", port=8472)
    running(keeper).want(moved, has_link=False)
    keeper.step(0.0)
    assert asked(keeper) == [None]
    keeper.configured(None, 0.0)
    keeper.want(moved, has_link=False)
    keeper.step(0.0)
    assert asked(keeper) == []
    keeper.want(moved, has_link=True)
    keeper.step(0.0)
    assert asked(keeper) == [moved]


def test_engine_that_fails_to_start_is_asked_again_with_growing_pauses(keeper: PumpKeeper) -> None:
    keeper.want(CONFIG, has_link=True)
    now, pauses = 0.0, []
    for _ in range(6):
        keeper.step(now)
        assert asked(keeper) == [CONFIG]
        keeper.configured("UDP port 8285: in use", now)
        keeper.step(now)
        assert asked(keeper) == []
        assert keeper.deadline is not None
        pauses.append(keeper.deadline - now)
        now = keeper.deadline
    assert keeper.attempted
    assert keeper.why == "UDP port 8285: in use"
    assert pauses[-1] > 3 * pauses[0] > 0


def test_engine_that_cannot_be_stopped_is_asked_once(keeper: PumpKeeper) -> None:
    running(keeper)
    for round_ in range(3):
        keeper.stop()
        actions = keeper.journal.take()
        if round_ == 0:
            assert actions == [ConfigurePump(None)]
            keeper.configured("its thread does not end", 1.0)
            assert keeper.journal.take() == [
                Report("warning", "pump", "packet engine: not stopped in order: its thread does not end")
            ]
        else:
            assert actions == []
        assert not keeper.busy
        assert not keeper.running


def test_engine_is_stopped_once_what_was_under_way_is_over(keeper: PumpKeeper) -> None:
    keeper.want(CONFIG, has_link=True)
    keeper.step(0.0)
    keeper.stop()
    assert asked(keeper) == [CONFIG]
    keeper.configured(None, 0.0)
    keeper.stop()
    assert asked(keeper) == [None]
    keeper.stop()
    assert asked(keeper) == []


def test_engine_begins_again_when_its_link_was_made_anew(keeper: PumpKeeper) -> None:
    running(keeper)
    keeper.link_made("eth0")
    keeper.step(1.0)
    assert asked(keeper) == []
    keeper.link_made("ovl-udp")
    keeper.step(1.0)
    assert asked(keeper) == [None]
    keeper.configured(None, 1.0)
    keeper.step(1.0)
    assert asked(keeper) == [CONFIG]


def test_engine_that_ended_by_itself_is_started_again_after_a_pause(keeper: PumpKeeper) -> None:
    running(keeper)
    keeper.failed("the engine's thread has panicked", 5.0)
    assert not keeper.running
    assert keeper.deadline is not None
    assert keeper.deadline > 5.0
    keeper.step(5.0)
    assert asked(keeper) == []
    keeper.step(keeper.deadline)
    assert asked(keeper) == [CONFIG]


def test_engine_that_runs_from_the_start_is_left_alone_if_it_is_as_wanted(keeper: PumpKeeper) -> None:
    keeper.resume(CONFIG)
    assert keeper.attempted
    keeper.step(0.0)
    assert asked(keeper) == []
    keeper.want(CONFIG, has_link=True)
    keeper.step(0.0)
    assert asked(keeper) == []


def test_engine_that_runs_from_the_start_is_stopped_if_none_is_wanted(keeper: PumpKeeper) -> None:
    keeper.resume(CONFIG)
    keeper.want(None, has_link=False)
    keeper.step(0.0)
    assert asked(keeper) == [None]

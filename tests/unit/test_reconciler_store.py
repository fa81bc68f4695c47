"""One host and its store: a configuration that is missing, invalid or another, and a store that cannot be reached."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from overlaynet.errors import (
    StoreUnavailableError,
)
from overlaynet.model.kernel import Route
from overlaynet.model.snapshot import ConfigPut, LeaseGone
from overlaynet.reconcile.events import StoreFailed

from tests.unit.host_world import HOST_GW, VXLAN, World, peer


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

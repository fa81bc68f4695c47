"""One host's lease, told in scenes: claimed, renewed, lost, given to another, and published under the address of now."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from overlaynet.errors import (
    AddressInUseError,
    SubnetsExhaustedError,
)
from overlaynet.model.lease import LeaseAttributes
from overlaynet.model.snapshot import LeaseGone, LeasePut
from overlaynet.reconcile.actions import (
    ClaimSubnet,
    ConfigurePump,
    PublishSubnetEnv,
    RenewLease,
    Stop,
    UpdateLease,
)

from tests.unit.host_world import HOST_GW, UDP, VXLAN, World, peer, settings, subnets


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

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
from overlaynet.model.snapshot import Changes, LeaseGone, LeasePut
from overlaynet.reconcile.actions import (
    AnnounceReady,
    ClaimSubnet,
    ConfigurePump,
    KeepSnapshot,
    PublishSubnetEnv,
    RenewLease,
    Report,
    Stop,
    UpdateLease,
)
from overlaynet.reconcile.events import Event, KernelChanged, StoreChanged, TimerFired

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


@pytest.mark.parametrize("first", [TimerFired(), KernelChanged(), StoreChanged(Changes(2, (LeasePut(peer(9)),)))])
def test_first_act_after_a_pause_is_to_notice_that_the_lease_has_ended(first: Event) -> None:
    world = World(VXLAN, peer(7))
    world.settle()
    world.now += 61.0
    world.tell(first)
    world.settle()
    acts = world.done[next(n for n, action in enumerate(world.done) if isinstance(action, AnnounceReady)) + 1 :]
    acts = [action for action in acts if not isinstance(action, KeepSnapshot)]
    assert isinstance(acts[0], Report)
    assert acts[0].topic == "lease-expired"
    assert any(isinstance(action, RenewLease) for action in acts[1:])


@pytest.mark.parametrize(
    ("ttl_s", "margin_s", "renewed_after_s", "believed_for_s"),
    [
        (60.0, None, 20.0, 59.0),
        (60.0, 50.0, 10.0, 59.0),
        (60.0, 5.0, 20.0, 59.0),
        (86_400.0, None, 28_800.0, 86_399.0),
        (86_400.0, 82_800.0, 3_600.0, 86_399.0),
        (5.0, None, 5 / 3, 4.5),
    ],
)
def test_lease_is_renewed_at_a_third_or_by_its_margin_and_believed_in_for_less_than_it_lasts(
    ttl_s: float, margin_s: float | None, renewed_after_s: float, believed_for_s: float
) -> None:
    world = World(VXLAN, host=replace(settings(), ttl_s=ttl_s, renew_margin_s=margin_s))
    claimed_at = world.now
    world.settle()
    lease = world.reconciler.lease
    assert lease.grant is not None
    assert lease.deadline(lease.grant.lease.attributes) == pytest.approx(claimed_at + renewed_after_s)
    assert lease.ends_at == pytest.approx(claimed_at + believed_for_s)


@pytest.mark.parametrize("is_gone", [True, False])
def test_belief_ends_when_the_store_shows_that_the_lease_is_gone_and_not_when_it_is_asked_for(is_gone: bool) -> None:
    world = World(VXLAN, peer(7))
    world.settle()
    own = next(one for one in world.store.leases if str(one) == world.own)
    change = LeaseGone(own) if is_gone else LeasePut(replace(peer(9), subnets=own))
    world.tell(StoreChanged(Changes(world.store.revision + 1, (change,))))
    assert world.reconciler.lease.expired(world.now)
    assert any("no longer shows this host's lease" in action.text for action in world.pending if isinstance(action, Report))
    assert world.reconciler.lease.unheld(world.now) == "its lease has expired, or was taken"


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


def test_host_whose_subnet_was_given_away_where_none_is_free_leaves_its_kernel_and_holds_nothing() -> None:
    world = World(b'{"Network": "10.5.4.0/22", "SubnetLen": 24, "Backend": {"Type": "vxlan"}}', peer(5), peer(6))
    world.settle()
    own, text = world.own, world.text()
    assert own == "10.5.7.0-24"
    world.change(LeasePut(replace(peer(9), subnets=subnets(7))))
    world.settle(30.0)
    assert world.reconciler.lease.unheld(world.now) == "its lease was lost, and no other is held yet"
    assert world.text() == text
    assert len(world.reports("lease-lost")) == 1
    world.change(LeaseGone(subnets(5)))
    world.settle(30.0)
    assert world.own == "10.5.5.0-24"
    assert world.states() == {"10.5.6.0-24": "programmed", "10.5.7.0-24": "programmed"}


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

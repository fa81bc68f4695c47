"""A whole network that starts, or loses its store, at once: what each host does so that together they do not crush the store."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from overlaynet.backend import DesiredState, desired
from overlaynet.errors import HistoryGoneError, StoreUnavailableError
from overlaynet.model.addresses import MacAddress, Vni
from overlaynet.model.host import HostSettings
from overlaynet.model.kernel import Underlay
from overlaynet.model.lease import HostId, Lease, LeaseAttributes, Subnets
from overlaynet.model.lease_text import VxlanData, encode_vxlan_data
from overlaynet.model.network import NetworkConfig
from overlaynet.model.snapshot import Changes, ConfigPut, LeaseGone, LeasePut
from overlaynet.reconcile import reconciler
from overlaynet.reconcile.actions import LoadSnapshot, Program
from overlaynet.reconcile.coalescing import coalesced
from overlaynet.reconcile.events import Event, StoreChanged, StoreFailed, TimerFired
from overlaynet.reconcile.following import BOOTED_S, LEASES_READ_PER_S

from tests.unit.host_world import VXLAN, World, peer, settings, subnets

CROWD = 400
SPREAD_S = CROWD**2 / LEASES_READ_PER_S


def crowd_peer(number: int) -> Lease:
    data = encode_vxlan_data(VxlanData(Vni(1), MacAddress(bytes([2, 0, 1, 0, number >> 8, number & 255]))))
    prefix = IPv4Network((int(IPv4Address("10.5.0.0")) + 4096 + 16 * number, 28))
    public = IPv4Address(int(IPv4Address("198.18.0.0")) + number)
    return Lease(
        Subnets(prefix), LeaseAttributes(public, None, "vxlan", data), owner=HostId(f"{number + 1:030x}aa"), created=number
    )


def host_of_a_crowd(number: int) -> World:
    config = VXLAN.replace(b'"Backend"', b'"SubnetLen": 28, "Backend"')
    return World(config, *map(crowd_peer, range(CROWD)), host=settings(host=HostId(f"{number:032x}")))


def waits_before_loading(event: Event, hosts: int) -> list[float]:
    """How long hosts which know the crowd wait after the event before they load."""
    waits = []
    for number in range(10_000, 10_000 + hosts):
        world = host_of_a_crowd(number)
        world.settle(1.0)
        world.tell(event)
        begun = world.now
        deadline = world.reconciler.store.deadline
        assert deadline is not None
        waits.append(deadline - begun)
    return waits


def test_hosts_that_lose_their_history_together_load_in_turns() -> None:
    waits = waits_before_loading(StoreFailed(HistoryGoneError(3)), 12)
    assert 0 <= min(waits) < 0.25 * SPREAD_S
    assert 0.75 * SPREAD_S < max(waits) <= SPREAD_S


def test_hosts_that_lose_their_store_together_load_in_turns() -> None:
    waits = waits_before_loading(StoreFailed(StoreUnavailableError("small", "cut off")), 12)
    assert max(waits) - min(waits) > 0.5 * SPREAD_S


def test_few_hosts_load_at_once() -> None:
    world = World(VXLAN, peer(7))
    world.settle()
    world.tell(StoreFailed(HistoryGoneError(3)))
    assert (world.reconciler.store.deadline or 0.0) - world.now <= 4 / LEASES_READ_PER_S


def loads_of_a_restart(up_s: float) -> tuple[int, float]:
    """Loads at once, and the wait, of a host that begins with a crowd's snapshot when it is up for so long."""
    world = host_of_a_crowd(10_004)
    world.settle(2.0)
    assert world.kept is not None
    world.now = up_s
    world.restart()
    waits = (world.reconciler.store.deadline or 0.0) - up_s
    return sum(isinstance(one, LoadSnapshot) for one in world.pending), waits


def test_host_that_was_switched_on_programs_what_it_kept_and_waits_for_its_turn_to_load() -> None:
    loads, wait = loads_of_a_restart(20.0)
    assert loads == 0
    assert 0 < wait < SPREAD_S


def test_daemon_that_is_restarted_loads_at_once() -> None:
    loads, _ = loads_of_a_restart(BOOTED_S + 1)
    assert loads == 1


def changed(revision: int, *changes: LeasePut | LeaseGone | ConfigPut) -> StoreChanged:
    return StoreChanged(Changes(revision, changes))


def test_changes_that_came_together_are_one_event_in_their_order() -> None:
    one, two, three = LeasePut(peer(7)), LeaseGone(subnets(7)), LeasePut(peer(8))
    events = [changed(4, one), changed(5, two), changed(6, three)]
    assert coalesced(events) == [changed(6, one, two, three)]
    assert coalesced(events[:1]) == events[:1]


def test_nothing_is_drawn_together_across_another_event_a_configuration_or_an_older_revision() -> None:
    config = changed(5, ConfigPut(None))
    lease = [changed(number, LeasePut(peer(number))) for number in (4, 6, 7)]
    cases: list[list[Event]] = [
        [lease[0], TimerFired(), lease[1]],
        [lease[0], config, lease[1]],
        [lease[2], lease[0]],
        [TimerFired(), config],
        [],
    ]
    for events in cases:
        assert coalesced(events) == events


def test_crowd_that_is_heard_of_at_once_is_programmed_at_once() -> None:
    config = VXLAN.replace(b'"Backend"', b'"SubnetLen": 28, "Backend"')
    world = World(config)
    world.settle()
    world.done.clear()
    crowd = [one for number in range(CROWD) if str((one := crowd_peer(number)).subnets) != world.own]
    news: list[Event] = [changed(number + 10, LeasePut(one)) for number, one in enumerate(crowd)]
    for event in coalesced(news):
        world.tell(event)
    world.settle()
    assert sum(isinstance(one, Program) for one in world.done) == 1
    assert sum(state == "programmed" for state in world.states().values()) == len(crowd)


def test_own_lease_that_the_store_shows_is_no_reason_to_compute_everything_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []

    def counted(
        config: NetworkConfig, host: HostSettings, own: Lease, peers: tuple[Lease, ...], underlay: Underlay
    ) -> DesiredState:
        computed.append(len(peers))
        return desired(config, host, own, peers, underlay)

    monkeypatch.setattr(reconciler, "desired", counted)
    world = World(VXLAN, peer(7), peer(8))
    world.settle()
    world.change(LeasePut(peer(9)))
    world.settle()
    assert any(str(lease.subnets) == world.own for lease in world.reconciler.store.leases)
    assert computed == [2]
    assert world.states() == dict.fromkeys((str(subnets(number)) for number in (7, 8, 9)), "programmed")

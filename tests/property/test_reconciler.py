"""Whatever a kernel held, whatever happens in which order, and wherever a daemon dies: the host ends as it should be.

The machine plays a store with churn, a kernel with foreign look-alikes and stale entries of ours, failing operations, an
unreachable store, restarts after any single action, and another hand that deletes what is ours. When it lets the world come to
rest, what is ours equals what is wanted, what is foreign is as it was, and one more restart writes nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Hashable
from ipaddress import IPv4Address, IPv4Network

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from overlaynet.backend import desired
from overlaynet.model.addresses import MacAddress, Mtu, Vni
from overlaynet.model.kernel import (
    NEXT_HOP_IDS,
    FdbEntry,
    KernelObject,
    Link,
    LinkAddress,
    Neighbour,
    NextHop,
    ObjectKind,
    Put,
    Route,
    Sysctl,
    TunLink,
    VxlanLink,
)
from overlaynet.model.peers import accept_peers
from overlaynet.model.snapshot import ConfigPut, LeaseGone, LeasePut
from overlaynet.reconcile.actions import LoadSnapshot, Observe, Program, Stop, Watch
from overlaynet.reconcile.events import KernelChanged, StopRequested

from tests.unit.host_world import HOST_GW, UDP, VXLAN, World, peer, subnets
from tests.unit.host_world import settings as settings_of_host

NUMBERS = st.integers(2, 9)
ROUTER = IPv4Address("192.0.2.254")


def stale_objects(vni: int, number: int, station: int) -> list[KernelObject]:
    """What an earlier run with other settings may have left."""
    name = f"ovl.{vni}"
    mac = MacAddress(bytes([2, 0, 0, 0, 1, station]))
    base = IPv4Address(f"10.5.{number}.0")
    link: Link = VxlanLink(name, Vni(vni), "eth0", IPv4Address("192.0.2.1"), 8472 + station % 2, Mtu(1400), mac)
    return [
        link,
        LinkAddress(name, IPv4Address(f"10.5.{number + 100}.0")),
        Neighbour(name, base, mac),
        FdbEntry(name, mac, IPv4Address(f"192.0.2.{number}")),
        NextHop(NEXT_HOP_IDS[number + station % 2], name, base),
        Route(IPv4Network((int(base), 24)), name, base, onlink=True),
        Route(IPv4Network((int(base), 26)), name, next_hop=NEXT_HOP_IDS[number + station % 2]),
        Route(IPv4Network((int(base) + 65536 // 2, 25)), "eth0", IPv4Address(f"192.0.2.{number}"), metric=station),
    ]


class Hosts(RuleBasedStateMachine):
    """One host in a world that is against it."""

    @initialize(
        config=st.sampled_from([VXLAN, HOST_GW, UDP]),
        foreign=st.sets(NUMBERS, max_size=3),
        stale=st.lists(st.tuples(st.sampled_from([1, 2]), NUMBERS, st.integers(1, 4)), max_size=3, unique_by=lambda one: one[0]),
        peers=st.sets(NUMBERS, max_size=4),
        next_hops=st.booleans(),
        taken=st.sets(NUMBERS, max_size=2),
    )
    def begin(
        self,
        config: bytes,
        foreign: set[int],
        stale: list[tuple[int, int, int]],
        peers: set[int],
        next_hops: bool,
        taken: set[int],
    ) -> None:
        self.config = config
        self.backend = {VXLAN: "vxlan", HOST_GW: "host-gw", UDP: "udp"}[config]
        self.world = World(None, *(self.peer(number) for number in peers), host=settings_of_host(next_hops=next_hops))
        self.foreign = [Route(IPv4Network(f"10.5.{number}.0/24"), "eth0", ROUTER) for number in foreign]
        self.foreign += [Route(IPv4Network(f"10.5.{number}.0/24"), "eth0", ROUTER, metric=77) for number in foreign]
        for route in self.foreign:
            self.world.kernel.add_foreign_route(route)
        self.taken = {NextHop(NEXT_HOP_IDS[number], "eth0", ROUTER) for number in taken}
        for hop in self.taken:
            self.world.kernel.add_foreign_next_hop(hop)
        taken_keys: set[Hashable] = {*(hop.key for hop in self.taken), *(route.key for route in self.foreign)}
        if stale and stale[0][2] == 4:
            self.world.kernel.put(TunLink("ovl-udp", Mtu(1000)))
        for one in stale:
            for item in stale_objects(*one):
                if item.key not in taken_keys:
                    self.world.kernel.put(item)
        self.foreign_text = self.foreign_lines()
        self.before_config = self.world.text()

    def peer(self, number: int, mac: int | None = None, address: str = ""):  # type: ignore[no-untyped-def]
        return peer(number, mac=mac, address=address, backend=self.backend)

    def foreign_lines(self) -> list[str]:
        return [line for line in self.world.text().splitlines() if line.startswith("foreign")]

    @precondition(lambda self: self.world.store.config is None)
    @rule()
    def configure(self) -> None:
        assert self.world.text() == self.before_config
        self.world.change(ConfigPut(self.config))

    @rule(
        number=NUMBERS, mac=st.one_of(st.none(), st.integers(10, 12)), address=st.sampled_from(["", "192.0.2.99", "198.51.100.9"])
    )
    def put_peer(self, number: int, mac: int | None, address: str) -> None:
        there = self.world.store.leases.get(subnets(number))
        if there is None or there.owner != self.world.host.host:
            self.world.change(LeasePut(self.peer(number, mac, address)))

    @rule(number=NUMBERS)
    def drop_peer(self, number: int) -> None:
        if subnets(number) in self.world.store.leases:
            self.world.change(LeaseGone(subnets(number)))

    @rule()
    def drop_own(self) -> None:
        for lease in list(self.world.store.leases.values()):
            if lease.owner == self.world.host.host:
                self.world.change(LeaseGone(lease.subnets))

    @rule()
    def deliver(self) -> None:
        self.world.deliver()

    @rule(position=st.integers(0, 5), count=st.integers(1, 6))
    def carry_out(self, position: int, count: int) -> None:
        for _ in range(count):
            if self.world.pending:
                self.world.carry_out(position % len(self.world.pending))

    @rule(seconds=st.sampled_from([0.06, 0.5, 7.0, 70.0, 400.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.settle(seconds)

    @rule()
    def cut(self) -> None:
        self.world.cut()

    @rule()
    def join(self) -> None:
        self.world.store.reachable = True

    @rule(
        number=st.sampled_from([errno.EINVAL, errno.EEXIST, errno.ENETUNREACH, errno.EBUSY, errno.ENODEV]),
        kind=st.sampled_from(list(ObjectKind)),
        skip=st.integers(0, 3),
        times=st.integers(1, 3),
    )
    def fail(self, number: int, kind: ObjectKind, skip: int, times: int) -> None:
        self.world.kernel.fail(number, kind=kind, skip=skip, times=times)

    @rule()
    def fail_observe(self) -> None:
        self.world.kernel.fail_observe(errno.EBUSY)

    @rule(name=st.sampled_from(["ovl.1", "ovl-udp"]), told=st.booleans())
    def delete_link(self, name: str, told: bool) -> None:
        if (ObjectKind.LINK, name) in {item.key for item in self.world.kernel.objects}:
            self.world.kernel.remove_link(name)
            self.disturb(told)

    @rule(told=st.booleans())
    def flush(self, told: bool) -> None:
        self.world.kernel.flush_routes()
        self.disturb(told)

    @rule(told=st.booleans())
    def flush_next_hops(self, told: bool) -> None:
        self.world.kernel.flush_next_hops()
        self.disturb(told)

    def disturb(self, told: bool) -> None:
        if self.world.store.config is None:
            self.before_config = self.world.text()
        if told:
            self.world.tell(KernelChanged())

    @rule()
    def die_and_start_again(self) -> None:
        self.world.restart()

    @rule(release=st.booleans())
    def stop_and_start_again(self, release: bool) -> None:
        self.world.store.reachable = True
        self.world.tell(StopRequested(release))
        self.world.settle(10.0)
        assert any(isinstance(action, Stop) for action in self.world.done)
        self.world.restart()

    @invariant()
    def one_action_of_a_kind_is_under_way(self) -> None:
        if hasattr(self, "world"):
            kinds = [type(one) for one in self.world.pending if isinstance(one, LoadSnapshot | Watch | Observe | Program)]
            assert len(kinds) == len(set(kinds))

    @invariant()
    def nothing_foreign_is_ever_touched(self) -> None:
        if hasattr(self, "world"):
            assert self.foreign_lines() == self.foreign_text

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.store.reachable = True
        world.kernel.heal()
        if world.store.config is None:
            world.change(ConfigPut(self.config))
        world.settle(700.0)
        self.check_rest(world)
        writes = world.kernel.writes
        world.settle(700.0)
        assert world.kernel.writes == writes, "a second pass is silent"
        world.restart()
        world.settle(5.0)
        assert world.kernel.writes == writes, "a restart is invisible"
        assert world.ready
        self.check_rest(world)

    def check_rest(self, world: World) -> None:
        config, own = world.reconciler.store.config, world.reconciler.lease.own
        underlay = world.reconciler.kernel.underlay
        assert config is not None
        assert own is not None
        assert underlay is not None
        assert world.store.leases[own.subnets].owner == world.host.host
        mine = (IPv4Address("192.0.2.1"),)
        accepted = accept_peers(config, own.subnets, mine, tuple(world.store.leases.values()))
        state = desired(config, world.host, own, accepted.peers, underlay)
        blocked: set[Hashable] = {*(hop.key for hop in self.taken), *(route.key for route in self.foreign)}
        blocked |= {
            item.key
            for item in state.objects
            if isinstance(item, Route) and item.next_hop is not None and (ObjectKind.NEXT_HOP, item.next_hop) in blocked
        }
        want = {item for item in state.objects if not isinstance(item, Sysctl) and item.key not in blocked}
        assert world.kernel.objects == want
        conflicts = {item.key for item in state.objects} & blocked
        assert len(world.reconciler.status(world.now).conflicts) == len(conflicts)
        known = {"programmed", "refused", "conflict"}
        assert set(world.states().values()) <= known
        for name, plan in state.plans.items():
            keys = [item.key for item in plan.objects]
            assert world.states()[name] == ("conflict" if set(keys) & blocked else "programmed")
        assert not any(isinstance(one, Put) and one.object.key in blocked for one in _operations(world))


def _operations(world: World) -> list[object]:
    return [one for action in world.done if isinstance(action, Program) for one in action.operations]


TestHosts = Hosts.TestCase
TestHosts.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)

"""A simulated network against a lab: the daemons of five real hosts and five simulated ones take the same actions.

        bridge of the underlay
     |       |       |       |       |
   host1   host2   host3   host4   host5      started one after the other, each once the one before is ready and known

Each daemon says at --log-level debug which action it takes; the simulated hosts have the daemons' identities and addresses, and
are started in the same way. What a host observes, keeps and renews depends on how much time passes and is left out of both.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from itertools import groupby
from random import Random

import pytest
from overlaynet.lab import lab as labs
from overlaynet.lab.lab import Lab, network_config
from overlaynet.lab.simulation.world import TTL_S, World
from overlaynet.lab.topology import Plan, plan_lab
from overlaynet.model.host import HostSettings
from overlaynet.model.lease import HostId
from overlaynet.model.network import parse_subnet_env

from tests.lab.conftest import lab_name

HOSTS = 5
TIMELY = ("observe ", "keep ", "renew ", "report ")


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A lab whose daemons were started one by one, and the last one stopped, giving its lease back."""
    plan = plan_lab(lab_name("sim"), hosts=HOSTS, backend="vxlan")
    plan = dataclasses.replace(plan, daemon_flags=(*plan.daemon_flags, "--log-level", "debug", "--release-on-exit"))
    bare = labs.up(plan, daemons=False)
    try:
        labs.configure(bare)
        for host in plan.hosts:
            for pod in host.pods:
                assert bare.run(host.name, "ip", "link", "delete", pod.bridge).returncode == 0
        for number, host in enumerate(plan.hosts, start=1):
            bare.start_daemons([host])
            await_peers(bare, number)
        yield bare
    finally:
        labs.down(plan.name)


def await_peers(lab: Lab, running: int) -> None:
    """Return when each of the first hosts has programmed each of the others."""
    first = dataclasses.replace(lab.plan, hosts=lab.plan.hosts[:running])
    Lab(first, lab.store).await_peers(time.monotonic() + 30.0)


def actions(lab: Lab, plan: Plan) -> dict[str, list[str]]:
    """What each daemon did, in order."""
    found = {}
    for host in plan.hosts:
        lines = [json.loads(line) for line in lab.files.host(host).log.read_text().splitlines() if line.startswith("{")]
        found[host.name] = [line["event"] for line in lines if line.get("topic") == "action"]
    return found


def timeless(lines: list[str]) -> list[str]:
    """The actions that do not hang on how much time passes; of a watch, that it began."""
    return ["watch" if line.startswith("watch ") else line for line in lines if not line.startswith(TIMELY)]


def simulated(lab: Lab) -> tuple[dict[str, list[str]], dict[str, str]]:
    """What the same hosts do in a simulation, and the subnets that they get."""
    world = World(network_config(lab.plan), Random(1))
    found: dict[str, list[str]] = {}
    hosts = []
    for host in lab.plan.hosts:
        address = host.addresses[0]
        settings = HostSettings(
            HostId((lab.files.host(host).state / "host-id").read_text().strip()),
            "eth0",
            *(address.ip, None, address.ip, None),  # type: ignore[arg-type]
            ttl_s=TTL_S,
            next_hops=True,
        )
        lines = found.setdefault(host.name, [])
        one = world.add(settings, whole=True, prefix_len=address.network.prefixlen, lines=lines)
        one.start()
        hosts.append(one)
        world.timeline.run(world.timeline.now + 1.0)
    subnets = {
        host.name: str(own.subnets.v4)
        for host, one in zip(lab.plan.hosts, hosts, strict=True)
        if (own := one.decisions.lease.own) is not None
    }
    hosts[-1].stop(release=True)
    world.timeline.run(world.timeline.now + 1.0)
    assert (world.unlike(), world.overlaps.found) == ([], [])
    return found, subnets


def test_simulated_hosts_take_the_actions_of_real_daemons(lab: Lab) -> None:
    subnets = {host.name: str(parse_subnet_env(lab.files.host(host).subnet_env.read_text()).v4_subnet) for host in lab.plan.hosts}
    last = lab.plan.hosts[-1]
    before = {name: len(lines) for name, lines in actions(lab, lab.plan).items()}
    lab.stop_daemon(last)
    deadline = time.monotonic() + 30.0
    while any(len(timeless(lines[before[name] :])) < 1 for name, lines in actions(lab, lab.plan).items()):
        assert time.monotonic() < deadline, "a host does not drop the one that has left"
        time.sleep(0.05)

    real = actions(lab, lab.plan)
    played, played_subnets = simulated(lab)

    assert played_subnets == subnets
    for host in lab.plan.hosts:
        assert timeless(played[host.name]) == timeless(real[host.name]), host.name
    kinds = [kind for kind, _ in groupby(line.split()[0] for line in timeless(real["host5"]))]
    assert kinds == ["load", "watch", "claim", "program", "publish", "announce", "release", "stop"]

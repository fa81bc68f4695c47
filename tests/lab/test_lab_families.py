"""What a host holds in a lab of each family: entries of the network's families, and of no other that the underlay has."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest
from overlaynet.control.client import ask
from overlaynet.lab import lab as labs
from overlaynet.lab import traffic
from overlaynet.lab.daemons import program
from overlaynet.lab.topology import Families, Host, plan_lab
from overlaynet.model.addresses import Family

from tests.lab.conftest import run_overlaynet
from tests.lab.one_host import OneHost, one_line

DEVICE = {Family.IPV4: "ovl.1", Family.IPV6: "ovl6.1"}
OPTION = {Family.IPV4: "-4", Family.IPV6: "-6"}
DEVICE_MTU = {Family.IPV4: 1450, Family.IPV6: 1430}


def shown(lab: labs.Lab, host: Host, *words: str) -> list[dict[str, Any]]:
    done = lab.run(host.name, *words)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return found


def subnet_env(lab: labs.Lab, host: Host) -> dict[str, str]:
    return dict(line.split("=") for line in lab.files.host(host).subnet_env.read_text().splitlines())


def subnets(lab: labs.Lab, host: Host) -> dict[Family, str]:
    """The host's subnets out of its subnet.env, as prefixes."""
    env = subnet_env(lab, host)
    found = {Family.IPV4: env.get("FLANNEL_SUBNET"), Family.IPV6: env.get("FLANNEL_IPV6_SUBNET")}
    return {
        family: f"{ip_address(text.split('/')[0]) - 1}/{text.split('/')[1]}" for family, text in found.items() if text is not None
    }


def key(of: dict[Family, str]) -> str:
    """The key of a lease of these subnets, as flannel writes it."""
    four = of.get(Family.IPV4, "0.0.0.0/0").replace("/", "-")
    return f"{four}&{of[Family.IPV6].replace('/', '-')}" if Family.IPV6 in of else four


@pytest.fixture(
    params=[
        ("vxlan", Families.V4, True),
        pytest.param(("vxlan", Families.V6, False), marks=pytest.mark.soak),
        ("vxlan", Families.V6, True),
        ("vxlan", Families.DUAL, False),
        pytest.param(("host-gw", Families.V4, True), marks=pytest.mark.soak),
        pytest.param(("host-gw", Families.V6, False), marks=pytest.mark.soak),
        ("host-gw", Families.V6, True),
        ("host-gw", Families.DUAL, False),
    ],
    ids=lambda kind: f"{kind[0]}-{kind[1].value}{'-mixed' if kind[2] else ''}",
)
def lab(request: pytest.FixtureRequest, name: str) -> labs.Lab:
    backend, families, mixed = request.param
    return labs.up(plan_lab(name, hosts=3, backend=backend, families=families, mixed=mixed))


def test_hosts_hold_entries_of_the_networks_families_and_send_in_the_same(lab: labs.Lab) -> None:
    families = lab.plan.families.members
    pings = traffic.ping_all(lab, count=2, interval_s=0.05)
    assert (pings.sent, pings.lost) == (3 * 2 * 2 * len(families), 0)

    leased = run_overlaynet("--store", lab.store, "leases").stdout
    for host in lab.plan.hosts:
        own = subnets(lab, host)
        assert tuple(own) == families
        assert key(own) in leased
        assert subnet_env(lab, host)["FLANNEL_MTU"] == str(min(DEVICE_MTU[one] for one in families) if vxlan(lab) else 1500)
        for family in Family:
            check_family(lab, host, family)
        status = ask(lab.files.host(host).run, "status")["status"]
        assert [status["warnings"], status["conflicts"]] == [[], []]
        assert sorted(peer["public_address"] for peer in status["peers"]) == sorted(
            underlay(other, families[0]) for other in lab.plan.hosts if other is not host
        )


def vxlan(lab: labs.Lab) -> bool:
    return lab.plan.backend == "vxlan"


def underlay(host: Host, family: Family) -> str:
    return next(str(address.ip) for address in host.addresses if Family.of(address.ip) is family)


def global_addresses(lab: labs.Lab, host: Host, option: str, device: str) -> list[dict[str, Any]]:
    links = shown(lab, host, "ip", "-json", option, "address", "show", "dev", device, "scope", "global")
    return [entry for link in links for entry in link.get("addr_info", []) if "local" in entry]


def check_family(lab: labs.Lab, host: Host, family: Family) -> None:
    """The host's entries in one family: one of each kind for each peer, or none at all."""
    option, device = OPTION[family], DEVICE[family]
    wanted = family in lab.plan.families.members
    peers = {subnets(lab, other).get(family): other for other in lab.plan.hosts if other is not host} if wanted else {}

    on_underlay = [entry["local"] for entry in global_addresses(lab, host, option, "eth0")]
    assert on_underlay == [str(one.ip) for one in host.addresses if Family.of(one.ip) is family]

    routes = shown(lab, host, "ip", "-json", option, "route", "show", "proto", "79", "type", "unicast")
    assert {route["dst"] for route in routes} == set(peers)
    links = shown(lab, host, "ip", "-json", "-details", "link", "show", "type", "vxlan")
    mine = [link for link in links if link["ifname"] == device]
    if not vxlan(lab) or not wanted:
        assert mine == []
        gateways = {route["dst"]: route.get("gateway") for route in routes}
        assert gateways == {subnet: underlay(other, family) for subnet, other in peers.items() if subnet is not None}
        return
    (link,) = mine
    assert link["mtu"] == DEVICE_MTU[family]
    data = link["linkinfo"]["info_data"]
    assert data.get("local", data.get("local6")) == underlay(host, family)
    (entry,) = global_addresses(lab, host, option, device)
    assert f"{entry['local']}" == subnets(lab, host)[family].split("/")[0]
    assert entry["prefixlen"] == {Family.IPV4: 32, Family.IPV6: 128}[family]
    assert not entry.get("tentative")
    assert not entry.get("dadfailed")

    neighbours = shown(lab, host, "ip", "-json", option, "neighbour", "show", "dev", device)
    macs = {one["dst"]: one["lladdr"] for one in neighbours if "PERMANENT" in one["state"]}
    assert set(macs) == {subnet.split("/")[0] for subnet in peers if subnet is not None}
    entries = shown(lab, host, "bridge", "-json", "fdb", "show", "dev", device)
    assert {one["mac"]: one["dst"] for one in entries if "dst" in one} == {
        macs[subnet.split("/")[0]]: underlay(other, family) for subnet, other in peers.items() if subnet is not None
    }


@pytest.mark.parametrize("families", [pytest.param(Families.V4, marks=pytest.mark.soak), Families.V6])
def test_udp_hosts_meet_where_some_have_both_families(name: str, families: Families) -> None:
    lab = labs.up(plan_lab(name, hosts=3, backend="udp", families=families, mixed=True))
    pings = traffic.ping_all(lab, count=2, interval_s=0.05)
    assert (pings.sent, pings.lost) == (12, 0)


DUAL = '{"EnableIPv6": true, "Network": "10.1.0.0/16", "IPv6Network": "fd00:10:1::/48", "Backend": {"Type": "TYPE"}}'


@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
@pytest.mark.parametrize("underlay", ["none", "link-local"])
def test_daemon_ends_where_the_underlay_lacks_a_family_of_the_network(host: OneHost, underlay: str, backend: str) -> None:
    host.ip("address del 2001:db8::1/64 dev eth0")
    if underlay == "link-local":
        host.ip("address add fe80::1/64 dev eth0 nodad")
    host.configure(DUAL.replace("TYPE", backend))
    before = host.kernel()

    done = host.daemon_end()

    line = one_line(done)
    assert done.returncode == 2
    assert "--iface: 'eth0': has no usable IPv6 address" in line
    assert host.kernel() == before
    assert not host.subnet_env.exists()


def test_lab_of_both_families_by_the_command_line(name: str) -> None:
    up = run_overlaynet("lab", "up", "--name", name, "--hosts", "2", "--family", "dual", "--backend", "host-gw")
    assert up.returncode == 0, up.stderr
    rows = {row["name"]: row for row in json.loads(run_overlaynet("lab", "list", "--json").stdout)}
    assert rows[name]["family"] == "dual"
    inside = run_overlaynet("lab", "exec", "--name", name, "host2", "--", program("overlaynet"), "status", "--json")
    assert json.loads(inside.stdout)["public_addresses"] == ["198.18.0.2", "2001:2::2"]

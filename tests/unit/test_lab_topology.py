from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from overlaynet.errors import ConfigError
from overlaynet.lab.demo import plan_demo
from overlaynet.lab.lab import network_config
from overlaynet.lab.links import attachment_batches, underlay_batches
from overlaynet.lab.topology import (
    MOST_BRIDGES,
    MOST_HOSTS,
    Families,
    Underlay,
    attachments,
    lab_of_namespace,
    plain_subnets,
    plan_lab,
)
from overlaynet.model.addresses import Mtu


def text(batches: object) -> str:
    assert hasattr(batches, "__iter__")
    return "\n".join(f"{batch.namespace}: {line}" for batch in batches for line in batch.lines)


def test_bridged_underlay_as_text() -> None:
    assert text(underlay_batches(plan_lab("a", hosts=2))) == (
        "None: netns add ovl-a-underlay\n"
        "None: netns add ovl-a-host1\n"
        "None: netns add ovl-a-host2\n"
        "None: netns add ovl-a-pod1\n"
        "None: netns add ovl-a-pod2\n"
        "ovl-a-underlay: link set lo up\n"
        "ovl-a-underlay: link add name underlay type bridge mcast_snooping 0\n"
        "ovl-a-underlay: link set underlay up\n"
        "ovl-a-underlay: link add name host1 type veth peer name eth0 netns ovl-a-host1\n"
        "ovl-a-underlay: link set host1 master underlay\n"
        "ovl-a-underlay: link set host1 up\n"
        "ovl-a-underlay: link add name host2 type veth peer name eth0 netns ovl-a-host2\n"
        "ovl-a-underlay: link set host2 master underlay\n"
        "ovl-a-underlay: link set host2 up\n"
        "ovl-a-host1: link set lo up\n"
        "ovl-a-host1: address add 198.18.0.1/16 dev eth0\n"
        "ovl-a-host1: link set eth0 up\n"
        "ovl-a-host2: link set lo up\n"
        "ovl-a-host2: address add 198.18.0.2/16 dev eth0\n"
        "ovl-a-host2: link set eth0 up"
    )


def test_routed_underlay_gives_each_host_a_network_and_a_router() -> None:
    lines = text(underlay_batches(plan_lab("a", hosts=2, underlay=Underlay.ROUTED))).splitlines()
    assert "ovl-a-underlay: address add 198.18.2.1/24 dev host2" in lines
    assert "ovl-a-host2: address add 198.18.2.2/24 dev eth0" in lines
    assert "ovl-a-host2: route add default via 198.18.2.1" in lines
    assert not [line for line in lines if "bridge" in line or "master" in line]


@pytest.mark.parametrize(
    ("families", "config"),
    [
        (Families.V4, b'{"EnableIPv4": true, "EnableIPv6": false, "Network": "10.1.0.0/16", "Backend": {"Type": "host-gw"}}'),
        (
            Families.V6,
            b'{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00:10:1::/48", "Backend": {"Type": "host-gw"}}',
        ),
        (
            Families.DUAL,
            b'{"EnableIPv4": true, "EnableIPv6": true, "Network": "10.1.0.0/16", "IPv6Network": "fd00:10:1::/48",'
            b' "Backend": {"Type": "host-gw"}}',
        ),
    ],
)
def test_network_of_each_family_as_text(families: Families, config: bytes) -> None:
    assert network_config(plan_lab("a", backend="host-gw", families=families)) == config


HOST2 = {
    Families.V4: "ovl-a-host2: address add 198.18.0.2/16 dev eth0\n",
    Families.V6: (
        "ovl-a-host2: link set eth0 addrgenmode none\n"
        "ovl-a-host2: address add fe80::2/64 dev eth0 nodad\n"
        "ovl-a-host2: address add 2001:2::2/64 dev eth0 nodad\n"
    ),
}


@pytest.mark.parametrize("families", Families)
def test_host_has_an_underlay_address_of_each_family_and_of_no_other(families: Families) -> None:
    wanted = {Families.DUAL: HOST2[Families.V4] + HOST2[Families.V6]} | HOST2
    lines = text(underlay_batches(plan_lab("a", hosts=2, families=families))).splitlines(keepends=True)
    found = [line for line in f"{''.join(lines)}\n".splitlines(keepends=True) if line.startswith("ovl-a-host2: ")]
    assert "".join(found) == f"ovl-a-host2: link set lo up\n{wanted[families]}ovl-a-host2: link set eth0 up\n"


def test_odd_hosts_of_a_mixed_lab_have_both_families_on_the_underlay() -> None:
    hosts = plan_lab("a", hosts=3, families=Families.V6, mixed=True).hosts
    assert [[str(address) for address in host.addresses] for host in hosts] == [
        ["198.18.0.1/16", "2001:2::1/64"],
        ["2001:2::2/64"],
        ["198.18.0.3/16", "2001:2::3/64"],
    ]


def test_routed_underlay_of_both_families() -> None:
    plan = plan_lab("a", hosts=2, families=Families.DUAL, underlay=Underlay.ROUTED)
    lines = text(underlay_batches(plan)).splitlines()
    for line in (
        "ovl-a-underlay: address add 198.18.2.1/24 dev host2",
        "ovl-a-underlay: address add fe80::1/64 dev host2 nodad",
        "ovl-a-underlay: address add 2001:2:0:2::1/64 dev host2 nodad",
        "ovl-a-host2: address add 2001:2:0:2::2/64 dev eth0 nodad",
        "ovl-a-host2: route add default via 198.18.2.1",
        "ovl-a-host2: route add default via 2001:2:0:2::1",
    ):
        assert line in lines


def test_pod_of_both_families_as_text() -> None:
    host = plan_lab("a", hosts=1, families=Families.DUAL).hosts[0]
    subnets = [ip_network("10.1.7.0/24"), ip_network("fd00:10:1:7::/64")]
    assert text(attachment_batches(host, attachments(host, subnets), Mtu(1430))) == (
        "ovl-a-host1: link add name br0 mtu 1430 type bridge\n"
        "ovl-a-host1: address add 10.1.7.1/24 dev br0\n"
        "ovl-a-host1: link set br0 addrgenmode none\n"
        "ovl-a-host1: address add fe80::1/64 dev br0 nodad\n"
        "ovl-a-host1: address add fd00:10:1:7::1/64 dev br0 nodad\n"
        "ovl-a-host1: link add name pod1 mtu 1430 type veth peer name eth0 mtu 1430 netns ovl-a-pod1\n"
        "ovl-a-host1: link set pod1 master br0\n"
        "ovl-a-host1: link set pod1 up\n"
        "ovl-a-host1: link set br0 up\n"
        "ovl-a-pod1: link set lo up\n"
        "ovl-a-pod1: address add 10.1.7.2/24 dev eth0\n"
        "ovl-a-pod1: link set eth0 addrgenmode none\n"
        "ovl-a-pod1: address add fe80::2/64 dev eth0 nodad\n"
        "ovl-a-pod1: address add fd00:10:1:7::2/64 dev eth0 nodad\n"
        "ovl-a-pod1: link set eth0 up\n"
        "ovl-a-pod1: route add default via 10.1.7.1\n"
        "ovl-a-pod1: route add default via fd00:10:1:7::1"
    )


def test_subnets_without_a_daemon_are_the_hosts_own() -> None:
    assert [str(subnet) for subnet in plain_subnets(Families.DUAL, 2)] == ["10.1.2.0/24", "fd00:10:1:2::/64"]


def test_pods_of_two_bridges_as_text() -> None:
    host = plan_lab("a", hosts=1, bridges=2).hosts[0]
    batches = attachment_batches(host, attachments(host, [IPv4Network("10.1.7.0/24")]), Mtu(1450))
    assert text(batches) == (
        "ovl-a-host1: link add name br-a mtu 1450 type bridge\n"
        "ovl-a-host1: address add 10.1.7.1/25 dev br-a\n"
        "ovl-a-host1: link add name pod1a mtu 1450 type veth peer name eth0 mtu 1450 netns ovl-a-pod1a\n"
        "ovl-a-host1: link set pod1a master br-a\n"
        "ovl-a-host1: link set pod1a up\n"
        "ovl-a-host1: link set br-a up\n"
        "ovl-a-host1: link add name br-b mtu 1450 type bridge\n"
        "ovl-a-host1: address add 10.1.7.129/25 dev br-b\n"
        "ovl-a-host1: link add name pod1b mtu 1450 type veth peer name eth0 mtu 1450 netns ovl-a-pod1b\n"
        "ovl-a-host1: link set pod1b master br-b\n"
        "ovl-a-host1: link set pod1b up\n"
        "ovl-a-host1: link set br-b up\n"
        "ovl-a-pod1a: link set lo up\n"
        "ovl-a-pod1a: address add 10.1.7.2/25 dev eth0\n"
        "ovl-a-pod1a: link set eth0 up\n"
        "ovl-a-pod1a: route add default via 10.1.7.1\n"
        "ovl-a-pod1b: link set lo up\n"
        "ovl-a-pod1b: address add 10.1.7.130/25 dev eth0\n"
        "ovl-a-pod1b: link set eth0 up\n"
        "ovl-a-pod1b: route add default via 10.1.7.129"
    )


@pytest.mark.parametrize("families", Families)
@pytest.mark.parametrize("underlay", Underlay)
def test_every_link_name_of_the_largest_lab_fits(underlay: Underlay, families: Families) -> None:
    plan = plan_lab("x" * 24, hosts=MOST_HOSTS, bridges=MOST_BRIDGES, underlay=underlay, families=families)
    names = [host.name for host in plan.hosts] + [name for pod in plan.pods for name in (pod.name, pod.bridge)]
    assert max(len(name) for name in names) <= 15  # IFNAMSIZ without its final zero
    assert len({address for host in plan.hosts for address in host.addresses}) == MOST_HOSTS * len(families.members)
    assert len(set(plan.namespaces)) == 1 + MOST_HOSTS * (1 + MOST_BRIDGES)


@pytest.mark.parametrize("underlay", Underlay)
def test_no_command_runs_in_the_machines_own_namespace_except_to_add_others(underlay: Underlay) -> None:
    for batch in underlay_batches(plan_lab("a", hosts=3, bridges=2, underlay=underlay, families=Families.DUAL)):
        if batch.namespace is None:
            assert all(line.startswith("netns add ovl-a-") for line in batch.lines)


def test_every_namespace_is_known_by_its_name_as_its_labs() -> None:
    for name in ("a", "a-host1", "a-underlay", "a_b"):
        assert {lab_of_namespace(namespace) for namespace in plan_lab(name, bridges=2).namespaces} == {name}
    for foreign in ("host1", "ovl-host1", "ovl-a-host", "ovl-a-other", "xovl-a-host1", "ovl-a-host1x1", "ovl--host1"):
        assert lab_of_namespace(foreign) is None


def test_parts_of_a_split_subnet_do_not_overlap() -> None:
    for bridges in range(1, MOST_BRIDGES + 1):
        host = plan_lab("a", hosts=1, bridges=bridges).hosts[0]
        networks = [IPv4Network(one.addresses[0].network) for one in attachments(host, [IPv4Network("10.1.7.0/24")])]
        assert len(networks) == bridges
        assert all(network.subnet_of(IPv4Network("10.1.7.0/24")) for network in networks)
        assert not any(one.overlaps(other) for one in networks for other in networks if one is not other)


@pytest.mark.parametrize("subnet", [IPv4Network("10.1.7.0/30"), IPv6Network("fd00::/126")])
def test_subnet_that_cannot_be_split_is_refused(subnet: IPv4Network | IPv6Network) -> None:
    host = plan_lab("a", hosts=1, bridges=2).hosts[0]
    with pytest.raises(ConfigError, match="too small"):
        attachments(host, [subnet])


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"name": "-a"}, "--name"),
        ({"name": "a/b"}, "--name"),
        ({"name": "x" * 25}, "--name"),
        ({"name": ""}, "--name"),
        ({"hosts": 0}, "--hosts"),
        ({"hosts": 251}, "--hosts"),
        ({"bridges": 0}, "--bridges"),
        ({"backend": "gre"}, "--backend"),
    ],
)
def test_unusable_argument_is_named(arguments: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_lab(**{"name": "a", **arguments})  # type: ignore[arg-type]
    assert caught.value.field == field


def test_unknown_member_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'pod3'.*host1, host2, pod1, pod2, underlay"):
        plan_lab("a", hosts=2).member("pod3")


@pytest.mark.parametrize(
    ("hosts", "backends", "family", "field"),
    [
        (1, "vxlan", "v4", "--hosts"),
        (2, "vxlan,gre", "v4", "--backend"),
        (2, "", "v4", "--backend"),
        (2, "vxlan", "v7", "--family"),
    ],
)
def test_demo_names_what_it_does_not_know(hosts: int, backends: str, family: str, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_demo("demo", hosts=hosts, backends=backends, family=family)
    assert caught.value.field == field


def test_demo_plans_each_backend_once_in_the_order_asked_for() -> None:
    assert [plan.backend for plan in plan_demo("demo", hosts=2, backends="udp, vxlan,udp", family="v4")] == ["udp", "vxlan"]

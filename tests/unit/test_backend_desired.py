"""What each backend wants a host to hold, as golden text."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from overlaynet.backend import attributes, desired, features
from overlaynet.backend.vxlan import next_hop_id, vtep_mac
from overlaynet.errors import ConfigError
from overlaynet.model.addresses import Family, LinkIndex, MacAddress, Mtu, Vni
from overlaynet.model.kernel import NEXT_HOP_IDS, Underlay, describe, in_order
from overlaynet.model.lease import Lease, LeaseAttributes, Subnets
from overlaynet.model.lease_text import VxlanData, decode_vxlan_data, encode_vxlan_data
from overlaynet.model.network import FamilyConfig, NetworkConfig, parse_network

from tests.unit.host_world import HOST, HOST_GW, UDP, VXLAN, peer, settings, subnets

UNDERLAY = Underlay("eth0", LinkIndex(2), Mtu(1500), up=True, onlink=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/64")))
OWN = Lease(subnets(1), LeaseAttributes(), HOST)
DUAL = (
    b'{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/48", "Backend": {"Type": "TYPE"}}'  # one per family
)


def network(text: bytes) -> NetworkConfig:
    return parse_network(text)[0]


def lines(config: NetworkConfig, *peers: Lease, own: Lease = OWN, **changes: object) -> str:
    state = desired(config, settings(**changes), own, peers, UNDERLAY)
    return "".join(f"{describe(item)}\n" for item in in_order(state.objects))


def dual_peer(number: int, backend: str) -> Lease:
    data = encode_vxlan_data(VxlanData(Vni(1), MacAddress(bytes([2, 0, 0, 0, 0, number]))))
    both = Subnets(IPv4Network(f"10.5.{number}.0/24"), IPv6Network(f"fd00:5:0:{number}::/64"))
    public = LeaseAttributes(
        IPv4Address(f"192.0.2.{number}"),
        IPv6Address(f"2001:db8::{number}"),
        backend,
        data if backend == "vxlan" else None,
        data if backend == "vxlan" else None,
    )
    return Lease(both, public)


MAC4, MAC6 = (vtep_mac(HOST, Vni(1), family) for family in Family)
VXLAN4 = f"link ovl.1 vxlan id 1 local 192.0.2.1 dev eth0 dstport 8472 nolearning mtu 1450 address {MAC4}\n"
VXLAN6 = f"link ovl6.1 vxlan id 1 local 2001:db8::1 dev eth0 dstport 8472 nolearning mtu 1430 address {MAC6}\n"
SUBNETS = {
    "v4": Subnets(IPv4Network("10.5.1.0/24")),
    "v6": Subnets(None, IPv6Network("fd00:5:0:1::/64")),
    "dual": Subnets(IPv4Network("10.5.1.0/24"), IPv6Network("fd00:5:0:1::/64")),
}
WANTED = {
    ("vxlan", "v4"): (
        "sysctl net/ipv4/ip_forward = 1\n"
        "sysctl net/ipv6/conf/ovl.1/accept_ra = 0\n" + VXLAN4 + "address 10.5.1.0/32 dev ovl.1\n"
        "neighbour 10.5.7.0 lladdr 02:00:00:00:00:07 dev ovl.1 permanent\n"
        "fdb 02:00:00:00:00:07 dst 192.0.2.7 dev ovl.1 self permanent\n"
        "route 10.5.7.0/24 via 10.5.7.0 dev ovl.1 onlink\n"
        "route unreachable 10.5.0.0/16 metric 1048576\n"
    ),
    ("vxlan", "v6"): (
        "sysctl net/ipv6/conf/all/forwarding = 1\n"
        "sysctl net/ipv6/conf/ovl6.1/accept_ra = 0\n" + VXLAN6 + "address fd00:5:0:1::/128 dev ovl6.1\n"
        "neighbour fd00:5:0:7:: lladdr 02:00:00:00:00:07 dev ovl6.1 permanent\n"
        "fdb 02:00:00:00:00:07 dst 2001:db8::7 dev ovl6.1 self permanent\n"
        "route fd00:5:0:7::/64 via fd00:5:0:7:: dev ovl6.1 metric 1024 onlink\n"
        "route unreachable fd00:5::/48 metric 1048576\n"
    ),
    ("host-gw", "v4"): (
        "sysctl net/ipv4/ip_forward = 1\nroute 10.5.7.0/24 via 192.0.2.7 dev eth0\nroute unreachable 10.5.0.0/16 metric 1048576\n"
    ),
    ("host-gw", "v6"): (
        "sysctl net/ipv6/conf/all/forwarding = 1\n"
        "route fd00:5:0:7::/64 via 2001:db8::7 dev eth0 metric 1024\n"
        "route unreachable fd00:5::/48 metric 1048576\n"
    ),
}
MTUS = {("vxlan", "v4"): 1450, ("vxlan", "v6"): 1430, ("vxlan", "dual"): 1430}


def test_vxlan_routes_point_to_next_hops_where_the_kernel_has_them() -> None:
    text = lines(network(VXLAN), peer(7), next_hops=True)
    assert "nexthop id 1325400071 via 10.5.7.0 dev ovl.1 onlink\nroute 10.5.7.0/24 nhid 1325400071 dev ovl.1\n" in text
    config = network(DUAL.replace(b"TYPE", b"vxlan"))
    six = IPv6Address("2001:db8::1")
    own = Lease(Subnets(IPv4Network("10.5.1.0/24"), IPv6Network("fd00:5:0:1::/64")), LeaseAttributes(), HOST)
    text = lines(config, dual_peer(7, "vxlan"), own=own, local_ipv6=six, public_ipv6=six, next_hops=True)
    assert "nexthop id 1333788679 via fd00:5:0:7:: dev ovl6.1 onlink\n" in text
    assert "route fd00:5:0:7::/64 nhid 1333788679 dev ovl6.1 metric 1024\n" in text


def test_a_subnet_of_another_length_has_no_next_hop() -> None:
    assert next_hop_id(network(VXLAN).families[0], IPv4Network("10.5.7.0/25")) is None


def test_a_network_of_more_subnets_than_numbers_has_next_hops_for_the_first_only() -> None:
    wide = FamilyConfig(Family.IPV6, IPv6Network("fd00::/32"), 64, IPv6Address("fd00::"), IPv6Address("fd00:0:ffff:ffff::"))
    assert next_hop_id(wide, IPv6Network("fd00:0:7f:ffff::/64")) == NEXT_HOP_IDS[-1]
    assert next_hop_id(wide, IPv6Network("fd00:0:80::/64")) is None


def in_family(backend: str, family: str) -> NetworkConfig:
    """The network of both families, without what `family` does not have."""
    text = DUAL.replace(b"TYPE", backend.encode())
    if family == "v4":
        text = text.replace(b'"EnableIPv6": true', b'"EnableIPv6": false')
    if family == "v6":
        text = text.replace(b'"Network": "10.5.0.0/16"', b'"EnableIPv4": false')
    return network(text)


def peer_in(family: str, backend: str) -> Lease:
    both = dual_peer(7, backend)
    match family:
        case "v4":
            public = replace(both.attributes, public_ipv6=None, backend_v6_data=None)
            return replace(both, subnets=Subnets(both.subnets.v4), attributes=public)
        case "v6":
            public = replace(both.attributes, public_ipv4=None, backend_data=None)
            return replace(both, subnets=Subnets(None, both.subnets.v6), attributes=public)
    return both


def host_in(family: str) -> dict[str, object]:
    """What is different on a host whose underlay has the family alone, or both."""
    six = IPv6Address("2001:db8::1")
    changes: dict[str, dict[str, object]] = {
        "v4": {},
        "v6": {"local_ipv4": None, "public_ipv4": None, "local_ipv6": six, "public_ipv6": six},
        "dual": {"local_ipv6": six, "public_ipv6": six},
    }
    return changes[family]


@pytest.mark.parametrize("family", ["v4", "v6", "dual"])
@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_peer_in_each_family_as_text(backend: str, family: str) -> None:
    """With both families a host holds what it holds for each, and nothing besides."""
    own = Lease(SUBNETS[family], LeaseAttributes(), HOST)
    found = lines(in_family(backend, family), peer_in(family, backend), own=own, **host_in(family))
    if family != "dual":
        assert found == WANTED[backend, family]
    else:
        assert sorted(found.splitlines()) == sorted((WANTED[backend, "v4"] + WANTED[backend, "v6"]).splitlines())
    state = desired(in_family(backend, family), settings(**host_in(family)), own, (), UNDERLAY)
    assert state.mtu == MTUS.get((backend, family), 1500)


@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
@pytest.mark.parametrize("family", ["v4", "v6"])
def test_family_that_only_the_underlay_has_makes_no_difference(backend: str, family: str) -> None:
    own = Lease(SUBNETS[family], LeaseAttributes(), HOST)
    there = replace(peer_in(family, backend), attributes=replace(dual_peer(7, backend).attributes))
    assert lines(in_family(backend, family), there, own=own, **host_in("dual")) == WANTED[backend, family]


@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_peer_without_one_of_the_networks_families_is_refused_whole(backend: str) -> None:
    own = Lease(SUBNETS["dual"], LeaseAttributes(), HOST)
    both = dual_peer(7, backend)
    lacking = replace(both, attributes=replace(both.attributes, public_ipv6=None))
    state = desired(in_family(backend, "dual"), settings(**host_in("dual")), own, (lacking,), UNDERLAY)
    assert [why for _, why in state.refused] == ["no public IPv6 address"]
    assert not any(":0:7:" in describe(item) or "10.5.7." in describe(item) for item in state.objects)


@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_what_is_published_has_the_networks_families(backend: str) -> None:
    for family in ("v4", "v6", "dual"):
        published = attributes(in_family(backend, family), settings(**host_in(family)))
        assert (published.public_ipv4 is not None, published.public_ipv6 is not None) == (family != "v6", family != "v4")
        macs = [published.data(one) and decode_vxlan_data(published.data(one)).mac for one in Family]
        wanted = {"v4": [Family.IPV4], "v6": [Family.IPV6], "dual": list(Family)}[family] if backend == "vxlan" else []
        assert macs == [vtep_mac(HOST, Vni(1), one) if one in wanted else None for one in Family]


def test_vxlan_device_sends_from_the_underlays_own_address_behind_translation() -> None:
    text = lines(network(VXLAN), public_ipv4=IPv4Address("203.0.113.9"))
    assert " local 192.0.2.1 " in text
    assert "203.0.113.9" not in text


def test_direct_routing_gives_a_plain_route_to_a_neighbour_and_a_tunnel_to_others() -> None:
    config = network(b'{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "DirectRouting": true}}')
    text = lines(config, peer(7), peer(8, address="198.51.100.8"))
    assert "route 10.5.7.0/24 via 192.0.2.7 dev eth0\n" in text
    assert "02:00:00:00:00:07" not in text
    assert "route 10.5.8.0/24 via 10.5.8.0 dev ovl.1 onlink\n" in text


def test_configured_mtu_stands_for_the_underlays() -> None:
    config = network(b'{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "MTU": 1400}}')
    assert desired(config, settings(), OWN, (), UNDERLAY).mtu == 1350


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (peer(7, vni=2), "VNI is 2, this network's is 1"),
        (peer(7, backend="host-gw"), "backend is 'host-gw', this network's is 'vxlan'"),
        (peer(7, backend="udp"), "backend is 'udp', this network's is 'vxlan'"),
        (Lease(subnets(7), replace(peer(7).attributes, backend_data=b"[]")), "BackendData"),
        (Lease(subnets(7), replace(peer(7).attributes, backend_data=None)), "BackendData"),
        (Lease(subnets(7), replace(peer(7).attributes, public_ipv4=None)), "no public IPv4 address"),
    ],
)
def test_vxlan_peer_that_cannot_be_reached_is_refused_with_the_reason(bad: Lease, why: str) -> None:
    state = desired(network(VXLAN), settings(), OWN, (bad, peer(8)), UNDERLAY)
    assert [lease for lease, _ in state.refused] == [bad]
    assert why in state.refused[0][1]
    assert list(state.plans) == [str(subnets(8))]


def test_two_peers_with_one_mac_address_do_not_share_an_entry() -> None:
    state = desired(network(VXLAN), settings(), OWN, (peer(7, mac=9), peer(8, mac=9)), UNDERLAY)
    assert [str(lease.subnets) for lease, _ in state.refused] == ["10.5.8.0-24"]
    assert len({item.key for item in state.objects}) == len(state.objects)


def test_published_mac_is_the_devices_and_does_not_change() -> None:
    published = attributes(network(VXLAN), settings())
    assert published == attributes(network(VXLAN), settings())
    data = decode_vxlan_data(published.backend_data)
    assert f"address {data.mac}\n" in lines(network(VXLAN))
    assert data.mac.is_unicast
    assert data.mac.octets[0] & 2
    assert published.backend_v6_data is None


def test_host_gw_refuses_an_off_link_peer_in_one_line() -> None:
    far = peer(7, backend="host-gw", address="198.51.100.7")
    state = desired(network(HOST_GW), settings(), OWN, (far, peer(8, backend="host-gw")), UNDERLAY)
    assert [lease for lease, _ in state.refused] == [far]
    assert "198.51.100.7 is not on-link at eth0" in state.refused[0][1]
    assert "\n" not in state.refused[0][1]
    assert not any("10.5.7.0" in describe(item) for item in state.objects)


def test_host_gw_behind_translation_says_so_and_routes_to_nobody() -> None:
    host = settings(public_ipv4=IPv4Address("203.0.113.9"))
    state = desired(network(HOST_GW), host, OWN, (peer(7, backend="host-gw"),), UNDERLAY)
    assert "203.0.113.9 is not eth0's address 192.0.2.1" in state.warnings[0]
    assert len(state.refused) == 1


def test_udp_has_one_route_for_the_whole_network_whoever_the_peers_are() -> None:
    text = lines(network(UDP), peer(7, backend="udp"), peer(8))
    assert (
        text
        == lines(network(UDP))
        == (
            "sysctl net/ipv4/conf/ovl-udp/accept_local = 1\n"
            "sysctl net/ipv4/ip_forward = 1\n"
            "link ovl-udp tun mtu 1472 txqueuelen 1000\n"
            "address 10.5.1.0/32 dev ovl-udp\n"
            "route 10.5.0.0/16 dev ovl-udp\n"
            "route unreachable 10.5.0.0/16 metric 1048576\n"
        )
    )


def test_udp_engine_knows_every_peer_whatever_its_backend() -> None:
    pump = desired(network(UDP), settings(), OWN, (peer(8), peer(7, backend="udp")), UNDERLAY).pump
    assert pump is not None
    assert ([str(one) for one in pump.listen], pump.port, pump.mtu) == (["192.0.2.1"], 8285, 1472)
    assert [(str(one.address), str(one.subnets[0])) for one in pump.peers] == [
        ("192.0.2.7", "10.5.7.0/24"),
        ("192.0.2.8", "10.5.8.0/24"),
    ]


def test_udp_over_an_ipv6_underlay_has_a_smaller_mtu() -> None:
    six = IPv6Address("2001:db8::1")
    host = settings(local_ipv4=None, public_ipv4=None, local_ipv6=six, public_ipv6=six)
    state = desired(network(UDP), host, OWN, (), UNDERLAY)
    assert state.mtu == 1452
    assert state.pump is not None
    assert state.pump.listen == (six,)


def test_udp_in_both_families_sends_ipv6_only_to_hosts_that_say_they_take_it() -> None:
    config = network(DUAL.replace(b"TYPE", b"udp"))
    own = Lease(Subnets(IPv4Network("10.5.1.0/24"), IPv6Network("fd00:5:0:1::/64")), LeaseAttributes(), HOST)
    able, unable = replace(dual_peer(7, "udp"), features=("udp6",)), dual_peer(8, "udp")
    only_v6 = replace(dual_peer(9, "udp"), subnets=Subnets(None, IPv6Network("fd00:5:0:9::/64")))
    state = desired(config, settings(), own, (able, unable, only_v6), UNDERLAY)
    assert features(config) == ("udp6",)
    assert state.pump is not None
    assert [str(one) for one in state.pump.local] == ["10.5.1.0/24", "fd00:5:0:1::/64"]
    assert [[str(one) for one in peer.subnets] for peer in state.pump.peers] == [
        ["10.5.7.0/24", "fd00:5:0:7::/64"],
        ["10.5.8.0/24"],
    ]
    assert [lease for lease, _ in state.refused] == [only_v6]
    assert "udp6" in state.refused[0][1]
    assert "udp6" in state.plans[str(unable.subnets)].path
    assert "udp6" not in state.plans[str(able.subnets)].path
    text = [describe(item) for item in state.objects]
    assert "route fd00:5::/48 dev ovl-udp metric 1024" in text
    assert "address fd00:5:0:1::/128 dev ovl-udp" in text


def test_udp_over_a_link_too_small_for_ipv6_names_the_link() -> None:
    with pytest.raises(ConfigError, match=r"--iface.*eth0.*1280"):
        desired(network(DUAL.replace(b"TYPE", b"udp")), settings(), OWN, (), replace(UNDERLAY, mtu=Mtu(1300)))


def test_udp_datagrams_are_of_the_networks_family_where_the_underlay_has_both() -> None:
    outers = {}
    for family in ("v4", "v6", "dual"):
        own = Lease(SUBNETS[family], LeaseAttributes(), HOST)
        pump = desired(in_family("udp", family), settings(**host_in("dual")), own, (), UNDERLAY).pump
        assert pump is not None
        outers[family] = (*(str(address) for address in pump.listen), pump.mtu)
    assert outers == {"v4": ("192.0.2.1", 1472), "v6": ("2001:db8::1", 1452), "dual": ("192.0.2.1", 1472)}


def test_family_without_an_underlay_address_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"eth0.*no usable IPv6 address"):
        attributes(network(DUAL.replace(b"TYPE", b"vxlan")), settings())


def test_forwarding_is_left_alone_if_asked() -> None:
    assert "forward" not in lines(network(VXLAN), enable_forwarding=False)


def test_vxlan_in_user_space_has_one_device_and_the_engine_knows_every_vtep() -> None:
    text = DUAL.replace(b'"TYPE"', b'"vxlan", "Mode": "user"')
    six = IPv6Address("2001:db8::1")
    own = Lease(Subnets(IPv4Network("10.5.1.0/24"), IPv6Network("fd00:5:0:1::/64")), LeaseAttributes(), HOST)
    host = settings(local_ipv6=six, public_ipv6=six)
    assert lines(network(text), dual_peer(7, "vxlan"), own=own, local_ipv6=six, public_ipv6=six) == (
        "sysctl net/ipv4/conf/ovl-vxlan/accept_local = 1\n"
        "sysctl net/ipv4/ip_forward = 1\n"
        "sysctl net/ipv6/conf/all/forwarding = 1\n"
        "link ovl-vxlan tun mtu 1430 txqueuelen 1000\n"
        "address 10.5.1.0/32 dev ovl-vxlan\n"
        "address fd00:5:0:1::/128 dev ovl-vxlan\n"
        "route 10.5.0.0/16 dev ovl-vxlan\n"
        "route fd00:5::/48 dev ovl-vxlan metric 1024\n"
        "route unreachable 10.5.0.0/16 metric 1048576\n"
        "route unreachable fd00:5::/48 metric 1048576\n"
    )
    state = desired(network(text), host, own, (dual_peer(9, "vxlan"), dual_peer(7, "vxlan")), UNDERLAY)
    assert state.pump is not None
    assert state.pump.listen == (IPv4Address("192.0.2.1"), six)
    assert state.pump.vteps is not None
    assert state.pump.vteps.v4 == vtep_mac(HOST, Vni(1), Family.IPV4)
    assert [(str(one.subnets[0]), str(one.address), str(one.vtep), one.port) for one in state.pump.peers] == [
        ("10.5.7.0/24", "192.0.2.7", "02:00:00:00:00:07", 8472),
        ("10.5.9.0/24", "192.0.2.9", "02:00:00:00:00:09", 8472),
        ("fd00:5:0:7::/64", "2001:db8::7", "02:00:00:00:00:07", 8472),
        ("fd00:5:0:9::/64", "2001:db8::9", "02:00:00:00:00:09", 8472),
    ]
    # What is published does not tell who carries the frames.
    assert attributes(network(text), host) == attributes(network(DUAL.replace(b"TYPE", b"vxlan")), host)


def test_tap_that_is_asked_for_may_forward_frames_of_this_host() -> None:
    asked = lines(network(VXLAN), peer(7), vxlan_mode="user", vxlan_tap=True)
    plain = lines(network(VXLAN), peer(7), vxlan_mode="user")
    assert sorted(set(asked.splitlines()) - set(plain.splitlines())) == [
        "address 10.5.1.0/32 dev ovl-tap",
        "link ovl-tap tap mtu 1500 txqueuelen 1000",
        "sysctl net/ipv4/conf/ovl-tap/accept_local = 1",
        "sysctl net/ipv4/conf/ovl-tap/forwarding = 1",
        "sysctl net/ipv4/conf/ovl-tap/rp_filter = 0",
    ]
    state = desired(network(VXLAN), settings(vxlan_mode="user", vxlan_tap=True), OWN, (peer(7),), UNDERLAY)
    assert state.pump is not None
    assert state.pump.tap == "ovl-tap"
    assert "ovl-tap" not in lines(network(VXLAN), peer(7), vxlan_mode="kernel", vxlan_tap=True)


def test_a_host_chooses_who_carries_its_frames() -> None:
    by_engine = desired(network(VXLAN), settings(vxlan_mode="user"), OWN, (peer(7),), UNDERLAY)
    assert by_engine.pump is not None
    text = b'{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "Mode": "user"}}'
    by_kernel = desired(network(text), settings(vxlan_mode="kernel"), OWN, (peer(7),), UNDERLAY)
    assert by_kernel.pump is None
    assert by_engine.mtu == by_kernel.mtu


def test_vxlan_in_user_space_refuses_what_the_kernels_refuses_and_routes_to_neighbours() -> None:
    text = b'{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "Mode": "user", "DirectRouting": true, "GBP": true}}'
    state = desired(network(text), settings(), OWN, (peer(6, vni=2), peer(7), peer(8, address="198.51.100.8")), UNDERLAY)
    assert [why for _, why in state.refused] == ["VNI is 2, this network's is 1"]
    assert "route 10.5.7.0/24 via 192.0.2.7 dev eth0" in [describe(item) for item in state.objects]
    assert state.pump is not None
    assert [str(one.address) for one in state.pump.peers] == ["192.0.2.7", "198.51.100.8"]
    assert any("Backend.GBP" in warning for warning in state.warnings)

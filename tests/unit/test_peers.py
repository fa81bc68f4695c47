from __future__ import annotations

import time
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

import pytest
from overlaynet.model.addresses import MacAddress, Vni
from overlaynet.model.lease import Lease, LeaseAttributes, Subnets
from overlaynet.model.lease_text import VxlanData, encode_vxlan_data, parse_lease_key
from overlaynet.model.network import parse_network
from overlaynet.model.peers import accept_peers

V4_ONLY = parse_network(b'{"Network":"10.1.0.0/16","Backend":{"Type":"vxlan"}}')[0]
V6_ONLY = parse_network(b'{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd01::/48","Backend":{"Type":"vxlan"}}')[0]
DUAL = parse_network(b'{"Network":"10.1.0.0/16","EnableIPv6":true,"IPv6Network":"fd01::/48","Backend":{"Type":"vxlan"}}')[0]
OWN = parse_lease_key("10.1.1.0-24")
OURS = (IPv4Address("192.0.2.1"),)


def lease(key: str, public: str | None = "192.0.2.2", *, v6: str | None = None, created: int = 1, mac: str = "") -> Lease:
    data = encode_vxlan_data(VxlanData(Vni(1), MacAddress.parse(mac))) if mac else None
    return Lease(
        parse_lease_key(key),
        LeaseAttributes(
            None if public is None else IPv4Address(public), None if v6 is None else IPv6Address(v6), "vxlan" if mac else "", data
        ),
        created=created,
    )


def test_peers_come_oldest_first_and_our_own_lease_is_none() -> None:
    own, old, young = lease("10.1.1.0-24", "192.0.2.1"), lease("10.1.9.0-24", created=2), lease("10.1.2.0-24", created=3)
    accepted = accept_peers(V4_ONLY, OWN, OURS, (young, own, old))
    assert accepted.peers == (old, young)
    assert accepted.refused == ()


@pytest.mark.parametrize(
    ("key", "public", "why"),
    [
        ("10.2.0.0-24", "192.0.2.2", "not inside the network"),
        ("10.1.0.0-16", "192.0.2.2", "not inside the network"),
        ("10.0.0.0-8", "192.0.2.2", "not inside the network"),
        ("0.0.0.0-0", "192.0.2.2", "not inside the network"),
        ("10.1.1.128-25", "192.0.2.2", "overlaps our own"),
        ("10.1.0.0-17", "192.0.2.2", "overlaps our own"),
        ("10.1.2.0-24", None, "no public IPv4"),
        ("10.1.2.0-24", "127.0.0.1", "loopback"),
        ("10.1.2.0-24", "224.0.0.1", "multicast"),
        ("10.1.2.0-24", "255.255.255.255", "reserved"),
        ("10.1.2.0-24", "192.0.2.1", "this host's own"),
        ("10.1.2.0-24", "10.1.200.1", "inside the network 10.1.0.0/16"),
    ],
)
def test_leases_that_cannot_be_right_are_refused_with_a_reason(key: str, public: str | None, why: str) -> None:
    accepted = accept_peers(V4_ONLY, OWN, OURS, (lease(key, public),))
    assert accepted.peers == ()
    assert why in accepted.refused[0].why


def test_other_subnet_length_than_today_s_is_valid() -> None:
    assert accept_peers(V4_ONLY, OWN, OURS, (lease("10.1.128.0-20"), lease("10.1.2.4-30"))).refused == ()


def test_older_of_two_overlapping_leases_wins_whatever_the_order() -> None:
    old, young = lease("10.1.2.0-24", created=1), lease("10.1.2.128-25", "192.0.2.3", created=2)
    for order in ((old, young), (young, old)):
        accepted = accept_peers(V4_ONLY, OWN, OURS, order)
        assert accepted.peers == (old,)
        assert accepted.refused[0].lease == young


def test_refused_lease_does_not_shut_out_another() -> None:
    bad, good = lease("10.1.2.0-24", None, created=1), lease("10.1.2.0-25", created=2)
    assert accept_peers(V4_ONLY, OWN, OURS, (bad, good)).peers == (good,)


def test_lease_that_repeats_a_mac_address_is_refused() -> None:
    mac = "c6:d2:32:6f:8f:44"
    old, young = lease("10.1.2.0-24", created=1, mac=mac), lease("10.1.3.0-24", "192.0.2.3", created=2, mac=mac)
    assert accept_peers(V4_ONLY, OWN, OURS, (young, old)).peers == (old,)


def test_lease_that_repeats_our_mac_address_is_refused_even_if_older() -> None:
    mac = "c6:d2:32:6f:8f:44"
    own, peer = lease("10.1.1.0-24", "192.0.2.1", created=9, mac=mac), lease("10.1.3.0-24", created=2, mac=mac)
    accepted = accept_peers(V4_ONLY, OWN, OURS, (own, peer))
    assert accepted.peers == ()
    assert mac in accepted.refused[0].why


def test_ipv6_only_network_takes_no_notice_of_the_ipv4_half() -> None:
    own = parse_lease_key("0.0.0.0-0&fd01:0:0:1::-64")
    peers = (
        lease("0.0.0.0-0&fd01:0:0:2::-64", None, v6="fd00::2", created=1),
        lease("192.168.0.0-24&fd01:0:0:3::-64", "127.0.0.1", v6="fd00::3", created=2),
        lease("192.168.0.0-24&fd01:0:0:4::-64", "127.0.0.1", v6="fd00::4", created=3),
    )
    assert accept_peers(V6_ONLY, own, (IPv6Address("fd00::1"),), peers).peers == peers
    assert "no subnet of a family" in accept_peers(V6_ONLY, own, (), (lease("10.1.2.0-24"),)).refused[0].why


def test_each_enabled_family_must_be_right() -> None:
    own = parse_lease_key("10.1.1.0-24&fd01:0:0:1::-64")
    for key, v6 in (
        ("10.1.2.0-24&fd02::-64", "fd00::2"),
        ("10.1.2.0-24&fd01:0:0:1::-64", "fd00::2"),
        ("10.1.2.0-24&fd01:0:0:2::-64", "::"),
    ):
        assert accept_peers(DUAL, own, OURS, (lease(key, v6=v6),)).peers == (), key


def test_ten_thousand_leases_are_judged_in_little_time() -> None:
    config = parse_network(b'{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan"}}')[0]
    leases = tuple(
        Lease(
            Subnets(IPv4Network((int(IPv4Address("10.1.0.0")) + (n << 8), 24))),
            LeaseAttributes(IPv4Address(int(ip_address("172.16.0.1")) + n)),
            created=20_000 - n,
        )
        for n in range(10_000)
    )
    started = time.process_time()
    accepted = accept_peers(config, None, OURS, leases)
    # Some 100 ms on the machine where this was written; a quadratic judgement takes a minute.
    assert time.process_time() - started < 2
    assert len(accepted.peers) == 10_000

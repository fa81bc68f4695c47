"""Which underlay the flags choose, without any kernel."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from overlaynet.errors import ConfigError
from overlaynet.kernel.interfaces import Interface, InterfaceAddress, Selection, Surroundings, select
from overlaynet.model.addresses import Family, Mtu


def interface(name: str, *addresses: str | InterfaceAddress, mtu: int = 1500, loopback: bool = False) -> Interface:
    entries = tuple(entry if isinstance(entry, InterfaceAddress) else InterfaceAddress(ip_address(entry)) for entry in addresses)
    return Interface(name, Mtu(mtu), loopback=loopback, addresses=entries)


LO = interface("lo", "127.0.0.1", "::1", loopback=True)
ETH0 = interface("eth0", "fe80::1", "192.0.2.1", "2001:db8::1")
ETH1 = interface("eth1", "198.51.100.1", "198.51.100.2")
BARE = interface("wlan0")
HERE = Surroundings((LO, ETH0, ETH1, BARE), {Family.IPV4: "eth1", Family.IPV6: "eth0"})


def test_the_first_iface_that_resolves_wins() -> None:
    chosen = select(Selection(iface=("nope", "eth0", "eth1")), HERE)
    assert (chosen.link, chosen.local_ipv4, chosen.local_ipv6) == ("eth0", IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"))


def test_an_iface_given_by_address_uses_this_address() -> None:
    chosen = select(Selection(iface=("198.51.100.2",)), HERE)
    assert (chosen.link, chosen.local_ipv4, chosen.public_ipv4) == ("eth1", *[IPv4Address("198.51.100.2")] * 2)


def test_a_regex_is_tried_on_all_addresses_before_any_name() -> None:
    named = Surroundings((interface("198dev", "192.0.2.1"), ETH1))
    assert select(Selection(iface_regex=("^198",)), named).link == "eth1"
    assert select(Selection(iface_regex=("dev$",)), named).link == "198dev"


def test_a_regex_counts_only_where_no_iface_resolves() -> None:
    assert select(Selection(iface=("eth0",), iface_regex=("eth1",)), HERE).link == "eth0"
    assert select(Selection(iface=("nope",), iface_regex=("eth1",)), HERE).link == "eth1"


def test_can_reach_takes_link_and_source_of_the_route() -> None:
    here = Surroundings(HERE.interfaces, reached=("eth1", ip_address("198.51.100.2")))
    chosen = select(Selection(can_reach=ip_address("203.0.113.1")), here)
    assert (chosen.link, chosen.local_ipv4) == ("eth1", IPv4Address("198.51.100.2"))
    with pytest.raises(ConfigError, match="no route leads there"):
        select(Selection(can_reach=ip_address("203.0.113.1")), HERE)


def test_without_flags_the_default_route_chooses() -> None:
    assert select(Selection(families=(Family.IPV4,)), HERE).link == "eth1"
    assert select(Selection(families=(Family.IPV6,)), HERE).link == "eth0"
    assert select(Selection(), HERE).link == "eth1"


def test_default_routes_of_both_families_must_agree() -> None:
    with pytest.raises(ConfigError, match="leave by eth1 and eth0: choose one"):
        select(Selection(families=(Family.IPV4, Family.IPV6)), HERE)


def test_without_default_route_the_error_names_the_flag_and_the_links() -> None:
    with pytest.raises(ConfigError) as caught:
        select(Selection(), Surroundings(HERE.interfaces))
    assert caught.value.field == "--iface"
    assert "links here: eth0 192.0.2.1 2001:db8::1, eth1 198.51.100.1 198.51.100.2, wlan0" in str(caught.value)


def test_a_public_address_is_only_published_when_a_link_is_named() -> None:
    chosen = select(Selection(iface=("eth0",), public_ipv4=IPv4Address("203.0.113.9")), HERE)
    assert (chosen.local_ipv4, chosen.public_ipv4) == (IPv4Address("192.0.2.1"), IPv4Address("203.0.113.9"))


def test_a_public_address_selects_its_link_when_none_is_named() -> None:
    chosen = select(Selection(public_ipv4=IPv4Address("192.0.2.1")), HERE)
    assert (chosen.link, chosen.local_ipv4) == ("eth0", IPv4Address("192.0.2.1"))
    with pytest.raises(ConfigError, match="give --iface as well"):
        select(Selection(public_ipv4=IPv4Address("203.0.113.9")), HERE)


def test_addresses_are_ranked_and_deprecated_ones_never_taken() -> None:
    entries = [
        InterfaceAddress(ip_address("2001:db8::d"), deprecated=True),
        InterfaceAddress(ip_address("fe80::1")),
        InterfaceAddress(ip_address("2001:db8::7"), permanent=False, temporary=True),
        InterfaceAddress(ip_address("2001:db8::a"), permanent=False),
        InterfaceAddress(ip_address("2001:db8::5")),
        InterfaceAddress(ip_address("2001:db8::6")),
    ]
    expected = ["2001:db8::5", "2001:db8::6", "2001:db8::a", "2001:db8::7", "fe80::1"]
    while expected:
        assert interface("eth0", *entries).best(Family.IPV6) == ip_address(expected[0])
        entries = [entry for entry in entries if entry.address != ip_address(expected[0])]
        expected.pop(0)
    assert interface("eth0", *entries).best(Family.IPV6) is None


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (Selection(iface=("nope",)), "no such link or local address; links here: eth0"),
        (Selection(iface_regex=("^x",)), "matches no link"),
        (Selection(iface_regex=("(",)), "not a regular expression"),
        (Selection(iface=("wlan0",)), "no usable address"),
        (Selection(iface=("127.0.0.1",)), "--iface: '127.0.0.1': no peer reaches a loopback address"),
        (Selection(iface=("::1",)), "no peer reaches a loopback address"),
        (Selection(iface_regex=("^127",)), "matches no link"),
        (Selection(iface_regex=("^lo$",)), "matches no link"),
        (Selection(iface=("eth1",), families=(Family.IPV6,)), "no usable IPv6 address"),
    ],
)
def test_what_cannot_be_used_is_a_config_error(selection: Selection, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        select(selection, HERE)
    assert words in str(caught.value)


def test_a_pattern_that_fits_everything_takes_no_loopback_address() -> None:
    assert select(Selection(iface_regex=("",)), HERE).local_ipv4 == IPv4Address("192.0.2.1")


def test_a_loopback_link_with_an_address_of_its_own_can_be_taken() -> None:
    here = Surroundings((interface("lo", "127.0.0.1", "192.0.2.7", loopback=True), ETH1))
    for selection in (Selection(iface=("lo",)), Selection(iface_regex=("^lo$",)), Selection(iface_regex=("^192",))):
        assert select(selection, here).local_ipv4 == IPv4Address("192.0.2.7")


def test_a_route_to_this_host_itself_leads_to_no_peer() -> None:
    here = Surroundings(HERE.interfaces, reached=("lo", ip_address("127.0.0.1")))
    with pytest.raises(ConfigError, match=r"--iface-can-reach: '127\.0\.0\.1': no peer reaches"):
        select(Selection(can_reach=ip_address("127.0.0.1")), here)


def test_a_link_without_mtu_is_refused() -> None:
    with pytest.raises(ConfigError, match="MTU 0"):
        select(Selection(iface=("odd",)), Surroundings((interface("odd", "192.0.2.5", mtu=0),)))


def test_a_link_local_address_alone_serves_only_a_network_that_needs_ipv6() -> None:
    here = Surroundings((interface("eth0", "fe80::1", "192.0.2.1"),))
    assert select(Selection(iface=("eth0",)), here).local_ipv6 is None
    assert select(Selection(iface=("eth0",), families=(Family.IPV6,)), here).local_ipv6 == IPv6Address("fe80::1")

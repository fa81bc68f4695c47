from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from overlaynet.errors import AddressInUseError, SubnetsExhaustedError
from overlaynet.model.host import HostSettings
from overlaynet.model.lease import HostId, Lease, LeaseAttributes, Subnets
from overlaynet.model.lease_text import parse_lease_key
from overlaynet.model.network import parse_network
from overlaynet.reconcile.allocate import choose, fits

CONFIG = parse_network(b'{"Network":"10.1.0.0/20","Backend":{"Type":"vxlan"}}')[0]
DUAL = parse_network(b'{"Network":"10.1.0.0/20","EnableIPv6":true,"IPv6Network":"fd01::/16","Backend":{"Type":"vxlan"}}')[0]
ME, OTHER = HostId("a" * 32), HostId("b" * 32)
HOST = HostSettings(ME, "eth0", IPv4Address("192.0.2.1"), None, IPv4Address("192.0.2.1"), None)


def lease(key: str, owner: HostId | None = OTHER, public: str = "192.0.2.9") -> Lease:
    return Lease(parse_lease_key(key), LeaseAttributes(IPv4Address(public)), owner=owner)


def test_own_lease_is_taken_over_before_anything_else() -> None:
    own = lease("10.1.5.0-24", ME)
    choice = choose(CONFIG, replace(HOST, previous=parse_lease_key("10.1.7.0-24")), (lease("10.1.2.0-24"), own))
    assert (choice.subnets, choice.takes_over) == (own.subnets, own)


def test_ownerless_lease_at_our_address_is_taken_over() -> None:
    anonymous = lease("10.1.5.0-24", None, "192.0.2.1")
    choice = choose(CONFIG, HOST, (anonymous, lease("10.1.6.0-24", None)))
    assert (choice.subnets, choice.takes_over) == (anonymous.subnets, anonymous)


def test_subnet_of_the_last_run_is_taken_if_it_is_free() -> None:
    host = replace(HOST, previous=parse_lease_key("10.1.7.0-24"))
    assert choose(CONFIG, host, ()).subnets == host.previous
    assert choose(CONFIG, host, (lease("10.1.7.128-25"),)).subnets != host.previous
    assert choose(CONFIG, host, (), attempt=1).subnets != host.previous
    assert choose(CONFIG, replace(HOST, previous=parse_lease_key("10.9.7.0-24")), ()).subnets != parse_lease_key("10.9.7.0-24")


def test_own_lease_that_no_longer_fits_is_named_and_another_is_chosen() -> None:
    own = lease("10.9.5.0-24", ME)
    choice = choose(CONFIG, HOST, (own,))
    assert choice.outgrown == own
    assert choice.takes_over is None
    assert fits(CONFIG, choice.subnets)


def test_public_address_of_another_owner_is_an_error_that_names_it() -> None:
    with pytest.raises(AddressInUseError) as caught:
        choose(CONFIG, HOST, (lease("10.1.2.0-24", OTHER, "192.0.2.1"),))
    assert (caught.value.address, caught.value.owner) == ("192.0.2.1", OTHER)


def test_choice_is_the_same_for_the_same_input_and_differs_between_hosts_and_attempts() -> None:
    assert choose(CONFIG, HOST, ()) == choose(CONFIG, HOST, ())
    picks = {choose(CONFIG, replace(HOST, host=HostId(f"{n:032x}")), ()).subnets for n in range(40)}
    assert len(picks) > 5
    assert len({choose(CONFIG, HOST, (), attempt).subnets for attempt in range(40)}) > 5


def test_every_free_subnet_and_no_other_is_found_until_none_is_left() -> None:
    leases: tuple[Lease, ...] = (lease("10.0.9.0-24"), lease("10.1.4.0-22"), lease("10.1.9.4-30"), lease("10.1.16.0-24"))
    found = set()
    for _ in range(10):
        subnets = choose(CONFIG, HOST, leases, attempt=len(leases)).subnets
        assert not any(subnets.overlaps(one.subnets) for one in leases)
        found.add(subnets)
        leases += (Lease(subnets, LeaseAttributes(), owner=OTHER),)
    with pytest.raises(SubnetsExhaustedError) as caught:
        choose(CONFIG, HOST, leases)
    assert caught.value.leases == len(leases)
    # The first subnet is not leased by default, 4 to 7 and 9 are taken; leases outside the network are nobody's concern.
    assert found == {Subnets(IPv4Network(f"10.1.{n}.0/24")) for n in (1, 2, 3, 8, 10, 11, 12, 13, 14, 15)}


def test_large_ipv6_network_is_never_listed() -> None:
    choice = choose(DUAL, HOST, (lease("10.1.1.0-24&fd01:0:0:1::-64"),))
    assert fits(DUAL, choice.subnets)
    assert choice.subnets.v6 is not None


def test_lease_with_another_set_of_families_does_not_fit() -> None:
    assert not fits(CONFIG, parse_lease_key("10.1.1.0-24&fd01:0:0:1::-64"))
    assert not fits(DUAL, parse_lease_key("10.1.1.0-24"))

"""Leases by their subnets, addresses, owners and ends, against a look at every one of them."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from overlaynet.model.addresses import Family
from overlaynet.model.lease import HostId, Lease, LeaseAttributes, Subnets
from overlaynet.store.holdings import Held, Holdings

HOSTS = [HostId(f"{number:032x}") for number in range(6)]


def some_subnets(chance: random.Random) -> Subnets:
    length = chance.choice([24, 25, 26])
    v4 = IPv4Network(
        (int(IPv4Address("10.1.0.0")) + (chance.randrange(1 << 10) << (32 - length)) % (1 << 12), length), strict=False
    )
    v6 = IPv6Network((0xFD << 120 | chance.randrange(40) << 64, 64))
    return chance.choice([Subnets(v4), Subnets(v4, v6), Subnets(None, v6)])


def test_answers_are_those_of_a_look_at_every_lease() -> None:
    chance = random.Random(7)
    holdings, held = Holdings(), dict[Subnets, Held]()
    now = 0.0
    for step in range(3_000):
        now += chance.random()
        subnets = some_subnets(chance)
        attributes = LeaseAttributes(IPv4Address(f"192.0.2.{chance.randrange(20)}"))
        overlapping = {one for one in held if one.overlaps(subnets)}
        assert {lease.subnets for lease in holdings.overlapping(subnets)} == overlapping
        there = {one.lease.subnets for one in held.values() if one.lease.attributes.public(Family.IPV4) == attributes.public_ipv4}
        assert {lease.subnets for lease in holdings.at_addresses(attributes)} == there
        owner = chance.choice([*HOSTS, None])
        if owner is not None:
            owned = {one.lease.subnets for one in held.values() if one.lease.owner == owner}
            assert {lease.subnets for lease in holdings.of_owner(owner)} == owned
        if overlapping <= {subnets}:
            new = Held(Lease(subnets, attributes, owner), step, 10.0, chance.choice([None, now + 10 * chance.random()]))
            holdings.put(new)
            held[subnets] = new
        elif chance.random() < 0.5:
            gone = sorted(overlapping, key=str)[0]
            holdings.remove(gone)
            del held[gone]
        ends = [one.expires_at for one in held.values() if one.expires_at is not None]
        assert holdings.next_end == min(ends, default=None)
        for one in holdings.ended(now):
            assert one.expires_at is not None
            assert one.expires_at <= now
            holdings.remove(one.lease.subnets)
            del held[one.lease.subnets]
        assert all(one.expires_at is None or one.expires_at > now for one in held.values())
        assert list(holdings.leases) == [one.lease for one in held.values()]
    assert held

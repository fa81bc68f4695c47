"""Whatever bytes stand in a store: reading them gives a value or the one documented error, and no route leaves the network."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from overlaynet.errors import ConfigError, StoreDataError
from overlaynet.model.addresses import ipv4_number
from overlaynet.model.kept import Kept, decode_kept, encode_kept
from overlaynet.model.lease import HostId, Lease, LeaseAttributes, Subnets
from overlaynet.model.lease_text import (
    decode_attributes,
    decode_vxlan_data,
    encode_attributes,
    lease_key,
    parse_lease_key,
)
from overlaynet.model.network import NetworkConfig, parse_network, parse_subnet_env
from overlaynet.model.peers import accept_peers

# Where hypothesis has not run before, its first text takes a second or more: it builds its tables of Unicode then.
patient = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)

CONFIGS = tuple(
    parse_network(text)[0]
    for text in (
        b'{"Network":"10.1.0.0/16","Backend":{"Type":"vxlan"}}',
        b'{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd01::/48","Backend":{"Type":"udp"}}',
        b'{"Network":"10.1.0.0/16","EnableIPv6":true,"IPv6Network":"fd01::/48","Backend":{"Type":"host-gw"}}',
    )
)

V4_PREFIXES = st.builds(
    lambda address, length: IPv4Network((address, length), strict=False),
    st.one_of(st.integers(0x0A010000, 0x0A01FFFF), st.integers(0, 2**32 - 1)),
    st.integers(1, 31),
)
V6_PREFIXES = st.builds(
    lambda address, length: IPv6Network((address, length), strict=False),
    st.one_of(st.integers(0xFD01 << 112, (0xFD01 << 112) + 2**80), st.integers(0, 2**128 - 1)),
    st.integers(0, 127),
)
SUBNETS = st.one_of(
    st.builds(Subnets, V4_PREFIXES, st.none()),
    st.builds(Subnets, V4_PREFIXES, V6_PREFIXES),
    st.builds(Subnets, st.none(), V6_PREFIXES),
)
KEYS = st.one_of(
    st.text(max_size=40), SUBNETS.map(str), st.from_regex(r"10\.\d{1,3}\.\d{1,3}\.0-\d{1,2}(&fd0[12]::\d?-\d{1,3})?")
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMED = st.dictionaries(
    st.sampled_from(["PublicIP", "PublicIPv6", "BackendType", "BackendData", "BackendV6Data", "VNI", "VtepMAC", "x"]),
    JSON | st.sampled_from(["192.0.2.7", "0.0.0.0", "127.0.0.1", "fd00::7", "::", "vxlan", "c6:d2:32:6f:8f:44"]),
)
VALUES = st.one_of(st.binary(max_size=80), NAMED.map(lambda value: json.dumps(value).encode()))


@patient
@given(st.lists(st.tuples(KEYS, VALUES), max_size=8), st.sampled_from(CONFIGS))
def test_no_stored_bytes_ever_yield_a_route_outside_the_network(entries: list[tuple[str, bytes]], config: NetworkConfig) -> None:
    leases: list[Lease] = []
    for key, value in entries:
        try:
            leases.append(Lease(parse_lease_key(key), decode_attributes(value), created=len(leases)))
        except StoreDataError:
            continue
    _check_accepted(config, tuple(leases))


def _check_accepted(config: NetworkConfig, leases: tuple[Lease, ...]) -> None:
    accepted = accept_peers(config, None, (IPv4Address("192.0.2.1"),), leases)
    assert len(accepted.peers) + len(accepted.refused) == len(leases)
    for half in config.families:
        prefixes = [prefix for peer in accepted.peers if (prefix := peer.subnets.of(half.family)) is not None]
        for prefix in prefixes:
            assert prefix.prefixlen > half.network.prefixlen
            assert prefix.network_address in half.network
            assert prefix.broadcast_address in half.network
        ordered = sorted((int(prefix.network_address), int(prefix.broadcast_address)) for prefix in prefixes)
        assert all(before[1] < after[0] for before, after in itertools.pairwise(ordered))
    assert accept_peers(config, None, (IPv4Address("192.0.2.1"),), tuple(reversed(leases))).peers == accepted.peers


GOOD = st.builds(
    LeaseAttributes,
    st.integers(0xC0000202, 0xC00002F0).map(IPv4Address),
    st.integers(1, 99).map(lambda n: IPv6Address((0xFD00 << 112) + n)),
)


@patient
@given(st.lists(st.tuples(SUBNETS, GOOD), max_size=12, unique_by=lambda entry: str(entry[0])), st.sampled_from(CONFIGS))
def test_accepted_peers_lie_in_the_network_and_never_overlap(
    entries: list[tuple[Subnets, LeaseAttributes]], config: NetworkConfig
) -> None:
    _check_accepted(config, tuple(Lease(subnets, attributes) for subnets, attributes in entries))


@patient
@given(st.text(max_size=60))
def test_any_key_is_read_canonically_or_refused(text: str) -> None:
    try:
        subnets = parse_lease_key(text)
    except StoreDataError:
        return
    assert lease_key(subnets) == text


@patient
@given(
    st.one_of(
        st.integers(0, 2**32 - 1).map(lambda number: str(IPv4Address(number))),
        st.from_regex(r"[-+0]?\d{1,3}(\.[ 0]?\d{1,3}){2,4}"),
        st.text(max_size=20),
    )
)
def test_number_of_an_address_is_that_of_its_canonical_text_alone(text: str) -> None:
    try:
        expected = int(IPv4Address(text)) if str(IPv4Address(text)) == text else None
    except ValueError:
        expected = None
    assert ipv4_number(text) == expected


@patient
@given(SUBNETS)
def test_keys_survive_the_way_there_and_back(subnets: Subnets) -> None:
    assert parse_lease_key(lease_key(subnets)) == subnets


@patient
@given(VALUES)
def test_any_value_is_read_or_refused_and_read_the_same_again(text: bytes) -> None:
    with suppress(StoreDataError):
        decode_vxlan_data(text)
    try:
        attributes = decode_attributes(text)
    except StoreDataError:
        return
    assert decode_attributes(encode_attributes(attributes)) == attributes


CONFIG_KEYS = st.sampled_from(
    [
        "Network",
        "network",
        "SubnetLen",
        "SubnetMin",
        "SubnetMax",
        "EnableIPv4",
        "EnableIPv6",
        "IPv6Network",
        "IPv6SubnetLen",
        "Backend",
    ]
)
CONFIG_VALUES = (
    JSON | V4_PREFIXES.map(str) | V6_PREFIXES.map(str) | st.just({"Type": "vxlan"}) | st.integers(0, 130) | st.booleans()
)


@patient
@given(
    st.one_of(st.binary(max_size=60), st.dictionaries(CONFIG_KEYS, CONFIG_VALUES).map(lambda value: json.dumps(value).encode()))
)
def test_any_network_text_is_a_configuration_or_a_config_error(text: bytes) -> None:
    try:
        config, _ = parse_network(text)
    except ConfigError:
        return
    assert parse_network(config.text) == (config, ())
    for half in config.families:
        assert half.subnet_min in half.network
        assert half.subnet_max in half.network
        assert int(half.subnet_min) <= int(half.subnet_max)


@patient
@given(st.text(max_size=80) | st.text(max_size=8).map(lambda value: f"FLANNEL_MTU=1450\nFLANNEL_SUBNET={value}\n"))
def test_any_subnet_env_is_read_or_a_config_error(text: str) -> None:
    try:
        parse_subnet_env(text)
    except ConfigError:
        return


KEPT = st.builds(
    Kept,
    st.text(max_size=20),
    st.sampled_from([config.text for config in CONFIGS]),
    st.integers(0, 2**62),
    st.builds(Lease, SUBNETS, st.just(LeaseAttributes(IPv4Address("192.0.2.1"))), st.none() | st.just(HostId("a" * 32))),
    st.lists(st.builds(Lease, SUBNETS, st.just(LeaseAttributes(IPv4Address("192.0.2.2")))), max_size=3).map(tuple),
)


@patient
@given(KEPT)
def test_kept_snapshot_is_read_as_it_was_written(kept: Kept) -> None:
    assert decode_kept(encode_kept(kept)) == kept


@patient
@given(st.binary(max_size=200) | KEPT.flatmap(lambda kept: st.integers(0, 400).map(lambda end: encode_kept(kept)[:end])))
def test_kept_snapshot_of_any_bytes_is_a_value_or_an_error(text: bytes) -> None:
    with suppress(StoreDataError):
        decode_kept(text)

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest
from overlaynet.errors import ConfigError
from overlaynet.model.addresses import Mtu
from overlaynet.model.network import (
    FamilyConfig,
    HostGwOptions,
    NetworkConfig,
    SubnetEnv,
    UdpOptions,
    VxlanOptions,
    parse_network,
    parse_subnet_env,
)

VXLAN = {"Backend": {"Type": "vxlan"}}


def parsed(**fields: object) -> NetworkConfig:
    return parse_network(json.dumps(VXLAN | fields).encode())[0]


def v4(**fields: object) -> FamilyConfig:
    half = parsed(**fields).v4
    assert half is not None
    return half


def v6(**fields: object) -> FamilyConfig:
    half = parsed(EnableIPv4=False, EnableIPv6=True, **fields).v6
    assert half is not None
    return half


def refused(text: str | bytes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_network(text.encode() if isinstance(text, str) else text)
    return caught.value


@pytest.mark.parametrize(
    ("network", "length", "first", "last"),
    [
        ("10.1.0.0/16", 24, "10.1.1.0", "10.1.255.0"),
        ("10.1.0.0/22", 24, "10.1.1.0", "10.1.3.0"),
        ("10.1.0.0/23", 25, "10.1.0.128", "10.1.1.128"),
        ("10.1.0.0/28", 30, "10.1.0.4", "10.1.0.12"),
        ("10.1.2.3/16", 24, "10.1.1.0", "10.1.255.0"),
    ],
)
def test_ipv4_defaults_follow_the_network(network: str, length: int, first: str, last: str) -> None:
    half = v4(Network=network)
    assert (half.subnet_len, str(half.subnet_min), str(half.subnet_max)) == (length, first, last)
    assert half.network == IPv4Network(network, strict=False)


@pytest.mark.parametrize(
    ("network", "length", "first", "last"),
    [
        ("fd00:1::/48", 64, "fd00:1:0:1::", "fd00:1:0:ffff::"),
        ("fd00:1::/62", 64, "fd00:1:0:1::", "fd00:1:0:3::"),
        ("fd00:1::/63", 65, "fd00:1:0:0:8000::", "fd00:1:0:1:8000::"),
        ("fd00:1::/124", 126, "fd00:1::4", "fd00:1::c"),
    ],
)
def test_ipv6_defaults_follow_the_network(network: str, length: int, first: str, last: str) -> None:
    half = v6(IPv6Network=network)
    assert (half.subnet_len, str(half.subnet_min), str(half.subnet_max)) == (length, first, last)


def test_keys_are_matched_without_regard_to_case_at_every_level() -> None:
    config, warnings = parse_network(
        b'{"network": "10.1.0.0/16", "SUBNETLEN": 25, "backend": {"type": "VXLAN", "vni": 7, "directrouting": true}}'
    )
    assert warnings == ()
    assert config.v4 is not None
    assert config.v4.subnet_len == 25
    assert config.backend == VxlanOptions(vni=7, direct_routing=True)  # type: ignore[arg-type]


def test_mode_of_vxlan_is_read_written_and_checked() -> None:
    config = parsed(Network="10.1.0.0/16", Backend={"Type": "vxlan", "Mode": "user"})
    assert config.backend == VxlanOptions(mode="user")
    assert parse_network(config.text)[0] == config
    with pytest.raises(ConfigError, match=r"Backend\.Mode.*warp.*kernel or user"):
        parsed(Network="10.1.0.0/16", Backend={"Type": "vxlan", "Mode": "warp"})


def test_missing_backend_is_udp_with_a_warning() -> None:
    config, warnings = parse_network(b'{"Network": "10.1.0.0/16"}')
    assert config.backend == UdpOptions()
    assert "Backend is missing" in warnings[0]


def test_each_backend_is_read() -> None:
    assert parsed(Network="10.1.0.0/16", Backend={"Type": "host-gw"}).backend == HostGwOptions()
    assert parsed(Network="10.1.0.0/16", Backend={"Type": "udp", "Port": 9000}).backend == UdpOptions(9000)
    assert parsed(Network="10.1.0.0/16", Backend={"Type": "vxlan", "Port": 0, "MTU": 0}).backend == VxlanOptions()
    assert parsed(Network="10.1.0.0/16", Backend={"Type": "vxlan", "VNI": 0, "MTU": 9000}).backend == VxlanOptions(
        vni=0,  # type: ignore[arg-type]
        mtu=Mtu(9000),
    )


def test_zero_and_null_stand_for_a_missing_value_as_in_flannel() -> None:
    assert v4(Network="10.1.0.0/16", SubnetLen=0, SubnetMin="0.0.0.0", SubnetMax=None) == v4(Network="10.1.0.0/16")


def test_unknown_keys_are_warned_about_with_the_nearest_known_name() -> None:
    _, warnings = parse_network(b'{"Network": "10.1.0.0/16", "SubnetLne": 24, "Qqq": 1, "Backend": {"Type": "vxlan", "Prot": 1}}')
    assert warnings == (
        "unknown key SubnetLne is ignored: did you mean SubnetLen?",
        "unknown key Qqq is ignored",
        "unknown key Backend.Prot is ignored: did you mean Backend.Port?",
    )


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "Network"),
        ({"Network": ""}, "Network"),
        ({"Network": "10.1.0.0"}, "Network"),
        ({"Network": "fd00::/48"}, "Network"),
        ({"Network": 5}, "Network"),
        ({"Network": "10.1.0.0/29"}, "Network"),
        ({"Network": "0.0.0.0/0"}, "Network"),
        ({"Network": "127.0.0.0/16"}, "Network"),
        ({"Network": "239.0.0.0/16"}, "Network"),
        ({"Network": "169.254.0.0/16"}, "Network"),
        ({"Network": "10.1.0.0/16", "SubnetLen": 31}, "SubnetLen"),
        ({"Network": "10.1.0.0/16", "SubnetLen": 17}, "SubnetLen"),
        ({"Network": "10.1.0.0/16", "SubnetLen": "24"}, "SubnetLen"),
        ({"Network": "10.1.0.0/16", "SubnetLen": True}, "SubnetLen"),
        ({"Network": "10.1.0.0/16", "SubnetLen": 24.0}, "SubnetLen"),
        ({"Network": "10.1.0.0/16", "SubnetMin": "10.2.0.0"}, "SubnetMin"),
        ({"Network": "10.1.0.0/16", "SubnetMin": "10.1.1.1"}, "SubnetMin"),
        ({"Network": "10.1.0.0/16", "SubnetMax": "x"}, "SubnetMax"),
        ({"Network": "10.1.0.0/16", "SubnetMin": "10.1.9.0", "SubnetMax": "10.1.8.0"}, "SubnetMin"),
        ({"Network": "10.1.0.0/16", "EnableIPv4": "yes"}, "EnableIPv4"),
        ({"Network": "10.1.0.0/16", "EnableIPv4": False}, "EnableIPv4"),
        ({"Network": "10.1.0.0/16", "EnableIPv6": True}, "IPv6Network"),
        ({"Network": "10.1.0.0/16", "EnableIPv6": True, "IPv6Network": "fe80::/48"}, "IPv6Network"),
        ({"Network": "10.1.0.0/16", "EnableIPv6": True, "IPv6Network": "ff02::/48"}, "IPv6Network"),
        ({"Network": "10.1.0.0/16", "EnableIPv6": True, "IPv6Network": "::/0"}, "IPv6Network"),
        ({"Network": "10.1.0.0/16", "Backend": {}}, "Backend.Type"),
        ({"Network": "10.1.0.0/16", "Backend": "vxlan"}, "Backend"),
        ({"Network": "10.1.0.0/16", "Backend": {"Type": "vlan"}}, "Backend.Type"),
        ({"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan", "VNI": 2**24}}, "Backend.VNI"),
        ({"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan", "VNI": -1}}, "Backend.VNI"),
        ({"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan", "Port": 65536}}, "Backend.Port"),
        ({"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan", "MTU": 575}}, "Backend.MTU"),
        ({"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan", "MTU": 65536}}, "Backend.MTU"),
        ({"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan", "GBP": 1}}, "Backend.GBP"),
    ],
)
def test_what_cannot_work_is_refused_by_the_field_s_documented_name(fields: dict[str, object], field: str) -> None:
    assert refused(json.dumps(VXLAN | fields)).field == field


def test_unknown_backend_type_names_the_known_ones() -> None:
    error = refused('{"Network": "10.1.0.0/16", "Backend": {"Type": "vxlam"}}')
    assert all(name in error.why for name in ("vxlan", "host-gw", "udp"))


@pytest.mark.parametrize(
    "text",
    [
        '{"Network": "10.1.0.0/16", "network": "10.2.0.0/16"}',
        '{"Network": "10.1.0.0/16", "Network": "10.1.0.0/16"}',
    ],
)
def test_key_given_twice_is_an_error(text: str) -> None:
    assert refused(text).field == "Network"


def test_backend_key_given_twice_is_an_error() -> None:
    assert refused('{"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan", "vni": 1, "VNI": 2}}').field == "Backend.VNI"


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b'{"a": }', b"\xff", b"[" * 100_000, b'{"SubnetLen": NaN}'])
def test_text_that_is_no_json_object_is_one_error(text: bytes) -> None:
    assert refused(text).field == "network config"


@pytest.mark.parametrize(
    ("fields", "field", "shown"),
    [
        ('"Network": "10.1.0.0/16", "SubnetLen": ' + "9" * 5000, "SubnetLen", "inf: must be a whole number from 0 to 32"),
        ('"Network": "10.1.0.0/255.255.0.0"', "Network", "must be an IPv4 prefix"),
        ('"Network": "10.1.0.0/0.0.255.255"', "Network", "must be an IPv4 prefix"),
        ('"EnableIPv6": true, "Network": "10.1.0.0/16", "IPv6Network": "fd00::%eth0/48"', "IPv6Network", "an IPv6 prefix"),
        (
            '"EnableIPv6": true, "Network": "10.1.0.0/16", "IPv6Network": "fd00::/48", "IPv6SubnetMin": "fd00:0:0:1::%9"',
            "IPv6SubnetMin",
            "must be an address in fd00::/48",
        ),
        (
            '"Backend": {"Type": "udp"}, "Network": "10.1.0.0/16", "backend": {"Type": "udp"}',
            "Backend",
            "{'Type': 'udp'}: is given",
        ),
        ('"Network": "10.1.0.0/16", "Backend": [{"Type": "vxlan"}]', "Backend", "[{'Type': 'vxlan'}]: must be an object"),
    ],
)
def test_value_that_no_other_host_could_read_is_shown_as_it_was_written(fields: str, field: str, shown: str) -> None:
    error = refused(f"{{{fields}}}")
    assert error.field == field
    assert shown in str(error)


def test_key_of_unprintable_characters_is_warned_about_in_one_plain_line() -> None:
    text = b'{"Network": "10.1.0.0/16", "Backend": {"Type": "udp"}, "\\u001b[31m\\nNetwork: ok": 1, "' + b"x" * 5_000 + b'": 2}'
    _, warnings = parse_network(text)
    assert len(warnings) == 2
    assert all(warning.isprintable() and len(warning) < 120 for warning in warnings)


def test_malformed_json_names_the_position() -> None:
    assert "char 12" in refused('{"Network": }').why


def test_text_gives_the_same_configuration_again() -> None:
    config = parsed(
        Network="10.1.0.0/16",
        EnableIPv6=True,
        IPv6Network="fd00:1::/48",
        EnableNFTables=True,
        Backend={"Type": "vxlan", "MTU": 1400},
    )
    assert parse_network(config.text) == (config, ())


def test_family_allows_only_aligned_subnets_between_its_bounds() -> None:
    half = v4(Network="10.1.0.0/16", SubnetMax="10.1.8.0")
    assert half.allows(IPv4Network("10.1.1.0/24"))
    assert half.allows(IPv4Network("10.1.8.0/24"))
    assert not half.allows(IPv4Network("10.1.0.0/24"))
    assert not half.allows(IPv4Network("10.1.9.0/24"))
    assert not half.allows(IPv4Network("10.1.1.0/25"))
    assert not half.allows(IPv6Network("fd00::/24"))


def test_subnet_env_is_flannel_s_to_the_byte() -> None:
    env = SubnetEnv(
        IPv4Network("10.5.0.0/16"),
        IPv4Network("10.5.72.0/24"),
        IPv6Network("fd00:5::/48"),
        IPv6Network("fd00:5:0:1::/64"),
        Mtu(1450),
        ip_masquerade=True,
    )
    assert env.text == (
        "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.72.1/24\nFLANNEL_IPV6_NETWORK=fd00:5::/48\n"
        "FLANNEL_IPV6_SUBNET=fd00:5:0:1::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    )
    assert parse_subnet_env(env.text) == env
    assert IPv4Address("10.5.72.1") in env.v4_subnet  # type: ignore[operator]


def test_subnet_env_of_one_family_has_only_its_lines() -> None:
    env = SubnetEnv(None, None, IPv6Network("fd00:5::/48"), IPv6Network("fd00:5:0:1::/64"), Mtu(1430))
    assert env.text.startswith("FLANNEL_IPV6_NETWORK=")
    assert parse_subnet_env(env.text) == env


@pytest.mark.parametrize(
    "text", ["", "FLANNEL_MTU=x", "FLANNEL_MTU=0", "FLANNEL_MTU=" + "9" * 5000, "FLANNEL_MTU=1\nFLANNEL_SUBNET=x"]
)
def test_damaged_subnet_env_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_subnet_env(text)

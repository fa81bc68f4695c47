from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from overlaynet.errors import StoreDataError
from overlaynet.model.addresses import MacAddress, Vni
from overlaynet.model.lease import LeaseAttributes, Subnets
from overlaynet.model.lease_text import (
    VxlanData,
    decode_attributes,
    decode_vxlan_data,
    encode_attributes,
    encode_vxlan_data,
    lease_key,
    parse_lease_key,
)

V4, V6 = IPv4Network("10.5.52.0/24"), IPv6Network("2001:cafe:42:1::/64")


@pytest.mark.parametrize(
    ("subnets", "key"),
    [
        (Subnets(V4), "10.5.52.0-24"),
        (Subnets(V4, V6), "10.5.52.0-24&2001:cafe:42:1::-64"),
        (Subnets(None, V6), "0.0.0.0-0&2001:cafe:42:1::-64"),
    ],
)
def test_keys_are_flannel_s_both_ways(subnets: Subnets, key: str) -> None:
    assert lease_key(subnets) == key
    assert parse_lease_key(key) == subnets


@pytest.mark.parametrize(
    "key",
    [
        "",
        "10.5.52.0",
        "10.5.52.0/24",
        "10.5.52.0-32",
        "10.5.52.1-24",
        "10.5.052.0-24",
        "10.5.52.0-024",
        "10.5.52.0-24&",
        "10.5.52.0-24&2001:cafe::-128",
        "10.5.52.0-24&2001:CAFE:42:1::-64",
        "10.5.52.0-24&2001:cafe:42:1:0:0:0:0-64",
        "10.5.52.0-24\n",
        "x10.5.52.0-24",
        "\u06610.5.52.0-24",
    ],
)
def test_other_keys_are_store_data_errors(key: str) -> None:
    with pytest.raises(StoreDataError):
        parse_lease_key(key)


def test_vxlan_lease_is_written_as_flannel_writes_it() -> None:
    data = encode_vxlan_data(VxlanData(Vni(1), MacAddress.parse("c6:d2:32:6f:8f:44")))
    attributes = LeaseAttributes(IPv4Address("192.168.64.3"), None, "vxlan", data)
    text = b'{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan",'
    text += b'"BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}'
    assert encode_attributes(attributes) == text
    assert decode_attributes(text) == attributes


def test_udp_and_host_gw_leases_omit_what_is_empty() -> None:
    assert encode_attributes(LeaseAttributes(IPv4Address("192.0.2.1"))) == b'{"PublicIP":"192.0.2.1","PublicIPv6":null}'
    assert (
        encode_attributes(LeaseAttributes(None, IPv6Address("fd00::1"), "host-gw"))
        == b'{"PublicIP":"0.0.0.0","PublicIPv6":"fd00::1","BackendType":"host-gw"}'
    )


def test_unknown_fields_are_passed_over_and_backend_data_is_kept_to_the_byte() -> None:
    text = b'{"New":[1],"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"x","BackendData":{ "b" : 1e0,"a":"\\u0041"}}'
    assert decode_attributes(text).backend_data == b'{ "b" : 1e0,"a":"\\u0041"}'


def test_null_backend_data_is_none() -> None:
    text = b'{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"host-gw","BackendData":null}'
    assert decode_attributes(text).backend_data is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"PublicIP":5}',
        b'{"PublicIP":"1.2.3"}',
        b'{"PublicIP":"1.2.3.4","PublicIPv6":"fe80::1%eth0"}',
        b'{"PublicIP":"1.2.3.4","PublicIPv6":"::ffff:192.0.2.1"}',
        b'{"PublicIP":"1.2.3.4","PublicIPv6":"x"}',
        b'{"PublicIP":"1.2.3.4","BackendType":1}',
        b"[" * 60_000,
        b'{"PublicIP":"1.2.3.4","BackendData":' + b"[" * 60_000,
        b" " * 70_000,
    ],
)
def test_damaged_values_are_store_data_errors(text: bytes) -> None:
    with pytest.raises(StoreDataError):
        decode_attributes(text)


@pytest.mark.parametrize(
    "text",
    [
        None,
        b"null",
        b"{}",
        b'{"VNI":-1,"VtepMAC":"c6:d2:32:6f:8f:44"}',
        b'{"VNI":16777216,"VtepMAC":"c6:d2:32:6f:8f:44"}',
        b'{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f"}',
        b'{"VNI":1,"VtepMAC":"01:00:5e:00:00:01"}',
        b'{"VNI":1,"VtepMAC":"00:00:00:00:00:00"}',
        b'{"VNI":1,"VtepMAC":7}',
    ],
)
def test_damaged_vxlan_data_is_a_store_data_error(text: bytes | None) -> None:
    with pytest.raises(StoreDataError):
        decode_vxlan_data(text)


@pytest.mark.parametrize(
    ("decode", "text"),
    [
        (decode_attributes, b'{"PublicIP":"1.2.3.4","BackendData":{%s"VNI":7}}'),
        (decode_vxlan_data, b'{"VNI":7,%s"VtepMAC":"c6:d2:32:6f:8f:44"}'),
    ],
)
def test_value_is_remembered_if_it_is_short_and_never_if_it_is_long(decode: Callable[[bytes], object], text: bytes) -> None:
    short, long = text % (b" " * 100), text % (b" " * 500)
    assert decode(short) is decode(short)
    assert decode(long) == decode(long)
    assert decode(long) is not decode(long)


def test_vxlan_data_is_read_back() -> None:
    data = VxlanData(Vni(7), MacAddress.parse("c6:d2:32:6f:8f:44"))
    assert decode_vxlan_data(encode_vxlan_data(data)) == data
    assert decode_vxlan_data(b'{"VtepMAC":"C6:D2:32:6F:8F:44","VNI":7,"More":{}}') == data

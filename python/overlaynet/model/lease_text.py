"""The stored text of leases, flannel's to the byte: keys, attributes, and the vxlan backend's data.

What a peer wrote is input: whatever its bytes, decoding gives a value or a StoreDataError, never another exception.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, wraps
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, TypeVar

import msgspec

from overlaynet.errors import StoreDataError
from overlaynet.model.addresses import MacAddress, Vni, ipv4_number
from overlaynet.model.lease import LeaseAttributes, Subnets

_KEY = re.compile(r"(\d{1,3}(?:\.\d{1,3}){3})-(\d{1,2})(?:&([0-9a-f:]+)-(\d{1,3}))?", re.ASCII)
_LONGEST_VALUE_BYTES = 65_536
_REMEMBERED = 1 << 15
"""Texts that are known again: one is read from the kept snapshot, from the store and in a claim, and is one value each time."""

_LONGEST_REMEMBERED_BYTES = 512
"""The longest value that is known again; what overlaynet and flannel write takes 300 at most."""

_LONGEST_TYPE = 64

_Text = TypeVar("_Text", bound=bytes | None)
_Value = TypeVar("_Value")


def _remembering(decode: Callable[[_Text], _Value]) -> Callable[[_Text], _Value]:
    """`decode`, which gives the same value again for a short text again; what peers write never fills the memory."""
    known = lru_cache(maxsize=_REMEMBERED)(decode)

    @wraps(decode)
    def decoded(text: _Text) -> _Value:
        return known(text) if text is None or len(text) <= _LONGEST_REMEMBERED_BYTES else decode(text)

    return decoded


def lease_key(subnets: Subnets) -> str:
    """The last part of a lease's key, such as `10.5.52.0-24&2001:db8:42:1::-64`."""
    return str(subnets)


@lru_cache(maxsize=_REMEMBERED)
def parse_lease_key(text: str) -> Subnets:
    """The subnets that a key's last part names. StoreDataError: it names none.

    flannel reads the IPv4 length in 5 bits and the IPv6 length in 7, so /32 and /128 name none either.
    """
    if (v4_alone := _v4_key(text)) is not None:
        return v4_alone
    match = _KEY.fullmatch(text)
    if match is None:
        raise StoreDataError(text, "not a lease's key: want ADDRESS-LENGTH or ADDRESS-LENGTH&IPV6ADDRESS-LENGTH")
    v4_address, v4_len, v6_address, v6_len = match.groups()
    if int(v4_len) > 31 or (v6_len is not None and int(v6_len) > 127):
        raise StoreDataError(text, "not a lease's key: the prefix is too long")
    try:
        v6 = None if v6_address is None else IPv6Network(f"{v6_address}/{v6_len}")
        v4 = IPv4Network(f"{v4_address}/{v4_len}")
    except ValueError as error:
        raise StoreDataError(text, f"not a lease's key: {error}") from None
    subnets = Subnets(None if v6 is not None and v4.prefixlen == 0 else v4, v6)
    if str(subnets) != text:
        raise StoreDataError(text, f"not a lease's key: its canonical form is {subnets}")
    return subnets


def _v4_key(text: str) -> Subnets | None:
    """The subnet of a canonical key of IPv4 alone, by arithmetic; None for any other text, which is looked at more closely."""
    base, _, digits = text.partition("-")
    number = ipv4_number(base)
    if number is None or digits not in _V4_LENGTHS:
        return None
    length = _V4_LENGTHS[digits]
    return None if number & (0xFFFF_FFFF >> length) else Subnets.of_text(IPv4Network((number, length)), text)


_V4_LENGTHS = {str(length): length for length in range(32)}
_NOTHING = msgspec.Raw(b"null")


class _Attributes(msgspec.Struct, frozen=True):
    """The stored value, in flannel's field order."""

    public_ip: str = msgspec.field(name="PublicIP", default="")
    public_ipv6: str | None = msgspec.field(name="PublicIPv6", default=None)
    backend_type: str = msgspec.field(name="BackendType", default="")
    # An empty Raw stands for a missing field: msgspec takes a union with Raw for the other member alone.
    backend_data: msgspec.Raw = msgspec.field(name="BackendData", default=msgspec.Raw())
    backend_v6_data: msgspec.Raw = msgspec.field(name="BackendV6Data", default=msgspec.Raw())


_DECODER = msgspec.json.Decoder(_Attributes)


def encode_attributes(attributes: LeaseAttributes) -> bytes:
    """The compact JSON under which stores keep the attributes."""
    fields: dict[str, object] = {
        "PublicIP": str(attributes.public_ipv4 or IPv4Address(0)),
        "PublicIPv6": None if attributes.public_ipv6 is None else str(attributes.public_ipv6),
    }
    if attributes.backend_type:
        fields["BackendType"] = attributes.backend_type
    if attributes.backend_data is not None:
        fields["BackendData"] = msgspec.Raw(attributes.backend_data)
    if attributes.backend_v6_data is not None:
        fields["BackendV6Data"] = msgspec.Raw(attributes.backend_v6_data)
    return msgspec.json.encode(fields)


@_remembering
def decode_attributes(text: bytes) -> LeaseAttributes:
    """The attributes in the stored `text`; unknown fields are passed over. StoreDataError says what is wrong with it."""
    if len(text) > _LONGEST_VALUE_BYTES:
        raise StoreDataError("lease value", f"{len(text)} bytes are too many: at most {_LONGEST_VALUE_BYTES}")
    try:
        stored = _DECODER.decode(text)
        number = ipv4_number(stored.public_ip)
        v4 = IPv4Address(stored.public_ip or 0) if number is None else IPv4Address(number)
        v6 = IPv6Address(stored.public_ipv6) if stored.public_ipv6 else None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StoreDataError("lease value", str(error)) from None
    if len(stored.backend_type) > _LONGEST_TYPE or not stored.backend_type.isprintable():
        raise StoreDataError("lease value", f"BackendType {stored.backend_type[:_LONGEST_TYPE]!r}: not a backend's name")
    if v6 is not None and v6.scope_id is not None:
        raise StoreDataError("lease value", f"PublicIPv6 {v6}: a zone means nothing to other hosts")
    if v6 is not None and v6.ipv4_mapped is not None:
        raise StoreDataError("lease value", f"PublicIPv6 {v6}: an IPv4 address as IPv6 is nobody's on the wire")
    return LeaseAttributes(
        public_ipv4=v4 if int(v4) else None,
        public_ipv6=v6,
        backend_type=stored.backend_type,
        backend_data=_raw(stored.backend_data),
        backend_v6_data=_raw(stored.backend_v6_data),
    )


def _raw(value: msgspec.Raw) -> bytes | None:
    text = bytes(value)
    return None if text in (b"", b"null") else text


@dataclass(frozen=True, slots=True)
class VxlanData:
    """What a vxlan host publishes about one family's device: its VNI and MAC address."""

    vni: Vni
    mac: MacAddress


class _VxlanData(msgspec.Struct, frozen=True):
    vni: Annotated[int, msgspec.Meta(ge=0, lt=2**24)] = msgspec.field(name="VNI", default=0)
    mac: str = msgspec.field(name="VtepMAC", default="")


_VXLAN_DECODER = msgspec.json.Decoder(_VxlanData)


def encode_vxlan_data(data: VxlanData) -> bytes:
    """The compact JSON of BackendData (or BackendV6Data) for vxlan."""
    return msgspec.json.encode({"VNI": data.vni, "VtepMAC": str(data.mac)})


@_remembering
def decode_vxlan_data(text: bytes | None) -> VxlanData:
    """The VNI and MAC address in a peer's BackendData. StoreDataError says what is wrong with it."""
    if text is None:
        raise StoreDataError("BackendData", "missing: want a VNI and a VtepMAC")
    try:
        stored = _VXLAN_DECODER.decode(text)
        mac = MacAddress.parse(stored.mac)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StoreDataError("BackendData", str(error)) from None
    if not mac.is_unicast:
        raise StoreDataError("BackendData", f"VtepMAC {mac}: not the address of one station")
    return VxlanData(Vni(stored.vni), mac)

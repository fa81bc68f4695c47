"""The network's configuration and subnet.env: flannel's keys, defaults and texts, with the range checks that make them safe.

The configuration is one JSON object. Keys are matched without regard to case, as Go's decoder does; unknown keys are warned
about, wrong types and values are errors that name the field.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec

from overlaynet.errors import ConfigError
from overlaynet.model.addresses import Address, Family, Mtu, Prefix, Vni

DEFAULT_VXLAN_PORT = 8472
"""The Linux kernel's default port for VXLAN; IANA's is 4789."""

DEFAULT_UDP_PORT = 8285

DEFAULT_VNI = Vni(1)

_LARGEST_MTU = 65_535
_LARGEST_VNI = 2**24 - 1


@dataclass(frozen=True, slots=True)
class FamilyConfig:
    """One family's half of the network: its prefix, and which subnets of it are leased.

    `subnet_min` and `subnet_max` are the network addresses of the first and the last subnet that may be leased.
    """

    family: Family
    network: Prefix
    subnet_len: int
    subnet_min: Address
    subnet_max: Address

    def allows(self, subnet: Prefix) -> bool:
        """Whether `subnet` is one that this configuration leases: of the right length and between the bounds."""
        return (
            Family.of(subnet) is self.family
            and subnet.prefixlen == self.subnet_len
            and int(self.subnet_min) <= int(subnet.network_address) <= int(self.subnet_max)
        )


@dataclass(frozen=True, slots=True)
class VxlanOptions:
    """VXLAN by the kernel's device, or in mode `user` by the packet engine.

    `mtu` is the underlay's, in bytes; None: that of the underlay's link.
    """

    type: ClassVar[str] = "vxlan"
    vni: Vni = DEFAULT_VNI
    port: int = DEFAULT_VXLAN_PORT
    mtu: Mtu | None = None
    gbp: bool = False
    learning: bool = False
    direct_routing: bool = False
    mode: Literal["kernel", "user"] = "kernel"


@dataclass(frozen=True, slots=True)
class HostGwOptions:
    """Plain routes through the peers, which must be on-link."""

    type: ClassVar[str] = "host-gw"


@dataclass(frozen=True, slots=True)
class UdpOptions:
    """IP packets in UDP by the packet engine."""

    type: ClassVar[str] = "udp"
    port: int = DEFAULT_UDP_PORT


BackendOptions: TypeAlias = VxlanOptions | HostGwOptions | UdpOptions


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """The whole network: the families that are enabled, at least one, and how packets travel."""

    v4: FamilyConfig | None
    v6: FamilyConfig | None
    backend: BackendOptions
    enable_nftables: bool = False
    families: tuple[FamilyConfig, ...] = field(init=False, repr=False, compare=False)
    """The enabled families, IPv4 first."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "families", tuple(half for half in (self.v4, self.v6) if half is not None))

    def of(self, family: Family) -> FamilyConfig | None:
        """The half of `family`, or None where it is not enabled."""
        return self.v4 if family is Family.IPV4 else self.v6

    @property
    def networks(self) -> tuple[Prefix, ...]:
        """The prefixes of the enabled families, IPv4 first."""
        return tuple(half.network for half in self.families)

    @property
    def text(self) -> bytes:
        """The configuration as compact JSON with every default written out."""
        fields: dict[str, object] = {"EnableIPv4": self.v4 is not None, "EnableIPv6": self.v6 is not None}
        if self.enable_nftables:
            fields["EnableNFTables"] = True
        for half, start in ((self.v4, ""), (self.v6, "IPv6")):
            if half is not None:
                fields[f"{start}Network"] = str(half.network)
                fields[f"{start}SubnetLen"] = half.subnet_len
                fields[f"{start}SubnetMin"] = str(half.subnet_min)
                fields[f"{start}SubnetMax"] = str(half.subnet_max)
        fields["Backend"] = _backend_fields(self.backend)
        return msgspec.json.encode(fields)


def _backend_fields(options: BackendOptions) -> dict[str, object]:
    match options:
        case VxlanOptions():
            fields: dict[str, object] = {"Type": "vxlan", "VNI": options.vni, "Port": options.port}
            if options.mtu is not None:
                fields["MTU"] = options.mtu
            fields |= {"GBP": options.gbp, "Learning": options.learning, "DirectRouting": options.direct_routing}
            if options.mode != "kernel":
                fields["Mode"] = options.mode
            return fields
        case HostGwOptions():
            return {"Type": "host-gw"}
        case UdpOptions():
            return {"Type": "udp", "Port": options.port}


_NETWORK_KEYS = (
    "EnableIPv4",
    "EnableIPv6",
    "EnableNFTables",
    "Network",
    "SubnetLen",
    "SubnetMin",
    "SubnetMax",
    "IPv6Network",
    "IPv6SubnetLen",
    "IPv6SubnetMin",
    "IPv6SubnetMax",
    "Backend",
)
_BACKEND_KEYS: Mapping[str, tuple[str, ...]] = {
    "vxlan": ("Type", "VNI", "Port", "MTU", "GBP", "Learning", "DirectRouting", "Mode"),
    "host-gw": ("Type",),
    "udp": ("Type", "Port"),
}


def parse_network(text: bytes) -> tuple[NetworkConfig, tuple[str, ...]]:
    """The configuration in the JSON `text`, and warnings about what was ignored. ConfigError names the field that is wrong."""
    try:
        decoded = json.loads(text.decode(), object_pairs_hook=_Pairs, parse_int=_whole, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise ConfigError("network config", _shortened(text), f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise ConfigError("network config", _shortened(text), "nested too deeply") from None
    except ValueError as error:
        raise ConfigError("network config", _shortened(text), f"not JSON: {error}") from None
    if not isinstance(decoded, _Pairs):
        raise ConfigError("network config", _shortened(text), "must be a JSON object")
    warnings: list[str] = []
    fields = _Fields("", decoded, _NETWORK_KEYS, warnings)
    v4 = _family(fields, Family.IPV4) if fields.flag("EnableIPv4", default=True) else None
    v6 = _family(fields, Family.IPV6) if fields.flag("EnableIPv6", default=False) else None
    if v4 is None and v6 is None:
        raise ConfigError("EnableIPv4", "false", "EnableIPv6 is off too: enable a family")
    backend = _backend(fields, warnings)
    return NetworkConfig(v4, v6, backend, fields.flag("EnableNFTables", default=False)), tuple(warnings)


def _whole(digits: str) -> int | float:
    """The number; one that no field could hold is infinite, since Python refuses to read thousands of digits."""
    return int(digits) if len(digits) < 100 else float(digits)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as its members in order, so that a key given twice is seen."""


class _Fields:
    """The members of one JSON object by their documented names."""

    def __init__(self, path: str, pairs: _Pairs, known: tuple[str, ...], warnings: list[str]) -> None:
        self._path = path
        self._values: dict[str, Any] = {}
        names = {name.lower(): name for name in known}
        for key, value in pairs:
            name = names.get(key.lower())
            if name is None:
                near = difflib.get_close_matches(key.lower(), names, n=1)
                hint = f": did you mean {path}{names[near[0]]}?" if near else ""
                shown = key if key.isprintable() and len(key) <= 60 else repr(key[:60])
                warnings.append(f"unknown key {path}{shown} is ignored{hint}")
            elif name in self._values:
                raise ConfigError(path + name, _plain(value), "is given twice")
            elif value is not None:
                self._values[name] = value

    def raw(self, name: str) -> Any:
        return self._values.get(name)

    def flag(self, name: str, *, default: bool) -> bool:
        value = self._values.get(name, default)
        if not isinstance(value, bool):
            raise ConfigError(self._path + name, _plain(value), "must be true or false")
        return value

    def number(self, name: str, low: int, high: int) -> int | None:
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(self._path + name, _plain(value), f"must be a whole number from {low} to {high}")
        return value

    def text(self, name: str, what: str) -> str | None:
        value = self._values.get(name)
        if value is not None and not isinstance(value, str):
            raise ConfigError(self._path + name, _plain(value), f"must be {what}, as a string")
        return value


def _family(fields: _Fields, family: Family) -> FamilyConfig:
    start, example = ("", "10.1.0.0/16") if family is Family.IPV4 else ("IPv6", "fd00:1::/48")
    network = _network(fields, f"{start}Network", family, example)
    subnet_len = _subnet_len(fields, f"{start}SubnetLen", network)
    bits = family.bits
    step = 1 << (bits - subnet_len)
    first = int(network.network_address)
    low = _bound(fields, f"{start}SubnetMin", network, subnet_len, first + step)
    high = _bound(fields, f"{start}SubnetMax", network, subnet_len, first + (1 << (bits - network.prefixlen)) - step)
    if int(low) > int(high):
        raise ConfigError(f"{start}SubnetMin", str(low), f"must not be above {start}SubnetMax, {high}")
    return FamilyConfig(family, network, subnet_len, low, high)


def _network(fields: _Fields, name: str, family: Family, example: str) -> Prefix:
    text = fields.text(name, f"a prefix such as {example}")
    if text is None or text == "":
        switch = "EnableIPv4" if family is Family.IPV4 else "EnableIPv6"
        raise ConfigError(name, text, f"is required while {switch} is on, such as {example}")
    kind = IPv4Network if family is Family.IPV4 else IPv6Network
    # Python would also take a netmask or a zone, which no other host of the network reads.
    if not text.rpartition("/")[2].isdecimal() or "/" not in text or "%" in text:
        raise ConfigError(name, text, f"must be an IPv{family.value} prefix such as {example}")
    try:
        network = kind(text, strict=False)
    except ValueError:
        raise ConfigError(name, text, f"must be an IPv{family.value} prefix such as {example}") from None
    unusable = unusable_network(network)
    if unusable:
        raise ConfigError(name, text, f"{unusable}: choose unicast addresses such as {example}")
    return network


def unusable_network(network: Prefix) -> str:
    """Why no host can have addresses of `network`, or an empty text."""
    special = {
        Family.IPV4: ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"),
        Family.IPV6: ("::/127", "::ffff:0:0/96", "fe80::/10", "ff00::/8"),
    }
    for text in special[Family.of(network)]:
        block = ipaddress.ip_network(text)
        if network.overlaps(block):
            return f"overlaps {block}, which is not for hosts"
    return ""


def _subnet_len(fields: _Fields, name: str, network: Prefix) -> int:
    bits = network.max_prefixlen
    longest = bits - 2
    given = fields.number(name, 0, bits)
    least = network.prefixlen + 2
    if not given:  # flannel takes 0 for a missing value
        usual = bits - 8 if bits == 32 else 64
        if network.prefixlen > bits - 4:
            raise ConfigError(name.replace("SubnetLen", "Network"), str(network), f"is too small: at most /{bits - 4}")
        return usual if least <= usual else least
    if given > longest:
        raise ConfigError(name, given, f"must be at most {longest}: a subnet needs addresses for hosts")
    if given < least:
        raise ConfigError(name, given, f"must be at least {least}: {network} must hold four subnets or more")
    return given


def _bound(fields: _Fields, name: str, network: Prefix, subnet_len: int, default: int) -> Address:
    text = fields.text(name, f"an address in {network}")
    make = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
    if text is None or text == "":
        return make(default)
    try:
        address = make(text)
    except ValueError:
        address = None
    if address is None or "%" in text:
        raise ConfigError(name, text, f"must be an address in {network}")
    if not int(address):  # flannel takes the zero address for a missing value
        return make(default)
    if address not in network:
        raise ConfigError(name, text, f"must lie in {network}")
    step = 1 << (network.max_prefixlen - subnet_len)
    if int(address) % step:
        raise ConfigError(
            name, text, f"must be the first address of a /{subnet_len}, such as {make(int(address) // step * step)}"
        )
    return address


def _backend(fields: _Fields, warnings: list[str]) -> BackendOptions:
    value = fields.raw("Backend")
    known = ", ".join(sorted(_BACKEND_KEYS))
    if value is None:
        warnings.append('Backend is missing: taken as {"Type": "udp"}; name a backend')
        return UdpOptions()
    if not isinstance(value, _Pairs):
        raise ConfigError("Backend", _plain(value), 'must be an object such as {"Type": "vxlan"}')
    kinds = [item for key, item in value if key.lower() == "type"]
    kind = kinds[0] if kinds else None
    if not isinstance(kind, str) or kind.lower() not in _BACKEND_KEYS:
        raise ConfigError("Backend.Type", _plain(kind), f"must be one of {known}")
    kind = kind.lower()
    options = _Fields("Backend.", value, _BACKEND_KEYS[kind], warnings)
    match kind:
        case "vxlan":
            vni = options.number("VNI", 0, _LARGEST_VNI)
            mtu = options.number("MTU", 0, _LARGEST_MTU)
            if mtu is not None and mtu != 0 and mtu < 576:
                raise ConfigError("Backend.MTU", mtu, "must be at least 576")
            mode = options.text("Mode", "kernel or user") or "kernel"
            if mode not in ("kernel", "user"):
                raise ConfigError("Backend.Mode", mode, "must be kernel or user")
            return VxlanOptions(
                vni=Vni(1 if vni is None else vni),
                port=options.number("Port", 0, 65_535) or DEFAULT_VXLAN_PORT,
                mtu=Mtu(mtu) if mtu else None,
                gbp=options.flag("GBP", default=False),
                learning=options.flag("Learning", default=False),
                direct_routing=options.flag("DirectRouting", default=False),
                mode="user" if mode == "user" else "kernel",
            )
        case "host-gw":
            return HostGwOptions()
        case _:
            return UdpOptions(port=options.number("Port", 0, 65_535) or DEFAULT_UDP_PORT)


def _shortened(text: bytes) -> str:
    shown = text[:60].decode(errors="replace")
    return shown if len(text) <= 60 else shown + "..."


def _plain(value: Any) -> Any:
    """The value with objects as Python shows them."""
    if isinstance(value, _Pairs):
        return {key: _plain(item) for key, item in value}
    return [_plain(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class SubnetEnv:
    """What container runtimes read from subnet.env: the networks, this host's subnets, the MTU in bytes."""

    v4_network: IPv4Network | None
    v4_subnet: IPv4Network | None
    v6_network: IPv6Network | None
    v6_subnet: IPv6Network | None
    mtu: Mtu
    ip_masquerade: bool = False

    @property
    def text(self) -> str:
        """The file's text. FLANNEL_SUBNET is the subnet's first host address with the subnet's length."""
        lines: list[str] = []
        for start, network, subnet in (
            ("FLANNEL_", self.v4_network, self.v4_subnet),
            ("FLANNEL_IPV6_", self.v6_network, self.v6_subnet),
        ):
            if network is not None and subnet is not None:
                lines += [f"{start}NETWORK={network}", f"{start}SUBNET={subnet.network_address + 1}/{subnet.prefixlen}"]
        lines += [f"FLANNEL_MTU={self.mtu}", f"FLANNEL_IPMASQ={'true' if self.ip_masquerade else 'false'}"]
        return "\n".join(lines) + "\n"


def parse_subnet_env(text: str) -> SubnetEnv:
    """The values in the text of a subnet.env. ConfigError names the line that is missing or wrong."""
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def prefix(name: str, kind: type[Any]) -> Any:
        value = values.get(name)
        if value is None:
            return None
        try:
            return kind(value, strict=False)
        except ValueError:
            raise ConfigError(name, value, "must be a prefix") from None

    mtu = values.get("FLANNEL_MTU", "")
    if not mtu.isdecimal() or len(mtu) > 9 or not 0 < int(mtu) <= _LARGEST_MTU:
        raise ConfigError("FLANNEL_MTU", mtu, "must be a number of bytes")
    return SubnetEnv(
        prefix("FLANNEL_NETWORK", IPv4Network),
        prefix("FLANNEL_SUBNET", IPv4Network),
        prefix("FLANNEL_IPV6_NETWORK", IPv6Network),
        prefix("FLANNEL_IPV6_SUBNET", IPv6Network),
        Mtu(int(mtu)),
        values.get("FLANNEL_IPMASQ") == "true",
    )

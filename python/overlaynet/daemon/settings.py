"""The daemon's settings, as its flags and environment give them."""

from __future__ import annotations

import grp
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Literal, Self

from overlaynet.errors import ConfigError
from overlaynet.model.dataplane import OFFLOADS, TAP, SourceCheck
from overlaynet.store.location import StoreLocation

DEFAULT_TTL_S = 86_400.0
_LONGEST_TTL_S = 10 * 365 * 86_400.0
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True)
class SocketGroup:
    """The group whose members are answered beside root and the daemon's own user."""

    name: str
    number: int

    @classmethod
    def of(cls, name: str) -> Self:
        """The group of this name. ConfigError: there is none."""
        try:
            return cls(name, grp.getgrnam(name).gr_gid)
        except (KeyError, ValueError):
            raise ConfigError("--socket-group", name, "no such group: name one of this host (getent group)") from None


@dataclass(frozen=True, slots=True)
class Settings:
    """What one daemon was told at its start. Times are in seconds."""

    store: StoreLocation
    state_dir: Path
    run_dir: Path
    subnet_file: Path
    socket_group: SocketGroup | None = None
    iface: tuple[str, ...] = ()
    iface_regex: tuple[str, ...] = ()
    iface_can_reach: str = ""
    public_ip: IPv4Address | None = None
    public_ipv6: IPv6Address | None = None
    ttl_s: float = DEFAULT_TTL_S
    renew_margin_s: float | None = None
    healthz_ip: IPv4Address | IPv6Address = IPv4Address("0.0.0.0")  # noqa: S104, RUF009  # flannel's default; off while the port is 0
    healthz_port: int = 0
    release_on_exit: bool = False
    ip_forward: bool = True
    next_hops: bool = True
    offloads: tuple[str, ...] = OFFLOADS
    source_check: SourceCheck = "strict"
    vxlan_mode: Literal["kernel", "user"] | None = None
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


def parse_span(flag: str, text: str, *, unit: str = "") -> float:
    """The seconds in a text such as `90`, `90s`, `10m`, `24h`; `unit` is that of a bare number. ConfigError: it is none."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text.strip())
    if match is None:
        raise ConfigError(flag, text, "must be a span of time such as 90s, 10m or 24h")
    return float(match[1]) * _UNITS[match[2] or unit]


def parse_offloads(text: str) -> tuple[str, ...]:
    """The offloads in a list such as `tso,gso`, or none of them for `none`; `default` in it stands for those that are used if
    nothing is said. ConfigError: there is no such offload.
    """
    names: list[str] = []
    for name in [] if text.strip() == "none" else text.split(","):
        if name.strip() == "default":
            names += OFFLOADS
        elif name.strip() in (*OFFLOADS, TAP):
            names.append(name.strip())
        else:
            raise ConfigError("--offload", text, f"must be none, or some of default,{','.join(OFFLOADS)},{TAP}")
    return tuple(dict.fromkeys(names))


def check_spans(ttl_s: float, renew_margin_s: float | None) -> None:
    """ConfigError: the lease's TTL or the margin before its end cannot be."""
    if not 1 <= ttl_s <= _LONGEST_TTL_S:
        raise ConfigError("--subnet-lease-ttl", f"{ttl_s:g}s", "must be from 1s to 3650d")
    if renew_margin_s is not None and not 0 < renew_margin_s < ttl_s:
        raise ConfigError(
            "--subnet-lease-renew-margin", f"{renew_margin_s:g}s", f"must be above 0 and below the lease's TTL, {ttl_s:g}s"
        )

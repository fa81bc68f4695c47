"""Flags as flannel's users write them, in click's terms.

Go's `flag` package takes `-name value`, `-name=value` and `--name`, and a boolean as `-name` or `-name=false`. click agrees but
for two spots, which `rewrite` turns into click's form. Every flag may also be given by the environment: OVERLAYNET_NAME, else
FLANNELD_NAME.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import click

from overlaynet.errors import ConfigError


def flag(name: str, **settings: Any) -> Callable[[click.decorators.FC], click.decorators.FC]:
    """A click option `--name`, also spelt `-name`, with its environment variables."""
    variable = name.upper().replace("-", "_")
    return click.option(
        f"--{name}", f"-{name}", envvar=[f"OVERLAYNET_{variable}", f"FLANNELD_{variable}"], show_envvar=True, **settings
    )


def rewrite(arguments: Sequence[str], booleans: Iterable[str]) -> list[str]:
    """The arguments with each bare boolean flag given its value, and `-v=3` split, up to a `--`."""
    names = frozenset(booleans)
    rewritten: list[str] = []
    for at, argument in enumerate(arguments):
        if argument == "--":
            return rewritten + list(arguments[at:])
        name = argument.lstrip("-")
        if argument.startswith("-") and name in names:
            rewritten.append(f"--{name}=true")
        elif argument.startswith(("-v=", "--v=")):
            rewritten += ["-v", argument.partition("=")[2]]
        else:
            rewritten.append(argument)
    return rewritten


def public_address(name: str, text: str | None, kind: Any) -> Any:
    """The address, of class `kind`, in the flag `name`; None if it was not given. ConfigError: no peer could reach it."""
    if not text:
        return None
    try:
        address = kind(text)
    except ValueError:
        raise ConfigError(name, text, f"must be an {kind.__name__.removesuffix('Address')} address") from None
    nobodys = isinstance(address, IPv4Address) and (address.is_reserved or int(address) >> 24 == 0)
    if nobodys or address.is_unspecified or address.is_loopback or address.is_multicast:
        raise ConfigError(name, text, "must be an address at which peers reach this host")
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        raise ConfigError(name, text, f"is an IPv4 address written as IPv6: give --public-ip {address.ipv4_mapped}")
    return address

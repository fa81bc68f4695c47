"""Flags as flannel's users write them, in click's terms.

Go's `flag` package takes `-name value`, `-name=value` and `--name`, and a boolean as `-name` or `-name=false`. click agrees but
for two spots, which `rewrite` turns into click's form. Every flag may also be given by the environment: OVERLAYNET_NAME, else
FLANNELD_NAME.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import click

from overlaynet.errors import ConfigError

_BOOLEAN_WORDS = frozenset({"true", "false", "t", "f", "1", "0", "yes", "no", "on", "off"})


def flag(name: str, **settings: Any) -> Callable[[click.decorators.FC], click.decorators.FC]:
    """A click option `--name`, also spelt `-name`, with its environment variables."""
    variable = name.upper().replace("-", "_")
    return click.option(
        f"--{name}", f"-{name}", envvar=[f"OVERLAYNET_{variable}", f"FLANNELD_{variable}"], show_envvar=True, **settings
    )


def rewrite(arguments: Sequence[str], booleans: Iterable[str]) -> list[str]:
    """The arguments with each bare boolean flag given its value, and `-v` apart from its own, up to a `--`."""
    names = frozenset(booleans)
    rewritten: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--":
            return [*rewritten, argument, *left]
        name = argument.lstrip("-")
        if argument.startswith("-") and name in names:
            # Go would take the next word for no part of the flag, and so for nothing.
            value = left.pop(0) if left and left[0].lower() in _BOOLEAN_WORDS else "true"
            rewritten.append(f"--{name}={value}")
        elif argument in ("-v", "--v"):
            rewritten.append("-v")
        elif argument.startswith(("-v=", "--v=")):
            rewritten += ["-v", argument.partition("=")[2]]
        else:
            rewritten.append(argument)
    return rewritten


class Number(click.ParamType[int]):
    """A whole number from `low` to `high`."""

    name = "number"

    def __init__(self, low: int, high: int | None = None) -> None:
        self._low, self._high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number. click.BadParameter: the value is none of them."""
        text = str(value)
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else -1
        if number < self._low or (self._high is not None and number > self._high):
            bounds = f"from {self._low} up" if self._high is None else f"from {self._low} to {self._high}"
            self.fail(f"{text!r}: must be a whole number {bounds}", param, ctx)
        return number


def path(name: str, text: str) -> Path:
    """The absolute path in the flag `name`. ConfigError: the text is empty."""
    if not text:
        raise ConfigError(name, text, "must be a path")
    return Path(text).absolute()


def public_address(name: str, text: str | None, kind: Any) -> Any:
    """The address, of class `kind`, in the flag `name`; None if it was not given. ConfigError: no peer could reach it."""
    if not text:
        return None
    try:
        address = kind(text)
    except ValueError:
        raise ConfigError(name, text, f"must be an {kind.__name__.removesuffix('Address')} address") from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ConfigError(name, text, "a zone means nothing to other hosts: leave it out")
    if isinstance(address, IPv6Address) and address.is_link_local:
        raise ConfigError(name, text, "is link-local, and means nothing without a zone: give one that other hosts can reach")
    nobodys = isinstance(address, IPv4Address) and (address.is_reserved or int(address) >> 24 == 0)
    if nobodys or address.is_unspecified or address.is_loopback or address.is_multicast:
        raise ConfigError(name, text, "must be an address at which peers reach this host")
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        raise ConfigError(name, text, f"is an IPv4 address written as IPv6: give --public-ip {address.ipv4_mapped}")
    return address

"""`PrefixTable`: a mapping from IP prefixes to any objects, with longest-prefix match.

The class itself is compiled: between a program and a lookup there is no Python. Here are its views, and what makes it one of
`collections.abc`'s mappings.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, MutableMapping, ValuesView
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from overlaynet._core import PrefixTable, iterate

__all__ = ["Address", "Network", "PrefixTable"]

Network: TypeAlias = IPv4Network | IPv6Network
"""An IP prefix of either family."""

Address: TypeAlias = IPv4Address | IPv6Address
"""An IP address of either family."""

ValueT = TypeVar("ValueT")

if not TYPE_CHECKING:  # type checkers have it from the stub
    MutableMapping.register(PrefixTable)


class _Keys(KeysView[Network]):
    """The prefixes of a table, as a set that changes with it."""

    _mapping: PrefixTable[object]

    def __reversed__(self) -> Iterator[Network]:
        return reversed(self._mapping)


class _Values(ValuesView[ValueT]):
    """The values of a table. An iteration sees them as they were when it began."""

    _mapping: PrefixTable[ValueT]

    def __iter__(self) -> Iterator[ValueT]:
        return iterate(self._mapping, "values")

    def __reversed__(self) -> Iterator[ValueT]:
        return iterate(self._mapping, "values", backwards=True)

    def __contains__(self, value: object) -> bool:
        return any(held is value or held == value for held in self)


class _Items(ItemsView[Network, ValueT]):
    """The entries of a table. An iteration sees them as they were when it began."""

    _mapping: PrefixTable[ValueT]

    def __iter__(self) -> Iterator[tuple[Network, ValueT]]:
        return iterate(self._mapping, "items")

    def __reversed__(self) -> Iterator[tuple[Network, ValueT]]:
        return iterate(self._mapping, "items", backwards=True)

    def __contains__(self, item: object) -> bool:
        match item:
            case (str() | bytes() | IPv4Network() | IPv6Network() as prefix, value) if prefix in self._mapping:
                held = self._mapping.get(prefix, self)
                return held is value or held == value
            case _:
                return False

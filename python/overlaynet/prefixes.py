"""`PrefixTable`: a mapping from IP prefixes to any objects, with longest-prefix match.

One table holds one family: that of its first prefix, unless it was told. Prefixes are `ipaddress` networks or their text; what
comes out is always a network. The table may be used by several threads at once; each call is atomic, an iteration sees the table
as it was when it began.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Generic, Literal, TypeVar

from overlaynet import _core
from overlaynet.errors import PrefixError

Network = IPv4Network | IPv6Network
"""An IP prefix of either family."""

Address = IPv4Address | IPv6Address
"""An IP address of either family."""

ValueT = TypeVar("ValueT")

_MISSING: Final = object()


class PrefixTable(MutableMapping[Network | str, ValueT], Generic[ValueT]):
    """A mapping from IP prefixes of one family to objects; `lookup` finds the longest prefix that holds an address.

    Keys are exact: `table["10.1.0.0/16"]` is that prefix's value and no longer one's. Iteration is ordered by address, then by
    length. A key of the other family, or one that is no prefix, raises PrefixError.
    """

    __slots__ = ("_table",)

    def __init__(
        self,
        entries: Mapping[str, ValueT] | Mapping[Network, ValueT] | Iterable[tuple[Network | str, ValueT]] = (),
        *,
        family: Literal[4, 6] | None = None,
    ) -> None:
        self._table: _core.PrefixTable[ValueT] | None = None if family is None else _core.PrefixTable(family)
        for prefix, value in entries.items() if isinstance(entries, Mapping) else entries:
            self[prefix] = value

    @property
    def family(self) -> Literal[4, 6] | None:
        """The IP version of the table's prefixes; None while there were none and nothing was said."""
        return None if self._table is None else self._table.family

    def __getitem__(self, prefix: Network | str) -> ValueT:
        value = self._of(prefix).get(prefix, _MISSING)
        if value is _MISSING:
            raise KeyError(prefix)
        return value  # type: ignore[return-value]  # the default is the only other type, and is excluded above

    def __setitem__(self, prefix: Network | str, value: ValueT) -> None:
        table = self._of(prefix)
        table.insert(prefix, value)
        self._table = table

    def __delitem__(self, prefix: Network | str) -> None:
        if self._of(prefix).remove(prefix, _MISSING) is _MISSING:
            raise KeyError(prefix)

    def __contains__(self, prefix: object) -> bool:
        return isinstance(prefix, str | IPv4Network | IPv6Network) and prefix in self._of(prefix)

    def __len__(self) -> int:
        return 0 if self._table is None else len(self._table)

    def __iter__(self) -> Iterator[Network]:
        return iter([] if self._table is None else [_network(text) for text in self._table.prefixes()])

    def __repr__(self) -> str:
        entries = {} if self._table is None else dict(self._table.items())
        return f"PrefixTable({entries!r})"

    def clear(self) -> None:
        """Removes every prefix; the family stays."""
        if self._table is not None:
            self._table.clear()

    def lookup(self, address: Address | str | bytes) -> tuple[Network, ValueT] | None:
        """The longest prefix that holds `address` and its value, or None. Bytes are an address in network order."""
        if self._table is None:
            return None
        found = self._table.lookup(address)
        return None if found is None else (_network(found[0]), found[1])

    def covering(self, prefix: Network | str) -> list[tuple[Network, ValueT]]:
        """The entries whose prefixes cover `prefix` (itself, if it is there, comes last), the shortest first."""
        return [(_network(text), value) for text, value in self._of(prefix).covering(prefix)]

    def covered(self, prefix: Network | str) -> list[tuple[Network, ValueT]]:
        """The entries whose prefixes `prefix` covers (itself, if it is there, comes first), in order."""
        return [(_network(text), value) for text, value in self._of(prefix).covered(prefix)]

    def overlaps(self, prefix: Network | str) -> bool:
        """Whether an address lies both in `prefix` and in a prefix of the table."""
        return self._of(prefix).overlaps(prefix)

    def _of(self, prefix: Network | str) -> _core.PrefixTable[ValueT]:
        """The table; before there is one, an empty one of the family of `prefix`."""
        if self._table is not None:
            return self._table
        return _core.PrefixTable(_family(prefix))


def _family(prefix: Network | str) -> Literal[4, 6]:
    match prefix:
        case IPv4Network():
            return 4
        case IPv6Network():
            return 6
        case str():
            return 6 if ":" in prefix else 4
        case _:
            raise PrefixError(prefix, "want str, IPv4Network or IPv6Network")


def _network(text: str) -> Network:
    return IPv6Network(text) if ":" in text else IPv4Network(text)

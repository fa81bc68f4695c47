"""The prefix table against a plain list, as a state machine, for both families."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from overlaynet.errors import PrefixError
from overlaynet.prefixes import Network, PrefixTable


def covers(outer: Network, inner: Network) -> bool:
    if isinstance(outer, IPv4Network):
        return isinstance(inner, IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, IPv6Network) and inner.subnet_of(outer)


class TableAgainstList(RuleBasedStateMachine):
    """Each step does the same to both; the list's answers are by definition."""

    @initialize(bits=st.sampled_from([32, 128]))
    def begin(self, bits: int) -> None:
        self.bits = bits
        self.table: PrefixTable[int] = PrefixTable()
        self.model: dict[Network, int] = {}

    def prefix(self, seed: tuple[int, int, int]) -> Network:
        """Few distinct prefixes, that often nest."""
        high, low, length = seed
        length = length % (self.bits + 1)
        address = (high << (self.bits - 2) | low) & ~((1 << (self.bits - length)) - 1)
        return IPv4Network((address, length)) if self.bits == 32 else IPv6Network((address, length))

    seeds = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 128))

    @rule(seed=seeds, value=st.integers(), as_text=st.booleans())
    def insert(self, seed: tuple[int, int, int], value: int, as_text: bool) -> None:
        prefix = self.prefix(seed)
        self.table[str(prefix) if as_text else prefix] = value
        self.model[prefix] = value

    @rule(seed=seeds)
    def remove(self, seed: tuple[int, int, int]) -> None:
        prefix = self.prefix(seed)
        assert self.table.pop(prefix, None) == self.model.pop(prefix, None)
        with pytest.raises(KeyError):
            del self.table[prefix]

    @rule(seed=seeds)
    def ask(self, seed: tuple[int, int, int]) -> None:
        prefix = self.prefix(seed)
        assert self.table.get(prefix) == self.model.get(prefix)
        assert (prefix in self.table) == (prefix in self.model)
        by_length = sorted(self.model.items(), key=lambda entry: entry[0].prefixlen)
        assert self.table.covering(prefix) == [entry for entry in by_length if covers(entry[0], prefix)]
        ordered = sorted(self.model.items(), key=lambda entry: (int(entry[0].network_address), entry[0].prefixlen))
        assert self.table.covered(prefix) == [entry for entry in ordered if covers(prefix, entry[0])]
        assert self.table.overlaps(prefix) == any(covers(prefix, p) or covers(p, prefix) for p in self.model)
        for address in (prefix.network_address, prefix.broadcast_address):
            holding = [entry for entry in by_length if address in entry[0]]
            expected = holding[-1] if holding else None
            assert self.table.lookup(address) == expected
            assert self.table.lookup(str(address)) == expected
            assert self.table.lookup(address.packed) == expected

    @invariant()
    def same_entries_in_order(self) -> None:
        ordered = sorted(self.model, key=lambda prefix: (int(prefix.network_address), prefix.prefixlen))
        assert list(self.table) == ordered
        assert dict(self.table.items()) == self.model
        assert len(self.table) == len(self.model)


TestTableAgainstList = TableAgainstList.TestCase


def test_a_table_takes_one_family() -> None:
    table = PrefixTable({"10.0.0.0/8": 1})
    assert table.family == 4
    with pytest.raises(PrefixError):
        table["fd00::/8"] = 2
    assert "fd00::/8" not in PrefixTable[int]()


def test_a_refused_key_leaves_the_family_open() -> None:
    table: PrefixTable[int] = PrefixTable()
    with pytest.raises(PrefixError):
        table["10.0.0.1/8"] = 1
    assert table.family is None
    table["fd00::/8"] = 2
    assert table.family == 6


def test_none_is_a_value_like_any_other() -> None:
    table: PrefixTable[None] = PrefixTable()
    table["10.0.0.0/8"] = None
    assert table["10.0.0.0/8"] is None
    assert table.lookup("10.0.0.1") == (IPv4Network("10.0.0.0/8"), None)
    del table["10.0.0.0/8"]
    assert table.lookup("10.0.0.1") is None

"""The prefix table against a plain dict, as a state machine, for both families."""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from overlaynet.prefixes import Network, PrefixTable


def covers(outer: Network, inner: Network) -> bool:
    if isinstance(outer, IPv4Network):
        return isinstance(inner, IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, IPv6Network) and inner.subnet_of(outer)


def packed(prefix: Network) -> bytes:
    return prefix.network_address.packed + bytes([prefix.prefixlen])


class TableAgainstDict(RuleBasedStateMachine):
    """Each step does the same to both; the dict's answers are by definition."""

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

    @rule(seed=seeds, value=st.integers(0, 3), form=st.sampled_from([str, packed, lambda prefix: prefix]))
    def insert(self, seed: tuple[int, int, int], value: int, form: Callable[[Network], Network | str | bytes]) -> None:
        prefix = self.prefix(seed)
        self.table[form(prefix)] = value
        self.model[prefix] = value

    @rule(entries=st.lists(st.tuples(seeds, st.integers(0, 3))), way=st.sampled_from(["update", "load", "packed"]))
    def insert_many(self, entries: list[tuple[tuple[int, int, int], int]], way: str) -> None:
        prefixes = [self.prefix(seed) for seed, _ in entries]
        values = [value for _, value in entries]
        pairs = list(zip(prefixes, values, strict=True))
        if way == "update":
            self.table.update(pairs)
        elif way == "load":
            self.table.load([str(prefix) for prefix in prefixes], values)
        elif self.table.family is not None:
            self.table.load(b"".join(map(packed, prefixes)), array("I", values))
        else:
            return
        self.model.update(pairs)

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
            assert self.table.lookup(int(address)) == expected
            value = expected and expected[1]
            for key in (address, str(address), address.packed, int(address)):
                assert self.table.get(key) == value
            if self.table.family is not None:
                (number,) = self.table.lookup_many(address.packed, missing=-7)
                assert number == (-7 if value is None else value)
                (slot,) = self.table.lookup_slots(address.packed)
                assert slot == 2**32 - 1 if expected is None else self.table.entry(slot) == expected

    @rule()
    def aggregate(self) -> None:
        """Each address finds what it found: at the ends of all prefixes, and directly beside them."""
        table = self.table.aggregate()
        assert len(table) <= len(self.table)
        ends = {int(end) for prefix in self.model for end in (prefix.network_address, prefix.broadcast_address)}
        for end in ends:
            for address in range(max(end - 1, 0), min(end + 2, 1 << self.bits)):
                assert table.get(address) == self.table.get(address)

    @rule()
    def copy(self) -> None:
        """The copies go their own ways; the table goes on as one of them."""
        for table in (self.table.copy(), pickle.loads(pickle.dumps(self.table)), PrefixTable[int](self.table)):
            assert table == self.table == self.model
            self.table.clear()
            self.table = table

    @rule(seeds=st.lists(seeds))
    def take_apart(self, seeds: list[tuple[int, int, int]]) -> None:
        other = PrefixTable({self.prefix(seed): -1 for seed in seeds})
        both, only = self.table & other, self.table - other
        assert both == {prefix: value for prefix, value in self.model.items() if prefix in other}
        assert only == {prefix: value for prefix, value in self.model.items() if prefix not in other}
        assert both | only == self.table
        assert self.table | other == self.model | dict(other)

    @invariant()
    def same_entries_in_order(self) -> None:
        ordered = sorted(self.model, key=lambda prefix: (int(prefix.network_address), prefix.prefixlen))
        assert list(self.table) == ordered
        assert list(reversed(self.table)) == ordered[::-1]
        assert list(self.table.values()) == [self.model[prefix] for prefix in ordered]
        assert dict(self.table.items()) == self.model
        assert len(self.table) == len(self.model)


TestTableAgainstDict = TableAgainstDict.TestCase

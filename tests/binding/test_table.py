"""`PrefixTable` as a mapping of Python's: keys of every kind, refusals, copies, batches, views. Its answers are checked by
tests/property/test_prefix_table.py."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from array import array
from collections.abc import Callable, Mapping, MutableMapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any, cast

import pytest
from overlaynet import PrefixTable, decode_many, encode
from overlaynet.errors import PrefixError
from overlaynet.packet import Ipv4, Ipv6, Udp

NONE = 2**32 - 1


class Text(str):
    __slots__ = ()


class Octets(bytes):
    __slots__ = ()


class Number(int):
    pass


TEN = PrefixTable({"10.0.0.0/8": "ten", "10.1.0.0/16": "one"})
SIX = PrefixTable({"fd00::/8": "six", "fd00:1::/32": "one"})


@pytest.mark.parametrize(
    "key",
    [
        *("10.1.2.3", b"\n\1\2\3", 0x0A010203, IPv4Address("10.1.2.3"), IPv4Interface("10.1.2.3/8")),
        *(Text("10.1.2.3"), Octets(b"\n\1\2\3"), Number(0x0A010203)),
        *("10.1.0.0/16", b"\n\1\0\0\x10", IPv4Network("10.1.0.0/16"), Text("10.1.0.0/16"), Octets(b"\n\1\0\0\x10")),
    ],
)
def test_an_ipv4_key_may_be_of_any_kind(key: Any) -> None:
    assert TEN[key] == TEN.get(key) == "one"


@pytest.mark.parametrize(
    "key",
    [
        *("fd00:1::5", IPv6Address("fd00:1::5").packed, int(IPv6Address("fd00:1::5")), IPv6Address("fd00:1::5")),
        *(IPv6Interface("fd00:1::5/8"), "fd00:1::/32", IPv6Address("fd00:1::").packed + b"\x20", IPv6Network("fd00:1::/32")),
    ],
)
def test_an_ipv6_key_may_be_of_any_kind(key: Any) -> None:
    assert SIX[key] == SIX.get(key) == "one"


def test_a_prefix_is_exact_and_an_address_finds_the_longest() -> None:
    assert TEN["10.2.0.1"] == "ten"
    assert TEN.lookup("10.2.0.1") == (IPv4Network("10.0.0.0/8"), "ten")
    for key in ("10.2.0.0/16", "11.0.0.1"):
        assert TEN.get(key, "none") == "none"
        with pytest.raises(KeyError, match=key):
            TEN[key]
    assert TEN.lookup("11.0.0.1") is None


def test_membership_insertion_and_deletion_go_by_prefix() -> None:
    table = TEN.copy()
    assert "10.1.0.0/16" in table
    assert "10.1.0.0/17" not in table
    acts: list[Callable[[Any], object]] = [
        table.__contains__,
        table.__delitem__,
        table.pop,
        lambda key: table.setdefault(key, ""),
    ]
    acts.append(lambda key: table.__setitem__(key, ""))
    for act in acts:
        for address in ("10.1.2.3", b"\n\1\2\3", 0x0A010203, IPv4Address("10.1.2.3")):
            with pytest.raises(PrefixError, match=r"an address: as a prefix it is 10\.1\.2\.3/32"):
                act(address)
    assert table == TEN
    del table["10.1.0.0/16"]
    assert "10.1.0.0/16" not in table
    with pytest.raises(KeyError, match=r"10\.1\.0\.0/16"):
        del table["10.1.0.0/16"]


NO_PREFIXES = (
    *("", "/", "10", "10/8", "10.0.0/8", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/08", "010.0.0.0/8", "10.0.0.256/32"),
    *("10.0.0.0/8 ", " 10.0.0.0/8", "10.0.0.0\0/8", "10.0.0.0/255.0.0.0", "\uff110.0.0.0/8", "\ud800", b"123", b""),
)


@pytest.mark.parametrize(
    ("prefix", "why"),
    [
        ("10.0.0.1/8", "host bits are set: want 10.0.0.0/8, or a table with strict=False, which clears them"),
        (b"\n\0\0\1\x08", "host bits are set: want 10.0.0.0/8, or a table with strict=False, which clears them"),
        ("10.0.0.0/33", "the length is more than the 32 bits of an address"),
        ("10.0.0.0/256", "the length is more than the 32 bits of an address"),
        ("10.0.0.0", "an address: as a prefix it is 10.0.0.0/32"),
        ("fd00::/8", "IPv6, where IPv4 is wanted"),
        (IPv6Network("fd00::/8"), "IPv6, where IPv4 is wanted"),
        (bytes(17), "IPv6, where IPv4 is wanted"),
        *[(text, "neither an IPv4 prefix such as 10.1.0.0/16 nor an address") for text in NO_PREFIXES],
        (-1, "no number of an IPv4 address: want 0 to 2**32 - 1"),
        (2**32, "no number of an IPv4 address: want 0 to 2**32 - 1"),
        (2**4000, "no number of an IPv4 address: want 0 to 2**32 - 1"),
    ],
)
def test_what_is_no_prefix_of_the_family_is_refused_by_name(prefix: Any, why: str) -> None:
    table: PrefixTable[int] = PrefixTable(family=4)
    acts: list[Callable[[], None]] = [lambda: table.__setitem__(prefix, 1)]
    acts.append(lambda: table.update([("10.0.0.0/8", 1), (prefix, 1)]))
    for act in acts:
        with pytest.raises(PrefixError) as caught:
            act()
        assert (caught.value.value, caught.value.why) == (prefix, why)
        assert len(table) == 0


@pytest.mark.parametrize("address", ["fd00::1", b"123", "10.0.0.0/8", IPv6Address(1), -1, 1 << 32])
def test_what_is_no_address_of_the_family_is_refused_by_name(address: Any) -> None:
    with pytest.raises(PrefixError, match="not an IPv4 address") as caught:
        TEN.lookup(address)
    assert caught.value.value == address


@pytest.mark.parametrize("wrong", [None, 1.5, True, ("10.0.0.0", 8), [], object(), bytearray(4), memoryview(b"1234")])
def test_what_is_nothing_like_a_key_is_a_type_error(wrong: Any) -> None:
    for table in (TEN, SIX, PrefixTable[int]()):
        for act in (table.__getitem__, table.get, table.pop, table.covering, table.covered, table.overlaps, table.lookup):
            with pytest.raises(TypeError, match=type(wrong).__name__):
                act(wrong)


def test_a_prefix_of_the_other_family_is_in_no_table() -> None:
    assert "fd00::/8" not in TEN
    assert IPv4Network("10.0.0.0/8") not in SIX
    assert None not in TEN
    with pytest.raises(PrefixError, match="neither an IPv6 prefix"):
        _ = "fd00::/x" in TEN


def test_host_bits_are_cleared_where_that_is_said() -> None:
    table = PrefixTable({"10.1.2.3/16": 1}, strict=False)
    assert not table.strict
    assert list(table) == [IPv4Network("10.1.0.0/16")]
    assert table["10.1.255.255/16"] == 1
    for other in (table.copy(), pickle.loads(pickle.dumps(table)), table | {}, table.aggregate(), table & table):
        assert other["10.1.9.9/16"] == 1
        assert repr(other) == "PrefixTable({'10.1.0.0/16': 1}, strict=False)"


def test_a_table_takes_the_family_of_its_first_prefix() -> None:
    table: PrefixTable[int] = PrefixTable()
    assert (table.family, len(table), list(table), table.get("10.0.0.1")) == (None, 0, [], None)
    with pytest.raises(PrefixError):
        table["10.0.0.1/8"] = 1
    with pytest.raises(PrefixError):
        table.update({"10.0.0.0/8": 1, "fd00::/8": 2})
    assert table.family is None
    table["fd00::/8"] = 2
    assert str(table.family) == "6"
    table.clear()
    with pytest.raises(PrefixError, match="IPv4, where IPv6 is wanted"):
        table["10.0.0.0/8"] = 1
    with pytest.raises(PrefixError, match="IPv4, where IPv6 is wanted"):
        table.update(dict.fromkeys(TEN, 1))
    with pytest.raises(PrefixError, match="IPv4, where IPv6 is wanted"):
        table.update(PrefixTable({"10.0.0.0/8": 1}))
    with pytest.raises(ValueError, match="family 5: want 4 or 6"):
        PrefixTable[int](family=5)  # type: ignore[arg-type]  # the wrong value is what is tested


def test_an_open_table_checks_its_keys() -> None:
    table: PrefixTable[int] = PrefixTable()
    for key in ("10.0.0.1/8", "x", "fd00::/x", -1):
        for act in (table.get, table.pop, table.covering, table.overlaps):
            with pytest.raises(PrefixError):
                act(key)  # type: ignore[arg-type]  # some are never prefixes
    with pytest.raises(KeyError):
        table["10.0.0.0/8"]
    with pytest.raises(KeyError):
        table.popitem()
    with pytest.raises(ValueError, match="family="):
        table.lookup_many(b"1234")


def test_integers_of_any_size_come_out_as_they_went_in() -> None:
    values = [0, 1, 256, 257, 2**31, 2**32 - 2, 2**32 - 1, 2**32, -1, -(2**70)]
    table = PrefixTable((f"{number}.0.0.0/8", value) for number, value in enumerate(values))
    assert list(table.values()) == values
    assert [table[f"{number}.0.0.0"] for number in range(len(values))] == values
    assert [table.pop(prefix) for prefix in [*table]] == values
    assert [type(PrefixTable({"10.0.0.0/8": value})["10.0.0.0"]) for value in (True, 1, Number(1))] == [bool, int, Number]


def test_none_is_a_value_like_any_other() -> None:
    table = PrefixTable({"10.0.0.0/8": None})
    assert table["10.0.0.0/8"] is None
    assert table.pop("11.0.0.0/8", None) is None
    assert table.lookup("10.0.0.1") == (IPv4Network("10.0.0.0/8"), None)
    assert table.setdefault("10.0.0.0/8", None) is None
    assert table.pop("10.0.0.0/8", 5) is None
    assert table.lookup("10.0.0.1") is None


def test_it_is_a_mutable_mapping() -> None:
    table: PrefixTable[Any] = PrefixTable(TEN)
    assert isinstance(table, MutableMapping)
    match table:
        case {"10.1.0.0/16": value}:
            assert value == "one"
        case _:
            pytest.fail("a table matches as mappings do")
    for name in dir(MutableMapping):
        assert hasattr(table, name) or name.startswith("_")
    assert table.setdefault("11.0.0.0/8", "new") == "new" == table.setdefault("11.0.0.0/8", "newer")
    assert table.popitem() == (IPv4Network("10.0.0.0/8"), "ten")
    assert dict(table) == {IPv4Network("10.1.0.0/16"): "one", IPv4Network("11.0.0.0/8"): "new"}
    with pytest.raises(TypeError, match="unhashable"):
        hash(table)


def test_views_follow_the_table_and_iterations_do_not() -> None:
    table = TEN.copy()
    keys, values, items = table.keys(), table.values(), table.items()
    begun = [iter(keys), iter(values), iter(items), reversed(table)]
    table["11.0.0.0/8"] = "eleven"
    del table["10.1.0.0/16"]
    assert [len(list(iterator)) for iterator in begun] == [2, 2, 2, 2]
    ten, eleven = IPv4Network("10.0.0.0/8"), IPv4Network("11.0.0.0/8")
    assert list(keys) == [ten, eleven]
    assert keys & {ten, IPv4Network("12.0.0.0/8")} == {ten}
    assert list(values) == ["ten", "eleven"]
    assert list(reversed(cast("Any", items))) == [(eleven, "eleven"), (ten, "ten")]
    assert (ten, "ten") in items
    assert (ten, "eleven") not in items
    assert items.__contains__(("10.0.0.0/8", "ten"))
    assert "eleven" in values
    assert "ten " not in values
    assert len(keys) == len(values) == len(items) == 2


def test_an_iteration_knows_how_much_is_left() -> None:
    iterator = iter(TEN)
    next(iterator)
    assert iterator.__length_hint__() == 1  # type: ignore[attr-defined]  # not every iterator has it
    assert len(list(iterator)) == 1
    assert list(iterator) == []


def test_tables_compare_as_mappings_do() -> None:
    assert PrefixTable({"10.0.0.0/8": 1}) == PrefixTable({IPv4Network("10.0.0.0/8"): 1.0})
    assert PrefixTable({"10.0.0.0/8": 1}) == {IPv4Network("10.0.0.0/8"): 1}
    assert PrefixTable({"10.0.0.0/8": 1}) != {IPv4Network("10.0.0.0/8"): 2}
    assert PrefixTable({"10.0.0.0/8": 1}) != PrefixTable({"10.0.0.0/9": 1})
    assert PrefixTable(family=4) == PrefixTable(family=6) == {}
    assert PrefixTable(family=4) != 0
    assert TEN == TEN


def test_a_repr_shows_the_first_entries_and_makes_the_table_again() -> None:
    names = {"PrefixTable": PrefixTable}
    loose = PrefixTable({"10.0.0.9/8": 1}, strict=False)
    tables: list[PrefixTable[Any]] = [TEN, PrefixTable(), PrefixTable(family=6), loose]
    for shown in tables:
        assert eval(repr(shown), names) == shown  # noqa: S307
    many = PrefixTable((f"10.{number}.0.0/16", number) for number in range(100))
    assert repr(many).endswith("'10.7.0.0/16': 7, ... 92 more})")
    table: PrefixTable[Any] = PrefixTable(family=4)
    table["10.0.0.0/8"] = table
    with pytest.raises(RecursionError):
        repr(table)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_holds_the_whole_table(protocol: int) -> None:
    for table in (TEN, SIX, PrefixTable[int](), PrefixTable(family=6)):
        again = pickle.loads(pickle.dumps(table, protocol))
        assert again == table
        assert (again.family, again.strict) == (table.family, table.strict)


def test_a_pickle_is_read_by_another_process() -> None:
    program = "import pickle, sys; print(pickle.load(sys.stdin.buffer)['10.1.2.3'])"
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, input=pickle.dumps(TEN), check=True, capture_output=True, timeout=60)
    assert found.stdout == b"one\n"


def test_a_table_may_hold_itself() -> None:
    table: PrefixTable[Any] = PrefixTable(family=4)
    table["10.0.0.0/8"] = table
    for other in (pickle.loads(pickle.dumps(table)), copy.deepcopy(table)):
        assert other["10.0.0.1"] is other
    assert copy.copy(table)["10.0.0.1"] is table


def test_a_deep_copy_copies_the_values() -> None:
    table = PrefixTable({"10.0.0.0/8": [1]})
    deep, shallow = copy.deepcopy(table), copy.copy(table)
    table["10.0.0.0/8"].append(2)
    assert (deep["10.0.0.0/8"], shallow["10.0.0.0/8"]) == ([1], [1, 2])


def test_tables_are_joined_as_dicts_are() -> None:
    other = {"10.1.0.0/16": "two", "12.0.0.0/8": "twelve"}
    assert list((TEN | other).values()) == ["ten", "two", "twelve"]
    assert list((other | TEN).values()) == ["ten", "one", "twelve"]
    table = same = TEN.copy()
    table |= other
    assert table is same
    assert table == TEN | other
    assert list(table & PrefixTable({"10.1.0.0/16": 0})) == [IPv4Network("10.1.0.0/16")]
    assert list(table - TEN) == [IPv4Network("12.0.0.0/8")]
    assert TEN - SIX == TEN
    assert TEN & SIX == {}
    for wrong in (5, [("10.0.0.0/8", 1)], None):
        with pytest.raises(TypeError):
            TEN | wrong  # type: ignore[operator]  # the wrong type is what is tested
        with pytest.raises(TypeError):
            TEN & wrong  # type: ignore[operator]  # as above
    with pytest.raises(PrefixError):
        TEN | SIX
    for no_mapping in (object(), 5, [("10.0.0.0/8", 1)]):
        with pytest.raises(TypeError, match=r"unsupported operand type\(s\) for \|="):
            table |= no_mapping  # type: ignore[arg-type]  # the wrong type is what is tested
    assert table == TEN | other


def test_halves_become_one_and_what_says_nothing_goes() -> None:
    table = PrefixTable(
        {"10.0.0.0/9": 1, "10.128.0.0/10": 1, "10.192.0.0/10": 1, "10.5.0.0/16": 1, "10.6.0.0/16": 2, "10.6.1.0/24": 1}
    )
    expected = {"10.0.0.0/8": 1, "10.6.0.0/16": 2, "10.6.1.0/24": 1}
    assert table.aggregate() == PrefixTable(expected)
    assert PrefixTable({"0.0.0.0/0": 0, "0.0.0.0/1": 1, "128.0.0.0/1": 1}).aggregate() == PrefixTable({"0.0.0.0/0": 1})

    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ArithmeticError

        __hash__ = None  # type: ignore[assignment]  # it is never hashed

    with pytest.raises(ArithmeticError):
        PrefixTable({"10.0.0.0/9": Odd(), "10.128.0.0/9": Odd()}).aggregate()


class Mapped(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        return {"10.0.0.0/8": 8}[key]

    def __iter__(self) -> Any:
        return iter(["10.0.0.0/8"])

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    "entries",
    [{"10.0.0.0/8": 8}, Mapped(), [("10.0.0.0/8", 8)], [["10.0.0.0/8", 8]], iter([("10.0.0.0/8", 8)])],
    ids=["dict", "mapping", "tuples", "lists", "iterator"],
)
def test_a_table_is_made_of_any_entries(entries: Any) -> None:
    assert PrefixTable(entries) == {IPv4Network("10.0.0.0/8"): 8}


@pytest.mark.parametrize("entries", [5, ["10.0.0.0/8"], [("10.0.0.0/8",)], [1], "10.0.0.0/8"])
def test_what_is_no_entries_is_a_type_error(entries: Any) -> None:
    with pytest.raises(TypeError):
        PrefixTable(entries)


def rows(*prefixes: str) -> bytes:
    networks = map(IPv4Network, prefixes)
    return b"".join(network.network_address.packed + bytes([network.prefixlen]) for network in networks)


def test_columns_are_loaded_in_any_form() -> None:
    prefixes = ["10.1.0.0/16", "10.0.0.0/8", "10.1.0.0/16"]
    expected = {IPv4Network("10.0.0.0/8"): 1, IPv4Network("10.1.0.0/16"): 2}
    packed = rows(*prefixes)
    forms: list[Any] = [prefixes, tuple(prefixes), iter(prefixes), packed, bytearray(packed), memoryview(packed)]
    for form in forms:
        for values in ([0, 1, 2], range(3), array("H", [0, 1, 2]), b"\0\1\2", iter((0, 1, 2))):
            table: PrefixTable[int] = PrefixTable(family=4)
            table.load(form, values)
            if form is forms[2]:
                assert dict(table) == expected
                break
            assert dict(table) == expected
            assert list(map(type, table.values())) == [int, int]


@pytest.mark.parametrize(
    "values",
    [
        range(3),
        range(-1, 2),
        range(2**32 + 1, 2**32 - 4, -2),
        array("B", [0, 1, 255]),
        array("H", [0, 1, 65535]),
        array("I", [0, 2**32 - 2, 2**32 - 1]),
        array("Q", [0, 2**32 - 1, 2**64 - 1]),
        array("q", [0, -1, 2**63 - 1]),
        array("d", [0.0, 0.5, 1e300]),
        memoryview(array("I", [0, 9, 1, 9, 2]))[::2],
        [None, 2**32 - 1, 2],
        ("a", -1, True),
    ],
)
def test_values_of_any_kind_come_out_as_they_went_in(values: Any) -> None:
    prefixes = ["10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8"]
    for form in (prefixes, rows(*prefixes)):
        table: PrefixTable[Any] = PrefixTable(family=4)
        table.load(form, values)
        assert [(type(value), value) for value in table.values()] == [(type(value), value) for value in values]
        del table["11.0.0.0/8"]
        table["13.0.0.0/8"] = "new"
        assert list(table.values()) == [values[0], values[2], "new"]


@pytest.mark.parametrize("prefixes", [["10.0.0.0/8", "11.0.0.0/8"], rows("10.0.0.0/8", "11.0.0.0/8")])
@pytest.mark.parametrize("values", [[], [1], [1, 2, 3], range(10)])
def test_each_prefix_has_a_value(prefixes: Any, values: Any) -> None:
    table: PrefixTable[int] = PrefixTable(family=4)
    with pytest.raises(ValueError, match=f"2 prefixes and {len(values)} values"):
        table.load(prefixes, values)
    assert len(table) == 0


def test_what_cannot_be_loaded_is_refused_as_a_whole() -> None:
    table = PrefixTable({"9.0.0.0/8": 0})
    with pytest.raises(PrefixError, match="host bits"):
        table.load(rows("10.0.0.0/8") + b"\n\0\0\1\x08", [1, 2])
    with pytest.raises(ValueError, match="packed prefixes: 6 bytes: want 5 for each: an IPv4 address and a byte"):
        table.load(bytes(6), [1])
    with pytest.raises(ValueError, match="family="):
        PrefixTable[int]().load(bytes(5), [1])
    with pytest.raises(TypeError, match="not one str"):
        table.load("10.0.0.0/8", [1])
    with pytest.raises(TypeError):
        table.load(5, [1])  # type: ignore[arg-type]  # the wrong type is what is tested
    assert list(table) == [IPv4Network("9.0.0.0/8")]


NUMBERS = PrefixTable({"10.0.0.0/8": 7, "10.1.0.0/16": 2**32 - 2})
ADDRESSES = b"\n\1\2\3" + b"\n\2\0\0" + b"\x0b\0\0\0"
EXPECTED = [2**32 - 2, 7, -1]


@pytest.mark.parametrize(
    "buffer",
    [
        ADDRESSES,
        bytearray(ADDRESSES),
        memoryview(ADDRESSES),
        memoryview(b"x" + ADDRESSES + b"yz")[1:-2],
        memoryview(bytes(a for pair in zip(ADDRESSES, ADDRESSES, strict=True) for a in pair))[::2],
        memoryview(ADDRESSES).cast("B", (3, 4)),
        array("I", [0x0A010203, 0x0A020000, 0x0B000000]),
        memoryview(array("I", [0x0A010203, 0, 0x0A020000, 0, 0x0B000000, 0]))[::2],
    ],
)
def test_a_batch_is_looked_up_in_any_buffer(buffer: Any) -> None:
    found = NUMBERS.lookup_many(buffer)
    assert (found.format, found.readonly, found.tolist()) == ("q", True, EXPECTED)
    slots = NUMBERS.lookup_slots(buffer)
    assert slots.format == "I"
    assert [NUMBERS.entry(slot)[1] for slot in slots.tolist()[:2]] == EXPECTED[:2]
    assert slots[2] == NONE


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, 5000])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_batch_of_any_length_says_what_single_lookups_say(count: int, kind: Callable[[bytes], Any]) -> None:
    addresses = [(number * 2654435761) % 2**32 for number in range(count)]
    table = PrefixTable((f"{number}.0.0.0/8", number) for number in range(0, 256, 3))
    packed = b"".join(address.to_bytes(4, "big") for address in addresses)
    expected = [table.get(address, -5) for address in addresses]
    assert table.lookup_many(kind(packed), missing=-5).tolist() == expected
    wide = table.lookup_many(kind(b"".join(address.to_bytes(4, "big") + b"abc" for address in addresses)), stride=7, missing=-5)
    assert wide.tolist() == expected


def test_columns_of_packets_are_looked_up_as_they_are() -> None:
    frames = [encode(Ipv4("10.0.0.1", destination), Udp(1, 2)) for destination in ("10.1.2.3", "10.2.0.0", "11.0.0.0")]
    assert NUMBERS.lookup_many(decode_many(frames, "ip")["destination"], stride=16).tolist() == EXPECTED
    frames = [encode(Ipv6("::1", destination), Udp(1, 2)) for destination in ("fd00::1", "fe00::")]
    assert PrefixTable({"fd00::/8": 3}).lookup_many(decode_many(frames, "ip")["destination"]).tolist() == [3, -1]


@pytest.mark.parametrize(
    ("buffer", "stride", "why"),
    [
        (b"123", None, "3 bytes in slots of 4"),
        (b"1234", 3, "in slots of 3"),
        (b"12345678", 5, "8 bytes in slots of 5"),
        (b"", 0, "0"),
    ],
)
def test_a_batch_is_a_whole_number_of_addresses(buffer: bytes, stride: int | None, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        NUMBERS.lookup_many(buffer, stride=stride)


@pytest.mark.parametrize(
    "buffer", [array("i", [1]), array("H", [1, 2]), array("f", [1]), array("Q", [1]), "10.0.0.1", [1], None, 5]
)
def test_what_is_no_buffer_of_addresses_is_a_type_error(buffer: Any) -> None:
    with pytest.raises(TypeError):
        NUMBERS.lookup_many(buffer)


@pytest.mark.parametrize("value", ["text", -1, 2**32 - 1, 2**70, 1.0, True, None])
def test_a_batch_of_values_wants_numbers(value: object) -> None:
    table = PrefixTable({"10.0.0.0/8": value, "11.0.0.0/8": 5})
    assert table.lookup_many(b"\x0b\0\0\0" * 5000).tolist() == [5] * 5000
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/8: .*lookup_slots takes any"):
        table.lookup_many(b"\x0b\0\0\0" * 5000 + b"\n\0\0\0")
    assert table.entry(table.lookup_slots(b"\n\0\0\0")[0])[1] == value


def test_a_slot_stays_until_its_prefix_goes() -> None:
    table: PrefixTable[Any] = PrefixTable({"10.0.0.0/8": "a"})
    (slot,) = table.lookup_slots(b"\n\0\0\0")
    table.load([f"11.{number}.0.0/16" for number in range(256)], range(256))
    table["10.0.0.0/8"] = "b"
    assert table.entry(slot) == (IPv4Network("10.0.0.0/8"), "b")
    del table["10.0.0.0/8"]
    for wrong in (slot, 1 << 20, NONE):
        with pytest.raises(IndexError, match=f"slot {wrong}"):
            table.entry(wrong)
    with pytest.raises(OverflowError):
        table.entry(-1)


def test_what_left_the_table_runs_code_that_may_use_it() -> None:
    """A value that is replaced or removed is let go of when the table can be used again."""
    table: PrefixTable[Any] = PrefixTable(family=4)
    seen = []

    class Value:
        def __del__(self) -> None:
            seen.append(len(table))
            table["12.0.0.0/8"] = 0

    for leave in (
        lambda: table.__setitem__("10.0.0.0/8", 0),
        lambda: table.__delitem__("10.0.0.0/8"),
        lambda: table.load(["10.0.0.0/8"], [1]),
        lambda: table.load(["10.0.0.0/8", "10.0.0.0/8"], [Value(), 1]),
        lambda: table.update({"10.0.0.0/8": 1}),
        table.clear,
        table.popitem,
    ):
        table["10.0.0.0/8"] = Value()
        before = len(seen)
        leave()
        assert len(seen) > before
        table.clear()

"""One table and many threads: each call finds the table as it was before a change or after it, and values are let go of."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from overlaynet import PrefixTable

ROUNDS = 300


def at_once(*works: Callable[[], object]) -> None:
    """Runs all of them, begun together; an error of one is the caller's."""
    start = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> object:
        start.wait(60)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        for future in [pool.submit(run, work) for work in works]:
            future.result(60)


def test_threads_change_their_own_parts_of_one_table() -> None:
    table: PrefixTable[int] = PrefixTable({"0.0.0.0/0": -1})

    def work(thread: int) -> None:
        for number in range(256):
            prefix = f"10.{thread}.{number}.0/24"
            table[prefix] = number
            assert table[f"10.{thread}.{number}.9"] == number
            assert table["11.0.0.1"] == -1
            if number % 2:
                assert table.pop(prefix) == number

    at_once(*(partial(work, thread) for thread in range(4)))
    assert len(table) == 4 * 128 + 1


def test_a_reader_sees_the_old_value_or_the_new_one() -> None:
    """A writer exchanges a prefix's value and splits it; batches, single lookups and iterations find nothing else."""
    table: PrefixTable[int] = PrefixTable({"10.0.0.0/8": 1})
    addresses = b"\n\1\2\3" * 10_000
    done = threading.Event()

    def write() -> None:
        for number in range(ROUNDS):
            table["10.0.0.0/8"] = 1 + number % 2
            table["10.1.0.0/16"] = 3
            table.load(["10.1.2.0/24", "10.1.2.3/32"], [4, 5])
            del table["10.1.2.3/32"], table["10.1.2.0/24"], table["10.1.0.0/16"]
        done.set()

    def read() -> None:
        while not done.is_set():
            assert set(table.lookup_many(addresses)) <= {1, 2, 3, 4, 5}
            assert table["10.1.2.3"] in (1, 2, 3, 4, 5)
            assert 1 <= len(list(table.items())) <= 4
            assert set(table.copy().values()) <= {1, 2, 3, 4, 5}
            found = table.lookup("10.1.2.3")
            assert found is not None

    at_once(write, read, read)
    assert dict(table.items()) == {next(iter(table)): 2}


def test_a_buffer_may_be_written_while_it_is_read() -> None:
    """What is found belongs to one of the addresses that were there, as far as they differ in one byte."""
    table = PrefixTable({"10.0.0.0/8": 1, "11.0.0.0/8": 2})
    addresses = bytearray(b"\n\0\0\0" * 50_000)
    done = threading.Event()

    def write() -> None:
        for number in range(ROUNDS):
            addresses[number % 50_000 * 4 :: 4] = bytes([10 + number % 2]) * (50_000 - number % 50_000)
        done.set()

    def read() -> None:
        while not done.is_set():
            assert set(table.lookup_many(addresses)) <= {1, 2}

    at_once(write, read)


def test_a_buffer_keeps_its_size_while_it_is_read() -> None:
    table = PrefixTable({"0.0.0.0/0": 1})
    addresses = bytearray(4 * 200_000)
    done = threading.Event()

    def resize() -> None:
        while not done.is_set():
            try:
                addresses.extend(bytes(4))
            except BufferError:
                continue

    def read() -> None:
        try:
            for _ in range(ROUNDS // 10):
                assert len(table.lookup_many(addresses)) >= 200_000
        finally:
            done.set()

    at_once(resize, read)


def test_one_thread_decides_the_family() -> None:
    for _ in range(ROUNDS):
        table: PrefixTable[int] = PrefixTable()
        refused: list[ValueError] = []

        def insert(prefix: str, table: PrefixTable[int] = table, refused: list[ValueError] = refused) -> None:
            try:
                table[prefix] = 1
            except ValueError as error:
                refused.append(error)

        at_once(partial(insert, "10.0.0.0/8"), partial(insert, "fd00::/8"))
        assert (len(table), len(refused)) == (1, 1)


def test_setdefault_sets_once() -> None:
    for _ in range(ROUNDS):
        table: PrefixTable[object] = PrefixTable()
        found: list[object] = []

        def work(table: PrefixTable[object] = table, found: list[object] = found) -> None:
            found.append(table.setdefault("10.0.0.0/8", object()))

        at_once(work, work)
        assert found[0] is found[1] is table["10.0.0.0/8"]


def test_a_table_holds_its_values_and_lets_them_go() -> None:
    class Value:
        pass

    table: PrefixTable[Value] = PrefixTable()
    value = Value()
    alive = weakref.ref(value)
    table["::/0"] = value
    iterator = iter(table.values())
    del value
    gc.collect()
    assert alive() is not None
    table.clear()
    assert alive() is not None
    del iterator
    assert alive() is None


def test_a_cycle_through_a_table_is_collected() -> None:
    class Value:
        holds: Any = None

    holds: list[Callable[[PrefixTable[Any]], object]] = [
        lambda table: table,
        lambda table: iter(table.items()),
        lambda table: table.values(),
    ]
    for hold in holds:
        value = Value()
        table: PrefixTable[Any] = PrefixTable({"10.0.0.0/8": value})
        value.holds = hold(table)
        alive = weakref.ref(value)
        del value, table
        gc.collect()
        assert alive() is None

"""The binding works from many threads at once, lets others run meanwhile, and keeps no object alive."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address

from overlaynet import _core
from overlaynet.packet import Ipv4, Udp, decode_many, encode


def test_a_table_serves_many_threads() -> None:
    table: _core.PrefixTable[int] = _core.PrefixTable(4)
    table.insert("0.0.0.0/0", -1)
    start = threading.Barrier(4)

    def work(thread: int) -> None:
        start.wait()
        for number in range(256):
            prefix = f"10.{thread}.{number}.0/24"
            assert table.insert(prefix, number) is None
            assert table.lookup(f"10.{thread}.{number}.9") == (prefix, number)
            assert table.lookup("11.0.0.1") == ("0.0.0.0/0", -1)
            if number % 2:
                assert table.remove(prefix) == number

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(table) == 4 * 128 + 1


def test_a_batch_lets_another_thread_run() -> None:
    frame = encode(Ipv4(IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")), Udp(1, 2), payload=bytes(1400))
    frames = bytes(frame) * 20_000
    steps, stop, interval = 0, threading.Event(), sys.getswitchinterval()

    def step() -> None:
        nonlocal steps
        while not stop.is_set():
            steps += 1
            time.sleep(0)

    def seen() -> int:
        return steps

    other = threading.Thread(target=step)
    other.start()
    # With so long an interval no thread is made to give way: the other one moves only if the call detaches.
    sys.setswitchinterval(1000)
    try:
        deadline = time.monotonic() + 30
        moved = False
        while not moved and time.monotonic() < deadline:
            before = seen()
            decode_many(frames, "ip", stride=len(frame))
            moved = seen() > before
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        other.join()
    assert moved


def test_a_table_holds_its_values_and_lets_them_go() -> None:
    class Value:
        pass

    table: _core.PrefixTable[Value] = _core.PrefixTable(6)
    value = Value()
    alive = weakref.ref(value)
    table.insert("::/0", value)
    del value
    assert alive() is not None
    table.clear()
    assert alive() is None


def test_a_cycle_through_a_table_is_collected() -> None:
    class Value:
        table: _core.PrefixTable[Value] | None = None

    value = Value()
    value.table = _core.PrefixTable(4)
    value.table.insert("10.0.0.0/8", value)
    alive = weakref.ref(value)
    del value
    gc.collect()
    assert alive() is None

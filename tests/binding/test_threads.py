"""What takes long lets other threads run meanwhile."""

from __future__ import annotations

import sys
import threading
import time
from ipaddress import IPv4Address

from overlaynet.packet import Ipv4, Udp, decode_many, encode


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

"""Instructions of one operation, as callgrind counts them: what a run with many of them takes more than one with as many of
nothing.

`python -m benches.python.counted NAME TIMES` does one of them so often.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv4Address

from overlaynet import PrefixTable, decode, decode_many
from overlaynet.lab.figures import Figure
from overlaynet.packet import Ethernet, Ipv4, Tunnel, Udp, Vxlan

TIMES = 10_000
NOTHING = "nothing"


def operations() -> dict[str, tuple[Callable[[], object], int]]:
    """Each by name, and how many it does in one call."""
    near, far = "02:00:00:00:00:01", "02:00:00:00:00:02"
    inner = Ipv4("10.1.1.2", "10.1.2.3", 253)
    outer = (Ipv4("172.16.0.1", "172.16.0.2"), Udp(4000, 8472, checksum=False), Vxlan(7))
    tunnel = Tunnel(*outer, Ethernet(far, near), inner)
    payload = bytes(range(86))
    frame, frames, payloads = tunnel.wrap(payload), tunnel.wrap(payload) * 1024, payload * 1024
    packet = decode(frame, "ip")
    table = PrefixTable((f"10.{64 + number // 256}.{number % 256}.0/24", number) for number in range(1_000))
    address = IPv4Address("10.66.3.9")
    text, packed, integer = str(address), address.packed, int(address)
    many = packed * 4096
    return {
        NOTHING: (lambda: None, 1),
        "table of 1,000: one lookup from Python, str": (lambda: table[text], 1),
        "table of 1,000: one lookup from Python, bytes": (lambda: table[packed], 1),
        "table of 1,000: one lookup from Python, int": (lambda: table[integer], 1),
        "table of 1,000: one lookup from Python, IPv4Address": (lambda: table[address], 1),
        "table of 1,000: batch lookup from Python, values": (lambda: table.lookup_many(many), 4096),
        "decode, object": (lambda: decode(frame, "ip"), 1),
        "decode, one field": (lambda: packet.vni, 1),
        "batch decode, a frame": (lambda: decode_many(frames, "ip", stride=len(frame)), 1024),
        "encode with payload": (lambda: tunnel.wrap(payload), 1),
        "batch encode, a frame": (lambda: tunnel.wrap_many(payloads, stride=len(payload)), 1024),
    }


def figures() -> list[Figure]:
    """Instructions of each; none without valgrind."""
    if shutil.which("valgrind") is None:
        return []
    numbers = {name: number for name, (_, number) in operations().items() if name != NOTHING}
    nothing = count(NOTHING, TIMES) / TIMES, count(NOTHING, 0)
    each = nothing[0] - nothing[1] / TIMES
    found = []
    for name, number in numbers.items():
        times = max(TIMES // number, 20)
        more = count(name, times) - nothing[1] - times * each
        found.append(Figure(f"{name}: instructions", more / (times * number), "instructions"))
    return found


def count(name: str, times: int) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, "-W", "ignore"]
    command += ["-m", "benches.python.counted", name, str(times)]
    # With random hashes two starts of Python differ by more than what is counted.
    said = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "0"})
    found = re.search(r"Collected : (\d+)", said.stderr)
    if found is None:
        raise RuntimeError(f"callgrind counted nothing: {said.stderr[-500:]}")
    return int(found[1])


if __name__ == "__main__":
    operation = operations()[sys.argv[1]][0]
    for _ in range(int(sys.argv[2])):
        operation()

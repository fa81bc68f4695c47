"""Instructions of one operation, as callgrind counts them, its call from C included.

`python -m benches.python.counted NAME TIMES` does one of them so often, inside of a deque's constructor, and only what happens in
there is counted. A Python without symbols gives no counts.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address
from itertools import repeat, starmap
from operator import attrgetter, getitem
from typing import Any

from overlaynet import PrefixTable, decode, decode_many
from overlaynet.lab.figures import Figure
from overlaynet.packet import Ethernet, Ipv4, Tunnel, Udp, Vxlan

TIMES = 2000


def operations() -> dict[str, tuple[Callable[..., object], tuple[Any, ...], int]]:
    """Each by name, with its arguments, and how many it does in one call."""
    inner = Ethernet("02:00:00:00:00:02", "02:00:00:00:00:01"), Ipv4("10.1.1.2", "10.1.2.3", 253)
    tunnel = Tunnel(Ipv4("172.16.0.1", "172.16.0.2"), Udp(4000, 8472, checksum=False), Vxlan(7), *inner)
    payload = bytes(range(86))
    frame = tunnel.wrap(payload)
    decode_all = partial(decode_many, stride=len(frame))
    wrap_all = partial(tunnel.wrap_many, stride=len(payload))
    table = PrefixTable((f"10.{64 + number // 256}.{number % 256}.0/24", number) for number in range(1000))
    address = IPv4Address("10.66.3.9")
    return {
        "one lookup, str": (getitem, (table, str(address)), 1),
        "one lookup, bytes": (getitem, (table, address.packed), 1),
        "one lookup, int": (getitem, (table, int(address)), 1),
        "one lookup, IPv4Address": (getitem, (table, address), 1),
        "batch lookup, values, an address": (table.lookup_many, (address.packed * 4096,), 4096),
        "decode, object": (decode, (frame, "ip"), 1),
        "decode, one field": (attrgetter("vni"), (decode(frame, "ip"),), 1),
        "batch decode, every check, a frame": (decode_all, (frame * 1024, "ip"), 1024),
        "encode with payload": (tunnel.wrap, (payload,), 1),
        "batch encode, a frame": (wrap_all, (payload * 1024,), 1024),
    }


def figures() -> list[Figure]:
    """Instructions of each."""
    if shutil.which("valgrind") is None:
        return []
    found = []
    for name, (_, _, number) in operations().items():
        times = max(TIMES // number, 10)
        counted = count(name, times)
        if counted:
            found.append(Figure(f"instructions: {name}", counted / (times * number), "instructions"))
    return found


def count(name: str, times: int) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=deque_init", sys.executable]
    command += ["-W", "ignore", "-m", "benches.python.counted", name, str(times)]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", said.stderr)
    return int(found[1]) if found else 0


def main(name: str, times: int) -> None:
    function, arguments, _ = operations()[name]
    calls = starmap(function, repeat(arguments, times))
    deque(calls, maxlen=0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

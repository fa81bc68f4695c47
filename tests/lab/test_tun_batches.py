"""Packets in batches out of and into a real TUN device, in a namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from overlaynet.lab.system import delete_namespaces, enter

PROGRAM = """
import select, socket, sys, time
from overlaynet import Tun, decode, decode_many, encode
from overlaynet.errors import DataplaneError
from overlaynet.packet import Ipv4, Udp

def error(call):
    try:
        call()
    except (DataplaneError, ValueError) as error:
        return str(error)
    raise AssertionError("no error")

def ours(room, lengths):
    "The UDP packets among those that were read: the kernel sends router solicitations of its own."
    found, start = [], 0
    for length in lengths:
        packet = decode(room[start : start + length], "ip", strict=False)
        start += length
        if packet.innermost(Udp) is not None:
            found.append(packet)
    return found

def awake(tun):
    "A device gets its queue a moment after its carrier; what is sent before is lost."
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        deadline = time.monotonic() + 10
        while not ours(room, tun.read_many(room)):
            assert time.monotonic() < deadline, "nothing arrives"
            sender.sendto(b"?", ("10.9.1.2", 1))
            time.sleep(0.01)
        while tun.read_many(room):
            pass

room = bytearray(1 << 20)
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"ovt-tun{os.getpid()}"
    try:
        for words in (f"netns add {name}", f"-n {name} tuntap add tun0 mode tun", f"-n {name} link set tun0 mtu 1400 up"):
            subprocess.run(["ip", *words.split()], check=True)
        subprocess.run(["ip", "-n", name, "address", "add", "10.9.1.1/24", "dev", "tun0"], check=True)
        yield name
    finally:
        delete_namespaces([name])


def run(namespace: str, program: str) -> None:
    command = enter(namespace, sys.executable, "-c", PROGRAM + program)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_packets_that_wait_are_read_in_one_call(namespace: str) -> None:
    run(
        namespace,
        """
with Tun("tun0") as tun, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    assert tun.name == "tun0"
    awake(tun)
    for number in range(100):
        sender.sendto(bytes([number]) * number, ("10.9.1.2", 7))
    assert select.select([tun], [], [], 10)[0]
    lengths = tun.read_many(room)
    found = ours(room, lengths)
    assert [len(packet.payload) for packet in found] == list(range(100))
    assert {packet.checksums for packet in found} == {("right", "right")}
    columns = decode_many(room[: sum(lengths)], "ip", lengths=lengths)
    assert columns["destination_port"].tolist().count(7) == 100
    assert len(tun.read_many(room)) == 0
""",
    )


def test_nothing_is_cut_when_the_buffer_is_full(namespace: str) -> None:
    run(
        namespace,
        """
with Tun("tun0") as tun, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    awake(tun)
    for _ in range(10):
        sender.sendto(bytes(1000), ("10.9.1.2", 7))
    small, found = bytearray(65536 + 2048), []
    while lengths := tun.read_many(small):
        assert len(lengths) <= 3
        found += ours(small, lengths)
    assert [len(packet.payload) for packet in found] == [1000] * 10
""",
    )


def test_packets_are_handed_to_the_kernel_in_both_forms(namespace: str) -> None:
    run(
        namespace,
        """
with Tun("tun0") as tun, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
    receiver.bind(("10.9.1.1", 7))
    receiver.settimeout(10)
    packets = [encode(Ipv4("10.9.1.2", "10.9.1.1"), Udp(9, 7), payload=b"%d" % n * n) for n in range(1, 9)]
    tun.write_many(packets)
    tun.write_many(b"".join(packets), [len(packet) for packet in packets])
    received = [receiver.recv(100) for _ in range(16)]
    assert received == [b"%d" % n * n for n in range(1, 9)] * 2
""",
    )


def test_what_cannot_be_done_is_said_with_its_reason(namespace: str) -> None:
    run(
        namespace,
        """
assert error(lambda: Tun("no-such")) == "packet engine: open: TUN device no-such: No such device (os error 19)"
assert "Invalid argument" in error(lambda: Tun("lo"))
tun = Tun("tun0")
assert "busy" in error(lambda: Tun("tun0"))
assert error(lambda: tun.read_many(bytearray(65535))) == "buffer: 65535 bytes: want 65536 at least"
assert error(lambda: tun.read_many(bytes(1 << 20))) == "buffer: want a writable, contiguous one"
assert error(lambda: tun.read_many(memoryview(room)[::2])) == "buffer: want a writable, contiguous one"
assert error(lambda: tun.write_many(b"abc", [4])) == "lengths: 4 bytes in all: the buffer has 3"
good = encode(Ipv4("10.9.1.2", "10.9.1.1"), Udp(9, 7))
said = error(lambda: tun.write_many([good, b"\\x01 no packet"]))
assert said.startswith("packet engine: write: TUN device tun0: packet 1: Invalid argument"), said
tun.close()
tun.close()
assert error(tun.fileno) == "packet engine: fileno: TUN device tun0: it was closed"
assert error(lambda: tun.read_many(room)) == "packet engine: read: TUN device tun0: it was closed"
assert error(lambda: tun.write_many([good])) == "packet engine: write: TUN device tun0: packet 0: it was closed"
""",
    )

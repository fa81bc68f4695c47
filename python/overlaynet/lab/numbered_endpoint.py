"""One end of a flow of numbered datagrams, inside a pod: `python -m overlaynet.lab.numbered_endpoint ADDRESS PEER PORT RATE`.

Both ends send and both listen. An end prints `bound`, and on its standard input hears `go`, `stop` (it sends no more, listens on
and prints `stopped`) and `report`, to which it answers with one line of JSON and ends. It ends as well when the input does. Its
clock decides how many datagrams are due, so a late turn is made up for and the rate holds on a busy machine.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass, field

BOUND = "bound"
STOPPED = "stopped"
PAYLOAD = struct.Struct("!QQ")
"""A datagram: its number, from 0, and its sender's CLOCK_MONOTONIC in nanoseconds (one machine has one such clock)."""

_BUFFER_BYTES = 8 << 20
_LONGEST_BURST = 200
_SO_RCVBUFFORCE = 33


@dataclass(slots=True)
class Tally:
    """What one end has received. `longest_silence_ns` counts between arrivals, from the first to the last."""

    numbers: set[int] = field(default_factory=set)
    repeated: int = 0
    reordered: int = 0
    longest_silence_ns: int = 0
    longest_delay_ns: int = 0
    _highest: int = -1
    _arrived_at: int | None = None

    def note(self, datagram: bytes, now: int) -> None:
        """Take one datagram in."""
        number, sent_at = PAYLOAD.unpack(datagram)
        if self._arrived_at is not None:
            self.longest_silence_ns = max(self.longest_silence_ns, now - self._arrived_at)
        self._arrived_at = now
        self.longest_delay_ns = max(self.longest_delay_ns, now - sent_at)
        if number in self.numbers:
            self.repeated += 1
        elif number < self._highest:
            self.reordered += 1
        self.numbers.add(number)
        self._highest = max(self._highest, number)


class Endpoint:
    """A connected UDP socket, and the numbers that it has sent and received."""

    def __init__(self, address: str, peer: str, port: int, per_second: int) -> None:
        self._socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.bind((address, port))
        self._socket.connect((peer, port))
        self._socket.settimeout(0.0)
        self._period_ns = 1_000_000_000 // per_second
        self._next_at: int | None = None
        self._sent = 0
        self._refused = 0
        self._tally = Tally()

    def run(self) -> None:
        """Serve the commands on standard input until `report` or its end."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(0, select.POLLIN)
        _say(BOUND)
        while True:
            wait_ms = 1_000.0 if self._next_at is None else max(0.0, (self._next_at - time.monotonic_ns()) / 1e6)
            for descriptor, _ in poll.poll(wait_ms):
                if descriptor != 0:
                    self._receive()
                elif not self._command(os.read(0, 64)):
                    return
            self._send_due()

    def _command(self, text: bytes) -> bool:
        match text:
            case b"go\n":
                self._next_at = time.monotonic_ns()
            case b"stop\n":
                self._next_at = None
                _say(STOPPED)
            case b"report\n":
                self._receive()
                _say(json.dumps(self._report()))
                return False
            case _:
                return False
        return True

    def _report(self) -> dict[str, int]:
        tally = self._tally
        return {
            "sent": self._sent,
            "refused": self._refused,
            "received": len(tally.numbers),
            "repeated": tally.repeated,
            "reordered": tally.reordered,
            "longest_silence_ns": tally.longest_silence_ns,
            "longest_delay_ns": tally.longest_delay_ns,
        }

    def _send_due(self) -> None:
        for _ in range(_LONGEST_BURST):
            now = time.monotonic_ns()
            if self._next_at is None or now < self._next_at:
                return
            try:
                self._socket.send(PAYLOAD.pack(self._sent, now))
            except OSError:
                # An ICMP error of an earlier datagram, or a host without a way: this one counts as sent, and is not received.
                self._refused += 1
            self._sent += 1
            self._next_at += self._period_ns

    def _receive(self) -> None:
        while True:
            try:
                datagram = self._socket.recv(64)
            except BlockingIOError:
                return
            except OSError:
                continue
            if len(datagram) == PAYLOAD.size:
                self._tally.note(datagram, time.monotonic_ns())


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    own, other, port_text, rate_text = sys.argv[1:]
    Endpoint(own, other, int(port_text), int(rate_text)).run()

"""Loss, counted: numbered datagrams both ways between two pods while something happens to the network between them.

A thousand a second in each direction by default, so that a gap of a millisecond shows. Pings a second apart would miss one of
most of a second, and TCP hides it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from overlaynet.errors import LabError
from overlaynet.lab import numbered_endpoint
from overlaynet.lab.lab import Lab
from overlaynet.lab.system import enter
from overlaynet.model.addresses import Family

PORT = 9_000
PER_SECOND = 1_000
_DRAIN_S = 0.3
_ANSWER_S = 30.0


@dataclass(frozen=True, slots=True)
class Way:
    """One direction. `longest_silence_ms` is the longest time between two arrivals: of an outage, how long it was."""

    sent: int
    received: int
    repeated: int
    reordered: int
    longest_silence_ms: float
    longest_delay_ms: float

    @property
    def lost(self) -> int:
        """Datagrams that were sent and never arrived."""
        return self.sent - self.received


@dataclass(frozen=True, slots=True)
class Loss:
    """Both directions between two pods."""

    there: Way
    back: Way

    @property
    def lost(self) -> int:
        """Lost datagrams of both directions."""
        return self.there.lost + self.back.lost

    @property
    def sent(self) -> int:
        """Datagrams of both directions."""
        return self.there.sent + self.back.sent


class Flow:
    """A flow that runs from the beginning of the `flowing` block; `end` stops it and says what came of it."""

    def __init__(self, ends: tuple[_End, _End]) -> None:
        self._ends = ends

    def run_for(self, seconds: float) -> None:
        """Let it flow: a length of traffic, not a wait for something to happen."""
        time.sleep(seconds)

    def end(self) -> Loss:
        """Stop both ends, let what is under way arrive, and count."""
        for one in self._ends:
            one.tell("stop")
        for one in self._ends:
            one.await_line(numbered_endpoint.STOPPED)
        time.sleep(_DRAIN_S)
        for one in self._ends:
            one.tell("report")
        first, second = (json.loads(one.line()) for one in self._ends)
        return Loss(_way(first, second), _way(second, first))


@contextlib.contextmanager
def flowing(
    lab: Lab, first: str, second: str, *, family: Family | None = None, per_second: int = PER_SECOND, port: int = PORT
) -> Iterator[Flow]:
    """A flow between two pods (`pod1`, ...), both ways; it has begun when the block does, and is gone after it.

    It goes over `family`, else over the lab's first.
    """
    addresses = lab.pod_address(first, family), lab.pod_address(second, family)
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(_ending(_End(lab, first, addresses[0], addresses[1], port, per_second)))
        two = stack.enter_context(_ending(_End(lab, second, addresses[1], addresses[0], port, per_second)))
        for end in (one, two):
            end.await_line(numbered_endpoint.BOUND)
        for end in (one, two):
            end.tell("go")
        yield Flow((one, two))


class _End:
    """The process inside one pod."""

    def __init__(self, lab: Lab, member: str, address: str, peer: str, port: int, per_second: int) -> None:
        self._name = f"{member}: numbered datagrams"
        command = [sys.executable, "-m", numbered_endpoint.__name__, address, peer, str(port), str(per_second)]
        self._process = subprocess.Popen(
            enter(lab.plan.member(member), *command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._heard = b""

    def tell(self, word: str) -> None:
        """Say one word to it."""
        assert self._process.stdin is not None  # noqa: S101 - PIPE was asked for
        try:
            os.write(self._process.stdin.fileno(), f"{word}\n".encode())
        except BrokenPipeError:
            raise LabError(f"{self._name} ended early: {self._heard.decode(errors='replace').strip()}") from None

    def await_line(self, word: str) -> None:
        """Return when its next line is `word`; LabError: it is another."""
        line = self.line()
        if line != word:
            raise LabError(f"{self._name}: {line}")

    def line(self) -> str:
        """Its next line. LabError: it ended, or says nothing."""
        assert self._process.stdout is not None  # noqa: S101 - PIPE was asked for
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + _ANSWER_S
        while b"\n" not in self._heard:
            readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(descriptor, 4_096) if readable else b""
            if not chunk:
                said = self._heard.decode(errors="replace").strip()
                raise LabError(f"{self._name}: {said or 'no answer'}")
            self._heard += chunk
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode(errors="replace")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def _ending(end: _End) -> Iterator[_End]:
    try:
        yield end
    finally:
        end.close()


def _way(sender: dict[str, int], receiver: dict[str, int]) -> Way:
    return Way(
        sent=sender["sent"],
        received=receiver["received"],
        repeated=receiver["repeated"],
        reordered=receiver["reordered"],
        longest_silence_ms=receiver["longest_silence_ns"] / 1e6,
        longest_delay_ms=receiver["longest_delay_ns"] / 1e6,
    )

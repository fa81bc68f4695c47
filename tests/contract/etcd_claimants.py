"""Claimants that start at once: children of a process that has imported everything, each a process of its own all the same.

They die with that process, and it with the tests, however these end.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.contract.namespaces import Namespace

SCRIPT = str(Path(__file__).parent / "etcd_claimant.py")


class ForkedProcess:
    """A process that is not this one's child: known by its pidfd, as its number may be used again."""

    def __init__(self, pid: int) -> None:
        try:
            self._fd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._fd = -1

    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self._fd < 0 or bool(select.select([self._fd], [], [], 0)[0])

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self._fd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)

    def kill(self) -> None:
        """End it, and return when it has ended."""
        self.send_signal(signal.SIGKILL)
        if self._fd >= 0:
            select.select([self._fd], [], [])

    def close(self) -> None:
        """End it and forget it."""
        self.kill()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class ClaimantServer:
    """The process that claimants are forked from, in a namespace and with an environment of their own."""

    def __init__(self, space: Namespace, env: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            space.command(sys.executable, SCRIPT),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=os.environ | (env or {}),
        )
        self._children: list[ForkedProcess] = []

    def start(self, *arguments: str, out: Path) -> ForkedProcess:
        """A new claimant with these arguments; what it prints goes into `out`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([*arguments, str(out)]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the claimants' server ended: {self._process.wait()}"
        child = ForkedProcess(int(answer))
        self._children.append(child)
        return child

    def close(self) -> None:
        """End all claimants, and the server."""
        for child in self._children:
            child.close()
        self._process.kill()
        self._process.communicate()

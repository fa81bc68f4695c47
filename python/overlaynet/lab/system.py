"""The machine under the lab: programs, network namespaces, processes.

A process is known by its number and its start time, so that a number that the kernel gave to another process meanwhile is never
signalled. Nothing here touches a namespace or a process that the caller did not name.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from overlaynet.errors import LabError
from overlaynet.lab.links import Batch

NETNS = Path("/run/netns")

PACKAGES: Mapping[str, str] = {
    "ip": "iproute2",
    "ping": "iputils-ping",
    "curl": "curl",
    "iperf3": "iperf3",
    "tcpdump": "tcpdump",
    "ethtool": "ethtool",
    "etcd": "etcd-server",
}
"""The Debian package of each program that the lab or its tests start."""


def require(*programs: str) -> None:
    """Return if we are root and every program is there. LabError says what is missing, and which Debian package has it."""
    if os.geteuid() != 0:
        raise LabError("overlaynet lab makes network namespaces and must run as root")
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        packages = " ".join(dict.fromkeys(PACKAGES[program] for program in missing))
        raise LabError(f"{', '.join(missing)}: not found: apt-get install {packages}")


def run_ip(batch: Batch, *, keep: Sequence[int] = ()) -> None:
    """Run the batch's lines in order, up to the first that fails: LabError with ip's own words.

    `keep` are descriptors that the child holds until it ends.
    """
    inside = [] if batch.namespace is None else ["-n", batch.namespace]
    done = subprocess.run(
        ["ip", *inside, "-batch", "-"],
        input="".join(f"{line}\n" for line in batch.lines),
        capture_output=True,
        text=True,
        check=False,
        pass_fds=tuple(keep),
    )
    if done.returncode != 0:
        words = done.stderr.splitlines() or ["no reason given"]
        number = done.stderr.rpartition("-:")[2].strip()
        line = batch.lines[int(number) - 1] if number.isdigit() else "-batch"
        raise LabError(f"ip {' '.join([*inside, line])}: {words[0]}")


def enter(namespace: str, *command: str) -> list[str]:
    """The arguments that run `command` inside the namespace."""
    return ["ip", "netns", "exec", namespace, *command]


def namespaces() -> frozenset[str]:
    """The names of all named network namespaces of the machine."""
    return frozenset(entry.name for entry in NETNS.iterdir()) if NETNS.is_dir() else frozenset()


def delete_namespaces(names: Iterable[str]) -> None:
    """Delete the namespaces; those that are gone already are no error. A half-made one (a file without mount) goes as well."""
    for name in sorted(names):
        done = subprocess.run(["ip", "netns", "delete", name], capture_output=True, text=True, check=False)
        if done.returncode != 0 and (NETNS / name).exists():
            (NETNS / name).unlink(missing_ok=True)


_KILLED_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Process:
    """One process, for good: `started` is its start time in clock ticks since boot (proc(5), stat field 22)."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The process with this number now; None if there is none, or it has ended and only waits to be reaped."""
        try:
            # The second field is the program's name in brackets and may hold anything; fields are counted after the last one.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]))

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return Process.of(self.pid) == self


def reap(process: Process | None) -> None:
    """Let the kernel forget the process if it is a child of ours that has ended; else nothing."""
    if process is not None:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG)


def processes_of(namespace_names: Iterable[str], marker: str) -> frozenset[Process]:
    """The processes inside these namespaces, and those whose environment holds the line `marker`; never this process."""
    inside = set()
    for name in namespace_names:
        with contextlib.suppress(OSError):
            inside.add(_identity(NETNS / name))
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if _identity(entry / "ns/net") in inside or marker.encode() in (entry / "environ").read_bytes().split(b"\0"):
                process = Process.of(int(entry.name))
                if process is not None:
                    found.add(process)
    return frozenset(found)


def _identity(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_dev, found.st_ino


def stop(processes: Iterable[Process], *, grace_s: float = 3.0) -> None:
    """End the processes: SIGTERM, and SIGKILL for those that are still there after `grace_s`. Returns when all have ended."""
    _end(processes, ((signal.SIGTERM, grace_s), (signal.SIGKILL, _KILLED_WITHIN_S)))


def kill(processes: Iterable[Process]) -> None:
    """End the processes by SIGKILL. Returns when all have ended."""
    _end(processes, ((signal.SIGKILL, _KILLED_WITHIN_S),))


def _end(processes: Iterable[Process], steps: Iterable[tuple[signal.Signals, float]]) -> None:
    handles: dict[int, int] = {}
    try:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(process.pid)
                # Looked at after opening: the handle is of the process that has the number now.
                if process.is_alive:
                    handles[handle] = process.pid
                else:
                    os.close(handle)
        for number, wait_s in steps:
            for handle in handles:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, number)
            _await_ends(handles, wait_s)
            if not handles:
                return
        raise LabError(f"processes {sorted(handles.values())} do not end")
    finally:
        for handle in handles:
            os.close(handle)


def _await_ends(handles: dict[int, int], wait_s: float) -> None:
    """Take out of `handles` the processes that end within `wait_s`."""
    poll = select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN)
    deadline = time.monotonic() + wait_s
    while handles and (left := deadline - time.monotonic()) > 0:
        for handle, _ in poll.poll(left * 1000):
            poll.unregister(handle)
            os.close(handle)
            del handles[handle]

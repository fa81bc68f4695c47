"""A real daemon process in a namespace, over an SQLite store of simulated peers: when it is ready, and what it takes."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from overlaynet.control.client import ask
from overlaynet.lab.daemons import clean_environment, program

_READY_S = 120.0
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class DaemonProcess:
    """One that is ready, `seconds` after it was started. `folder` holds its store, and all its files."""

    pid: int
    folder: Path
    seconds: float

    @property
    def kernel_writes(self) -> int:
        """How many operations it has sent to its kernel."""
        return int(ask(self.folder / "run", "status")["status"]["kernel_writes"])

    @property
    def cpu_s(self) -> float:
        """Processor time of all its threads so far (proc(5), stat)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    @property
    def resident_bytes(self) -> int:
        """Its resident memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * resource.getpagesize()


@contextlib.contextmanager
def daemon_process(netns: str, folder: Path) -> Iterator[DaemonProcess]:
    """A daemon over the store `store.db` in `folder`, from its READY=1 on; stopped at the end, its kernel's part stays.

    The clock runs from before the process is made until the word is heard.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify = folder / "notify"
    notify.unlink(missing_ok=True)
    listening.bind(str(notify))
    command = ["ip", "netns", "exec", netns, program("overlaynet-daemon"), "--store", f"sqlite:///{folder}/store.db"]
    command += ["--iface", "eth0", "--state-dir", f"{folder}/state", "--run-dir", f"{folder}/run"]
    command += ["--subnet-file", f"{folder}/subnet.env", "--log-level", "warning"]
    environment = clean_environment("bench") | {"NOTIFY_SOCKET": str(notify)}
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment)
    try:
        _hear_ready(listening, process)
        yield DaemonProcess(process.pid, folder, time.perf_counter() - start)
    finally:
        listening.close()
        process.send_signal(signal.SIGTERM)
        process.wait(_READY_S)


def _hear_ready(listening: socket.socket, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and process.poll() is None:
        if select.select([listening], [], [], 0.2)[0] and b"READY=1" in listening.recv(4_096).split(b"\n"):
            return
    raise TimeoutError(f"the daemon is not ready (exit code {process.returncode})")

"""The lab's daemons: how one is started in its host's namespace, and how the lab knows that it is ready.

A daemon runs detached, in a session of its own, and outlives the command that started it. It is ready when it says READY=1 on
its NOTIFY_SOCKET (sd_notify(3)), the same word that systemd waits for.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from overlaynet.errors import LabError
from overlaynet.lab.files import HostFiles
from overlaynet.lab.system import Process, enter, reap
from overlaynet.lab.topology import Host, Plan

LEASE_TTL = "60s"
HEALTHZ_PORT = 8081
LOG_LINES_SHOWN = 8


def marker(lab: str) -> str:
    """The line in the environment of each daemon of this lab, by which it is found even when no record of it was written."""
    return f"OVERLAYNET_LAB_NAME={lab}"


def program(name: str) -> str:
    """The path of a console script of this package: beside this interpreter, else by PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise LabError(f"{name}: not found beside {sys.executable} nor by PATH: is overlaynet installed?")
    return found


def clean_environment(lab: str) -> dict[str, str]:
    """This process's environment without settings of daemons, and with the lab's marker."""
    ours = ("OVERLAYNET_", "FLANNELD_", "NOTIFY_SOCKET")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    name, _, value = marker(lab).partition("=")
    return environment | {name: value}


def spawn(command: list[str], environment: Mapping[str, str], files: HostFiles) -> int:
    """Start the command detached, in a session of its own, with its output in the log, and record it; its process id."""
    pid = os.posix_spawnp(
        command[0],
        command,
        environment,
        setsid=True,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(files.log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )
    process = Process.of(pid)
    if process is not None:
        files.record(process)
    return pid


def last_lines(files: HostFiles) -> str:
    """The end of the log, one line each, for a message."""
    with contextlib.suppress(FileNotFoundError):
        return "\n".join(files.log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])
    return "(no log)"


@dataclass(frozen=True, slots=True)
class Daemon:
    """One host's daemon of one lab."""

    plan: Plan
    host: Host
    files: HostFiles
    store: str

    @property
    def command(self) -> list[str]:
        """The daemon's arguments, from its namespace on."""
        return enter(
            self.host.namespace,
            program("overlaynet-daemon"),
            *("--store", self.store),
            *("--iface", "eth0"),
            *("--state-dir", str(self.files.state)),
            *("--run-dir", str(self.files.run)),
            *("--subnet-file", str(self.files.subnet_env)),
            *("--subnet-lease-ttl", LEASE_TTL),
            *("--healthz-ip", "127.0.0.1"),
            *("--healthz-port", str(HEALTHZ_PORT)),
            *("--log-format", "json"),
            *self.plan.daemon_flags,
        )

    def start(self) -> Start:
        """Start it. Await READY=1 with `Start.ready`, and close the Start."""
        reap(self.files.daemon)
        self.files.notify.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            listening.bind(str(self.files.notify))
            environment = clean_environment(self.plan.name) | {"NOTIFY_SOCKET": str(self.files.notify)}
            return Start(self, spawn(self.command, environment, self.files), listening)
        except BaseException:
            listening.close()
            raise


@dataclass(frozen=True, slots=True)
class Start:
    """A daemon between its start and its READY=1."""

    daemon: Daemon
    pid: int
    listening: socket.socket

    def ready(self, deadline: float) -> None:
        """Return when the daemon has said READY=1. LabError: it ended, or `deadline` (time.monotonic) came.

        The error carries the end of the daemon's log as a note.
        """
        handle = os.pidfd_open(self.pid)
        try:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            poll.register(self.listening, select.POLLIN)
            while (left := deadline - time.monotonic()) > 0:
                happened = {descriptor for descriptor, _ in poll.poll(left * 1000)}
                if self.listening.fileno() in happened and b"READY=1" in self.listening.recv(4096).split(b"\n"):
                    return
                if handle in happened:
                    raise self._failed("ended before it was ready")
        finally:
            os.close(handle)
        raise self._failed("is not ready in time")

    def _failed(self, why: str) -> LabError:
        error = LabError(f"{self.daemon.host.name}: overlaynet-daemon {why}")
        error.add_note(last_lines(self.daemon.files))
        return error

    def close(self) -> None:
        """Stop listening. The daemon goes on."""
        self.listening.close()
        self.daemon.files.notify.unlink(missing_ok=True)

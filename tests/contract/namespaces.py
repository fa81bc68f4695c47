"""Network namespaces of tests: named `ovt-`, with their loopback up, gone afterwards with all that runs in them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace by its name."""

    name: str

    def command(self, *arguments: str) -> list[str]:
        """What runs a program in the namespace; the kernel kills it when this process ends, however it ends."""
        return ["ip", "netns", "exec", self.name, "setpriv", "--pdeathsig", "KILL", *arguments]

    def run(self, *arguments: str, stdin: str = "", timeout_s: float = 30.0) -> str:
        """What a program prints that ends well."""
        done = subprocess.run(self.command(*arguments), input=stdin, capture_output=True, text=True, timeout=timeout_s)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def start(self, *arguments: str, out: Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """A program that runs on, with what it says in the file `out`."""
        with out.open("ab") as said:
            return subprocess.Popen(self.command(*arguments), stdout=said, stderr=said, env=os.environ | (env or {}))


@contextmanager
def namespace(label: str) -> Iterator[Namespace]:
    """A new namespace; those of test sessions that were killed are swept up first."""
    _sweep()
    made = Namespace(f"ovt-{label}-{os.getpid()}")
    subprocess.run(["ip", "netns", "add", made.name], check=True)
    try:
        subprocess.run(["ip", "-n", made.name, "link", "set", "lo", "up"], check=True)
        yield made
    finally:
        _remove(made.name)


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Kill the processes, stopped ones too, and wait for their ends."""
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()


def _remove(name: str) -> None:
    pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout.split()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "delete", name], check=False)


def _sweep() -> None:
    for path in Path("/run/netns").glob("ovt-*-*"):
        owner = path.name.rpartition("-")[2]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            _remove(path.name)

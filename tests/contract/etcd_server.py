"""Debian's etcd for tests: on free loopback ports, in a folder of its own, gone when the test is, even if that is killed."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@dataclass(slots=True)
class EtcdServer:
    """One running etcd. `address` is `HOST:PORT`; `flags` and `ctl_host` are what etcdctl needs to reach it."""

    address: str
    scheme: str = "http"
    flags: tuple[str, ...] = ()
    ctl_host: str = "127.0.0.1"

    def ctl(self, *arguments: str, timeout_s: float = 30.0) -> str:
        """What etcdctl prints."""
        run = self._run(*arguments, timeout_s=timeout_s)
        assert run.returncode == 0, f"{' '.join(arguments)}: {run.stderr}"
        return run.stdout

    def answers(self) -> bool:
        """Whether it serves a read that needs a quorum."""
        return self._run("--command-timeout", "2s", "get", "none").returncode == 0

    def _run(self, *arguments: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        address = f"{self.ctl_host}:{self.address.rpartition(':')[2]}"
        command = ["etcdctl", "--endpoints", f"{self.scheme}://{address}", *self.flags, *arguments]
        environment = {"PATH": os.environ["PATH"], "ETCDCTL_API": "3"}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout_s)

    def grant(self, ttl_s: int) -> str:
        """A new etcd lease, as etcdctl writes it."""
        return self.ctl("lease", "grant", str(ttl_s)).split()[1]


def spawn(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """A process that the kernel kills when this one ends, however it ends."""
    with log.open("ab") as out:
        return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdout=out, stderr=out)


@contextmanager
def etcd_server(
    folder: Path,
    *flags: str,
    scheme: str = "http",
    ctl_flags: tuple[str, ...] = (),
    ctl_host: str = "127.0.0.1",
    fast: bool = False,
) -> Iterator[EtcdServer]:
    """An etcd that answers. `fast`: leases may be as short as a second."""
    folder.mkdir(parents=True, exist_ok=True)
    client, peer = free_ports(2)
    client_url, peer_url = f"{scheme}://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    pace = ("--heartbeat-interval", "10", "--election-timeout", "100") if fast else ()
    process = spawn(
        [
            *("etcd", "--data-dir", str(folder / "data"), "--logger", "zap", "--log-level", "warn"),
            *("--listen-client-urls", client_url, "--advertise-client-urls", client_url),
            *("--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url),
            *("--initial-cluster", f"default={peer_url}", *pace, *flags),
        ],
        folder / "log",
    )
    server = EtcdServer(f"127.0.0.1:{client}", scheme, ctl_flags, ctl_host)
    try:
        deadline = time.monotonic() + 60
        while not server.answers():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
        yield server
    finally:
        process.kill()
        process.wait()

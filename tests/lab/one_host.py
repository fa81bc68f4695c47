"""One host in a namespace of its own, on which a test starts the real programs and sees how they end.

    ovt-h...:  eth0 192.0.2.1/24, 2001:db8::1/64 -- far0, which only gives eth0 its carrier

No route leads out of it but those of eth0's prefixes; /proc/sys/net is the namespace's own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from overlaynet.lab.daemons import program

VXLAN = '{"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan"}}'
VXLAN_USER = '{"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan", "Mode": "user"}}'
HOST_GW = '{"Network": "10.1.0.0/16", "Backend": {"Type": "host-gw"}}'
UDP = '{"Network": "10.1.0.0/16", "Backend": {"Type": "udp"}}'

END_S = 30.0
"""How long a program that cannot work may take to say so."""

READY_S = 30.0


@dataclass
class OneHost:
    """The host, and what runs on it. Its files are in `folder`; those of the daemon below `state`, `run` and `env`."""

    namespace: str
    folder: Path
    running: list[Running] = field(default_factory=list)

    @property
    def store(self) -> str:
        return f"sqlite:///{self.folder}/store/store.db"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def subnet_env(self) -> Path:
        return self.folder / "env" / "subnet.env"

    def ip(self, words: str, *, check: bool = True) -> str:
        done = subprocess.run(["ip", "-n", self.namespace, *words.split()], capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, f"ip {words}: {done.stderr}"
        return done.stdout

    def shell(self, words: str) -> str:
        inside = ["ip", "netns", "exec", self.namespace, "sh", "-c", words]
        done = subprocess.run(inside, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def overlaynet(self, *arguments: str, input_text: str | None = None) -> subprocess.CompletedProcess[str]:
        """`overlaynet` with this host's store and run directory, run to its end."""
        words = ["--store", self.store, "--run-dir", str(self.run), *arguments]
        return self.end(program("overlaynet"), *words, input_text=input_text)

    def configure(self, text: str) -> None:
        """Put the network's configuration into the store."""
        done = self.overlaynet("network", "set", "-", input_text=text)
        assert done.returncode == 0, done.stderr

    def end(
        self, *command: str, input_text: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """How a command ends in this namespace."""
        return subprocess.run(
            ["ip", "netns", "exec", self.namespace, *command],
            input=input_text,
            capture_output=True,
            text=True,
            check=False,
            timeout=END_S,
            env=self.environment(env),
        )

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The test's own environment without what the programs would read."""
        ours = ("OVERLAYNET_", "FLANNELD_", "NOTIFY_SOCKET")
        return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | dict(more or {})

    def daemon_command(self, *flags: str) -> list[str]:
        """The daemon with this host's places; a flag that is given again is the one that counts."""
        places = ["--store", self.store, "--state-dir", str(self.state), "--run-dir", str(self.run)]
        places += ["--subnet-file", str(self.subnet_env)]
        if not any(one.startswith("--iface") for one in flags):
            places += ["--iface", "eth0"]
        return [program("overlaynet-daemon"), *places, *flags]

    def daemon_end(self, *flags: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """How a daemon that cannot work ends."""
        return self.end(*before, *self.daemon_command(*flags))

    @property
    def notices(self) -> Path:
        """The folder with the sockets on which tests listen as a service manager does."""
        folder = self.folder / "notify."
        folder.mkdir(exist_ok=True)
        return folder

    def start(
        self,
        *flags: str,
        before: Sequence[str] = (),
        command: Sequence[str] | None = None,
        inside: str = "",
    ) -> Running:
        """A daemon that goes on; it ends with the test at the latest. `inside`: where it sees the folder `notices`."""
        name = secrets.token_hex(4)
        notify = self.notices / name
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listening.bind(str(notify))
        notify.chmod(0o666)
        log = self.folder / f"log.{name}"
        words = ["ip", "netns", "exec", self.namespace, *before, *(self.daemon_command(*flags) if command is None else command)]
        with log.open("wb") as out:
            told = {"NOTIFY_SOCKET": f"{inside}/{name}" if inside else str(notify)}
            process = subprocess.Popen(words, stdout=out, stderr=out, env=self.environment(told))
        started = Running(process, listening, log)
        self.running.append(started)
        return started

    def kernel(self) -> str:
        """Links, addresses, routes, neighbours and forwarding of the namespace, without counters and indexes that move."""
        views = ["-d link", "address", "-4 route show table all", "-6 route show table all", "neighbour show nud permanent"]
        text = "\n".join(self.ip(f"-o {view}") for view in views)
        return text + self.shell("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding")

    def files(self) -> dict[str, bytes]:
        """Every file of the host with its bytes, folders with none."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes() if path.is_file() else b""
            for path in sorted(self.folder.rglob("*"))
            if not str(path.relative_to(self.folder)).startswith(("log.", "notify."))
        }


@dataclass
class Running:
    """A daemon that was started."""

    process: subprocess.Popen[bytes]
    listening: socket.socket
    log: Path
    _told: list[str] = field(default_factory=list)

    @property
    def told(self) -> list[str]:
        """What the service manager has been told up to now."""
        while self._listen(0):
            pass
        return self._told

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def hear(self, line: str, *, wait_s: float = READY_S) -> None:
        """Return when the service manager has been told `line`."""
        deadline = time.monotonic() + wait_s
        while line not in self.told:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.text}"
            left = deadline - time.monotonic()
            assert left > 0, f"no {line} in time:\n{self.text}"
            self._listen(min(left, 0.2))

    def _listen(self, wait_s: float) -> bool:
        """Whether something was said in time."""
        spoken = bool(select.select([self.listening], [], [], wait_s)[0])
        if spoken:
            self._told += self.listening.recv(4_096).decode().split("\n")
        return spoken

    def stop(self, number: signal.Signals = signal.SIGTERM, *, wait_s: float = END_S) -> int:
        """Send the signal, and the exit code."""
        self.process.send_signal(number)
        return self.wait(wait_s=wait_s)

    def wait(self, *, wait_s: float = END_S) -> int:
        """The exit code."""
        return self.process.wait(wait_s)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        self.listening.close()


@contextlib.contextmanager
def one_host(folder: Path) -> Iterator[OneHost]:
    """The host for as long as the block runs."""
    namespace = f"ovt-h{secrets.token_hex(4)}"
    lines = [
        "link set lo up",
        "link add eth0 type veth peer name far0",
        "link set eth0 addrgenmode none",
        "link set far0 addrgenmode none",
        "address add 192.0.2.1/24 dev eth0",
        "address add 2001:db8::1/64 dev eth0 nodad",
        "link set eth0 up",
        "link set far0 up",
    ]
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    host = OneHost(namespace, folder)
    try:
        text = "".join(f"{line}\n" for line in lines)
        subprocess.run(["ip", "-n", namespace, "-batch", "-"], input=text, text=True, check=True)
        host.shell("echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv6/conf/all/forwarding")
        yield host
    finally:
        for running in host.running:
            running.close()
        subprocess.run(["ip", "netns", "delete", namespace], check=True)


def one_line(done: subprocess.CompletedProcess[str], program_name: str = "overlaynet-daemon") -> str:
    """The one line that the program has ended with, and nothing beside it on either stream."""
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"{program_name}: "), done.stderr
    assert done.stdout == ""
    return lines[0].removeprefix(f"{program_name}: ")


def nothing_begun(host: OneHost, kernel: str) -> None:
    """The kernel is as it was, and there is no lease and no subnet.env."""
    assert host.kernel() == kernel
    assert not host.subnet_env.exists()
    store = host.folder / "store" / "store.db"
    if store.exists():
        with sqlite3.connect(store) as db:
            assert db.execute("SELECT key FROM lease").fetchall() == []
        db.close()


def inside_mounts(mounts: str, *command: str) -> list[str]:
    """The command after `mounts`, a shell line in a mount namespace of its own."""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{mounts} && exec "$@"', "sh", *command]

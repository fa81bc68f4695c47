"""What a lab keeps on disk, one folder and one lock a lab.

    /run/overlaynet-lab/NAME.lock             held by whoever builds or takes down the lab NAME
    /run/overlaynet-lab/NAME/plan.json        how to make the same plan again, and the store's URL
                             store.db         the store, unless it is elsewhere
                             etcd/            the lab's own etcd: state/, daemon.log, daemon.json
                             host1/           state/, run/, subnet.env, daemon.log, notify.sock, daemon.json
    /var/tmp/overlaynet-lab-NAME/             files that traffic moves

The folders are gone when the lab is; the upper folder when the last lab is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from overlaynet.errors import LabError
from overlaynet.lab.system import Process
from overlaynet.lab.topology import Families, Host, Plan, Underlay, plan_lab

ROOT = Path("/run/overlaynet-lab")
SCRATCH = Path("/var/tmp")  # noqa: S108 - the folder in it is made exclusively and with mode 0700


@dataclass(frozen=True, slots=True)
class HostFiles:
    """The places of one host's daemon."""

    folder: Path

    @property
    def state(self) -> Path:
        """The daemon's state directory."""
        return self.folder / "state"

    @property
    def run(self) -> Path:
        """The daemon's run directory."""
        return self.folder / "run"

    @property
    def subnet_env(self) -> Path:
        """Where the daemon writes its subnet."""
        return self.folder / "subnet.env"

    @property
    def log(self) -> Path:
        """What the daemon writes to its standard error."""
        return self.folder / "daemon.log"

    @property
    def notify(self) -> Path:
        """The socket to which the daemon sends READY=1."""
        return self.folder / "notify.sock"

    @property
    def daemon(self) -> Process | None:
        """The daemon that was started last; None if none was or the record is cut short."""
        try:
            record = json.loads((self.folder / "daemon.json").read_text())
            return Process(int(record["pid"]), int(record["started"]))
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def record(self, process: Process) -> None:
        """Remember the daemon."""
        (self.folder / "daemon.json").write_text(json.dumps({"pid": process.pid, "started": process.started}))


@dataclass(frozen=True, slots=True)
class LabFiles:
    """The folder of one lab."""

    name: str

    @property
    def folder(self) -> Path:
        """The lab's folder."""
        return ROOT / self.name

    @property
    def scratch(self) -> Path:
        """A folder for the big files of a lab's traffic, on a disk (/run is memory); it goes with the lab."""
        return SCRATCH / f"overlaynet-lab-{self.name}"

    def host(self, host: Host) -> HostFiles:
        """The places of this host."""
        return HostFiles(self.folder / host.name)

    @property
    def etcd(self) -> HostFiles:
        """The places of the lab's own etcd."""
        return HostFiles(self.folder / "etcd")

    @property
    def abandoned(self) -> bool:
        """Whether the lab was to go with the process that made it, and that process is gone."""
        try:
            owner = json.loads((self.folder / "plan.json").read_text())["owner"]
            return owner is not None and not Process(owner["pid"], owner["started"]).is_alive
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return False

    def make(self, plan: Plan, store: str | None, *, passing: bool = False) -> str:
        """Make the folder for `plan`, and return the store's URL: `store`, or an SQLite file in the folder.

        A `passing` lab belongs to this process and is `abandoned` without it.
        """
        self.folder.mkdir(mode=0o755)
        url = store or f"sqlite:///{self.folder}/store.db"
        for host in plan.hosts:
            (self.folder / host.name).mkdir()
        owner = Process.of(os.getpid()) if passing else None
        record = {
            "name": plan.name,
            "hosts": len(plan.hosts),
            "bridges": len(plan.hosts[0].pods),
            "backend": plan.backend,
            "family": plan.families.value,
            "underlay": plan.underlay.value,
            "mixed": plan.mixed,
            "store": url,
            "owner": owner and {"pid": owner.pid, "started": owner.started},
        }
        (self.folder / "plan.json").write_text(json.dumps(record, indent=2) + "\n")
        return url

    def read(self) -> tuple[Plan, str]:
        """The plan and the store's URL. LabError: there is no such lab, or its making was cut short."""
        try:
            record = json.loads((self.folder / "plan.json").read_text())
            plan = plan_lab(
                record["name"],
                hosts=record["hosts"],
                bridges=record["bridges"],
                backend=record["backend"],
                families=Families(record["family"]),
                underlay=Underlay(record["underlay"]),
                mixed=record["mixed"],
            )
            return plan, str(record["store"])
        except FileNotFoundError:
            raise LabError(f"no lab {self.name}: `overlaynet lab up --name {self.name}` makes one") from None
        except (ValueError, KeyError, TypeError):
            raise LabError(f"lab {self.name} is not whole: `overlaynet lab down --name {self.name}` removes it") from None

    @property
    def daemons(self) -> tuple[Process, ...]:
        """Every daemon on record, also of a lab whose plan was not written."""
        found = (HostFiles(record.parent).daemon for record in self.folder.glob("*/daemon.json"))
        return tuple(daemon for daemon in found if daemon is not None)

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self, *, wait_s: float = 30.0) -> Iterator[int]:
        """Hold the lab's lock, and yield its descriptor; LabError when another holds it for longer than `wait_s`.

        Children that get the descriptor hold the lock too: whoever gets it after a crash knows that no command of the crashed
        one still runs. The file is removed at the end.
        """
        path = ROOT / f"{self.name}.lock"
        deadline = time.monotonic() + wait_s
        while (held := _try_lock(path)) is None:
            if time.monotonic() > deadline:
                raise LabError(f"lab {self.name} is being built or taken down by another process: try again when it is done")
            time.sleep(0.05)
        try:
            yield held
        finally:
            path.unlink(missing_ok=True)
            os.close(held)
            with contextlib.suppress(OSError):
                ROOT.rmdir()


def _try_lock(path: Path) -> int | None:
    """The descriptor of the locked file; None if another holds it, or the file went away while we took it."""
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir(mode=0o755)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def recorded_labs() -> frozenset[str]:
    """The names of the labs that have a folder."""
    return frozenset(entry.name for entry in ROOT.iterdir() if entry.is_dir()) if ROOT.is_dir() else frozenset()

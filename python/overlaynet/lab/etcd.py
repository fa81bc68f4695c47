"""The lab's own etcd: one member in the underlay's namespace, which every host reaches over the underlay.

Like a daemon it runs detached, is on record in the lab's files and carries the lab's marker, so that `lab down` finds it even
when its start was cut short. Its data are in the lab's folder and go with it. The machine's own namespace cannot reach it.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass

from overlaynet.errors import LabError, StoreUnavailableError
from overlaynet.lab import links, system
from overlaynet.lab.daemons import clean_environment, last_lines, program, spawn
from overlaynet.lab.files import HostFiles, LabFiles
from overlaynet.lab.topology import Plan

PORT = 2379
PREFIX = "/coreos.com/network"
STORE = "etcd"
"""What `--store` says for an etcd that the lab starts."""

_PEER_URL = "http://127.0.0.1:2380"
_RETRY_S = 0.1


def url(plan: Plan) -> str:
    """The store's URL in this lab."""
    return f"etcd://{_client(plan)}{PREFIX}"


def _client(plan: Plan) -> str:
    address = plan.store_address.ip
    return f"[{address}]:{PORT}" if address.version == 6 else f"{address}:{PORT}"


@dataclass(frozen=True, slots=True)
class LabEtcd:
    """The etcd of one lab."""

    plan: Plan

    @property
    def files(self) -> HostFiles:
        """Where it keeps its data, its log and its record."""
        return LabFiles(self.plan.name).etcd

    @property
    def process(self) -> system.Process | None:
        """The etcd that was started last."""
        return self.files.daemon

    def start(self, *, keep: int | None = None) -> None:
        """Give the underlay the address of the store, and start etcd there. It is there when `configure` returns."""
        for batch in links.store_batches(self.plan):
            system.run_ip(batch, keep=() if keep is None else [keep])
        self.files.folder.mkdir(mode=0o700)
        self.run()

    def run(self) -> None:
        """Start etcd on the data that are there."""
        system.reap(self.process)
        client = f"http://{_client(self.plan)}"
        command = system.enter(
            self.plan.underlay_namespace,
            *("etcd", "--data-dir", str(self.files.state)),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", _PEER_URL, "--initial-advertise-peer-urls", _PEER_URL),
            *("--initial-cluster", f"default={_PEER_URL}"),
        )
        environment = {name: value for name, value in clean_environment(self.plan.name).items() if not name.startswith("ETCD")}
        spawn(command, environment, self.files)

    def stop(self) -> None:
        """End etcd, and return when it has ended; its data stay."""
        if self.process is not None:
            system.stop([self.process])
            system.reap(self.process)

    def configure(self, config: bytes, deadline: float) -> None:
        """Put the network's configuration into etcd, as soon as it answers. LabError: it ended, or `deadline` came.

        The error carries the end of its log as a note.
        """
        command = [program("overlaynet"), "--store", url(self.plan), "network", "set", "-"]
        while True:
            done = subprocess.run(
                system.enter(self.plan.underlay_namespace, *command),
                input=config,
                capture_output=True,
                check=False,
                env=clean_environment(self.plan.name),
            )
            if done.returncode == 0:
                return
            ended = self.process is None or not self.process.is_alive
            if ended or done.returncode != StoreUnavailableError.exit_code or time.monotonic() > deadline:
                said = done.stderr.decode(errors="replace").strip()
                error = LabError(f"lab {self.plan.name}: etcd {'ended' if ended else f'cannot be used: {said}'}")
                error.add_note(last_lines(self.files))
                raise error
            time.sleep(_RETRY_S)

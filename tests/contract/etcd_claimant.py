"""One host without a kernel: the daemon's own loop, decisions and store over a kernel in memory, and a log of what it believes.

    ENDPOINTS PREFIX HOST NUMBER TTL FOLDER [RENEW_MARGIN]

These are the arguments of one; the script forks off one for each line that it reads (see `etcd_claimants`).

The log is FOLDER/log, one line of JSON each, written before the next step is taken, so that a kill loses nothing that was done.
Every `t` is CLOCK_BOOTTIME in seconds, every `waited` how long others had the processors meanwhile. Nothing here decides
anything: what is logged is what the product did.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from overlaynet.daemon.driver import Driver, boot_time
from overlaynet.daemon.health import Health
from overlaynet.daemon.main import _previous
from overlaynet.daemon.state import read_kept
from overlaynet.errors import KernelError, StoreError
from overlaynet.kernel.fake import FakeKernel
from overlaynet.model.dataplane import PumpConfig
from overlaynet.model.host import HostSettings
from overlaynet.model.kernel import Operation, Route
from overlaynet.model.lease import Grant, HostId, Lease, LeaseAttributes, Subnets
from overlaynet.model.snapshot import Changes, LeaseGone, Snapshot
from overlaynet.reconcile.actions import ClaimSubnet, Program, PublishSubnetEnv, RenewLease, Report, Stop, UpdateLease
from overlaynet.reconcile.events import Event
from overlaynet.reconcile.reconciler import Reconciler
from overlaynet.store.etcd.settings import parse_etcd_url
from overlaynet.store.etcd.store import EtcdStore

PR_SET_PDEATHSIG = 1
"""include/uapi/linux/prctl.h: the signal that this process gets when the thread that forked it ends."""


class Log:
    """Lines that are in the file when `say` returns."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def say(self, kind: str, **fields: object) -> None:
        line = {"t": boot_time(), "waited": waited(), "kind": kind, **fields}
        os.write(self._file, json.dumps(line).encode() + b"\n")


def waited() -> float:
    """The seconds for which this process was ready to run and others ran (Documentation/scheduler/sched-stats.rst)."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except FileNotFoundError:
        return 0.0


class LoggedStore(EtcdStore):
    """The store, which says what it was asked for and what it answered."""

    log: Log

    async def claim(
        self,
        host: HostId,
        subnets: Subnets,
        attributes: LeaseAttributes,
        *,
        ttl_s: float,
        seen: Snapshot,
        features: Sequence[str] = (),
        takes_over: Lease | None = None,
    ) -> Grant:
        self.log.say("asks", what="claim", key=str(subnets))
        return self._answered(
            await super().claim(host, subnets, attributes, ttl_s=ttl_s, seen=seen, features=features, takes_over=takes_over)
        )

    async def renew(self, grant: Grant) -> Grant:
        self.log.say("asks", what="renew", key=str(grant.lease.subnets), handle=grant.handle)
        return self._answered(await super().renew(grant))

    async def update(self, grant: Grant, attributes: LeaseAttributes) -> Grant:
        self.log.say("asks", what="update", key=str(grant.lease.subnets), handle=grant.handle)
        return self._answered(await super().update(grant, attributes))

    async def watch(self, after: int) -> AsyncIterator[Changes]:
        async for changes in super().watch(after):
            gone = [str(one.subnets) for one in changes.changes if isinstance(one, LeaseGone)]
            if gone:
                self.log.say("gone", keys=gone)
            yield changes

    def _answered(self, grant: Grant) -> Grant:
        self.log.say("granted", key=str(grant.lease.subnets), handle=grant.handle)
        return grant


class LoggedReconciler(Reconciler):
    """The reconciler, which says what it believes after each event, and then in which order it acts on that."""

    log: Log
    _said: tuple[object, ...] = ()

    def handle(self, event: Event, now: float) -> None:
        before = len(self.journal._actions)
        super().handle(event, now)
        grant = self.lease.grant
        belief = ("", 0, 0.0) if grant is None else (str(grant.lease.subnets), grant.handle, self.lease.ends_at)
        if belief != self._said:
            self._said = belief
            self.log.say("believes", key=belief[0], handle=belief[1], until=belief[2])
        for action in self.journal._actions[before:]:
            match action:
                case Report(topic="lease-expired", level="warning"):
                    self.log.say("noticed")
                case Report(level="error"):
                    self.log.say("error", topic=action.topic, text=action.text)
                case RenewLease() | UpdateLease() | ClaimSubnet() | PublishSubnetEnv() | Program():
                    self.log.say("acts", what=type(action).__name__, at=now)
                case Stop(error):
                    self.log.say("stops", why=str(error))


class NoEngine:
    """A packet engine that is never asked for."""

    config: PumpConfig | None = None
    failure: str | None = None

    def apply(self, config: PumpConfig | None) -> None:
        assert config is None

    def counters(self) -> dict[str, object]:
        return {}


class LoggedKernel(FakeKernel):
    """The kernel in memory, which says which subnets it routes to whom."""

    log: Log
    _said: tuple[object, ...] = ()

    async def perform(self, operations: Sequence[Operation]) -> list[KernelError | None]:
        results = await super().perform(operations)
        routes = sorted((str(one.prefix), str(one.gateway)) for one in self.objects if isinstance(one, Route) and one.gateway)
        if tuple(routes) != self._said:
            self._said = tuple(routes)
            self.log.say("routes", routes=routes)
        return results


async def main(endpoints: str, prefix: str, host: str, number: str, ttl: str, folder: str, margin: str = "") -> None:
    place, n = Path(folder), int(number)
    log = Log(place / "log")
    v4, v6 = IPv4Address("192.0.2.0") + n, IPv6Address("fd00:2::") + n
    store = LoggedStore(parse_etcd_url(f"etcd://{endpoints}{prefix}"))
    store.log = log
    name = store.traits.name
    previous = _previous(place / "subnet.env")
    settings = HostSettings(HostId(host), "eth0", v4, v6, v4, v6, ttl_s=float(ttl), previous=previous, store=name)
    settings = replace(settings, renew_margin_s=float(margin) if margin else None)
    reconciler = LoggedReconciler(settings)
    reconciler.log = log
    kernel = LoggedKernel()
    kernel.log = log
    kernel.add_underlay("eth0", [(v4, 22), (v6, 64)])
    driver = Driver(settings.host, reconciler, store, kernel, NoEngine(), Health(), place / "subnet.env", place)
    kept = read_kept(place)
    log.say("starts", pid=os.getpid(), host=host, wall=time.time(), kept=kept is not None)
    try:
        failure = await driver.run(kept if kept is not None and kept.store == name else None)
        log.say("ends", why=str(failure))
    except StoreError as error:
        log.say("ends", why=str(error))
    finally:
        await store.aclose()


def serve() -> None:
    """Start a claimant for each line of standard input: a JSON list of its arguments and the file for what it prints."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server = os.getpid()
    for line in sys.stdin:
        *arguments, out = json.loads(line)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            libc = ctypes.CDLL(None)
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() == server:
                said = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                nothing = os.open(os.devnull, os.O_RDONLY)
                for old, new in ((nothing, 0), (said, 1), (said, 2)):
                    os.dup2(old, new)
                asyncio.run(main(*arguments))
            sys.exit()
        os.write(1, f"{pid}\n".encode())


if __name__ == "__main__":
    serve()

"""A lab as a whole: up, down, and which labs there are.

`up` that fails takes down what it had made. `down` works from what is there (namespaces by their names, processes inside them or
marked as the lab's, the folder) and not from what should be there, so it removes every trace of a lab whose making or taking down
was cut short, and is no error when there is nothing. One process at a time works on a lab; labs of different names do not meet.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from overlaynet.control.client import ask
from overlaynet.errors import LabError
from overlaynet.lab import etcd, links, system
from overlaynet.lab.daemons import Daemon, Start, marker, program
from overlaynet.lab.files import LabFiles, recorded_labs
from overlaynet.lab.topology import (
    OVERLAY_NETWORKS,
    Attachment,
    Families,
    Host,
    Plan,
    Underlay,
    attachments,
    lab_of_namespace,
    plain_subnets,
    plan_lab,
)
from overlaynet.model.addresses import Family, Mtu, Prefix

__all__ = ["READY_S", "Lab", "Progress", "configure", "down", "names", "namespaces_of", "network_config", "running", "up"]

READY_S = 30.0

_NETWORK: Mapping[Family, str] = {Family.IPV4: "Network", Family.IPV6: "IPv6Network"}
_FORWARDING: Mapping[Family, str] = {Family.IPV4: "ipv4/ip_forward", Family.IPV6: "ipv6/conf/all/forwarding"}

Progress = Callable[[str], None]


def network_config(plan: Plan) -> bytes:
    """The configuration that the lab puts into its store."""
    families = plan.families.members
    fields: dict[str, object] = {"EnableIPv4": Family.IPV4 in families, "EnableIPv6": Family.IPV6 in families}
    fields |= {_NETWORK[family]: str(OVERLAY_NETWORKS[family]) for family in families}
    return json.dumps(fields | {"Backend": {"Type": plan.backend}}).encode()


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab that is up, or being brought up."""

    plan: Plan
    store: str

    @classmethod
    def open(cls, name: str) -> Lab:
        """The lab of this name, as it was brought up; LabError if there is none."""
        plan, store = LabFiles(name).read()
        return cls(plan, store)

    @property
    def files(self) -> LabFiles:
        """Where the lab keeps what it knows."""
        return LabFiles(self.plan.name)

    def daemon(self, host: Host) -> Daemon:
        """The daemon of this host."""
        return Daemon(self.plan, host, self.files.host(host), self.store)

    def environment(self, member: str, outer: Mapping[str, str]) -> dict[str, str]:
        """`outer` for a command inside the member: `overlaynet` is this very installation's, and asks the host's own daemon."""
        path = os.pathsep.join([str(Path(program("overlaynet")).parent), outer.get("PATH", os.defpath)])
        host = next((host for host in self.plan.hosts if host.name == member), None)
        if host is None:
            return {**outer, "PATH": path}
        inner = {name: value for name, value in outer.items() if not name.startswith(("OVERLAYNET_", "FLANNELD_"))}
        return inner | {"PATH": path} | {"OVERLAYNET_RUN_DIR": str(self.files.host(host).run), "OVERLAYNET_STORE": self.store}

    def start_daemons(self, hosts: Sequence[Host], *, ready_s: float = READY_S) -> None:
        """Start the daemons of these hosts at once, and return when each is ready."""
        starts: list[Start] = []
        try:
            for host in hosts:
                starts.append(self.daemon(host).start())  # noqa: PERF401 - what was started is known when the next one fails
            deadline = time.monotonic() + ready_s
            for start in starts:
                start.ready(deadline)
        finally:
            for start in starts:
                start.close()

    def unmet(self) -> list[str]:
        """What is missing until every daemon has attempted every other host as a peer: a line for each missing pair."""
        missing = []
        for host in self.plan.hosts:
            status = ask(self.files.host(host).run, "status")["status"]
            states = {peer["public_address"]: peer["state"] for peer in status["peers"]}
            for other in self.plan.hosts:
                known = (states.get(str(address.ip)) for address in other.addresses)
                state = next((state for state in known if state is not None), "unknown")
                if other is not host and state in ("unknown", "pending"):
                    missing.append(f"{host.name} to {other.name}: {state}")
        return missing

    def await_peers(self, deadline: float) -> None:
        """Return when every daemon knows every other host. LabError: `deadline` (time.monotonic) came first.

        A daemon is ready once it did its part for the peers that were there when it started; those that started a moment later
        come to it as changes.
        """
        while missing := self.unmet():
            if time.monotonic() > deadline:
                raise LabError(f"lab {self.plan.name}: the daemons do not find each other: {'; '.join(missing[:5])}")
            time.sleep(0.02)

    def stop_daemon(self, host: Host) -> None:
        """Stop this host's daemon and return when it has ended; what it programmed stays."""
        process = self.files.host(host).daemon
        if process is not None:
            system.stop([process])
            system.reap(process)

    def kill_daemon(self, host: Host) -> None:
        """Kill this host's daemon (SIGKILL) and return when it has ended."""
        process = self.files.host(host).daemon
        if process is not None:
            system.kill([process])
            system.reap(process)

    def pod_address(self, name: str, family: Family | None = None) -> str:
        """The address of a pod in `family`, else in the lab's first, out of its host's subnet.env."""
        number = 0 if family is None else self.plan.families.members.index(family)
        for host in self.plan.hosts:
            for attachment in _attachments(self, host):
                if attachment.pod.name == name:
                    return str(attachment.addresses[number].ip)
        raise LabError(f"lab {self.plan.name} has no pod {name}")

    def run(self, member: str, *command: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command inside `host1`, `pod1` or `underlay`, and return how it ended. LabError: it did not end in time."""
        inside = system.enter(self.plan.member(member), *command)
        try:
            return subprocess.run(inside, capture_output=True, text=True, check=False, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise LabError(f"{member}: {' '.join(command)}: does not end within {timeout_s:g} s") from None


def _attachments(lab: Lab, host: Host) -> tuple[Attachment, ...]:
    return attachments(host, _subnet_env(lab, host)[0])


def up(
    plan: Plan, *, store: str | None = None, daemons: bool = True, passing: bool = False, progress: Progress = lambda _: None
) -> Lab:
    """Bring the lab up: underlay, hosts, daemons, then bridges and pods in the subnets that the daemons leased.

    `store` is a URL, `etcd` for one that the lab starts itself, or None for an SQLite file of the lab's own.
    Without `daemons` the pods get the addresses that a lease of subnet 1, 2, ... would have given them. LabError: there is one
    of this name, or something failed; then nothing is left of it. A `passing` lab is one that goes when this process ends: once
    this process is gone, another `up` of the same name may remove it.
    """
    system.require("ip", *(["etcd"] if store == etcd.STORE else []))
    files = LabFiles(plan.name)
    with files.lock() as lock:
        if files.abandoned:
            _remove(files)
        if plan.name in names():
            raise LabError(f"lab {plan.name} exists: `overlaynet lab down --name {plan.name}` removes it")
        try:
            lab = Lab(plan, files.make(plan, etcd.url(plan) if store == etcd.STORE else store, passing=passing))
            progress("underlay")
            for batch in links.underlay_batches(plan):
                system.run_ip(batch, keep=[lock])
            # A new namespace inherits the machine's setting. Hosts begin as a fresh machine does, and forward once their daemons
            # say so; the router of a routed underlay is the lab's own.
            for host in plan.hosts:
                _set_forwarding(host.namespace, lock, on=False)
            if plan.underlay is Underlay.ROUTED:
                _set_forwarding(plan.underlay_namespace, lock, on=True)
            if daemons:
                if store == etcd.STORE:
                    progress("etcd")
                    own = etcd.LabEtcd(plan)
                    own.start(keep=lock)
                    own.configure(network_config(plan), time.monotonic() + READY_S)
                progress("daemons")
                if store != etcd.STORE:
                    configure(lab)
                lab.start_daemons(plan.hosts)
                lab.await_peers(time.monotonic() + READY_S)
            progress("pods")
            _attach_pods(lab, lock, leased=daemons)
        except BaseException:
            _remove(files)
            raise
    return lab


def down(name: str) -> bool:
    """Remove every trace of the lab; whether there was one. ConfigError: that is no lab's name."""
    system.require("ip")
    files = LabFiles(plan_lab(name).name)
    with files.lock():
        found = name in names() or bool(_processes(name))
        _remove(files)
    return found


def names() -> frozenset[str]:
    """The names of all labs of which anything is there: a folder or a namespace."""
    found = {lab_of_namespace(namespace) for namespace in system.namespaces()}
    return recorded_labs() | {name for name in found if name is not None}


def namespaces_of(name: str) -> frozenset[str]:
    """The namespaces of the lab that are there."""
    return frozenset(namespace for namespace in system.namespaces() if lab_of_namespace(namespace) == name)


@contextlib.contextmanager
def running(plan: Plan, *, store: str | None = None, progress: Progress = lambda _: None) -> Iterator[Lab]:
    """A lab that is up inside the `with` block and gone after it, however the block ends."""
    lab = up(plan, store=store, passing=True, progress=progress)
    try:
        yield lab
    finally:
        down(plan.name)


def _processes(name: str) -> frozenset[system.Process]:
    return system.processes_of(namespaces_of(name), marker(name))


def _remove(files: LabFiles) -> None:
    """Processes first, then namespaces and with them every link; the folder last, so that a cut here leaves the lab in `list`."""
    # Twice: a daemon that was being started may have become visible only while the others ended.
    for _ in range(2):
        system.stop(_processes(files.name))
    for daemon in files.daemons:
        system.reap(daemon)
    system.delete_namespaces(namespaces_of(files.name))
    files.remove()


def _set_forwarding(namespace: str, lock: int, *, on: bool) -> None:
    """Turn forwarding of every family on or off in the namespace."""
    for family in Families.DUAL.members:
        done = subprocess.run(
            system.enter(namespace, "tee", f"/proc/sys/net/{_FORWARDING[family]}"),
            input=f"{on:d}\n",
            capture_output=True,
            text=True,
            check=False,
            pass_fds=(lock,),
        )
        if done.returncode != 0:
            raise LabError(f"{namespace}: forwarding cannot be set: {done.stderr.strip()}")


def configure(lab: Lab) -> None:
    """Put the network's configuration into the lab's store."""
    asyncio.run(_configure(lab))


async def _configure(lab: Lab) -> None:
    """Put the network's configuration into the store; LabError if the store holds another one, which is not ours to replace."""
    from overlaynet.model.network import parse_network
    from overlaynet.store.open import open_store

    wanted = network_config(lab.plan)
    store = open_store(lab.store)
    try:
        held = (await store.load()).config
        if held is None:
            await store.put_config(wanted)
        elif parse_network(held)[0] != parse_network(wanted)[0]:
            raise LabError(f"store {lab.store} holds another network: {held.decode(errors='replace')}")
    finally:
        await store.aclose()


def _subnet_env(lab: Lab, host: Host) -> tuple[tuple[Prefix, ...], Mtu]:
    """The host's subnets, one of each family of the lab, and the pods' MTU."""
    from overlaynet.model.network import parse_subnet_env

    path = lab.files.host(host).subnet_env
    try:
        env = parse_subnet_env(path.read_text())
    except FileNotFoundError:
        raise LabError(f"{host.name}: {path} does not exist: its daemon has leased no subnet") from None
    subnets: Mapping[Family, Prefix | None] = {Family.IPV4: env.v4_subnet, Family.IPV6: env.v6_subnet}
    found: list[Prefix] = []
    for family in lab.plan.families.members:
        subnet = subnets[family]
        if subnet is None:
            raise LabError(f"{host.name}: {path} has no IPv{family.value} subnet")
        found.append(subnet)
    return tuple(found), env.mtu


def _attach_pods(lab: Lab, lock: int, *, leased: bool) -> None:
    for number, host in enumerate(lab.plan.hosts, start=1):
        subnets, mtu = _subnet_env(lab, host) if leased else (plain_subnets(lab.plan.families, number), Mtu(1500))
        for batch in links.attachment_batches(host, attachments(host, subnets), mtu):
            system.run_ip(batch, keep=[lock])

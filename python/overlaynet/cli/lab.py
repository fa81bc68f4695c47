"""`overlaynet lab`: several hosts on one machine, in network namespaces."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

import click
from overlaynet.lab import lab as labs
from overlaynet.lab import system
from overlaynet.lab.topology import BACKENDS, Underlay, plan_lab

DEFAULT_NAME = "lab"


@click.group()
def lab() -> None:
    """Several hosts on one machine, in network namespaces, each with its own daemon."""


@lab.command()
@click.option("--name", default=DEFAULT_NAME, show_default=True, help="The lab's name.")
@click.option("--hosts", default=3, show_default=True, help="How many hosts.")
@click.option("--backend", default="vxlan", show_default=True, help=f"One of {', '.join(BACKENDS)}.")
@click.option("--store", help="The store's URL; by default an SQLite file of the lab's own.")
@click.option("--bridges", default=1, show_default=True, help="Bridges on each host, a pod behind each.")
@click.option(
    "--underlay",
    type=click.Choice([kind.value for kind in Underlay]),
    default=Underlay.BRIDGE.value,
    show_default=True,
    help="One segment for all hosts, or a router with a network for each.",
)
def up(name: str, hosts: int, backend: str, store: str | None, bridges: int, underlay: str) -> None:
    """Bring a lab up and leave it running."""
    plan = plan_lab(name, hosts=hosts, bridges=bridges, backend=backend, underlay=Underlay(underlay))
    with ended_by_signals():
        labs.up(plan, store=store, progress=lambda step: click.echo(f"{name}: {step}", err=True))
    click.echo(f"{name}: up: {', '.join(member.name for member in (*plan.hosts, *plan.pods))}")


@lab.command()
@click.option("--name", default=DEFAULT_NAME, show_default=True, help="The lab's name.")
def down(name: str) -> None:
    """Remove every trace of a lab, also of one that was cut short."""
    plan_lab(name)
    click.echo(f"{name}: down" if labs.down(name) else f"{name}: there was nothing")


@lab.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_(as_json: bool) -> None:
    """List the labs of this machine."""
    rows = [_row(name) for name in sorted(labs.names())]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    for row in () if as_json else rows:
        click.echo("  ".join(f"{field}={value}" for field, value in row.items()))


def _row(name: str) -> dict[str, object]:
    try:
        found = labs.Lab.open(name)
    except labs.LabError:
        return {"name": name, "state": "left over"}
    running = sum(1 for host in found.plan.hosts if (process := found.files.host(host).daemon) is not None and process.is_alive)
    whole = labs.namespaces_of(name) == set(found.plan.namespaces)
    return {
        "name": name,
        "state": "up" if whole else "left over",
        "hosts": len(found.plan.hosts),
        "daemons": running,
        "backend": found.plan.backend,
        "underlay": found.plan.underlay.value,
        "bridges": len(found.plan.hosts[0].pods),
        "store": found.store,
    }


@lab.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--name", default=DEFAULT_NAME, show_default=True, help="The lab's name.")
@click.argument("member")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(name: str, member: str, command: tuple[str, ...]) -> None:
    """Run a command inside host1, pod1, ... and end with its exit code."""
    system.require("ip")
    arguments = system.enter(labs.Lab.open(name).plan.member(member), *command)
    sys.stdout.flush()
    os.execvp(arguments[0], arguments)  # noqa: S606 - the command takes this process's place, so its exit code is ours


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does: by an exception, so that what was made is taken down."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

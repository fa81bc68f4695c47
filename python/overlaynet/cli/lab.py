"""`overlaynet lab`: several hosts on one machine, in network namespaces."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from overlaynet.cli.lab_output import (
    ended_by_signals,
    print_figures,
    print_table,
    require_folder,
    shown_notes,
    shown_progress,
)
from overlaynet.cli.lab_simulate import simulate
from overlaynet.errors import ConfigError, LabError
from overlaynet.lab import lab as labs
from overlaynet.lab import system
from overlaynet.lab.bench import LINKS, PATHS, Effort, measure, plan_bench
from overlaynet.lab.bench_figures import figures
from overlaynet.lab.demo import Size, demonstrate, plan_demo
from overlaynet.lab.figures import write_report
from overlaynet.lab.topology import BACKENDS, Families, Underlay, parse_families, plan_lab

DEFAULT_NAME = "lab"

_family = click.option(
    "--family",
    default=Families.V4.value,
    show_default=True,
    help=f"Of the network and the underlay; one of {', '.join(one.value for one in Families)}.",
)

_store = click.option(
    "--store", help="The store's URL, or `etcd` for one that the lab starts itself. [default: an SQLite file of the lab's own]"
)


@click.group()
def lab() -> None:
    """Several hosts on one machine, in network namespaces, each with its own daemon."""


@lab.command()
@click.option("--name", default=DEFAULT_NAME, show_default=True, help="The lab's name.")
@click.option("--hosts", default=3, show_default=True, help="How many hosts.")
@click.option("--backend", default="vxlan", show_default=True, help=f"One of {', '.join(BACKENDS)}.")
@_family
@_store
@click.option("--bridges", default=1, show_default=True, help="Bridges on each host, a pod behind each.")
@click.option(
    "--underlay",
    type=click.Choice([kind.value for kind in Underlay]),
    default=Underlay.BRIDGE.value,
    show_default=True,
    help="One segment for all hosts, or a router with a network for each.",
)
def up(name: str, hosts: int, backend: str, family: str, store: str | None, bridges: int, underlay: str) -> None:
    """Bring a lab up and leave it running."""
    families = parse_families(family)
    plan = plan_lab(name, hosts=hosts, bridges=bridges, backend=backend, families=families, underlay=Underlay(underlay))
    with shown_notes(), ended_by_signals(), shown_progress() as progress:
        labs.up(plan, store=store, progress=lambda step: progress(name, step))
    click.echo(f"{name}: up: {', '.join(plan.members)}")


@lab.command()
@click.option("--name", default=DEFAULT_NAME, show_default=True, help="The lab's name.")
def down(name: str) -> None:
    """Remove every trace of a lab, also of one that was cut short."""
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
    except LabError:
        return {"name": name, "state": "left over"}
    running = sum(1 for host in found.plan.hosts if (process := found.files.host(host).daemon) is not None and process.is_alive)
    whole = labs.namespaces_of(name) == set(found.plan.namespaces)
    return {
        "name": name,
        "state": "up" if whole else "left over",
        "hosts": len(found.plan.hosts),
        "daemons": running,
        "backend": found.plan.backend,
        "family": found.plan.families.value,
        "underlay": found.plan.underlay.value,
        "bridges": len(found.plan.hosts[0].pods),
        "store": found.store,
    }


@lab.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--name", default=DEFAULT_NAME, show_default=True, help="The lab's name.")
@click.argument("member")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(name: str, member: str, command: tuple[str, ...]) -> None:
    """Run a command inside host1, pod1, ... and end with its exit code. On a host `overlaynet` finds the host's own daemon."""
    system.require("ip")
    # click leaves a `--` that follows the first argument in place.
    command = command[1:] if command[0] == "--" else command
    if not command:
        raise click.UsageError(f"lab exec {member}: no command to run")
    found = labs.Lab.open(name)
    arguments = system.enter(found.plan.member(member), *command)
    sys.stdout.flush()
    os.execvpe(arguments[0], arguments, found.environment(member, os.environ))  # noqa: S606 - the command takes this process's place, so its exit code is ours


@lab.command()
@click.option("--name", default="demo", show_default=True, help="The name of the labs that come and go.")
@click.option("--hosts", default=3, show_default=True, help="How many hosts.")
@click.option("--backend", default=",".join(BACKENDS), show_default=True, help="Backends, separated by commas.")
@_family
@_store
@click.option("--json", "report", type=click.Path(path_type=Path), help="Write the figures to this file.")
@click.pass_context
def demo(
    context: click.Context, name: str, hosts: int, backend: str, family: str, store: str | None, report: Path | None
) -> None:
    """Show each backend at work: pings, a file over HTTP, TCP. Ends with 0 only if nothing was lost."""
    plans = plan_demo(name, hosts=hosts, backends=backend, family=family)
    require_folder("--json", report)
    with ended_by_signals(), shown_progress() as progress:
        shown = demonstrate(plans, size=Size(), progress=progress, store=store)
    if report is not None:
        text = json.dumps({"backends": {name: one.figures for name, one in shown.items()}}, indent=2)
        report.write_text(f"{text}\n")
    print_table(shown)
    context.exit(0 if all(one.ok for one in shown.values()) else 1)


@lab.command()
@click.option("--name", default="bench", show_default=True, help="The beginning of the names of the labs that come and go.")
@click.option("--paths", default=",".join(PATHS), show_default=True, help="Ways between hosts, separated by commas.")
@click.option("--link", default=",".join(LINKS), show_default=True, help="How the underlay behaves, separated by commas.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 100), help="How often each path is measured.")
@click.option("--json", "report", type=click.Path(path_type=Path), help="Write the figures to this file.")
def bench(name: str, paths: str, link: str, rounds: int, report: Path | None) -> None:
    """Measure what each path carries: TCP, small packets, round-trip times, processor time."""
    plans = plan_bench(name, paths.split(","))
    links = tuple(dict.fromkeys(link.split(",")))
    if not set(links) <= set(LINKS):
        raise ConfigError("--link", link, f"must be some of {','.join(LINKS)}")
    require_folder("--json", report)
    with shown_notes(), ended_by_signals(), shown_progress() as progress:
        found = figures(measure(plans, links, rounds, Effort(), progress))
    print_figures(found)
    if report is not None:
        words = ["overlaynet lab bench", f"--paths {','.join(plans)}", f"--link {','.join(links)}", f"--rounds {rounds}"]
        write_report(report, command=" ".join([*words, f"--json {report}"]), figures=found)


lab.add_command(simulate)

"""`overlaynet lab simulate`: thousands of hosts in one process, in virtual time."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import click

from overlaynet.cli.lab_output import ended_by_signals, print_figures, require_folder, shown_progress
from overlaynet.lab.figures import Figure, at_most, write_report
from overlaynet.lab.simulation.figures import figures_of
from overlaynet.lab.simulation.plot import plot
from overlaynet.lab.simulation.scenario import MOST_HOSTS, Outcome, growth, parse_plan, run

MOST_PROCESSOR_S = 300.0


@click.command()
@click.option(
    "--hosts", default=300, show_default=True, help=f"The largest network, up to {MOST_HOSTS} hosts; smaller ones lead to it."
)
@click.option("--minutes", default=5.0, show_default=True, help="How long hosts come, go and are cut off, in virtual time.")
@click.option("--seed", default="1", show_default=True, help="Any word or number; the same gives the same run.")
@click.option("--only", is_flag=True, help="Only the largest network.")
@click.option("--json", "report", type=click.Path(path_type=Path), help="Write the figures to this file.")
@click.option("--plot", "drawing", type=click.Path(path_type=Path), help="Draw the figures into this SVG file.")
@click.pass_context
def simulate(
    context: click.Context, hosts: int, minutes: float, seed: str, only: bool, report: Path | None, drawing: Path | None
) -> None:
    """Simulate networks that grow: the daemon's own decisions over a store and kernels in memory, in virtual time.

    Prints how long a network needs until it agrees, and its messages and writes. Ends with 1 if two leases ever overlapped or a
    kernel is not as the leases ask. Needs no rights and touches nothing.
    """
    largest = parse_plan(hosts, minutes, seed)
    plans = [largest] if only else [parse_plan(size, minutes, seed) for size in growth(hosts)]
    for flag, path in (("--json", report), ("--plot", drawing)):
        require_folder(flag, path)
    began = time.process_time()
    outcomes: list[Outcome] = []
    with ended_by_signals(), shown_progress() as progress:
        for plan in plans:
            before = time.process_time()
            outcomes.append(run(plan, progress))
            spent = time.process_time() - before
    found = [figure for one in outcomes for figure in figures_of(one)]
    print_figures(found)
    for one in outcomes:
        for fault in one.faults[:10]:
            click.echo(f"{one.hosts} hosts: {fault}", err=True)
    if drawing is not None:
        drawing.write_text(plot(outcomes))
    if report is not None:
        flags = [f"--hosts {hosts}", f"--minutes {minutes:g}", f"--seed {shlex.quote(seed)}", *(["--only"] if only else [])]
        flags += [f"--json {report}", *([f"--plot {drawing}"] if drawing is not None else [])]
        # The only figures that a second run does not repeat to the byte.
        found.append(Figure(f"processor time of the network of {hosts}", spent, "s", at_most(MOST_PROCESSOR_S)))
        found.append(Figure("processor time of all", time.process_time() - began, "s"))
        write_report(report, command=f"overlaynet lab simulate {' '.join(flags)}", figures=found)
    context.exit(1 if any(one.faults for one in outcomes) else 0)

"""What `overlaynet lab` shows: steps while it works, a table at the end.

rich draws on a terminal; elsewhere there are plain lines.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import click

from overlaynet.errors import ConfigError, OverlaynetError
from overlaynet.lab.demo import Progress, Shown
from overlaynet.lab.figures import Figure

_HEADS = ("backend", "ok", "pings", "lost", "file", "TCP Gbit/s", "RTT us")


@contextlib.contextmanager
def shown_progress() -> Iterator[Progress]:
    """A function that shows on standard error what begins now, and how long it took since the block began."""
    begun = time.monotonic()

    def line(who: str, step: str) -> str:
        return f"{time.monotonic() - begun:5.1f} s  {who}: {step}"

    if not sys.stderr.isatty():
        yield lambda who, step: click.echo(line(who, step), err=True)
        return
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with console.status("") as status:

        def show(who: str, step: str) -> None:
            console.print(line(who, step), style="dim", markup=False)
            status.update(f"{who}: {step}")

        yield show


@contextlib.contextmanager
def shown_notes() -> Iterator[None]:
    """Print the notes of an error that ends the block (a daemon's last lines) before its own line is printed elsewhere."""
    try:
        yield
    except OverlaynetError as error:
        for note in getattr(error, "__notes__", ()):
            click.echo(note, err=True)
        raise


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let the first SIGINT, SIGTERM or SIGHUP end the block by an exception, and let no further one disturb the taking down."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(number: int, _: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def require_folder(flag: str, path: Path | None) -> None:
    """ConfigError: the file that a flag names could not be written, since its folder is not there."""
    if path is not None and not path.parent.is_dir():
        raise ConfigError(flag, str(path), f"{path.parent} is not a directory")


def print_figures(figures: Sequence[Figure]) -> None:
    """Print a line for each figure, with its target where there is one."""
    for one in figures:
        met = "" if one.target is None else f"  target {one.target}: {'met' if one.met else 'NOT met'}"
        click.echo(f"{one.figure:<66}{one.value:>10.4g} {one.unit}{met}")


def print_table(shown: Mapping[str, Shown]) -> None:
    """Print a row for each backend, and below the table why one did nothing."""
    rows = [_row(backend, one) for backend, one in shown.items()]
    if sys.stdout.isatty():
        _draw(rows)
    else:
        widths = [max(len(row[column]) for row in (_HEADS, *rows)) for column in range(len(_HEADS))]
        for row in (_HEADS, *rows):
            click.echo("  ".join(field.ljust(width) for field, width in zip(row, widths, strict=True)).rstrip())
    for backend, one in shown.items():
        if one.error:
            click.echo(f"{backend}: {one.error}", err=True)


def _draw(rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for number, head in enumerate(_HEADS):
        table.add_column(head, justify="left" if number < 2 else "right")
    for row in rows:
        table.add_row(*row, style="" if row[1] == "yes" else "red")
    Console().print(table)


def _row(backend: str, one: Shown) -> tuple[str, ...]:
    return (
        backend,
        "yes" if one.ok else "no",
        str(one.pings.sent),
        str(one.pings.lost),
        "equal" if one.file_sha256_equal else "not equal",
        f"{one.tcp_gbit_s:.2f}",
        "-" if one.pings.rtt_us_median is None else f"{one.pings.rtt_us_median:.0f}",
    )

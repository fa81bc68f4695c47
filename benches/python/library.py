"""Every row of the library's table: prefixes and packets, in Rust and from Python, each against its peers.

`make bench` runs it. python -m benches.python.library [REPORT ...] puts the rows of other reports before its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from overlaynet.lab.figures import Bound, Figure, Target, write_report

from benches.python import codecs, counted, lookups

REPORT = Path(__file__).parents[1] / "results" / "library.json"


def rows_of(report: Path) -> list[Figure]:
    """The figures of another report."""
    return [
        Figure(row["figure"], row["value"], row["unit"], None if row["target"] is None else target(row["target"]))
        for row in json.loads(report.read_text())["rows"]
    ]


def target(text: str) -> Target:
    bound, _, value = text.partition(" ")
    return Target(Bound(bound), float(value))


def main(reports: list[str]) -> None:
    """Measure, print the table, write the report."""
    figures = [figure for report in reports for figure in rows_of(Path(report))]
    for part in (lookups, codecs, counted):
        figures += part.figures()
    width = max(len(figure.figure) for figure in figures) + 2
    for figure in figures:
        wanted = "" if figure.target is None else f"  {figure.target} {'met' if figure.met else 'MISSED'}"
        print(f"{figure.figure:<{width}}{figure.value:>12.4g} {figure.unit}{wanted}")
    write_report(REPORT, command="make bench", figures=figures)


if __name__ == "__main__":
    main(sys.argv[1:])

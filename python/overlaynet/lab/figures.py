"""What a bench measured, as a report that can be compared: JSON that no hand has touched.

A report is `{"command", "commit", "machine", "rows": [{"figure", "value", "unit", "target", "met"}]}`. A figure without a
target has `target` and `met` null. Values are finite numbers; ratios come from one run.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Bound(StrEnum):
    """Which way a target is met."""

    AT_LEAST = ">="
    AT_MOST = "<="


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure is held against."""

    bound: Bound
    value: float

    def is_met_by(self, value: float) -> bool:
        """Whether the value is on the right side, the target itself included."""
        return value >= self.value if self.bound is Bound.AT_LEAST else value <= self.value

    def __str__(self) -> str:
        return f"{self.bound} {self.value:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value: what it is, and in which unit (`x` for a ratio)."""

    figure: str
    value: float
    unit: str
    target: Target | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        return None if self.target is None else self.target.is_met_by(self.value)

    @property
    def row(self) -> dict[str, object]:
        """The figure as the report has it; four significant digits."""
        return {
            "figure": self.figure,
            "value": float(f"{self.value:.4g}"),
            "unit": self.unit,
            "target": None if self.target is None else str(self.target),
            "met": self.met,
        }


def at_least(value: float) -> Target:
    """A target that larger values meet."""
    return Target(Bound.AT_LEAST, value)


def at_most(value: float) -> Target:
    """A target that smaller values meet."""
    return Target(Bound.AT_MOST, value)


def write_report(path: Path, *, command: str, figures: Sequence[Figure]) -> None:
    """Write the report, whole or not at all. `command` is what a reader types to get it again."""
    report = {"command": command, "commit": _commit(), "machine": _machine(), "rows": [one.row for one in figures]}
    new = path.with_name(f".{path.name}.new")
    new.write_text(f"{json.dumps(report, indent=2)}\n")
    new.replace(path)


def _commit() -> str:
    """The commit of the working tree this runs in, marked `+` when something is changed; empty outside one."""
    described = subprocess.run(
        ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"], capture_output=True, text=True, check=False
    )
    return described.stdout.strip()


def _machine() -> str:
    """What the figures hang on: processor, cores, kernel, Python."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    cores = len(os.sched_getaffinity(0))
    return f"{model or platform.machine()}, {cores} cores, Linux {platform.release()}, Python {platform.python_version()}"

"""Labs for tests: named after this process, taken down whatever happens, swept up at the next session if this one is killed."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from overlaynet.lab import lab as labs
from overlaynet.lab import system
from overlaynet.lab.daemons import marker, program
from overlaynet.lab.files import ROOT, LabFiles
from overlaynet.lab.topology import Plan

from tests.lab.one_host import OneHost, one_host

OURS = re.compile(r"ovt([0-9]+)-.+")


def lab_name(label: str) -> str:
    """A lab's name by which a later session can tell that this one is over."""
    return f"ovt{os.getpid()}-{label}"


def left_behind(names: Iterable[str], ours: re.Pattern[str]) -> list[str]:
    """Those of `names` that match and carry, as their first group, the number of a process that is gone."""
    found = ((name, ours.fullmatch(name)) for name in names)
    return [name for name, match in found if match is not None and not Path(f"/proc/{match[1]}").exists()]


def run_overlaynet(*arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program("overlaynet"), *arguments], capture_output=True, text=True, check=False, timeout=timeout_s)


def traces(name: str) -> list[str]:
    """Whatever is there of the lab."""
    files = LabFiles(name)
    left = [str(path) for path in (files.folder, files.scratch, ROOT / f"{name}.lock") if path.exists()]
    left += sorted(labs.namespaces_of(name))
    return left + [str(process) for process in system.processes_of(labs.namespaces_of(name), marker(name))]


def links_of_the_machine() -> str:
    """The machine's own links, addresses and routes, without counters."""
    views = (["link"], ["address"], ["route", "show", "table", "all"])
    return "\n".join(subprocess.run(["ip", "-o", *view], capture_output=True, text=True, check=True).stdout for view in views)


@pytest.fixture(scope="session", autouse=True)
def _no_labs_of_sessions_that_were_killed() -> None:
    for name in left_behind(labs.names(), OURS):
        labs.down(name)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[OneHost]:
    """One host in a namespace of its own; its daemons end with the test."""
    with one_host(tmp_path) as host:
        yield host


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for a lab that the test brings up by itself; the lab is gone afterwards."""
    name = lab_name("t")
    yield name
    labs.down(name)


@pytest.fixture(scope="module")
def bring_up() -> Iterator[Callable[[Plan], labs.Lab]]:
    """Brings a lab up for the rest of the module, or until the next one of the same name is brought up."""
    made: list[str] = []

    def bring(plan: Plan) -> labs.Lab:
        labs.down(plan.name)
        made.append(plan.name)
        return labs.up(plan)

    yield bring
    for name in made:
        labs.down(name)

"""A wall clock that a test can shift, for one process at a time."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("clock_shift.c")
DAY_S = 86_400


def compiled_shim(folder: Path) -> Path:
    """The library that shifts the wall clock of a process that has it in LD_PRELOAD."""
    library = folder / "clock_shift.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-Wall", "-Werror", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library

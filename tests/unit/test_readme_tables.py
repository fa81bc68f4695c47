"""Tables of figures in the pages are those that the results give, and never typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_tables_are_what_the_results_say() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benches" / "readme_tables.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

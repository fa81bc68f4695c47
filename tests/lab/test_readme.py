"""README's set-up of two hosts by hand does what README says, command by command."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = Path("/tmp/overlay")  # README's own


@pytest.fixture
def nothing_left() -> Iterator[None]:
    yield
    for pid_file in FOLDER.glob("*.pid"):
        try:
            os.kill(int(pid_file.read_text()), signal.SIGKILL)
        except (ProcessLookupError, ValueError):
            continue
    for namespace in ("left", "right"):
        subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)
    shutil.rmtree(FOLDER, ignore_errors=True)


@pytest.mark.usefixtures("nothing_left")
def test_two_hosts_by_hand() -> None:
    section = (ROOT / "README.md").read_text().split("## Two hosts by hand")[1]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block is not None
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block[1]], capture_output=True, text=True, env=environment, timeout=60, check=False
    )

    logs = "".join(log.read_text() for log in FOLDER.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    assert "3 received, 0% packet loss" in done.stdout
    assert not FOLDER.exists()

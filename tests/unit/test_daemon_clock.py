"""The clock by which a lease's end is told."""

from __future__ import annotations

import time

import pytest
from overlaynet.daemon import driver
from overlaynet.store import sqlite


@pytest.mark.parametrize("boot_time", [driver.boot_time, sqlite.boot_time])
def test_clock_of_leases_runs_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch, boot_time: object) -> None:
    """CLOCK_BOOTTIME does; CLOCK_MONOTONIC, and so `time.monotonic`, does not (man 2 clock_gettime)."""
    clocks = {time.CLOCK_BOOTTIME: 4_000.0}
    monkeypatch.setattr(time, "clock_gettime", clocks.__getitem__)
    assert callable(boot_time)
    assert boot_time() == 4_000.0

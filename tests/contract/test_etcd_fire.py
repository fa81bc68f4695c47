"""Subnets are never shared, whatever happens to who claims them: 60 seconds here, ten minutes in `make soak`."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from tests.contract.clock import compiled_shim
from tests.contract.etcd_fire import Fire
from tests.contract.namespaces import namespace


@pytest.mark.parametrize(
    "duration_s",
    [
        pytest.param(60.0, marks=pytest.mark.timeout(600)),
        pytest.param(600.0, marks=[pytest.mark.timeout(1_200), pytest.mark.soak]),
    ],
)
def test_no_two_hosts_ever_hold_or_believe_in_overlapping_subnets(tmp_path: Path, duration_s: float) -> None:
    seed = random.randrange(2**32)
    shim = compiled_shim(tmp_path)
    folder = tmp_path / "hosts"
    folder.mkdir()
    with namespace("fire") as space:
        fire = Fire(space, folder, seed, shim)
        try:
            fire.light()
            fire.burn(duration_s)
            verdict = fire.calm_down()
        finally:
            fire.put_out()
    sys.stdout.write(f"seed {seed}: {dict(fire.done)}, {verdict.text}\n")
    assert not verdict.faults, f"seed {seed}: {verdict.text}\n{dict(fire.done)}"
    assert not fire.lacks(), fire.lacks()

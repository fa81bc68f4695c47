"""Several processes on one store file: at once, killed at any moment, and with a wall clock that is a day off."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from overlaynet.model.lease_text import decode_attributes, parse_lease_key

from tests.contract.clock import DAY_S, compiled_shim

HERE = Path(__file__).parent


@contextmanager
def host(
    store: Path, name: str, number: int, *command: str, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(HERE / "sqlite_host.py"), str(store), name, str(number), *command],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | (env or {}),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def run(store: Path, *command: str, env: dict[str, str] | None = None) -> dict[str, object]:
    with host(store, "a" * 32, 1, *command, env=env) as process:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
    answer: dict[str, object] = json.loads(out)
    return answer


def test_sixteen_processes_that_claim_at_once_end_with_disjoint_leases(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    command = [sys.executable, str(HERE / "sqlite_host.py"), str(store)]
    processes = [
        subprocess.Popen([*command, f"{n:032x}", str(n + 1), "claim"], stdout=subprocess.PIPE, text=True) for n in range(16)
    ]
    try:
        outputs = [process.communicate(timeout=100)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0] * 16
    keys = [json.loads(out)["key"] for out in outputs]
    subnets = [parse_lease_key(key) for key in keys]
    assert not any(one.overlaps(other) for n, one in enumerate(subnets) for other in subnets[:n])
    with sqlite3.connect(store) as db:
        owners = dict(db.execute("SELECT key, owner FROM lease"))
    db.close()
    assert owners == {key: f"{n:032x}" for n, key in enumerate(keys)}


def test_kill_at_any_moment_loses_and_corrupts_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    held: dict[str, dict[str, str]] = {}
    for n in range(20):
        name = f"{n % 5:032x}"
        with host(store, name, n % 5 + 1, "loop") as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            time.sleep(moments.random() * 0.05)
            process.kill()
            process.wait()
            # The last line may be cut short: it was not said.
            said = [json.loads(line) for line in (first + process.stdout.read()).splitlines(keepends=True) if line.endswith("\n")]
        assert said, f"seed {seed}"
        held[name] = said[-1]
        db = sqlite3.connect(store)
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], f"seed {seed}"
        stored = {
            owner: (key, decode_attributes(value).backend_type)
            for key, value, owner in db.execute("SELECT key, value, owner FROM lease")
        }
        revisions = [row[0] for row in db.execute("SELECT revision FROM change ORDER BY revision")]
        assert revisions == list(range(revisions[0], revisions[-1] + 1))
        db.close()
        assert stored.keys() == held.keys()
        for owner, last in held.items():
            key, kind = stored[owner]
            assert key == last["key"], f"seed {seed}"
            # One more write may have been committed whose answer was not heard.
            following = f"t{int(last['type'][1:] or -1) + 1}" if last["type"] else "t0"
            assert kind in {last["type"], following}, f"seed {seed}"
            held[owner] = {"key": key, "type": kind}


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled_shim(tmp_path_factory.mktemp("shim"))


@pytest.mark.parametrize("shift_s", [DAY_S, -DAY_S])
def test_stepped_wall_clock_neither_ends_nor_keeps_a_lease(tmp_path: Path, shim: Path, shift_s: int) -> None:
    store = tmp_path / "store.db"
    shifted = {"LD_PRELOAD": str(shim), "CLOCK_SHIFT_S": str(shift_s)}
    run(store, "hold", "600")
    seen = run(store, "leases", env=shifted)
    wall = seen["wall"]
    assert isinstance(wall, float)
    assert abs(wall - time.time() - shift_s) < 60, "the shim does not shift the wall clock"
    assert seen["keys"] == ["10.1.1.0-24"]
    assert run(store, "leases")["keys"] == ["10.1.1.0-24"]

    run(store, "hold", "0.5", env=shifted)
    deadline = time.monotonic() + 20
    while run(store, "leases", env=shifted)["keys"]:
        assert time.monotonic() < deadline, "a lease of half a second is still there"
    assert run(store, "leases")["keys"] == []

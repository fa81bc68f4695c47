"""Five hundred store clients that start at once each end with a lease of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from overlaynet.store.etcd.store import EtcdStore

from tests.contract.etcd_server import EtcdServer

PROCESSES, EACH = 4, 125
WITHIN_S = 300.0
"""Ten times as long as promised: the machine that runs the tests may be busy."""


def crowd(address: str, prefix: str) -> list[dict[str, Any]]:
    """What each process of the crowd says, all let go at one moment."""
    script = str(Path(__file__).parent / "etcd_crowd.py")
    with ExitStack() as stack:
        processes = []
        for n in range(PROCESSES):
            command = [sys.executable, script, address, prefix, str(1 + n * EACH), str(EACH)]
            process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
            )
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [json.loads(process.communicate(timeout=WITHIN_S)[0]) for process in processes]


@pytest.mark.timeout(400)
async def test_500_clients_that_start_at_once_all_hold_leases_of_their_own(
    etcd: EtcdServer, prefix: str, store: EtcdStore
) -> None:
    said = await asyncio.to_thread(crowd, etcd.address, prefix)
    keys = [key for one in said for key in one["keys"]]
    leases = (await store.load()).leases
    assert len(set(keys)) == PROCESSES * EACH
    assert sorted(str(lease.subnets) for lease in leases) == sorted(keys)
    assert len({lease.owner for lease in leases}) == PROCESSES * EACH
    assert max(seconds for one in said for seconds in one["seconds"]) < WITHIN_S

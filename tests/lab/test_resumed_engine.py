"""A daemon that is killed and started again: its packet engine goes on at once, from what it ran with."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from overlaynet.lab.lab import Lab
from overlaynet.lab.numbered import flowing
from overlaynet.lab.system import enter
from overlaynet.lab.topology import Plan, plan_lab
from overlaynet.lab.traffic import serving

from tests.lab.conftest import lab_name

SLACK = 10
"""How much longer than on a quiet machine it may take here."""

RESUMED_MS = 400
WITHIN_S = 20.0

SINK = """
import socket, sys
listening = socket.create_server((sys.argv[1], 5201))
print("listens", flush=True)
connection, _ = listening.accept()
count = 0
while data := connection.recv(1 << 16):
    count += len(data)
connection.sendall(str(count).encode())
connection.close()
"""

SOURCE = """
import socket, sys, time
connection = socket.create_connection((sys.argv[1], 5201))
print("connected", flush=True)
end, count = time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < end:
    count += connection.send(bytes(1 << 14))
    time.sleep(0.001)
connection.shutdown(socket.SHUT_WR)
assert connection.recv(100).decode() == str(count)
"""


@pytest.mark.parametrize(("backend", "flags"), [("udp", ()), ("vxlan", ("--vxlan-mode", "user"))], ids=["udp", "vxlan-user"])
def test_killed_daemon_forwards_soon_after_its_next_start_and_a_tcp_stream_survives(
    bring_up: Callable[[Plan], Lab], backend: str, flags: tuple[str, ...]
) -> None:
    lab = bring_up(plan_lab(lab_name("resumed"), hosts=2, backend=backend, daemon_flags=flags))
    host = lab.plan.hosts[0]
    engine = lab.files.host(host).state / "engine.json"
    deadline = time.monotonic() + WITHIN_S
    while not (engine.exists() and str(lab.plan.hosts[1].addresses[0].ip) in engine.read_text()):
        assert time.monotonic() < deadline, "the engine's configuration was not kept"
        time.sleep(0.05)
    address = lab.pod_address("pod2")
    with contextlib.ExitStack() as stack:
        stack.enter_context(serving(lab, "pod2", [sys.executable, "-c", SINK, address], "listens"))
        source = subprocess.Popen(
            enter(lab.plan.member("pod1"), sys.executable, "-c", SOURCE, address, "2"), stdout=subprocess.PIPE, text=True
        )
        stack.callback(source.communicate)
        stack.callback(source.kill)
        assert source.stdout is not None
        assert source.stdout.readline() == "connected\n"
        flow = stack.enter_context(flowing(lab, "pod1", "pod2"))
        flow.run_for(0.3)
        begun = time.monotonic()
        lab.kill_daemon(host)
        lab.start_daemons([host])
        ready_ms = (time.monotonic() - begun) * 1e3
        flow.run_for(0.3)
        loss = flow.end()
        assert source.wait(WITHIN_S) == 0
    for way in (loss.there, loss.back):
        assert 0 < way.lost <= RESUMED_MS * SLACK, loss
        assert way.longest_silence_ms <= RESUMED_MS * SLACK, loss
        assert way.longest_silence_ms < ready_ms / 2, "the engine waited for the rest of the daemon"
        assert way.reordered == way.repeated == 0, loss

"""`overlaynet decode` reads what tcpdump captures in a lab, for every backend, and every form that Wireshark makes of it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from overlaynet.lab import lab as labs
from overlaynet.lab import traffic
from overlaynet.lab.topology import Plan, plan_lab

from tests.lab.conftest import lab_name, run_overlaynet
from tests.lab.test_lab_wire import captured

WIRE = {
    "vxlan": ["ethernet", "ipv4", "udp", "vxlan", "ethernet", "ipv4", "icmp"],
    "host-gw": ["ethernet", "ipv4", "icmp"],
    "udp": ["ethernet", "ipv4", "udp", "ipv4", "icmp"],
}


@pytest.fixture(scope="module", params=WIRE)
def capture(
    request: pytest.FixtureRequest, bring_up: Callable[[Plan], labs.Lab], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str, Path]:
    """A backend, pod1's address, and what tcpdump saw on the underlay while pod1 pinged pod2."""
    lab = bring_up(plan_lab(lab_name("decode"), hosts=2, backend=request.param))
    file = tmp_path_factory.mktemp("decode") / "underlay.pcap"
    source = str(lab.pod_address("pod1"))
    with captured(lab, "host1", file):
        assert traffic.ping(lab, "pod1", lab.pod_address("pod2"), count=3, interval_s=0.05).lost == 0
        deadline = time.monotonic() + 10
        while len(pings(decoded(file, whole=False), source)) < 6:
            assert time.monotonic() < deadline, "the capture does not get to the last reply"
            time.sleep(0.02)
    return request.param, source, file


def decoded(file: Path, *, whole: bool = True) -> list[dict[str, Any]]:
    done = run_overlaynet("decode", "--json", str(file))
    if whole:
        assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def pings(packets: list[dict[str, Any]], address: str) -> list[dict[str, Any]]:
    """The packets whose innermost layers are a pod's echo request or the reply to it."""
    return [
        packet
        for packet in packets
        if len(packet["layers"]) > 1
        and packet["layers"][-1]["layer"] == "icmp"
        and packet["layers"][-1]["kind"] in (0, 8)
        and address in (packet["layers"][-2]["source"], packet["layers"][-2]["destination"])
    ]


def test_every_layer_of_a_ping_is_found_with_right_checksums(capture: tuple[str, str, Path]) -> None:
    backend, address, file = capture
    found = pings(decoded(file), address)
    assert len(found) == 6
    for packet in found:
        assert [layer["layer"] for layer in packet["layers"]] == WIRE[backend]
        # An outer UDP checksum is the sending device's work, which a veth pair leaves out; tshark calls it wrong, too.
        inner = [layer["checksum"] for layer in packet["layers"] if layer["layer"] != "udp"]
        assert set(inner) <= {"right", "absent"}
        assert packet["layers"][-1]["checksum"] == "right"
        assert packet["fault"] is None
        assert packet["payload"]["offset"] + packet["payload"]["length"] == packet["length"]


def test_text_shows_each_packet_with_its_offsets(capture: tuple[str, str, Path]) -> None:
    backend, _, file = capture
    text = run_overlaynet("decode", str(file)).stdout
    assert text.count(" icmp echo request ") >= 3
    assert not [line for line in text.splitlines() if line.endswith("checksum wrong") and " udp " not in line]
    offsets = {"vxlan": " 84 icmp", "host-gw": " 34 icmp", "udp": " 62 icmp"}
    assert offsets[backend] in text


@pytest.mark.parametrize("form", ["pcapng", "nsecpcap"])
def test_other_forms_of_the_same_capture_say_the_same(capture: tuple[str, str, Path], tmp_path: Path, form: str) -> None:
    _, _, file = capture
    other = tmp_path / f"underlay.{form}"
    subprocess.run(["editcap", "-F", form, str(file), str(other)], check=True, capture_output=True)
    assert decoded(other) == decoded(file)


def test_a_cut_capture_gives_the_packets_before_the_cut(capture: tuple[str, str, Path], tmp_path: Path) -> None:
    _, _, file = capture
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(file.read_bytes()[:-5])
    done = run_overlaynet("decode", "--json", str(cut))
    assert done.returncode == 11
    assert [json.loads(line) for line in done.stdout.splitlines()] == decoded(file)[:-1]
    assert done.stderr.startswith(f"overlaynet: {cut}: damaged at byte ")


def test_tshark_finds_the_same_protocols(capture: tuple[str, str, Path]) -> None:
    backend, address, file = capture
    ours = [packet["number"] for packet in pings(decoded(file), address)]
    fields = ["-T", "fields", "-e", "frame.number", "-e", "frame.protocols", "-e", "ip.len"]
    # What follows port 8285 is IP for us; tshark is told so.
    options = ["-d", "udp.port==8285,ip", "-d", "udp.port==8472,vxlan"]
    done = subprocess.run(["tshark", "-n", "-r", str(file), *options, *fields], check=True, capture_output=True, text=True)
    theirs = dict(line.split("\t")[:2] for line in done.stdout.splitlines())
    names = {"ethernet": "eth:ethertype", "ipv4": "ip"}
    expected = ":".join(names.get(name, name) for name in WIRE[backend])
    for number in ours:
        assert theirs[str(number)] == f"{expected}:data"

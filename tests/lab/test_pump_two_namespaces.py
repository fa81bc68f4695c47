"""The packet engine by itself, without a daemon, over real devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from overlaynet.lab.system import enter
from overlaynet.model.dataplane import OFFLOADS, TAP
from scapy.layers.inet import IP, UDP

from tests.lab.pump_hosts import MTU, PORT, Host, hosts, ping, send_stream, until

__all__ = ["hosts"]

FORGE = """
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.sendto(bytes.fromhex(sys.argv[2]), (sys.argv[1], int(sys.argv[3])))
"""


def test_traffic_crosses_and_is_counted(hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    a.begin(b)
    b.begin(a)

    assert "3 received, 0% packet loss" in ping(a, b.overlay).stdout
    # iperf3 closes when it has sent everything: its server may not have read the last buffers.
    received = send_stream(a, b, "64M")
    assert received > 32 << 20
    of_a, of_b = a.ask("counters"), b.ask("counters")
    assert of_a["tx_bytes"] > received
    assert of_b["peers"][a.public]["rx_bytes"] == of_b["rx_bytes"] > received
    assert of_a["peers"].keys() == {b.public}


@pytest.mark.parametrize("left", [(), ("tso",), ("uso",), ("gso",), ("gro",), ("batch",), ("poll",), OFFLOADS])
def test_traffic_crosses_without_an_offload(hosts: tuple[Host, Host, Host], left: Sequence[str]) -> None:
    a, b, _ = hosts
    a.begin(b, offloads=[name for name in OFFLOADS if name not in left])
    b.begin(a, offloads=[name for name in OFFLOADS if name not in left])

    assert send_stream(a, b, "8M") > 1 << 20
    # Few processors have none to spare for looking.
    useless = {"poll"} if len(os.sched_getaffinity(0)) < 4 else set()
    states = {name: "off" if name in useless or name in left else "on" for name in OFFLOADS}
    assert a.ask("offloads") == states | {TAP: "off"}
    assert b.drops() == {}


def test_kernel_that_refuses_long_segments_costs_no_packet(hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    # As the daemon sets it: the engine's errors come from the host's own address.
    assert a.run("sysctl", "-w", "net.ipv4.conf.tun0.accept_local=1").returncode == 0
    a.begin(b)
    b.begin(a)
    # Segments of 1,500 bytes no longer fit the device: udp_send_skb refuses them with EMSGSIZE, or EINVAL before Linux 6.15.
    a.ip("link set eth0 mtu 1400")

    assert send_stream(a, b, "8M") > 1 << 20
    # What was refused went out in parts; what came after that was told to its sender.
    assert a.drops().keys() <= {"too_big"}
    assert a.ask("offloads")["gso"] in ("on", "given up: Invalid argument (os error 22)")


def test_underlay_without_checksum_offload_carries_as_well(hosts: tuple[Host, Host, Host]) -> None:
    a, b, c = hosts
    a.begin(b)
    b.begin(a)
    # Until Linux 6.11 such a device refuses several datagrams in one send with EIO.
    for host, device in ((a, "eth0"), (b, "eth0"), (c, "a"), (c, "b")):
        assert host.run("ethtool", "-K", device, "tx", "off").returncode == 0

    assert send_stream(a, b, "8M") > 1 << 20
    assert a.drops() == {}
    assert a.ask("offloads")["gso"] in ("on", "given up: Input/output error (os error 5)")


@pytest.mark.parametrize("outer", [4, 6])
def test_ipv6_crosses_over_either_underlay(hosts: tuple[Host, Host, Host], outer: int) -> None:
    a, b, _ = hosts
    public = {}
    for host in (a, b):
        for device in ("eth0", "tun0"):
            assert host.run("sysctl", "-w", f"net.ipv6.conf.{device}.disable_ipv6=0").returncode == 0
        own = f"fd00:9:{host.number}::1"
        host.ip(
            f"address add 2001:db8::{host.number}/64 dev eth0 nodad",
            "link set tun0 mtu 1400",
            f"address add {own}/128 dev tun0 nodad",
            f"route add fd00:9::/32 dev tun0 src {own}",
        )
        public[host.number] = host.public if outer == 4 else f"2001:db8::{host.number}"
    for host, peer in ((a, b), (b, a)):
        assert host.ask("open", tun="tun0", bind=[(public[host.number], PORT)], mtu=1400, offloads=OFFLOADS) is None
        subnets = [peer.subnet, f"fd00:9:{peer.number}::/64"]
        said = host.ask(
            "configure",
            local=[host.subnet, f"fd00:9:{host.number}::/64"],
            addresses=[host.overlay, f"fd00:9:{host.number}::1"],
            peers=[(subnets, public[peer.number], PORT, None)],
        )
        assert said is None
        assert host.ask("start") is None

    assert "3 received, 0% packet loss" in ping(a, "fd00:9:2::1").stdout
    assert "3 received, 0% packet loss" in ping(a, b.overlay).stdout
    assert send_stream(a, b, "8M", address="fd00:9:2::1") > 1 << 20
    assert "Time exceeded" in ping(a, "fd00:9:2::1", "-t", "1", count=1).stdout
    assert a.ask("counters")["peers"][public[2]]["tx_packets"] > 6


def test_narrow_path_is_told_to_senders(hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    # The engine's errors come from the host's own address.
    a.ip(f"address add {a.subnet.split('/')[0]}/32 dev tun0")
    assert a.run("sysctl", "-w", "net.ipv4.conf.tun0.accept_local=1").returncode == 0
    a.begin(b)
    b.begin(a)
    a.ip("link set eth0 mtu 1300")

    assert send_stream(a, b, "8M") > 1 << 20
    assert a.drops().keys() <= {"too_big"}
    # 1,300 bytes, less 20 of IPv4 and 8 of UDP.
    assert "mtu 1272" in a.run("ip", "route", "get", b.overlay).stdout


def test_peer_behind_translation_is_let_in_by_its_inner_source_if_asked(hosts: tuple[Host, Host, Host]) -> None:
    a, b, c = hosts
    b.begin(a)
    inner = bytes(IP(src=a.overlay, dst=b.overlay) / UDP(sport=9, dport=9)).hex()
    foreign = bytes(IP(src="10.9.3.1", dst=b.overlay) / UDP(sport=9, dport=9)).hex()
    table = [([a.subnet], a.public, PORT, None)]

    for check, delivered, dropped in (
        ("inner", 1, {"foreign_source": 1}),
        ("off", 3, {"foreign_source": 1}),
        ("strict", 3, {"foreign_source": 1, "unknown_peer": 2}),
    ):
        assert b.ask("configure", local=[b.subnet], addresses=[b.overlay], peers=table, source_check=check) is None
        for packet in (inner, foreign):
            assert c.run(sys.executable, "-c", FORGE, b.public, packet, str(PORT)).returncode == 0
        if check == "strict":
            until("not counted", lambda: b.drops().get("unknown_peer") == 2)
        until(f"{check}: not delivered", lambda: b.ask("counters")["rx_packets"] == delivered)  # noqa: B023 - called at once
        of_sources = {reason: n for reason, n in b.drops().items() if reason in ("foreign_source", "unknown_peer")}
        assert of_sources == dropped
    said = b.ask("configure", local=[], addresses=[], peers=[], source_check="warp")
    assert "strict, inner or off" in said["error"]


def generator(host: Host, name: str, **arguments: object) -> list[str]:
    return enter(host.namespace, sys.executable, "-m", "overlaynet.lab.generator", name, json.dumps(arguments))


def test_no_flow_is_reordered_under_traffic_and_while_peers_come_and_go(hosts: tuple[Host, Host, Host]) -> None:
    a, b, c = hosts
    a.begin(b)
    b.begin(a)
    counting, flooding = [], []
    try:
        for port, payload in ((9001, 64), (9002, 600), (9003, 1400)):
            bind = (b.overlay, port)
            counter = subprocess.Popen(generator(b, "count", bind=bind, patience=20, quiet=1), stdout=subprocess.PIPE, text=True)
            counting.append(counter)
            assert counter.stdout is not None
            assert counter.stdout.readline() == "listens\n"
            until("no socket", lambda: f":{port}" in b.run("ss", "-uln").stdout)  # noqa: B023 - called at once
            flood = generator(a, "flood", to=bind, payload=payload, seconds=1, most=1 << 40)
            flooding.append(subprocess.Popen(flood, stdout=subprocess.PIPE, text=True))
        while any(flood.poll() is None for flood in flooding):
            assert a.configure(b, c) is None
            assert a.configure(b) is None
        for counter in counting:
            received, sent, disordered, _ = json.loads(counter.communicate(timeout=30)[0])
            assert received > 1000
            assert disordered == 0, f"{disordered} of {received} (of {sent}) came late"
    finally:
        for process in (*counting, *flooding):
            process.kill()
            process.communicate()
    assert b.drops() == {}
    offloads = {name: state for name, state in a.ask("offloads").items() if name not in ("poll", TAP)}
    assert set(offloads.values()) == {"on"}, offloads


def test_stranger_is_counted_and_let_in_nowhere(hosts: tuple[Host, Host, Host]) -> None:
    a, b, c = hosts
    b.begin(a)
    # What a's own engine would send.
    inner = bytes(IP(src=a.overlay, dst=b.overlay) / UDP(sport=9, dport=9))
    assert c.run(sys.executable, "-c", FORGE, b.public, inner.hex(), str(PORT)).returncode == 0
    until("not counted", lambda: b.drops() == {"unknown_peer": 1})

    assert a.run(sys.executable, "-c", FORGE, b.public, inner.hex(), str(PORT)).returncode == 0
    until("not delivered", lambda: b.ask("counters")["peers"][a.public]["rx_packets"] == 1)
    assert b.drops() == {"unknown_peer": 1}


def test_tables_change_under_traffic_without_loss(hosts: tuple[Host, Host, Host]) -> None:
    a, b, c = hosts
    a.begin(b)
    b.begin(a)
    pinging = subprocess.Popen(
        enter(a.namespace, "ping", "-q", "-i", "0.002", "-c", "500", b.overlay), stdout=subprocess.PIPE, text=True
    )
    changes = 0
    while pinging.poll() is None:
        assert a.configure(b, c) is None
        assert a.configure(b) is None
        changes += 2
    said, _ = pinging.communicate(timeout=10)

    assert "500 received, 0% packet loss" in said
    assert changes > 100
    assert a.ask("counters")["peers"][b.public]["tx_packets"] == a.ask("counters")["tx_packets"] >= 500


def test_wrong_text_is_named_and_leaves_the_tables_alone(hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    a.begin(b)
    b.begin(a)

    for wrong in ("10.9.1.0/33", "nonsense", "10.9.1.7/24"):
        said = a.ask("configure", local=[wrong], addresses=[], peers=[])
        assert wrong in said["error"]
    assert "10.9.1.x" in a.ask("configure", local=[], addresses=["10.9.1.x"], peers=[])["error"]

    assert "3 received" in ping(a, b.overlay).stdout


def test_stop_returns_at_once_and_frees_device_and_port(hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    a.begin(b)
    b.begin(a)
    flood = subprocess.Popen(
        enter(a.namespace, "ping", "-q", "-f", "-w", "30", b.overlay), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until("no traffic", lambda: a.ask("counters")["rx_packets"] > 100)
        a.ask("stop")
        assert a.seconds < 0.5
        assert a.ask("running") is False
        assert a.ask("failure") is None
        a.ask("stop")

        a.begin(b)
        until("no traffic after the second start", lambda: a.ask("counters")["rx_packets"] > 100)
    finally:
        flood.kill()
        flood.wait()


def test_idle_engine_sleeps(hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    a.begin(b)
    process = a.process_id()

    def busy_ticks() -> int:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = busy_ticks()
    time.sleep(10.0)
    # Ticks of 10 ms: half a percent.
    assert busy_ticks() - before <= 5


def test_device_that_is_deleted_ends_the_engine_with_a_reason(hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    a.begin(b)

    a.ip("link delete tun0")

    until("still runs", lambda: a.ask("running") is False)
    assert "tun0" in a.ask("failure")
    a.ask("stop")
    a.make_tun()
    a.begin(b)


def test_underlay_that_is_down_is_a_counted_drop(hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    a.begin(b)
    b.begin(a)

    a.ip("link set eth0 down")
    ping(a, b.overlay, "-W", "1", count=2)
    assert a.drops() == {"send_failed": 2}
    assert {reason: n for reason, n in a.ask("counters")["peers"][b.public]["drops"].items() if n} == {"send_failed": 2}

    a.ip("link set eth0 up")
    until("does not come back", lambda: ping(a, b.overlay, count=1).returncode == 0)
    assert a.ask("failure") is None


def test_device_that_is_down_for_a_while_is_no_end(hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    a.begin(b)
    b.begin(a)

    b.ip("link set tun0 down")
    ping(a, b.overlay, "-W", "1", count=2)
    until("not counted", lambda: b.drops() == {"deliver_failed": 2})
    b.ip("link set tun0 up", f"route replace 10.9.0.0/16 dev tun0 src {b.overlay}")

    assert "3 received" in ping(a, b.overlay).stdout
    assert b.ask("running") is True


def test_used_up_ttl_is_answered(hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    a.ip(f"address add {a.subnet.split('/')[0]}/32 dev tun0")
    enabled = a.run("sysctl", "-w", "net.ipv4.conf.tun0.accept_local=1")
    assert enabled.returncode == 0, enabled.stderr
    a.begin(b)

    assert "Time to live exceeded" in ping(a, b.overlay, "-t", "1", count=1).stdout
    assert "Destination Net Unreachable" in ping(a, "10.9.77.1", count=1).stdout
    assert a.drops() == {"ttl_exceeded": 1, "no_peer": 1}


def test_taken_port_is_named(hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    a.begin(b)

    a.ip("tuntap add tun1 mode tun")
    assert f"{a.public}:{PORT}" in a.ask("open", tun="tun1", bind=[(a.public, PORT)], mtu=MTU, offloads=[])["error"]

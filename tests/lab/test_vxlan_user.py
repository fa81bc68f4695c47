"""User-space vxlan and the kernel's device in one network: a host with the engine, and one with kernel VTEPs.

a 192.0.2.1, 2001:db8::1                     b 192.0.2.2, 2001:db8::2
TUN tun0 10.9.1.1, fd00:9:1::1               vx4 10.9.2.1, vx6 fd00:9:2::1
    eth0 ------------------------------------ eth0
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from overlaynet.lab import lab as labs
from overlaynet.lab import traffic
from overlaynet.lab.lab import Lab
from overlaynet.lab.system import delete_namespaces, enter
from overlaynet.lab.topology import Plan, plan_lab
from overlaynet.model.dataplane import OFFLOADS

from tests.lab.conftest import lab_name
from tests.lab.pump_hosts import Host, ping, until

VNI = 7
PORT = 8472
MTU = 1430
MACS = {"a4": "02:00:00:00:04:01", "a6": "02:00:00:00:06:01", "b4": "02:00:00:00:04:02", "b6": "02:00:00:00:06:02"}
OVERLAY = {4: ("10.9.1.1", "10.9.2.1"), 6: ("fd00:9:1::1", "fd00:9:2::1")}

KERNEL = [
    "address add 192.0.2.2/24 dev eth0",
    "address add 2001:db8::2/64 dev eth0 nodad",
    "link set eth0 up",
    f"link add vx4 address {MACS['b4']} mtu {MTU} type vxlan id {VNI} dstport {PORT} local 192.0.2.2 dev eth0 nolearning",
    f"link add vx6 address {MACS['b6']} mtu {MTU} type vxlan id {VNI} dstport {PORT} local 2001:db8::2 dev eth0 nolearning",
    "link set vx4 up",
    "link set vx6 up",
    "address add 10.9.2.1/32 dev vx4",
    "address add fd00:9:2::1/128 dev vx6 nodad",
    f"neighbour add 10.9.1.0 lladdr {MACS['a4']} dev vx4 nud permanent",
    f"neighbour add fd00:9:1:: lladdr {MACS['a6']} dev vx6 nud permanent",
    "route add 10.9.1.0/24 via 10.9.1.0 dev vx4 onlink",
    "route add fd00:9:1::/64 via fd00:9:1:: dev vx6 onlink",
]
ENGINE = [
    "address add 192.0.2.1/24 dev eth0",
    "address add 2001:db8::1/64 dev eth0 nodad",
    "link set eth0 up",
    "tuntap add tun0 mode tun",
    f"link set tun0 mtu {MTU} up",
    "address add 10.9.1.1/32 dev tun0",
    "address add fd00:9:1::1/128 dev tun0 nodad",
    "route add 10.9.0.0/16 dev tun0 src 10.9.1.1",
    "route add fd00:9::/32 dev tun0 src fd00:9:1::1",
]


@pytest.fixture
def pair() -> Iterator[tuple[Host, Host]]:
    a, b = Host("a", 1), Host("b", 2)
    a.namespace, b.namespace = (f"ovt-vxu{os.getpid()}-{name}" for name in "ab")
    try:
        for host in (a, b):
            subprocess.run(["ip", "netns", "add", host.namespace], check=True)
            host.ip("link set lo up")
        a.ip(f"link add name eth0 type veth peer name eth0 netns {b.namespace}", *ENGINE)
        b.ip(*KERNEL)
        for mac, destination, device in ((MACS["a4"], "192.0.2.1", "vx4"), (MACS["a6"], "2001:db8::1", "vx6")):
            assert b.run("bridge", "fdb", "append", mac, "dev", device, "dst", destination).returncode == 0
            # A kernel VTEP leaves inner checksums to the NIC, and a veth has none: the frames would come here without.
            assert b.run("ethtool", "-K", device, "tx-checksum-ip-generic", "off").returncode == 0
        assert (
            a.ask("open", tun="tun0", bind=[("192.0.2.1", PORT), ("2001:db8::1", PORT)], mtu=MTU, offloads=OFFLOADS, spread=True)
            is None
        )
        configured = a.ask(
            "configure",
            local=["10.9.1.0/24", "fd00:9:1::/64"],
            addresses=["10.9.1.1", "fd00:9:1::1"],
            peers=[
                (["10.9.2.0/24"], "192.0.2.2", PORT, MACS["b4"]),
                (["fd00:9:2::/64"], "2001:db8::2", PORT, MACS["b6"]),
            ],
            vteps=(VNI, MACS["a4"], MACS["a6"]),
        )
        assert configured is None
        assert a.ask("start") is None
        yield a, b
    finally:
        for host in (a, b):
            host.end()
        delete_namespaces([host.namespace for host in (a, b)])


def stream(source: Host, destination: Host, address: str, size: str = "16M") -> float:
    server = subprocess.Popen(enter(destination.namespace, "iperf3", "-s", "-1"), stdout=subprocess.DEVNULL)
    try:
        until("iperf3 does not listen", lambda: ":5201" in destination.run("ss", "-ltn").stdout)
        bulk = source.run("iperf3", "-c", address, "-n", size, "-J")
        assert bulk.returncode == 0, bulk.stdout
        server.wait(timeout=10)
    finally:
        server.kill()
        server.wait()
    return float(json.loads(bulk.stdout)["end"]["sum_received"]["bytes"])


@pytest.mark.parametrize("family", [4, 6])
def test_engine_and_kernel_vtep_carry_pings_and_tcp_both_ways(pair: tuple[Host, Host], family: int) -> None:
    a, b = pair
    of_a, of_b = OVERLAY[family]

    assert "3 received, 0% packet loss" in ping(a, of_b).stdout
    assert "3 received, 0% packet loss" in ping(b, of_a).stdout
    # The longest packet that fits, and not a byte more.
    assert "3 received" in ping(a, of_b, "-M", "do", "-s", str(MTU - (28 if family == 4 else 48))).stdout
    assert stream(a, b, of_b) > 4 << 20
    assert stream(b, a, of_a) > 4 << 20

    public = "192.0.2.2" if family == 4 else "2001:db8::2"
    counters = a.ask("counters")["peers"][public]
    assert counters["tx_bytes"] > 4 << 20
    assert counters["rx_bytes"] > 4 << 20
    assert not any(count for reason, count in counters["drops"].items())


def test_flows_leave_from_several_ports_and_none_from_the_one_that_listens(pair: tuple[Host, Host]) -> None:
    a, b = pair
    watching = subprocess.Popen(
        enter(b.namespace, "tcpdump", "-n", "-l", "-i", "eth0", "-c", "20", f"udp dst port {PORT} and src host 192.0.2.1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert watching.stderr is not None
        while "listening on" not in watching.stderr.readline():
            assert watching.poll() is None
        flows = (
            # Slowly: datagrams that leave together are seen as one.
            "import socket, sys, time\n"
            "for port in range(60):\n"
            "    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:\n"
            "        one.bind((sys.argv[1], 20000 + port))\n"
            "        one.sendto(b'x', (sys.argv[2], 9))\n"
            "    time.sleep(0.005)\n"
        )
        assert a.run(sys.executable, "-c", flows, *OVERLAY[4]).returncode == 0
        seen, _ = watching.communicate(timeout=20)
    finally:
        watching.kill()
        watching.wait()
    ports = {int(port) for port in re.findall(r"192\.0\.2\.1\.(\d+) > ", seen)}
    assert 3 <= len(ports) <= 8
    assert PORT not in ports


def test_frames_of_others_are_counted_by_reason(pair: tuple[Host, Host]) -> None:
    a, b = pair
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import ARP, Ether
    from scapy.layers.vxlan import VXLAN

    inner = IP(src="10.9.2.1", dst="10.9.1.1") / UDP(sport=9, dport=9)
    good = Ether(dst=MACS["a4"], src=MACS["b4"]) / inner
    frames = [
        VXLAN(vni=VNI + 1, flags=8) / good,
        VXLAN(vni=VNI, flags=8) / Ether(dst=MACS["a6"], src=MACS["b4"]) / inner,
        VXLAN(vni=VNI, flags=8) / Ether(dst=MACS["a4"], src=MACS["b4"]) / ARP(),
        VXLAN(vni=VNI, flags=0) / good,
        VXLAN(vni=VNI, flags=8) / Ether(dst=MACS["a4"], src=MACS["b4"]) / IP(src="10.9.3.1", dst="10.9.1.1"),
        VXLAN(vni=VNI, flags=8) / good,
    ]
    before = a.ask("counters")["rx_packets"]
    forge = (
        "import socket, sys\n"
        "with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:\n"
        "    for frame in sys.argv[1:]:\n"
        f"        one.sendto(bytes.fromhex(frame), ('192.0.2.1', {PORT}))\n"
    )
    assert b.run(sys.executable, "-c", forge, *(bytes(frame).hex() for frame in frames)).returncode == 0

    expected = {"foreign_network": 1, "foreign_frame": 2, "malformed": 1, "foreign_source": 1}
    until("not delivered", lambda: a.ask("counters")["rx_packets"] == before + 1)
    of_b = a.ask("counters")["peers"]["192.0.2.2"]["drops"]
    assert {reason: count for reason, count in of_b.items() if count} == expected


@pytest.fixture(scope="module")
def lab(bring_up: Callable[[Plan], labs.Lab]) -> labs.Lab:
    return bring_up(plan_lab(lab_name("vxuser"), hosts=2, backend="vxlan"))


def test_one_host_of_a_lab_changes_to_user_space_and_back(lab: Lab) -> None:
    host = lab.plan.hosts[1]
    # What the first host's kernel sends must have its checksums on a veth.
    assert lab.run("host1", "ethtool", "-K", "ovl.1", "tx-checksum-ip-generic", "off").returncode == 0
    for flags, device in ((("--vxlan-mode", "user"), "ovl-vxlan"), ((), "ovl.1")):
        lab.stop_daemon(host)
        Lab(replace(lab.plan, daemon_flags=flags), lab.store).start_daemons([host])
        links = {link["ifname"] for link in json.loads(lab.run("host2", "ip", "-j", "link").stdout)}
        assert links & {"ovl-vxlan", "ovl.1"} == {device}
        if device == "ovl.1":
            assert lab.run("host2", "ethtool", "-K", "ovl.1", "tx-checksum-ip-generic", "off").returncode == 0
        # The engine waits for the port until the kernel's device is gone.
        until("does not carry pings", lambda: traffic.ping_all(lab, count=3).lost == 0)
        assert traffic.tcp_gbit_s(lab, "pod1", "pod2", seconds=1) > 0.05
        assert traffic.tcp_gbit_s(lab, "pod2", "pod1", seconds=1) > 0.05

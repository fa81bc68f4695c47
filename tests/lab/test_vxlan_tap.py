"""User-space vxlan whose TCP super-packets leave whole through a TAP, to kernel VTEPs and to engines, while they arrive.

a 192.0.2.1, 2001:db8::1                     b 192.0.2.2, 2001:db8::2
TUN tun0 10.9.1.0, fd00:9:1::                vx4 10.9.2.0, vx6 fd00:9:2::, or TUN tun0 with both
TAP ovl-tap
    eth0 ------------------------------------ eth0
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from overlaynet.control.client import ask
from overlaynet.lab import lab as labs
from overlaynet.lab import traffic
from overlaynet.lab.lab import Lab
from overlaynet.lab.numbered import flowing
from overlaynet.lab.system import delete_namespaces, enter, namespaces
from overlaynet.lab.topology import Plan, plan_lab
from overlaynet.model.dataplane import OFFLOADS

from tests.lab.conftest import lab_name, left_behind
from tests.lab.pump_hosts import Host, ping, until

OURS = re.compile(r"ovt-tap([0-9]+)-[ab]")
VNI = 7
PORT = 8472
MTU = 1430
TAP = "ovl-tap"
OVERLAY = {4: ("10.9.1.0", "10.9.2.0"), 6: ("fd00:9:1::", "fd00:9:2::")}
UNDERLAY = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8::1", "2001:db8::2")}
WIRE = ("tso", "tx-udp-segmentation", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation", "tx-checksum-ip-generic")


def mac(host: int, family: int) -> str:
    return f"02:00:00:00:0{family}:0{host}"


@dataclass
class Pair:
    """Two hosts: `a` has an engine with a TAP or without, `b` an engine or kernel VTEPs."""

    a: Host
    b: Host

    def tap(self, host: Host | None = None) -> str:
        """How it stands with the TAP."""
        return str((host or self.a).ask("offloads")["tap"])

    def counted(self, host: Host | None = None) -> dict[str, int]:
        """Super-packets that took the TAP, and how often it was left."""
        counters: dict[str, Any] = (host or self.a).ask("counters")
        return dict(counters["tap"])

    def stream(self, source: Host, destination: Host, address: str, size: str = "32M") -> None:
        """Bulk TCP, all of which arrives."""
        with server(destination):
            bulk = source.run("iperf3", "-c", address, "-n", size, "-J")
        assert bulk.returncode == 0, bulk.stdout
        assert json.loads(bulk.stdout)["end"]["sum_received"]["bytes"] > 4 << 20

    @contextlib.contextmanager
    def streaming(self, family: int = 4) -> Iterator[subprocess.Popen[bytes]]:
        """A TCP stream from `a` while the block runs."""
        # What paces by the past would crawl on for a while after losses (BBR).
        command = enter(self.a.namespace, "iperf3", "-c", OVERLAY[family][1], "-t", "60", "-C", "cubic")
        with server(self.b):
            client = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            try:
                yield client
            finally:
                client.kill()
                client.wait()

    def moves(self) -> None:
        """Return once some megabytes more have left."""
        start = self.sent()
        until("the stream stands still", lambda: self.sent() > start + (8 << 20))

    def sent(self) -> int:
        return int(self.a.ask("counters")["tx_bytes"])


@contextlib.contextmanager
def server(host: Host) -> Iterator[None]:
    process = subprocess.Popen(enter(host.namespace, "iperf3", "-s", "-1"), stdout=subprocess.DEVNULL)
    try:
        until("iperf3 does not listen", lambda: ":5201" in host.run("ss", "-ltn").stdout)
        yield
    finally:
        process.kill()
        process.wait()


def make_tap(host: Host) -> None:
    host.ip(f"tuntap add {TAP} mode tap", f"link set {TAP} up")
    host.run("ip", "address", "add", f"{OVERLAY[4][host.number - 1]}/32", "dev", TAP)
    for path, value in (("accept_local", 1), ("rp_filter", 0), ("forwarding", 1)):
        write(host, f"ipv4/conf/{TAP}/{path}", value)


def write(host: Host, path: str, value: int) -> None:
    assert host.run("sh", "-c", f"echo {value} >/proc/sys/net/{path}").returncode == 0


def drop_forwarded(host: Host) -> None:
    rules = "add table inet away; add chain inet away forward { type filter hook forward priority 0; policy drop; }"
    assert host.run("nft", rules).returncode == 0


def drop_long(host: Host) -> None:
    chain = "add chain inet away forward { type filter hook forward priority 0; }"
    assert host.run("nft", f"add table inet away; {chain}; add rule inet away forward meta length > 2000 drop").returncode == 0


def engine(host: Host, other: Host, tap: bool) -> None:
    at = host.number - 1
    host.ip(
        "tuntap add tun0 mode tun",
        f"link set tun0 mtu {MTU} up",
        f"address add {OVERLAY[4][at]}/32 dev tun0",
        f"address add {OVERLAY[6][at]}/128 dev tun0 nodad",
        f"route add 10.9.0.0/16 dev tun0 src {OVERLAY[4][at]}",
        f"route add fd00:9::/32 dev tun0 src {OVERLAY[6][at]}",
    )
    write(host, "ipv6/conf/all/forwarding", 1)
    if tap:
        make_tap(host)
    bind = [(UNDERLAY[family][at], PORT) for family in (4, 6)]
    arguments: dict[str, Any] = {"tun": "tun0", "bind": bind, "mtu": MTU, "offloads": OFFLOADS, "spread": True}
    assert host.ask("open", **arguments, tap=TAP if tap else None) is None
    one, two = host.number, other.number
    configured = host.ask(
        "configure",
        local=[f"10.9.{one}.0/24", f"fd00:9:{one}::/64"],
        addresses=[OVERLAY[4][at], OVERLAY[6][at]],
        peers=[
            ([f"10.9.{two}.0/24"], UNDERLAY[4][two - 1], PORT, mac(two, 4)),
            ([f"fd00:9:{two}::/64"], UNDERLAY[6][two - 1], PORT, mac(two, 6)),
        ],
        vteps=(VNI, mac(one, 4), mac(one, 6)),
    )
    assert configured is None
    assert host.ask("start") is None


def kernel(host: Host) -> None:
    for family, device in ((4, "vx4"), (6, "vx6")):
        local, other = UNDERLAY[family][1], UNDERLAY[family][0]
        own, prefix = OVERLAY[family][1], "10.9.1.0/24" if family == 4 else "fd00:9:1::/64"
        kind = f"type vxlan id {VNI} dstport {PORT} local {local} dev eth0 nolearning"
        host.ip(
            f"link add {device} address {mac(2, family)} mtu {MTU} {kind}",
            f"link set {device} up",
            f"address add {own}/{32 if family == 4 else 128} dev {device}" + ("" if family == 4 else " nodad"),
            f"neighbour add {OVERLAY[family][0]} lladdr {mac(1, family)} dev {device} nud permanent",
            f"route add {prefix} via {OVERLAY[family][0]} dev {device} onlink",
        )
        assert host.run("bridge", "fdb", "append", mac(1, family), "dev", device, "dst", other).returncode == 0
        # A kernel VTEP leaves inner checksums to the NIC, and a veth has none: the frames would come here without.
        assert host.run("ethtool", "-K", device, "tx-checksum-ip-generic", "off").returncode == 0


@pytest.fixture
def bare() -> Iterator[Pair]:
    delete_namespaces(left_behind(namespaces(), OURS))
    a, b = Host("a", 1), Host("b", 2)
    a.namespace, b.namespace = (f"ovt-tap{os.getpid()}-{name}" for name in "ab")
    try:
        for host in (a, b):
            subprocess.run(["ip", "netns", "add", host.namespace], check=True)
            host.ip("link set lo up")
        a.ip(f"link add name eth0 type veth peer name eth0 netns {b.namespace}")
        for host in (a, b):
            addresses = [f"address add {UNDERLAY[4][host.number - 1]}/24 dev eth0"]
            addresses.append(f"address add {UNDERLAY[6][host.number - 1]}/64 dev eth0 nodad")
            host.ip(*addresses, "link set eth0 up")
        yield Pair(a, b)
    finally:
        for host in (a, b):
            host.end()
        delete_namespaces([host.namespace for host in (a, b)])


@pytest.fixture
def pair(bare: Pair) -> Pair:
    """An engine with a TAP, and kernel VTEPs."""
    engine(bare.a, bare.b, tap=True)
    kernel(bare.b)
    return bare


def on_the_wire(pair: Pair) -> None:
    options = [word for option in WIRE for word in (option, "off")]
    for host in (pair.a, pair.b):
        assert host.run("ethtool", "-K", "eth0", *options, "gro", "on").returncode == 0


@pytest.mark.parametrize("link", ["veth", "wire"])
@pytest.mark.parametrize("other", ["kernel", "engine", "engine-tap"])
def test_tcp_goes_both_ways_and_leaves_whole(bare: Pair, other: str, link: str) -> None:
    a, b = bare.a, bare.b
    engine(a, b, tap=True)
    if other == "kernel":
        kernel(b)
    else:
        engine(b, a, tap=other == "engine-tap")
    if link == "wire":
        on_the_wire(bare)
    for family in (4, 6):
        of_a, of_b = OVERLAY[family]
        assert "3 received, 0% packet loss" in ping(a, of_b).stdout
        before = bare.counted()["super_packets"]
        bare.stream(a, b, of_b)
        # All but what came before the first answer, and retransmissions.
        assert bare.counted()["super_packets"] - before > 300
        before = bare.counted(b)["super_packets"] if other == "engine-tap" else 0
        bare.stream(b, a, of_a)
        if other == "engine-tap":
            assert bare.counted(b)["super_packets"] - before > 300
        drops = a.ask("counters")["peers"][UNDERLAY[family][1]]["drops"]
        assert not any(drops.values()), drops
    assert bare.tap() == "on"
    assert bare.counted()["fallbacks"] == 0


WAYS_TO_LOSE: dict[str, tuple[Callable[[Pair], None], str]] = {
    "FORWARD policy": (lambda pair: drop_forwarded(pair.a), "FORWARD"),
    "filter by length": (lambda pair: drop_long(pair.a), "super-packets do not"),
    "strict rp_filter": (lambda pair: write(pair.a, "ipv4/conf/all/rp_filter", 1), "net.ipv4.conf.all.rp_filter is 1 (strict)"),
    "no forwarding": (lambda pair: write(pair.a, f"ipv4/conf/{TAP}/forwarding", 0), f"net.ipv4.conf.{TAP}.forwarding is 0"),
}


@pytest.mark.parametrize("cause", WAYS_TO_LOSE)
def test_way_that_closes_under_traffic_is_left_and_named(pair: Pair, cause: str) -> None:
    close, named = WAYS_TO_LOSE[cause]
    with pair.streaming() as client:
        until("no super-packet takes the TAP", lambda: pair.counted()["super_packets"] > 100)
        close(pair)
        until("the way is not left", lambda: pair.counted()["fallbacks"] == 1)
        pair.moves()
        until(f"{named}: not said, but {pair.tap()}", lambda: named in pair.tap())
        stays = pair.counted()["super_packets"]
        pair.moves()
        assert pair.counted()["super_packets"] == stays
        assert client.poll() is None


def test_way_that_was_closed_is_taken_again_once_it_is_open(pair: Pair) -> None:
    drop_forwarded(pair.a)
    with pair.streaming():
        until("not said", lambda: "given up for 192.0.2.2" in pair.tap())
        assert pair.counted() == {"super_packets": 0, "fallbacks": 0}
        assert pair.a.run("nft", "delete table inet away").returncode == 0
        until("not taken again", lambda: pair.counted()["super_packets"] > 100)
        assert pair.tap() == "on"


def test_device_that_is_deleted_and_made_again_under_traffic(pair: Pair) -> None:
    with pair.streaming() as client:
        until("no super-packet takes the TAP", lambda: pair.counted()["super_packets"] > 100)
        pair.a.ip(f"link delete {TAP}")
        until("not said", lambda: f"given up: TAP device {TAP}" in pair.tap())
        pair.moves()
        make_tap(pair.a)
        before = pair.counted()["super_packets"]
        until("not taken again", lambda: pair.counted()["super_packets"] > before + 100)
        assert pair.tap() == "on"
        assert client.poll() is None


ASKED = ("--vxlan-mode", "user", "--offload", "default,tap")


@pytest.fixture
def lab(bring_up: Callable[[Plan], labs.Lab]) -> labs.Lab:
    """A new one for each test, since one of them takes the TAP away for good."""
    lab = bring_up(plan_lab(lab_name("vxtap"), hosts=2, backend="vxlan", daemon_flags=ASKED))
    until("the TAP is not there", lambda: "tap" in told(lab, "host1"))
    return lab


def told(lab: Lab, host: str) -> dict[str, Any]:
    member = next(one for one in lab.plan.hosts if one.name == host)
    counters = ask(lab.files.host(member).run, "status")["status"]["counters"]
    assert isinstance(counters, dict)
    return counters


def links(lab: Lab, host: str) -> set[str]:
    return {link["ifname"] for link in json.loads(lab.run(host, "ip", "-j", "link").stdout)}


@contextlib.contextmanager
def paced_stream(lab: Lab) -> Iterator[None]:
    """A TCP stream from the first pod to the second while the block runs: bursts of super-packets, and processors left."""
    address = lab.pod_address("pod2")
    with traffic.serving(lab, "pod2", ["iperf3", "--server", "--one-off", "--bind", address, "--forceflush"], "listening"):
        command = ["iperf3", "--client", address, "--time", "120", "--bitrate", "100M", "--congestion", "cubic"]
        client = subprocess.Popen(enter(lab.plan.member("pod1"), *command), stdout=subprocess.DEVNULL)
        try:
            yield
            assert client.poll() is None, "the stream broke"
        finally:
            client.kill()
            client.wait()


def test_no_datagram_is_lost_while_the_way_of_super_packets_closes_and_opens(lab: Lab) -> None:
    rules = "add table inet away; add chain inet away forward { type filter hook forward priority 0; }"
    rules += f'; add rule inet away forward iifname "{TAP}" drop'

    def counted(name: str) -> int:
        return int(told(lab, "host1")["tap"][name])

    with paced_stream(lab), flowing(lab, "pod1", "pod2") as flow:
        until("no super-packet takes the TAP", lambda: counted("super_packets") > 100)
        fallbacks = counted("fallbacks")
        assert lab.run("host1", "nft", rules).returncode == 0
        until("the way is not left", lambda: counted("fallbacks") > fallbacks)
        until("not said", lambda: "given up for" in told(lab, "host1")["offloads"]["tap"])
        assert lab.run("host1", "nft", "delete table inet away").returncode == 0
        before = counted("super_packets")
        until("the way is not taken again", lambda: counted("super_packets") > before + 100, seconds=40.0)
        loss = flow.end()
    assert loss.there.sent > 500
    assert (loss.lost, loss.there.reordered, loss.back.reordered) == (0, 0, 0), loss


def test_daemon_keeps_the_tap_that_is_asked_for_and_removes_it_when_it_is_not(lab: Lab) -> None:
    before = 0

    def carried() -> bool:
        assert traffic.tcp_gbit_s(lab, "pod1", "pod2", seconds=1) > 0.05
        return bool(told(lab, "host1")["tap"]["super_packets"] > before + 10)

    until("it is not used", carried)
    counters = told(lab, "host1")
    assert counters["offloads"]["tap"] == "on"
    before = counters["tap"]["super_packets"]

    assert lab.run("host1", "ip", "link", "delete", TAP).returncode == 0
    until("the daemon does not make it again", lambda: TAP in links(lab, "host1"))
    until("it is not used again", carried)

    host = lab.plan.hosts[0]
    lab.stop_daemon(host)
    assert TAP in links(lab, "host1")
    Lab(replace(lab.plan, daemon_flags=("--vxlan-mode", "user")), lab.store).start_daemons([host])
    until("it stays", lambda: TAP not in links(lab, "host1"))
    until("its state is not off", lambda: told(lab, "host1")["offloads"]["tap"] == "off")
    assert traffic.tcp_gbit_s(lab, "pod1", "pod2", seconds=1) > 0.05

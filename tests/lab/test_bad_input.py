"""Inputs that cannot work: the real programs end with one line that names them, a documented code, and nothing half applied."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from overlaynet.control.client import ask
from overlaynet.lab.daemons import program
from overlaynet.store.sqlite import boot_id

from tests.lab.one_host import OneHost, one_host, one_line

VXLAN = '{"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan"}}'
HOST_GW = '{"Network": "10.1.0.0/16", "Backend": {"Type": "host-gw"}}'
UDP = '{"Network": "10.1.0.0/16", "Backend": {"Type": "udp"}}'
SETTINGS_OF_THE_TAP = "cd /proc/sys/net/ipv4/conf/ovl-tap && cat accept_local rp_filter"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[OneHost]:
    with one_host(tmp_path) as host:
        yield host


CONFIGURATIONS = {
    "not JSON": ('{"Network": "10.1.0.0/16"', "network config", "not JSON"),
    "not an object": ("[]", "network config", "must be a JSON object"),
    "a number as network": ('{"Network": 10}', "Network: 10", "as a string"),
    "a text as length": ('{"Network": "10.1.0.0/16", "SubnetLen": "24"}', "SubnetLen: '24'", "whole number"),
    "a text as switch": ('{"Network": "10.1.0.0/16", "EnableIPv6": "yes"}', "EnableIPv6: 'yes'", "true or false"),
    "a text as backend": ('{"Network": "10.1.0.0/16", "Backend": "vxlan"}', "Backend: 'vxlan'", "object"),
    "a text as VNI": ('{"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan", "VNI": "1"}}', "Backend.VNI: '1'", "16777215"),
    "a VNI too large": ('{"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan", "VNI": 16777216}}', "Backend.VNI", "16777215"),
    "no network": ('{"Backend": {"Type": "vxlan"}}', "Network: None", "required"),
    "no prefix": ('{"Network": "10.1.0.0"}', "Network: '10.1.0.0'", "10.1.0.0/16"),
    "a network too small": ('{"Network": "10.1.0.0/30"}', "Network: '10.1.0.0/30'", "too small"),
    "an IPv6 network too small": (
        '{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00::/126"}',
        "IPv6Network: 'fd00::/126'",
        "too small",
    ),
    "subnets too few": ('{"Network": "10.1.0.0/23", "SubnetLen": 24}', "SubnetLen: 24", "at least 25"),
    "no backend of that name": (
        '{"Network": "10.1.0.0/16", "Backend": {"Type": "ipsec"}}',
        "Backend.Type: 'ipsec'",
        "host-gw, udp",
    ),
    "Min above Max": (
        '{"Network": "10.1.0.0/16", "SubnetMin": "10.1.9.0", "SubnetMax": "10.1.2.0"}',
        "SubnetMin: '10.1.9.0'",
        "SubnetMax, 10.1.2.0",
    ),
    "Min outside": ('{"Network": "10.1.0.0/16", "SubnetMin": "10.2.0.0"}', "SubnetMin: '10.2.0.0'", "must lie in 10.1.0.0/16"),
    "loopback": ('{"Network": "127.0.0.0/8"}', "Network: '127.0.0.0/8'", "unicast"),
    "no family": ('{"EnableIPv4": false}', "EnableIPv4", "enable a family"),
}


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_configuration_is_refused_by_name_and_not_stored(host: OneHost, case: str) -> None:
    text, named, right = CONFIGURATIONS[case]
    done = host.overlaynet("network", "set", "-", input_text=text)
    line = one_line(done, "overlaynet")
    assert done.returncode == 2
    assert named in line
    assert right in line
    assert host.files() == {}


@pytest.mark.parametrize(
    "case", ["not JSON", "a text as length", "a network too small", "no backend of that name", "Min above Max"]
)
def test_daemon_ends_where_the_store_holds_a_configuration_that_cannot_work(host: OneHost, case: str) -> None:
    text, named, right = CONFIGURATIONS[case]
    host.configure(VXLAN)
    with sqlite3.connect(host.folder / "store" / "store.db") as store:
        store.execute("UPDATE setting SET value = ? WHERE name = 'config'", (text.encode(),))
    before = host.kernel()

    done = host.daemon_end()

    line = one_line(done)
    assert done.returncode == 2
    assert line.startswith(f"network configuration in {host.store}: ")
    assert named in line
    assert right in line
    nothing_begun(host, before)


def nothing_begun(host: OneHost, kernel: str) -> None:
    """The kernel is as it was, and there is no lease and no subnet.env."""
    assert host.kernel() == kernel
    assert not host.subnet_env.exists()
    store = host.folder / "store" / "store.db"
    if store.exists():
        with sqlite3.connect(store) as db:
            assert db.execute("SELECT key FROM lease").fetchall() == []


@pytest.mark.parametrize(
    ("network", "named"),
    [
        ('"Network": "192.0.2.0/24"', "Network: '192.0.2.0/24'"),
        ('"Network": "192.0.0.0/16"', "Network: '192.0.0.0/16'"),
        (
            '"EnableIPv6": true, "Network": "10.1.0.0/16", "IPv6Network": "2001:db8::/48"',
            "IPv6Network: '2001:db8::/48'",
        ),
    ],
)
def test_network_that_overlaps_the_underlay_is_refused(host: OneHost, network: str, named: str) -> None:
    host.configure(f'{{{network}, "Backend": {{"Type": "vxlan"}}}}')
    before = host.kernel()

    done = host.daemon_end()

    line = one_line(done)
    assert done.returncode == 2
    assert named in line
    assert "overlaps the underlay" in line
    assert "of eth0" in line
    nothing_begun(host, before)


@pytest.mark.parametrize(
    ("backend", "named", "right"),
    [
        ('"Backend": {"Type": "vxlan", "MTU": 9000}', "Backend.MTU: 9000", "is above the MTU of eth0, 1500"),
        (
            '"EnableIPv6": true, "IPv6Network": "fd00::/48", "Backend": {"Type": "vxlan", "MTU": 1300}',
            "Backend.MTU: 1300",
            "leaves 1230 bytes for IPv6, which needs 1280",
        ),
    ],
)
def test_backend_that_this_host_cannot_have_is_named(host: OneHost, backend: str, named: str, right: str) -> None:
    host.configure(f'{{"Network": "10.1.0.0/16", {backend}}}')
    before = host.kernel()

    done = host.daemon_end()

    line = one_line(done)
    assert done.returncode == 2
    assert named in line
    assert right in line
    nothing_begun(host, before)


FLAGS = {
    "no such link": (("--iface", "eth9"), "--iface: 'eth9'", "links here: "),
    "no such pattern": (("--iface-regex", "^wl"), "--iface-regex: '^wl'", "links here: "),
    "no pattern": (("--iface-regex", "("), "--iface-regex: '('", "not a regular expression"),
    "no route there": (("--iface-can-reach", "203.0.113.9"), "--iface-can-reach: '203.0.113.9'", "no route leads there"),
    "no address": (("--iface-can-reach", "there"), "--iface-can-reach: 'there'", "must be an IP address"),
    "an IPv6 public IPv4 address": (("--public-ip", "2001:db8::1"), "--public-ip: '2001:db8::1'", "must be an IPv4 address"),
    "a public address that is none": (("--public-ip", "127.0.0.1"), "--public-ip: '127.0.0.1'", "peers reach this host"),
    "nobody's public address": (("--public-ip", "255.255.255.255"), "--public-ip: '255.255.255.255'", "peers reach this host"),
    "the loopback link": (("--iface", "lo"), "--iface: 'lo'", "no usable address"),
    "a store in a device": (("--store", "sqlite:////dev/null"), "--store: 'sqlite:////dev/null'", "name a file"),
    "a folder as subnet.env": (("--subnet-file", "/tmp"), "--subnet-file: '/tmp'", "is no file: name one"),
    "a mapped public address": (("--public-ipv6", "::ffff:192.0.2.1"), "--public-ipv6: '::ffff:192.0.2.1'", "--public-ip"),
    "no span": (("--subnet-lease-ttl", "soon"), "--subnet-lease-ttl: 'soon'", "90s, 10m or 24h"),
    "a span too short": (("--subnet-lease-ttl", "0s"), "--subnet-lease-ttl: '0s'", "from 1s"),
    "a margin above the TTL": (
        ("--subnet-lease-ttl", "60s", "--subnet-lease-renew-margin", "2m"),
        "--subnet-lease-renew-margin: '120s'",
        "below the lease's TTL, 60s",
    ),
    "no port": (("--healthz-port", "70000"), "--healthz-port: '70000'", "from 0 to 65535"),
    "flannel's masquerading": (("--ip-masq",), "--ip-masq: 'true'", "leave it out"),
    "a loopback address": (("--iface", "127.0.0.1"), "--iface: '127.0.0.1'", "links here: "),
    "a public address with a zone": (("--public-ipv6", "fe80::1%eth0"), "--public-ipv6: 'fe80::1%eth0'", "leave it out"),
    "an empty store": (("--store", ""), "--store: ''", "must be sqlite:///PATH"),
    "an empty path": (("--state-dir", ""), "--state-dir: ''", "must be a path"),
    "a file as state directory": (("--state-dir", "/etc/passwd"), "--state-dir: '/etc/passwd'", "cannot be made: File exists"),
    "a place in the kernel's files": (("--state-dir", "/proc/x"), "--state-dir: '/proc/x'", "cannot be made"),
    "a health address that is none": (("--healthz-ip", "here"), "--healthz-ip: 'here'", "must be an IP address"),
    "a health address of another host": (
        ("--healthz-ip", "203.0.113.9", "--healthz-port", "8080"),
        "--healthz-port: '203.0.113.9:8080'",
        "cannot be listened on",
    ),
    "a switch that is neither": (("--ip-forward=perhaps",), "--ip-forward", "'perhaps' is not a valid boolean"),
    "no such flag": (("--ifcae", "eth0"), "--ifcae", "--iface"),
    "no store of that kind": (("--store", "redis://there"), "--store: 'redis://there'", "sqlite:///PATH"),
    "a store without a path": (("--store", "sqlite:///"), "--store: 'sqlite:///'", "sqlite:////var/lib/overlaynet/store.db"),
    "a log format of no kind": (("--log-format", "xml"), "--log-format", "'text', 'json'"),
}


@pytest.mark.parametrize("case", FLAGS)
def test_flag_is_refused_by_name(host: OneHost, case: str) -> None:
    flags, named, right = FLAGS[case]
    before = host.kernel()

    done = host.daemon_end(*flags)

    line = one_line(done)
    assert done.returncode == 2
    assert named in line
    assert right in line
    assert host.kernel() == before
    assert not host.subnet_env.exists()
    assert not host.run.joinpath("control.sock").exists()


def test_host_without_a_default_route_is_asked_for_the_link(host: OneHost) -> None:
    done = host.end(
        program("overlaynet-daemon"), *("--store", host.store), *("--state-dir", str(host.state)), *("--run-dir", str(host.run))
    )
    line = one_line(done)
    assert done.returncode == 2
    assert "--iface: ''" in line
    assert "links here: far0, eth0 192.0.2.1 2001:db8::1" in line
    assert host.files() == {}


def test_host_without_an_address_is_asked_for_another_link(host: OneHost) -> None:
    done = host.daemon_end("--iface", "far0")
    line = one_line(done)
    assert done.returncode == 2
    assert "--iface: 'far0': this link has no usable address" in line
    assert host.files() == {}


@pytest.mark.parametrize("network", [VXLAN, HOST_GW, UDP])
def test_without_the_right_the_capability_is_named(host: OneHost, network: str) -> None:
    host.configure(network)
    before, files = host.kernel(), host.files()

    done = host.daemon_end(before=("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"))

    line = one_line(done)
    assert done.returncode == 6
    assert "CAP_NET_ADMIN" in line
    assert host.files() == files
    nothing_begun(host, before)


def test_cleanup_without_the_right_removes_nothing_and_names_the_capability(host: OneHost) -> None:
    host.ip("link add ovl.1 type vxlan id 1 local 192.0.2.1 dev eth0 dstport 8472 nolearning")
    host.ip("route add unreachable 10.1.0.0/16 metric 1048576 proto 79")
    before = host.kernel()

    done = host.end("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", program("overlaynet"), "cleanup")

    line = one_line(done, "overlaynet")
    assert done.returncode == 6
    assert "CAP_NET_ADMIN" in line
    assert host.kernel() == before
    assert host.overlaynet("cleanup").returncode == 0
    assert "ovl.1" not in host.kernel()


def inside_mounts(host: OneHost, mounts: str, *command: str) -> list[str]:
    """The command after `mounts`, a shell line in a mount namespace of its own."""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{mounts} && exec "$@"', "sh", *command]


def test_without_the_tun_device_it_is_named(host: OneHost) -> None:
    host.configure(UDP)
    before = host.kernel()

    done = host.end(*inside_mounts(host, "mount -t tmpfs none /dev/net", *host.daemon_command()))

    line = one_line(done)
    assert done.returncode == 5
    assert "/dev/net/tun is missing: load the kernel module tun" in line
    nothing_begun(host, before)


def test_only_the_backend_that_needs_the_tun_device_asks_for_it(host: OneHost) -> None:
    host.configure(HOST_GW)
    running = host.start(command=inside_mounts(host, "mount -t tmpfs none /dev/net", *host.daemon_command()))
    running.hear("READY=1")
    assert running.stop() == 0


STORES = {
    "a text": b"leases: none\n" * 100,
    "an empty header": b"\0" * 4096,
    "a damaged database": None,
    "another program's database": None,
}


@pytest.mark.parametrize("case", STORES)
def test_file_that_is_no_store_is_named_and_left_as_it_is(host: OneHost, case: str) -> None:
    path = host.folder / "store" / "store.db"
    path.parent.mkdir(mode=0o700)
    content = STORES[case]
    if content is not None:
        path.write_bytes(content)
    else:
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE song (name TEXT)")
        db.commit()
        db.close()
        if case == "a damaged database":
            whole = path.read_bytes()
            path.write_bytes(whole[:100] + b"\xff" * (len(whole) - 100))
    content = path.read_bytes()
    before = host.kernel()

    for done, name in (
        (host.daemon_end(), "overlaynet-daemon"),
        (host.overlaynet("network", "show"), "overlaynet"),
        (host.overlaynet("leases"), "overlaynet"),
        (host.overlaynet("network", "set", "-", input_text=VXLAN), "overlaynet"),
    ):
        line = one_line(done, name)
        assert done.returncode == 3
        assert str(path) in line
        assert "not an overlaynet store" in line or "database of another program" in line
    assert path.read_bytes() == content
    assert host.kernel() == before
    assert not host.subnet_env.exists()


def test_host_that_was_in_the_network_goes_on_while_its_store_is_something_else(host: OneHost) -> None:
    host.configure(HOST_GW)
    first = host.start()
    first.hear("READY=1")
    assert first.stop() == 0
    path = host.folder / "store" / "store.db"
    path.rename(path.with_name("kept.db"))
    path.mkdir()

    running = host.start()
    until(lambda: "is a directory" in store_error(host))
    assert "READY=1" not in running.told
    path.rmdir()
    path.with_name("kept.db").rename(path)
    running.hear("READY=1")
    assert running.stop() == 0
    assert "Traceback" not in running.text


def store_error(host: OneHost) -> str:
    done = host.overlaynet("status", "--json")
    return str(json.loads(done.stdout)["store_error"]) if done.returncode == 0 else ""


def until(condition: Callable[[], bool], *, wait_s: float = 20.0) -> None:
    deadline = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_store_on_a_network_file_system_is_refused(host: OneHost) -> None:
    # The machine has no server of one: its table of mounts says so instead.
    table = host.folder / "mountinfo"
    table.write_text(f"22 1 8:1 / / rw - ext4 /dev/vda rw\n23 22 0:50 / {host.folder} rw,relatime - nfs4 there:/stores rw\n")
    mounts = f"mount --bind {table} /proc/$$/mountinfo"

    done = host.end(*inside_mounts(host, mounts, *host.daemon_command()))

    line = one_line(done)
    assert done.returncode == 2
    assert f"--store: '{host.store}': is on a network file system (nfs4)" in line
    assert not (host.folder / "store").exists()


@pytest.mark.parametrize("flag", ["--store", "--state-dir", "--run-dir", "--subnet-file"])
def test_directory_that_cannot_be_written_is_named(host: OneHost, flag: str) -> None:
    if flag != "--store":
        host.configure(VXLAN)
    closed = host.folder / "closed"
    closed.mkdir()
    value = {"--store": f"sqlite:///{closed}/deep/store.db", "--subnet-file": f"{closed}/subnet.env"}.get(flag, str(closed))
    before = host.kernel()

    mounts = f"mount -t tmpfs -o ro none {closed}"
    done = host.end(*inside_mounts(host, mounts, *host.daemon_command(flag, value)))

    line = one_line(done)
    assert done.returncode == 2
    assert line.startswith(f"{flag}: '{closed}" if flag != "--store" else f"{flag}: '{value}")
    assert "cannot be made: Read-only file system" in line or "not writable" in line
    nothing_begun(host, before)


@pytest.mark.parametrize("network", [VXLAN, HOST_GW, UDP])
def test_corrupt_lease_is_skipped_and_counted_and_the_other_peers_work(host: OneHost, network: str) -> None:
    host.configure(network)
    kind = {VXLAN: "vxlan", HOST_GW: "host-gw", UDP: ""}[network]
    data = ', "BackendData": {"VNI": 1, "VtepMAC": "02:00:00:00:00:07"}' if network is VXLAN else ""
    good = f'{{"PublicIP": "192.0.2.7", "PublicIPv6": null, "BackendType": "{kind}"{data}}}'
    rows = [
        ("10.1.7.0-24", good),
        ("10.1.8.0-24", '{"PublicIP": "192.0.2.8", "BackendType"'),
        ("10.1.9.0-24", "\xff\xfe"),
        ("10.1.10.0-24", '{"PublicIP": 7}'),
        ("no key at all", good),
        ("10.1.11.0-24", good.replace("192.0.2.7", "::ffff:192.0.2.11")),
    ]
    with sqlite3.connect(host.folder / "store" / "store.db") as store:
        for key, value in rows:
            store.execute(
                "INSERT INTO lease (key, value, owner, features, reserved, created, handle, ttl, boot, expires)"
                " VALUES (?, ?, NULL, '[]', 0, 1, 1, 86400, ?, 1e12)",
                (key, value.encode("latin-1"), boot_id()),
            )
    store.close()

    running = host.start()
    running.hear("READY=1")

    status = ask(host.run, "status")["status"]
    assert status["unreadable_keys"] == 5
    assert [(peer["public_address"], peer["state"]) for peer in status["peers"]] == [("192.0.2.7", "programmed")]
    assert "Traceback" not in running.text
    for key, _ in rows[1:]:
        assert running.text.count(f"{key}: skipped: ") == 1
    listed = host.overlaynet("leases")
    assert listed.returncode == 0
    assert "10.1.7.0" in listed.stdout
    assert len(listed.stderr.splitlines()) == 5
    assert running.stop() == 0


def test_daemon_ends_where_every_subnet_is_leased(host: OneHost) -> None:
    host.configure('{"Network": "10.1.0.0/26", "SubnetLen": 28, "Backend": {"Type": "vxlan"}}')
    with sqlite3.connect(host.folder / "store" / "store.db") as store:
        for number in (16, 32, 48):
            value = f'{{"PublicIP": "192.0.2.{number}", "BackendType": "vxlan"}}'
            store.execute(
                "INSERT INTO lease (key, value, owner, features, reserved, created, handle, ttl, boot, expires)"
                " VALUES (?, ?, ?, '[]', 0, 1, 1, 86400, ?, 1e12)",
                (
                    f"10.1.0.{number}-28",
                    value.encode(),
                    f"{number:032}",
                    boot_id(),
                ),
            )
    store.close()
    before = host.kernel()

    done = host.daemon_end()

    assert done.returncode == 4
    last = done.stderr.splitlines()[-1]
    assert last == "overlaynet-daemon: network 10.1.0.0/26: no free subnet: 3 are leased; widen the network or release leases"
    assert "Traceback" not in done.stderr
    assert host.kernel() == before
    assert not host.subnet_env.exists()


def test_second_daemon_in_a_namespace_ends_and_the_first_goes_on(host: OneHost) -> None:
    host.configure(VXLAN)
    running = host.start()
    running.hear("READY=1")
    before = host.kernel()

    done = host.daemon_end("--state-dir", str(host.folder / "other"), "--run-dir", str(host.folder / "others"))

    line = one_line(done)
    assert done.returncode == 8
    assert "another overlaynet-daemon serves this network namespace" in line
    assert host.kernel() == before
    assert not (host.folder / "other").exists()
    refused = host.overlaynet("cleanup")
    assert refused.returncode == 8
    one_line(refused, "overlaynet")
    assert host.kernel() == before
    assert ask(host.run, "status")["status"]["ready"]
    assert running.stop() == 0


def test_vxlan_device_that_flannel_holds_is_named(host: OneHost) -> None:
    host.configure(VXLAN)
    host.ip("link add flannel.1 type vxlan id 1 local 192.0.2.1 dev eth0 dstport 8472 nolearning")
    # No address of its own, which would change from tentative to settled meanwhile.
    host.ip("link set flannel.1 addrgenmode none")
    host.ip("link set flannel.1 up")
    before = host.kernel()

    done = host.daemon_end()

    line = one_line(done)
    assert done.returncode == 5
    assert "link flannel.1 has VNI 1 on UDP port 8472 already" in line
    assert "another Backend.VNI or Backend.Port" in line
    nothing_begun(host, before)


@pytest.mark.parametrize(
    "other",
    [
        "flannel.2 type vxlan id 2 local 192.0.2.1 dev eth0 dstport 8472 nolearning",  # the port is shared by VNIs
        "flannel.1 type vxlan id 1 local 192.0.2.1 dev eth0 dstport 4789 nolearning",
        "flannel-v6.1 type vxlan id 1 local 2001:db8::1 dev eth0 dstport 8472 nolearning udp6zerocsumrx",
    ],
)
def test_vxlan_device_of_another_number_port_or_family_is_not_in_the_way(host: OneHost, other: str) -> None:
    host.configure(VXLAN)
    host.ip(f"link add {other}")
    name = other.split()[0]
    host.ip(f"link set {name} up")
    there = host.ip(f"-o -d link show {name}")

    running = host.start()
    running.hear("READY=1")
    assert "id 1 local 192.0.2.1" in host.ip("-d link show ovl.1")
    assert running.stop() == 0
    assert host.ip(f"-o -d link show {name}") == there


@pytest.mark.parametrize(("network", "name"), [(VXLAN, "ovl.1"), (UDP, "ovl-udp")])
def test_foreign_link_with_the_name_of_ours_is_named(host: OneHost, network: str, name: str) -> None:
    host.configure(network)
    host.ip(f"link add {name} type bridge")
    before = host.kernel()

    done = host.daemon_end()

    line = one_line(done)
    assert done.returncode == 5
    assert f"link {name}: a link of this name is there and is not overlaynet's (kind bridge)" in line
    nothing_begun(host, before)


@pytest.mark.parametrize("kind", ["bridge", "tun"])
def test_foreign_link_in_the_place_of_the_tap_is_left_alone_and_named(host: OneHost, kind: str) -> None:
    """The TAP is no more than an offload: the daemon serves without it."""
    host.configure(VXLAN)
    host.ip("link add ovl-tap type bridge" if kind == "bridge" else "tuntap add ovl-tap mode tun")
    host.ip("link set ovl-tap up")

    def taken() -> str:
        return host.ip("link show ovl-tap") + host.ip("-4 address show ovl-tap") + host.shell(SETTINGS_OF_THE_TAP)

    before = taken()
    running = host.start("--vxlan-mode", "user", "--offload", "default,tap")
    running.hear("READY=1")
    status = ask(host.run, "status")["status"]
    assert isinstance(status, dict)
    assert status["conflicts"] == [f"link ovl-tap of kind {kind}"]
    why = "given up: TAP device ovl-tap: somebody else's device of another kind has this name"
    assert status["counters"]["offloads"]["tap"] == why
    assert taken() == before

    host.ip("link delete ovl-tap")
    until(lambda: "tun type tap" in host.ip("-d link show ovl-tap", check=False))
    until(lambda: ask(host.run, "status")["status"]["conflicts"] == [])
    assert running.stop() == 0


@pytest.mark.parametrize(("network", "place"), [(VXLAN, ("0.0.0.0", 8472)), (UDP, ("192.0.2.1", 8285))])
def test_port_that_another_program_holds_is_named(host: OneHost, network: str, place: tuple[str, int]) -> None:
    host.configure(network)
    holder = f"""
        import socket, sys
        held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        held.bind(("0.0.0.0", {place[1]}))
        print("held", flush=True)
        sys.stdin.read()
    """
    inside = ["ip", "netns", "exec", host.namespace, "python3", "-c", textwrap.dedent(holder)]
    with subprocess.Popen(inside, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"held\n"
        before = host.kernel()
        done = host.daemon_end()
        other.stdin.close()

    line = one_line(done)
    assert done.returncode == 5
    assert f"UDP port {place[0]}:{place[1]}: another program holds it" in line
    assert "another Backend.Port" in line
    nothing_begun(host, before)


def test_health_port_that_another_program_holds_is_named(host: OneHost) -> None:
    host.configure(VXLAN)
    before = host.kernel()
    done = host.end(
        "python3",
        "-c",
        "import socket, subprocess, sys; held = socket.create_server(('0.0.0.0', 8081)); sys.exit(subprocess.call(sys.argv[1:]))",
        *host.daemon_command("--healthz-port", "8081"),
    )
    line = one_line(done)
    assert done.returncode == 2
    assert "--healthz-port: '0.0.0.0:8081': cannot be listened on: Address already in use" in line
    nothing_begun(host, before)


@pytest.mark.parametrize("words", [("network", "show"), ("leases",), ("lease", "release", "10.1.7.0/24")])
def test_reading_a_store_that_is_not_there_makes_none(host: OneHost, words: tuple[str, ...]) -> None:
    done = host.overlaynet(*words)
    line = one_line(done, "overlaynet")
    assert done.returncode == 2
    assert f"--store: '{host.store}': there is no such file" in line
    assert host.files() == {}


def test_state_that_is_not_ours_is_named(host: OneHost) -> None:
    host.configure(VXLAN)
    host.state.mkdir()
    (host.state / "host-id").write_text("me\n")
    before = host.kernel()
    done = host.daemon_end()
    line = one_line(done)
    assert done.returncode == 2
    assert f"--state-dir: '{host.state}/host-id': must hold 32 hexadecimal digits" in line
    nothing_begun(host, before)


def test_path_too_long_for_a_socket_is_named(host: OneHost) -> None:
    host.configure(VXLAN)
    deep = host.folder / ("d" * 100)
    before = host.kernel()
    done = host.daemon_end("--run-dir", str(deep))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"overlaynet-daemon: --run-dir: '{deep}")
    assert "Traceback" not in done.stderr
    nothing_begun(host, before)


def test_commands_name_what_is_wrong(host: OneHost) -> None:
    host.configure(VXLAN)
    for words, code, named in (
        (("status",), 9, f"control socket {host.run}/control.sock"),
        (("lease", "release", "10.1.7.0/24"), 3, "is not leased"),
        (("lease", "release", "there"), 2, "SUBNET: 'there'"),
        (("network", "check", str(host.folder / "none")), 2, "FILE: "),
        (("network", "chekc", "-"), 2, "chekc"),
        (("leases", "--jsn"), 2, "--jsn"),
    ):
        done = host.overlaynet(*words)
        line = one_line(done, "overlaynet")
        assert done.returncode == code, line
        assert named in line


def test_without_root_the_store_is_named(host: OneHost) -> None:
    host.configure(VXLAN)
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")
    done = host.end(*nobody, program("overlaynet"), "--store", host.store, "leases")
    line = one_line(done, "overlaynet")
    assert done.returncode == 2
    assert f"--store: '{host.store}'" in line
    assert "Permission denied" in line

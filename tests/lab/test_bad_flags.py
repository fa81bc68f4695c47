"""Flags, arguments and places that cannot work: one line that names the flag, exit code 2, and nothing half applied."""

from __future__ import annotations

import os

import pytest
from overlaynet.lab.daemons import program

from tests.lab.one_host import VXLAN, OneHost, inside_mounts, nothing_begun, one_line

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
    "a state directory's name too long": (("--state-dir", f"/tmp/{'d' * 300}"), "--state-dir: '/tmp/ddd", "File name too long"),
    "a file's name too long": (("--subnet-file", f"/tmp/{'f' * 300}"), "--subnet-file: '/tmp/fff", "File name too long"),
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


@pytest.mark.parametrize("flag", ["--store", "--state-dir", "--run-dir", "--subnet-file"])
def test_directory_that_cannot_be_written_is_named(host: OneHost, flag: str) -> None:
    if flag != "--store":
        host.configure(VXLAN)
    closed = host.folder / "closed"
    closed.mkdir()
    value = {"--store": f"sqlite:///{closed}/deep/store.db", "--subnet-file": f"{closed}/subnet.env"}.get(flag, str(closed))
    before = host.kernel()

    mounts = f"mount -t tmpfs -o ro none {closed}"
    done = host.end(*inside_mounts(mounts, *host.daemon_command(flag, value)))

    line = one_line(done)
    assert done.returncode == 2
    assert line.startswith(f"{flag}: '{closed}" if flag != "--store" else f"{flag}: '{value}")
    assert "cannot be made: Read-only file system" in line or "not writable" in line
    nothing_begun(host, before)


@pytest.mark.parametrize("what", ["another's text", "a folder", "a file without end"])
def test_state_that_is_not_ours_is_named(host: OneHost, what: str) -> None:
    host.configure(VXLAN)
    host.state.mkdir(mode=0o700)
    identity = host.state / "host-id"
    match what:
        case "another's text":
            identity.write_text("me\n")
            right = "must hold 32 hexadecimal digits"
        case "a folder":
            identity.mkdir()
            right = "cannot be read: it is no file"
        case _:
            identity.touch()
            os.truncate(identity, 1 << 40)
            right = "cannot be read: File too large"
    before = host.kernel()
    done = host.daemon_end()
    line = one_line(done)
    assert done.returncode == 2
    assert f"--state-dir: '{identity}': {right}" in line
    nothing_begun(host, before)


@pytest.mark.parametrize("what", ["a path too long", "a folder"])
def test_place_where_no_socket_can_be_is_named(host: OneHost, what: str) -> None:
    host.configure(VXLAN)
    folder = host.folder / ("d" * 100 if what == "a path too long" else "run")
    if what == "a folder":
        (folder / "control.sock").mkdir(parents=True)
    before = host.kernel()
    done = host.daemon_end("--run-dir", str(folder))
    line = one_line(done)
    assert done.returncode == 2
    assert line.startswith(f"--run-dir: '{folder}")
    nothing_begun(host, before)


def test_output_that_cannot_be_written_is_named_and_no_defect(host: OneHost) -> None:
    host.configure(VXLAN)
    show = f"{program('overlaynet')} --store {host.store} network show"
    done = host.end("sh", "-c", f"{show} > /dev/full")
    assert (done.returncode, one_line(done, "overlaynet")) == (
        1,
        "what there is to say cannot be written: No space left on device",
    )


@pytest.mark.parametrize("errors", ["2>&-", "2>/dev/full"])
def test_code_is_the_same_where_nobody_takes_the_line(host: OneHost, errors: str) -> None:
    done = host.end("sh", "-c", f'exec "$@" {errors}', "sh", *host.daemon_command("--iface", "eth9"))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


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

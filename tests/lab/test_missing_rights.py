"""A host that lacks a right or a device: one line that names it before a lease is taken, and nothing half applied."""

from __future__ import annotations

import pytest
from overlaynet.lab.daemons import program

from tests.lab.one_host import HOST_GW, UDP, VXLAN, OneHost, inside_mounts, nothing_begun, one_line


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


def test_without_the_tun_device_it_is_named(host: OneHost) -> None:
    host.configure(UDP)
    before = host.kernel()

    done = host.end(*inside_mounts("mount -t tmpfs none /dev/net", *host.daemon_command()))

    line = one_line(done)
    assert done.returncode == 5
    assert "/dev/net/tun is missing: load the kernel module tun" in line
    nothing_begun(host, before)


def test_only_the_backend_that_needs_the_tun_device_asks_for_it(host: OneHost) -> None:
    host.configure(HOST_GW)
    running = host.start(command=inside_mounts("mount -t tmpfs none /dev/net", *host.daemon_command()))
    running.hear("READY=1")
    assert running.stop() == 0


READ_ONLY = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys"
"""What most containers have, those with CAP_NET_ADMIN too."""


@pytest.mark.parametrize("network", [VXLAN, HOST_GW, UDP])
def test_settings_of_the_kernel_that_are_read_only_are_named(host: OneHost, network: str) -> None:
    host.configure(network)
    before = host.kernel()

    done = host.end(*inside_mounts(READ_ONLY, *host.daemon_command()))

    line = one_line(done)
    assert done.returncode == 6
    assert "sysctl net/ipv4/ip_forward: /proc/sys/net/ipv4/ip_forward: Read-only file system" in line
    nothing_begun(host, before)


@pytest.mark.parametrize(("network", "code"), [(HOST_GW, 0), (VXLAN, 6), (UDP, 6)])
def test_only_what_has_to_be_written_of_them_is_asked_for(host: OneHost, network: str, code: int) -> None:
    host.configure(network)
    host.shell("echo 1 > /proc/sys/net/ipv4/ip_forward")
    before = host.kernel()
    command = inside_mounts(READ_ONLY, *host.daemon_command())
    if code == 0:
        running = host.start(command=command)
        running.hear("READY=1")
        assert running.stop() == 0
        return
    done = host.end(*command)
    assert done.returncode == code
    assert "Read-only file system" in one_line(done)
    nothing_begun(host, before)

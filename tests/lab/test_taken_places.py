"""Places that others hold already: a namespace, a device, a link's name, a port. They are named, and left to their holders."""

from __future__ import annotations

import subprocess
import textwrap

import pytest
from overlaynet.control.client import ask

from tests.lab.kernel_state import until
from tests.lab.one_host import UDP, VXLAN, VXLAN_USER, OneHost, nothing_begun, one_line


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


@pytest.mark.parametrize("flags", [(), ("--vxlan-mode", "user")])
def test_vxlan_device_on_the_port_of_the_packet_engine_is_named(host: OneHost, flags: tuple[str, ...]) -> None:
    host.configure(VXLAN if flags else VXLAN_USER)
    # The engine shares its port with no device, whatever VNI that has.
    host.ip("link add flannel.2 type vxlan id 2 local 192.0.2.1 dev eth0 dstport 8472 nolearning")
    host.ip("link set flannel.2 addrgenmode none")
    host.ip("link set flannel.2 up")
    before = host.kernel()

    done = host.daemon_end(*flags)

    line = one_line(done)
    assert done.returncode == 5
    assert "UDP port 0.0.0.0:8472: link flannel.2 holds it: remove that" in line
    assert "another Backend.Port" in line
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


SETTINGS_OF_THE_TAP = "cd /proc/sys/net/ipv4/conf/ovl-tap && cat accept_local rp_filter"


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

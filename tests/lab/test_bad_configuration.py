"""Configurations that cannot work, anywhere or on this host: one line that names the key, and nothing half applied."""

from __future__ import annotations

import sqlite3

import pytest

from tests.lab.one_host import VXLAN, OneHost, nothing_begun, one_line

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


@pytest.mark.parametrize(("value", "ready"), [(VXLAN, True), (7, False)])
def test_configuration_that_was_put_by_hand_counts_whatever_type_it_was_given(
    host: OneHost, value: str | int, ready: bool
) -> None:
    host.configure(VXLAN)
    with sqlite3.connect(host.folder / "store" / "store.db") as store:
        store.execute("UPDATE setting SET value = ? WHERE name = 'config'", (value,))
    store.close()
    if ready:
        running = host.start()
        running.hear("READY=1")
        assert running.stop() == 0
        return
    done = host.daemon_end()
    assert (done.returncode, one_line(done)) == (
        2,
        f"network configuration in {host.store}: network config: '7': must be a JSON object",
    )


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

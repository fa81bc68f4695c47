"""Stores that are none, or hold what is no lease: they are named and left as they are, and what is good in them is used."""

from __future__ import annotations

import json
import sqlite3

import pytest
from overlaynet.control.client import ask
from overlaynet.lab.daemons import program
from overlaynet.store.sqlite import boot_id

from tests.lab.kernel_state import until
from tests.lab.one_host import HOST_GW, UDP, VXLAN, OneHost, inside_mounts, one_line

STORES = {
    "a text": b"leases: none\n" * 100,
    "an empty header": b"\0" * 4096,
    "a damaged database": None,
    "another program's database": None,
    "a store without its leases": None,
}


@pytest.mark.parametrize("case", STORES)
def test_file_that_is_no_store_is_named_and_left_as_it_is(host: OneHost, case: str) -> None:
    path = host.folder / "store" / "store.db"
    path.parent.mkdir(mode=0o700)
    content = STORES[case]
    if content is not None:
        path.write_bytes(content)
    elif case == "a store without its leases":
        host.configure(VXLAN)
        with sqlite3.connect(path) as db:
            db.execute("DROP TABLE lease")
        db.close()
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
    host.subnet_env.unlink()

    running = host.start()
    until(lambda: "is a directory" in store_error(host))
    assert running.told == []
    assert not host.subnet_env.exists()
    path.rmdir()
    path.with_name("kept.db").rename(path)
    running.hear("READY=1")
    assert host.subnet_env.exists()
    assert running.stop() == 0
    assert "Traceback" not in running.text


def store_error(host: OneHost) -> str:
    done = host.overlaynet("status", "--json")
    return str(json.loads(done.stdout)["store_error"]) if done.returncode == 0 else ""


def test_store_on_a_network_file_system_is_refused(host: OneHost) -> None:
    # The machine has no server of one: its table of mounts says so instead.
    table = host.folder / "mountinfo"
    table.write_text(f"22 1 8:1 / / rw - ext4 /dev/vda rw\n23 22 0:50 / {host.folder} rw,relatime - nfs4 there:/stores rw\n")
    mounts = f"mount --bind {table} /proc/$$/mountinfo"

    done = host.end(*inside_mounts(mounts, *host.daemon_command()))

    line = one_line(done)
    assert done.returncode == 2
    assert f"--store: '{host.store}': is on a network file system (nfs4)" in line
    assert not (host.folder / "store").exists()


@pytest.mark.parametrize("words", [("network", "show"), ("leases",), ("lease", "release", "10.1.7.0/24")])
def test_reading_a_store_that_is_not_there_makes_none(host: OneHost, words: tuple[str, ...]) -> None:
    done = host.overlaynet(*words)
    line = one_line(done, "overlaynet")
    assert done.returncode == 2
    assert f"--store: '{host.store}': there is no such file" in line
    assert host.files() == {}


def test_without_root_the_store_is_named(host: OneHost) -> None:
    host.configure(VXLAN)
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")
    done = host.end(*nobody, program("overlaynet"), "--store", host.store, "leases")
    line = one_line(done, "overlaynet")
    assert done.returncode == 2
    assert f"--store: '{host.store}'" in line
    assert "Permission denied" in line


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

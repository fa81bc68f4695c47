"""Keys and values in etcd, by hands that are not ours: etcdctl, the package etcd3, and what a flannel host writes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import venv
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from overlaynet.lab.daemons import program
from overlaynet.model.lease import HostId, LeaseAttributes
from overlaynet.model.lease_text import parse_lease_key
from overlaynet.model.snapshot import LeaseGone, LeasePut, Unreadable
from overlaynet.store.etcd.settings import parse_etcd_url
from overlaynet.store.etcd.store import EtcdStore

from tests.contract.etcd_server import EtcdServer, etcd_server
from tests.contract.namespaces import Namespace, namespace, stop

ROOT = Path(__file__).parents[2]
HOST = HostId("a" * 32)
MAC = "c6:d2:32:6f:8f:44"

FLANNELS = {
    "10.5.1.0-24": '{"PublicIP":"192.0.2.11","PublicIPv6":null,"BackendType":"vxlan",'
    f'"BackendData":{{"VNI":1,"VtepMAC":"{MAC}"}}}}',
    "10.5.2.0-24": '{"PublicIP":"192.0.2.12","PublicIPv6":null,"BackendType":"host-gw"}',
    "10.5.3.0-24": '{"PublicIP":"192.0.2.13","PublicIPv6":null}',
    "10.5.4.0-24": '{"PublicIP":"192.0.2.14","PublicIPv6":null,"BackendType":"ipip"}',
    "10.5.5.0-24": '{"PublicIP":"192.0.2.15","PublicIPv6":null,"BackendType":"ipsec"}',
    "10.5.6.0-24": '{"PublicIP":"192.0.2.16","PublicIPv6":null,"BackendType":"wireguard",'
    '"BackendData":{"PublicKey":"bmV2ZXIgdXNlZCBmb3IgYW55dGhpbmcgYXQgYWxsISE=","Port":51820}}',
    "10.5.7.0-24": '{"PublicIP":"192.0.2.17","PublicIPv6":null,"BackendType":"extension","BackendData":"said at the start"}',
    "10.5.8.0-24&2001:db8:42:8::-64": '{"PublicIP":"192.0.2.18","PublicIPv6":"2001:db8::18","BackendType":"vxlan",'
    f'"BackendData":{{"VNI":1,"VtepMAC":"{MAC}"}},"BackendV6Data":{{"VNI":1,"VtepMAC":"{MAC}"}}}}',
    "0.0.0.0-0&2001:db8:42:9::-64": '{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::19","BackendType":"vxlan",'
    f'"BackendV6Data":{{"VNI":1,"VtepMAC":"{MAC}"}}}}',
}
"""One value of each backend, both families together and IPv6 alone, as flannel's encoder writes them."""

JUNK = {"junk": "x", "10.5.20.0-24": "{", "10.5.21.0-24": "[]", "10.5.22.0-33": "{}", "10.5.23.1-24": '{"PublicIP":"192.0.2.1"}'}


class Etcd3:
    """The package etcd3 in a process with an interpreter of its own."""

    def __init__(self, address: str, python: Path) -> None:
        host, port = address.rsplit(":", 1)
        self._process = subprocess.Popen(
            [str(python), str(Path(__file__).parent / "etcd3_client.py"), host, port],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={},
        )

    def ask(self, do: str, key: str = "", **more: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, "key": key, **more}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def etcd3_python() -> Path:
    """An interpreter that has etcd3, which cannot be imported beside a current protobuf; made once, kept in .cache."""
    place = ROOT / ".cache" / "etcd3"
    wanted = (ROOT / "requirements" / "etcd3.txt").read_text()
    marker = place / "made-from.txt"
    if not marker.exists() or marker.read_text() != wanted:
        venv.create(place, with_pip=True, clear=True)
        install = (
            str(place / "bin/python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--require-hashes",
        )
        subprocess.run([*install, "-r", str(ROOT / "requirements" / "etcd3.txt")], check=True)
        marker.write_text(wanted)
    return place / "bin" / "python"


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with etcd_server(tmp_path_factory.mktemp("etcd"), fast=True) as server:
        yield server


@pytest.fixture
def etcd3(etcd: EtcdServer, etcd3_python: Path) -> Iterator[Etcd3]:
    client = Etcd3(etcd.address, etcd3_python)
    yield client
    client.close()


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return f"/{request.function.__name__}"


@pytest_asyncio.fixture
async def store(etcd: EtcdServer, prefix: str) -> AsyncIterator[EtcdStore]:
    made = EtcdStore(parse_etcd_url(f"etcd://{etcd.address}{prefix}"))
    yield made
    await made.aclose()


async def test_others_read_what_we_write_to_the_byte(etcd: EtcdServer, etcd3: Etcd3, store: EtcdStore, prefix: str) -> None:
    key, value = "10.5.8.0-24&2001:db8:42:8::-64", FLANNELS["10.5.8.0-24&2001:db8:42:8::-64"]
    data = f'{{"VNI":1,"VtepMAC":"{MAC}"}}'.encode()
    attributes = LeaseAttributes(IPv4Address("192.0.2.18"), IPv6Address("2001:db8::18"), "vxlan", data, data)
    await store.claim(HOST, parse_lease_key(key), attributes, ttl_s=60, seen=await store.load())
    read = await asyncio.to_thread(etcd3.ask, "get", f"{prefix}/subnets")
    assert [(found, text) for found, text, _ in read] == [(f"{prefix}/subnets/{key}", value)]
    assert etcd.ctl("get", "--prefix", "--print-value-only", f"{prefix}/subnets/").strip() == value


async def test_we_read_what_flannel_writes_and_give_it_back_unchanged(etcd3: Etcd3, store: EtcdStore, prefix: str) -> None:
    for n, (key, value) in enumerate(FLANNELS.items()):
        etcd3.ask("put", f"{prefix}/subnets/{key}", value=value, ttl=60 if n % 2 else 0)
    for key, value in JUNK.items():
        etcd3.ask("put", f"{prefix}/subnets/{key}", value=value)
    snapshot = await store.load()
    found = {str(lease.subnets): lease for lease in snapshot.leases}
    assert found.keys() == FLANNELS.keys()
    assert {bad.key for bad in snapshot.unreadable} == JUNK.keys()
    for n, (key, value) in enumerate(FLANNELS.items()):
        lease = found[key]
        assert (lease.owner, lease.reserved) == (None, n % 2 == 0)
        # Taken over by the host whose address it carries, and written anew, it is the same text, and a reservation stays one.
        grant = await store.claim(
            HostId(f"{n:032x}"), lease.subnets, lease.attributes, ttl_s=60, seen=await store.load(), takes_over=lease
        )
        assert grant.lease.reserved == lease.reserved
        assert [text for _, text, _ in etcd3.ask("get", f"{prefix}/subnets/{key}")] == [value]


async def test_changes_are_heard_both_ways(etcd3: Etcd3, store: EtcdStore, prefix: str) -> None:
    watch = aiter(store.watch((await store.load()).revision))
    etcd3.ask("watch", f"{prefix}/subnets/")
    value = FLANNELS["10.5.2.0-24"]
    etcd3.ask("put", f"{prefix}/subnets/10.5.2.0-24", value=value, ttl=60)
    assert await asyncio.to_thread(etcd3.ask, "next") == ["PutEvent", f"{prefix}/subnets/10.5.2.0-24", value]
    (put,) = (await asyncio.wait_for(anext(watch), 30)).changes
    assert isinstance(put, LeasePut)
    assert (put.lease.attributes.backend_type, put.lease.owner) == ("host-gw", None)

    etcd3.ask("put", f"{prefix}/subnets/10.5.2.0-24", value="no longer a lease")
    assert (await asyncio.to_thread(etcd3.ask, "next"))[2] == "no longer a lease"
    unreadable, gone = (await asyncio.wait_for(anext(watch), 30)).changes
    assert isinstance(unreadable, Unreadable)
    assert gone == LeaseGone(put.lease.subnets)

    writer = EtcdStore(parse_etcd_url(store.traits.name))
    attributes = LeaseAttributes(IPv4Address("192.0.2.12"), None, "host-gw")
    grant = await writer.claim(HOST, parse_lease_key("10.5.3.0-24"), attributes, ttl_s=60, seen=await writer.load())
    assert await asyncio.to_thread(etcd3.ask, "next") == ["PutEvent", f"{prefix}/subnets/10.5.3.0-24", value]
    await writer.release(grant)
    assert (await asyncio.to_thread(etcd3.ask, "next"))[:2] == ["DeleteEvent", f"{prefix}/subnets/10.5.3.0-24"]
    await writer.aclose()


@pytest.mark.parametrize(
    ("backend", "key", "routes", "neighbour"),
    [
        ("host-gw", "10.5.2.0-24", "via 192.0.2.12 dev under proto 79", ""),
        ("vxlan", "10.5.1.0-24", "via 10.5.1.0 dev ovl.1 proto 79", f"10.5.1.0 lladdr {MAC}"),
    ],
)
def test_lease_of_a_flannel_host_is_programmed_and_taken_away_again(
    etcd3_python: Path, tmp_path: Path, backend: str, key: str, routes: str, neighbour: str
) -> None:
    """A daemon in a namespace of its own, over an etcd there; the peer's lease is put and deleted by etcdctl."""
    with namespace("interop") as space:
        for line in (
            "link add under type veth peer name wire",
            "address add 192.0.2.1/24 dev under",
            "link set under up",
            "link set wire up",
        ):
            subprocess.run(["ip", "-n", space.name, *line.split()], check=True)
        etcd = space.start("etcd", "--data-dir", str(tmp_path / "data"), "--log-level", "error", out=tmp_path / "etcd")
        daemon = None
        try:
            until(space, "etcdctl get none", "")
            space.run("env", "ETCDCTL_API=3", "etcdctl", "put", "/n/config", network(backend))
            daemon = space.start(
                *(sys.executable, program("overlaynet-daemon"), "--store", "etcd://127.0.0.1:2379/n", "--iface", "under"),
                *("--state-dir", str(tmp_path / "state"), "--run-dir", str(tmp_path / "run")),
                *("--subnet-file", str(tmp_path / "subnet.env"), "--healthz-port", "0"),
                out=tmp_path / "daemon",
            )
            until(space, "etcdctl get --prefix /n/subnets/", "PublicIP")
            space.run("env", "ETCDCTL_API=3", "etcdctl", "put", f"/n/subnets/{key}", FLANNELS[key])
            until(space, "ip route show table main", routes)
            if neighbour:
                until(space, "ip neighbour show dev ovl.1", neighbour)
                until(space, "bridge fdb show dev ovl.1", f"{MAC} dst 192.0.2.11")
            space.run("env", "ETCDCTL_API=3", "etcdctl", "del", f"/n/subnets/{key}")
            until(space, "ip route show table main", routes, there=False)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{(tmp_path / 'daemon').read_text() if daemon else ''}") from None
        finally:
            stop([one for one in (daemon, etcd) if one is not None])


def network(backend: str) -> str:
    """The network's configuration: the daemon picks no subnet that a test gives to the flannel host."""
    return json.dumps({"Network": "10.5.0.0/16", "SubnetMin": "10.5.64.0", "Backend": {"Type": backend}})


def until(space: Namespace, command: str, text: str, *, there: bool = True, within_s: float = 60.0) -> None:
    """Wait until what a command prints has the text, or has it no longer."""

    async def wait() -> None:
        async with asyncio.timeout(within_s):
            while True:
                whole = space.command("env", "ETCDCTL_API=3", *command.split())
                done = await asyncio.to_thread(subprocess.run, whole, capture_output=True, text=True, check=False)
                if done.returncode == 0 and (text in done.stdout) == there:
                    return
                await asyncio.sleep(0.2)

    try:
        asyncio.run(wait())
    except TimeoutError:
        shown = subprocess.run(
            space.command("env", "ETCDCTL_API=3", *command.split()), capture_output=True, text=True, check=False
        )
        wish = "has" if there else "no longer has"
        raise AssertionError(f"not within {within_s:.0f} s: {command} {wish} {text!r}: {shown.stdout}") from None

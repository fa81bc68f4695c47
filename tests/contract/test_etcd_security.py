"""The etcd store over TLS and with users: what is let in, with no more rights than needed, and what is said to who is not."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import trustme
from overlaynet.errors import ConfigError, StoreUnavailableError
from overlaynet.lab.daemons import program
from overlaynet.model.lease import HostId, LeaseAttributes
from overlaynet.model.lease_text import parse_lease_key
from overlaynet.model.snapshot import LeaseGone, LeasePut
from overlaynet.store.etcd.settings import EtcdSettings, parse_etcd_url
from overlaynet.store.etcd.store import EtcdStore

from tests.contract.etcd_server import EtcdServer, etcd_server, free_ports
from tests.contract.namespaces import namespace, stop

A = HostId("a" * 32)
SUBNET = parse_lease_key("10.1.2.0-24")
ATTRIBUTES = LeaseAttributes(IPv4Address("192.0.2.1"))
PREFIX = "/fleet/network"
TOKEN_TTL_S = 2


class Papers:
    """Two authorities and what they signed, as files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        good, other = trustme.CA(), trustme.CA()
        good.cert_pem.write_to_path(self["ca.pem"])
        other.cert_pem.write_to_path(self["other-ca.pem"])
        for name, certificate in (
            ("server", good.issue_cert("127.0.0.1", "localhost")),
            ("elsewhere", good.issue_cert("localhost")),
            ("overlay", good.issue_cert("client.example", common_name="overlay")),
            ("root", good.issue_cert("root.example", common_name="root")),
            ("stranger", other.issue_cert("client.example", common_name="overlay")),
        ):
            certificate.private_key_pem.write_to_path(self[f"{name}.key"])
            certificate.cert_chain_pems[0].write_to_path(self[f"{name}.pem"])
        Path(self["junk"]).write_text("junk\n")
        subprocess.run(["openssl", "genrsa", "-out", self["jwt.key"], "2048"], check=True, capture_output=True)
        subprocess.run(
            ["openssl", "rsa", "-in", self["jwt.key"], "-pubout", "-out", self["jwt.pub"]], check=True, capture_output=True
        )

    def __getitem__(self, name: str) -> str:
        return str(self._folder / name)

    def serving(self, name: str = "server") -> tuple[str, ...]:
        return "--cert-file", self[f"{name}.pem"], "--key-file", self[f"{name}.key"]

    def ctl(self, name: str = "root") -> tuple[str, ...]:
        return "--cacert", self["ca.pem"], "--cert", self[f"{name}.pem"], "--key", self[f"{name}.key"]


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers") / "all")


@pytest.fixture(scope="module")
def tls(papers: Papers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """TLS, and no question who the client is."""
    with etcd_server(tmp_path_factory.mktemp("tls"), *papers.serving(), scheme="https", ctl_flags=papers.ctl()) as server:
        yield server


def let_in_overlay(server: EtcdServer) -> None:
    """Users `root`, `overlay` with the least role that suffices, and `nobody` with none."""
    server.ctl("user", "add", "root:root-secret")
    server.ctl("user", "grant-role", "root", "root")
    server.ctl("role", "add", "overlaynet")
    server.ctl("role", "grant-permission", "overlaynet", "read", f"{PREFIX}/config")
    server.ctl("role", "grant-permission", "overlaynet", "--prefix=true", "readwrite", f"{PREFIX}/subnets/")
    server.ctl("role", "grant-permission", "overlaynet", "--prefix=true", "readwrite", f"{PREFIX}/overlaynet/")
    server.ctl("user", "add", "overlay:a-secret")
    server.ctl("user", "grant-role", "overlay", "overlaynet")
    server.ctl("user", "add", "nobody:a-secret")
    server.ctl("put", f"{PREFIX}/config", '{"Network":"10.1.0.0/16"}')
    server.ctl("auth", "enable")


@pytest.fixture(scope="module")
def users(papers: Papers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """TLS, and users by password, with a token that soon expires."""
    token = f"jwt,pub-key={papers['jwt.pub']},priv-key={papers['jwt.key']},sign-method=RS256,ttl={TOKEN_TTL_S}s"
    flags = (*papers.serving(), "--auth-token", token)
    with etcd_server(tmp_path_factory.mktemp("users"), *flags, scheme="https", ctl_flags=papers.ctl()) as server:
        let_in_overlay(server)
        yield server


@pytest.fixture(scope="module")
def certificates(papers: Papers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """TLS for who has a certificate of ours, which names the user."""
    flags = (*papers.serving(), "--trusted-ca-file", papers["ca.pem"], "--client-cert-auth")
    with etcd_server(tmp_path_factory.mktemp("certificates"), *flags, scheme="https", ctl_flags=papers.ctl()) as server:
        let_in_overlay(server)
        yield server


async def use(settings: EtcdSettings) -> None:
    """All that a daemon does with a store."""
    store, observer = EtcdStore(settings), EtcdStore(settings)
    try:
        watch = aiter(observer.watch((await observer.load()).revision))
        heard = asyncio.ensure_future(anext(watch))
        grant = await store.claim(A, SUBNET, ATTRIBUTES, ttl_s=60, seen=await store.load())
        assert isinstance((await asyncio.wait_for(heard, 20)).changes[0], LeasePut)
        grant = await store.renew(grant)
        grant = await store.update(grant, LeaseAttributes(IPv4Address("192.0.2.2")))
        await asyncio.wait_for(anext(watch), 20)
        assert (await store.remaining([grant.lease]))[0] is not None
        await store.release(grant)
        assert isinstance((await asyncio.wait_for(anext(watch), 20)).changes[-1], LeaseGone)
        reserved = await store.reserve(SUBNET, ATTRIBUTES)
        await store.revoke(reserved.subnets)
    finally:
        await store.aclose()
        await observer.aclose()


async def refusal(settings: EtcdSettings) -> str:
    store = EtcdStore(settings)
    try:
        with pytest.raises(StoreUnavailableError) as caught:
            await store.load()
    finally:
        await store.aclose()
    assert "\n" not in str(caught.value)
    return caught.value.why


async def test_authority_alone_is_enough_where_etcd_asks_for_no_more(papers: Papers, tls: EtcdServer) -> None:
    await use(parse_etcd_url(f"etcds://{tls.address}{PREFIX}", cafile=papers["ca.pem"]))
    await use(parse_etcd_url(f"etcd://{tls.address}{PREFIX}", cafile=papers["ca.pem"]))


async def test_client_certificate_lets_in_the_user_that_it_names(papers: Papers, certificates: EtcdServer) -> None:
    await use(
        parse_etcd_url(
            f"etcds://{certificates.address}{PREFIX}",
            cafile=papers["ca.pem"],
            certfile=papers["overlay.pem"],
            keyfile=papers["overlay.key"],
        )
    )


async def test_user_with_password_needs_the_least_role_only(papers: Papers, users: EtcdServer) -> None:
    await use(
        parse_etcd_url(f"etcds://{users.address}{PREFIX}", cafile=papers["ca.pem"], username="overlay", password="a-secret")
    )


async def test_token_that_has_expired_is_renewed_in_calls_and_in_watches(papers: Papers, users: EtcdServer) -> None:
    settings = parse_etcd_url(
        f"etcds://{users.address}{PREFIX}", cafile=papers["ca.pem"], username="overlay", password="a-secret"
    )
    store = EtcdStore(settings)
    try:
        snapshot = await store.load()
        assert snapshot.config == b'{"Network":"10.1.0.0/16"}'
        first = store._client._token
        await asyncio.sleep(TOKEN_TTL_S + 1)
        assert (await store.load()).config == snapshot.config
        assert store._client._token != first, "the token has not expired"
        await asyncio.sleep(TOKEN_TTL_S + 1)
        watch = aiter(store.watch(store._view.revision))
        heard = asyncio.ensure_future(anext(watch))
        writer = EtcdStore(settings)
        grant = await writer.claim(A, SUBNET, ATTRIBUTES, ttl_s=60, seen=await writer.load())
        await asyncio.wait_for(heard, 20)
        await writer.release(grant)
        await writer.aclose()
    finally:
        await store.aclose()


async def test_least_role_does_not_write_the_configuration_and_says_what_is_needed(papers: Papers, users: EtcdServer) -> None:
    settings = parse_etcd_url(
        f"etcds://{users.address}{PREFIX}", cafile=papers["ca.pem"], username="overlay", password="a-secret"
    )
    store = EtcdStore(settings)
    with pytest.raises(StoreUnavailableError, match="permission denied"):
        await store.put_config(b"{}")
    await store.aclose()


@pytest.mark.parametrize(
    ("user", "password", "why"),
    [
        ("overlay", "another", "user 'overlay' or the password is wrong: check --etcd-username and --etcd-password"),
        ("who", "a-secret", "user 'who' or the password is wrong: check --etcd-username and --etcd-password"),
        (
            "nobody",
            "a-secret",
            f"permission denied: user 'nobody' needs a role that reads {PREFIX}/config and reads and writes what begins with "
            f"{PREFIX}/subnets/ and {PREFIX}/overlaynet/",
        ),
        ("", "", "etcd wants a user: give --etcd-username and --etcd-password"),
    ],
)
async def test_user_who_is_not_let_in_is_told_why(papers: Papers, users: EtcdServer, user: str, password: str, why: str) -> None:
    settings = parse_etcd_url(f"etcds://{users.address}{PREFIX}", cafile=papers["ca.pem"], username=user, password=password)
    assert await refusal(settings) == why


async def test_user_where_there_are_none_is_told(papers: Papers, tls: EtcdServer) -> None:
    settings = parse_etcd_url(f"etcds://{tls.address}{PREFIX}", cafile=papers["ca.pem"], username="overlay", password="x")
    assert await refusal(settings) == "etcd has no users: leave out --etcd-username and --etcd-password"


async def test_wrong_scheme_and_wrong_port_are_told(papers: Papers, tls: EtcdServer, etcd: EtcdServer) -> None:
    plain, encrypted = etcd.address, tls.address
    (nothing,) = free_ports(1)
    assert await refusal(parse_etcd_url(f"etcd://{encrypted}")) == (
        f"{encrypted} ended the connection: if it speaks TLS, write etcds://"
    )
    assert await refusal(parse_etcd_url(f"etcds://{plain}", cafile=papers["ca.pem"])) == (
        f"{plain}: no TLS handshake: if it speaks plain text, write etcd://"
    )
    assert await refusal(parse_etcd_url(f"etcd://127.0.0.1:{nothing}")) == f"127.0.0.1:{nothing}: connection refused"
    assert await refusal(parse_etcd_url("etcd://no-such-host.invalid")) == "no-such-host.invalid: no such host name"


async def test_certificates_that_do_not_match_are_told(
    papers: Papers, tls: EtcdServer, certificates: EtcdServer, tmp_path: Path
) -> None:
    assert await refusal(parse_etcd_url(f"etcds://{tls.address}", cafile=papers["other-ca.pem"])) == (
        f"{tls.address}: the server's certificate is not signed by an authority in --etcd-cafile"
    )
    wanted = f"{certificates.address}: the server wants another client certificate: check --etcd-certfile and --etcd-keyfile"
    assert await refusal(parse_etcd_url(f"etcds://{certificates.address}", cafile=papers["ca.pem"])) == wanted
    stranger = parse_etcd_url(
        f"etcds://{certificates.address}",
        cafile=papers["ca.pem"],
        certfile=papers["stranger.pem"],
        keyfile=papers["stranger.key"],
    )
    assert await refusal(stranger) == wanted
    serving = papers.serving("elsewhere")
    with etcd_server(tmp_path, *serving, scheme="https", ctl_flags=papers.ctl(), ctl_host="localhost") as elsewhere:
        settings = parse_etcd_url(f"etcds://{elsewhere.address}", cafile=papers["ca.pem"])
        assert await refusal(settings) == f"{elsewhere.address}: the server's certificate is not for 127.0.0.1"


@pytest.mark.parametrize(
    ("files", "flag", "why"),
    [
        ({"cafile": "missing"}, "--etcd-cafile", "cannot be read: No such file or directory"),
        ({"cafile": "."}, "--etcd-cafile", "cannot be read: Is a directory"),
        ({"cafile": "junk"}, "--etcd-cafile", "holds no certificate in PEM form"),
        ({"certfile": "junk", "keyfile": "overlay.key"}, "--etcd-certfile", "holds no certificate in PEM form"),
        ({"certfile": "overlay.pem", "keyfile": "junk"}, "--etcd-keyfile", "holds no private key in PEM form, unencrypted"),
        ({"certfile": "overlay.pem", "keyfile": "missing"}, "--etcd-keyfile", "cannot be read: No such file or directory"),
        ({"certfile": "overlay.pem", "keyfile": "stranger.key"}, "--etcd-keyfile", "is not the key of the certificate in "),
        ({"certfile": "overlay.pem"}, "--etcd-certfile", "needs --etcd-keyfile too"),
        ({"keyfile": "overlay.key"}, "--etcd-keyfile", "needs --etcd-certfile too"),
    ],
)
def test_file_that_is_not_what_its_flag_says_is_named(papers: Papers, files: dict[str, str], flag: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_etcd_url("etcds://127.0.0.1:1", **{name: papers[file] for name, file in files.items()})
    assert (caught.value.field, caught.value.why.startswith(why)) == (flag, True), caught.value.why


@pytest.mark.parametrize("url", ["etcd://h:0", "etcd://h:65536", "etcd://h:x", "etcd://", "etcd://h,", "etcd:///p", "etcd://h h"])
def test_url_that_names_no_endpoint_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError, match="--store"):
        parse_etcd_url(url)


def test_process_with_a_store_says_nothing_but_its_one_line(papers: Papers, tls: EtcdServer) -> None:
    command = [program("overlaynet"), "--store", f"etcds://{tls.address}/x", "--etcd-cafile", papers["other-ca.pem"], "leases"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 3
    assert len(run.stderr.splitlines()) == 1, run.stderr
    assert "not signed by an authority" in run.stderr


def test_password_is_in_no_line_of_the_log_and_in_no_answer(tmp_path: Path) -> None:
    """At its most talkative, with the wrong password and then with the right one; where it is given is another matter."""
    wrong, right = "a-wrong-pass-word", "a-right-pass-word"
    said = tmp_path / "said"
    with namespace("secret") as space:
        subprocess.run(["ip", "-n", space.name, *["link", "add", "under", "type", "veth", "peer", "name", "wire"]], check=True)
        for line in ("address add 192.0.2.1/24 dev under", "link set under up", "link set wire up"):
            subprocess.run(["ip", "-n", space.name, *line.split()], check=True)
        etcd = space.start("etcd", "--data-dir", str(tmp_path / "data"), "--log-level", "error", out=tmp_path / "etcd")
        running = [etcd]

        def ctl(*words: str) -> str:
            return space.run("env", "ETCDCTL_API=3", "etcdctl", *words)

        def until(text: str) -> None:
            deadline = time.monotonic() + 60
            while text not in said.read_text():
                assert time.monotonic() < deadline, said.read_text()
                time.sleep(0.05)

        def daemon(password: str) -> subprocess.Popen[bytes]:
            command = (
                *(program("overlaynet-daemon"), "--etcd-endpoints", "http://127.0.0.1:2379", "--etcd-prefix", PREFIX),
                *("--iface", "under", "--log-level", "debug", "--etcd-username", "overlay"),
                *("--state-dir", str(tmp_path / "state"), "--run-dir", str(tmp_path / "run")),
                *("--subnet-file", str(tmp_path / "subnet.env"), "--healthz-port", "0"),
            )
            running.append(space.start(*command, out=said, env={"FLANNELD_ETCD_PASSWORD": password}))
            return running[-1]

        try:
            deadline = time.monotonic() + 60
            while subprocess.run(space.command("etcdctl", "--command-timeout", "1s", "get", "x"), capture_output=True).returncode:
                assert time.monotonic() < deadline, (tmp_path / "etcd").read_text()
            for words in (
                "user add root:root-secret",
                "user grant-role root root",
                "role add overlaynet",
                f"role grant-permission overlaynet --prefix=true readwrite {PREFIX}/",
                f"user add overlay:{right}",
                "user grant-role overlay overlaynet",
            ):
                ctl(*words.split())
            ctl("put", f"{PREFIX}/config", '{"Network":"10.1.0.0/16","Backend":{"Type":"host-gw"}}')
            ctl("auth", "enable")
            first = daemon(wrong)
            until("user 'overlay' or the password is wrong")
            first.kill()
            first.wait()
            daemon(right)
            until("subnet.env published")
            answer = space.run(program("overlaynet"), "--run-dir", str(tmp_path / "run"), "status", "--json")
        finally:
            stop(running)
    assert '"ready": true' in answer or '"ready":true' in answer
    kept = [path.read_text(errors="replace") for path in (tmp_path / "state").rglob("*") if path.is_file()]
    for text in (said.read_text(), answer, *kept):
        assert wrong not in text
        assert right not in text

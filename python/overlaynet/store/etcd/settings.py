"""How an etcd cluster is reached: endpoints, prefix, TLS and user, from a URL and flags."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from overlaynet.errors import ConfigError

DEFAULT_PREFIX = "/coreos.com/network"
DEFAULT_PORT = 2379
_ENDPOINT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates as PEM texts. `ca` None: the system's authorities; key and certificate go together."""

    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    """One cluster and the prefix of our keys in it. `endpoints` are `host:port` texts; `tls` None: plain text."""

    endpoints: tuple[str, ...]
    prefix: str = DEFAULT_PREFIX
    tls: Tls | None = None
    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """The store's URL, without secrets."""
        return f"{'etcds' if self.tls is not None else 'etcd'}://{','.join(self.endpoints)}{self.prefix}"


def parse_etcd_url(
    url: str, *, cafile: str = "", certfile: str = "", keyfile: str = "", username: str = "", password: str = ""
) -> EtcdSettings:
    """The settings in `etcd://HOST:PORT,HOST:PORT/PREFIX` (`etcds://`: TLS) and the files. ConfigError names what is wrong."""
    scheme, _, rest = url.partition("://")
    hosts, slash, prefix = rest.partition("/")
    endpoints = tuple(_endpoint(url, text) for text in hosts.split(","))
    if bool(certfile) != bool(keyfile):
        flag, other = ("--etcd-certfile", "--etcd-keyfile") if certfile else ("--etcd-keyfile", "--etcd-certfile")
        raise ConfigError(flag, certfile or keyfile, f"needs {other} too")
    tls = None
    if scheme == "etcds" or cafile or certfile:
        tls = Tls(
            _read("--etcd-cafile", cafile) if cafile else None,
            _read("--etcd-certfile", certfile) if certfile else None,
            _read("--etcd-keyfile", keyfile) if keyfile else None,
        )
        _check_pem(cafile, certfile, keyfile)
    if bool(username) != bool(password):
        flag = "--etcd-username" if username else "--etcd-password"
        raise ConfigError(flag, username or "***", "user name and password go together")
    return EtcdSettings(endpoints, _prefix(slash + prefix), tls, username, password)


def _endpoint(url: str, text: str) -> str:
    match = _ENDPOINT.fullmatch(text.strip())
    if match is None or not 0 < int(match[2] or DEFAULT_PORT) < 65_536:
        raise ConfigError("--store", url, f"{text!r} is no HOST:PORT: want etcd://HOST:PORT,HOST:PORT/PREFIX")
    return f"{match[1]}:{match[2] or DEFAULT_PORT}"


def _prefix(path: str) -> str:
    """The prefix as flannel cleans it: one slash between parts, none at the end."""
    parts = [part for part in path.split("/") if part]
    return "/" + "/".join(parts) if parts else DEFAULT_PREFIX


def _read(flag: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(flag, path, f"cannot be read: {error.strerror}") from None


def _check_pem(cafile: str, certfile: str, keyfile: str) -> None:
    """ConfigError: a file does not hold what its flag is for, or the key is not the certificate's."""
    for flag, path in (("--etcd-cafile", cafile), ("--etcd-certfile", certfile)):
        if path:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
            except (ssl.SSLError, ValueError):
                raise ConfigError(flag, path, "holds no certificate in PEM form") from None
    if certfile:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certfile, keyfile, password=lambda: b"")
        except (ssl.SSLError, ValueError) as error:
            mismatch = getattr(error, "reason", None) == "KEY_VALUES_MISMATCH"
            why = (
                f"is not the key of the certificate in {certfile}"
                if mismatch
                else "holds no private key in PEM form, unencrypted"
            )
            raise ConfigError("--etcd-keyfile", keyfile, why) from None

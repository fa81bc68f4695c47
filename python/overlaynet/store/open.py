"""From a URL to a store. Each store's libraries are imported when it is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from overlaynet.errors import ConfigError
from overlaynet.store import AdministeredStore

_SQLITE = "sqlite:///"
_ETCD = ("etcd://", "etcds://")


@dataclass(frozen=True, slots=True)
class EtcdOptions:
    """What flags say about an etcd cluster beside its URL: files with PEM certificates, and a user."""

    cafile: str = ""
    certfile: str = ""
    keyfile: str = ""
    username: str = ""
    password: str = field(default="", repr=False)


def open_store(url: str, options: EtcdOptions | None = None) -> AdministeredStore:
    """The store at `url`. Nothing is opened before its first call. ConfigError: the URL names no store.

    `sqlite:///PATH`, with an absolute path four slashes, is a file; `etcd://HOST:PORT,HOST:PORT/PREFIX` a cluster, and `etcds://`
    one over TLS. `options` are for etcd alone.
    """
    if url.startswith(_SQLITE) and len(url) > len(_SQLITE):
        from overlaynet.store.sqlite import SqliteStore

        return SqliteStore(Path(url.removeprefix(_SQLITE)).absolute())
    if url.startswith(_ETCD):
        from overlaynet.store.etcd.settings import parse_etcd_url
        from overlaynet.store.etcd.store import EtcdStore

        given = options or EtcdOptions()
        return EtcdStore(
            parse_etcd_url(
                url,
                cafile=given.cafile,
                certfile=given.certfile,
                keyfile=given.keyfile,
                username=given.username,
                password=given.password,
            )
        )
    raise ConfigError(
        "--store", url, "must be sqlite:///PATH, such as sqlite:////var/lib/overlaynet/store.db, or etcd://HOST:PORT/PREFIX"
    )

"""From a URL to a store. Each store's libraries are imported when it is opened."""

from __future__ import annotations

from pathlib import Path

from overlaynet.errors import ConfigError
from overlaynet.store import AdministeredStore
from overlaynet.store.location import StoreLocation

__all__ = ["open_store"]

_SQLITE = "sqlite:///"
_ETCD = ("etcd://", "etcds://")


def open_store(place: str | StoreLocation, *, make: bool = True) -> AdministeredStore:
    """The store at a URL. Nothing is opened before its first call. ConfigError: the URL names no store.

    `sqlite:///PATH`, with an absolute path four slashes, is a file; `etcd://HOST:PORT,HOST:PORT/PREFIX` a cluster, and `etcds://`
    one over TLS. Whoever only reads does not `make` a file that is not there: ConfigError, then, at the first call.
    """
    location = StoreLocation(place) if isinstance(place, str) else place
    url = location.url
    if url.startswith(_SQLITE) and len(url) > len(_SQLITE):
        from overlaynet.store.sqlite import SqliteStore

        return SqliteStore(Path(url.removeprefix(_SQLITE)).absolute(), make=make)
    if url.startswith(_ETCD):
        from overlaynet.store.etcd.settings import parse_etcd_url
        from overlaynet.store.etcd.store import EtcdStore

        given = location.etcd
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

"""From a URL to a store."""

from __future__ import annotations

from pathlib import Path

from overlaynet.errors import ConfigError
from overlaynet.store.sqlite import SqliteStore

_SQLITE = "sqlite:///"


def open_store(url: str) -> SqliteStore:
    """The store at `url`: `sqlite:///PATH`, with an absolute path four slashes. Nothing is opened before its first call.

    ConfigError: the URL names no store.
    """
    if url.startswith(_SQLITE) and len(url) > len(_SQLITE):
        return SqliteStore(Path(url.removeprefix(_SQLITE)).absolute())
    raise ConfigError("--store", url, "must be sqlite:///PATH, such as sqlite:////var/lib/overlaynet/store.db")

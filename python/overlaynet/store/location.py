"""Where a store is: its URL, and what an etcd cluster needs beside it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class EtcdOptions:
    """What flags say about an etcd cluster beside its URL: files with PEM certificates, and a user."""

    cafile: str = ""
    certfile: str = ""
    keyfile: str = ""
    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """A store's URL, without secrets, and the options of an etcd cluster."""

    url: str
    etcd: EtcdOptions = EtcdOptions()

"""One network over many Linux hosts, and the parts it is made of.

`import overlaynet` loads nothing but this; each name loads its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overlaynet._core import Pump, Tun
    from overlaynet.packet import Tunnel, decode, decode_many, encode, encode_many
    from overlaynet.prefixes import PrefixTable
    from overlaynet.store.open import open_store

    __version__: str

__all__ = [
    "PrefixTable",
    "Pump",
    "Tun",
    "Tunnel",
    "__version__",
    "decode",
    "decode_many",
    "encode",
    "encode_many",
    "open_store",
]

_HOMES = {
    "PrefixTable": "overlaynet.prefixes",
    "Pump": "overlaynet._core",
    "Tun": "overlaynet._core",
    "Tunnel": "overlaynet.packet",
    "decode": "overlaynet.packet",
    "decode_many": "overlaynet.packet",
    "encode": "overlaynet.packet",
    "encode_many": "overlaynet.packet",
    "open_store": "overlaynet.store.open",
}


if not TYPE_CHECKING:  # so that type checkers know which names there are

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            value: object = version("overlaynet")
        elif name in _HOMES:
            value = getattr(import_module(_HOMES[name]), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))

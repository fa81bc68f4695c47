"""The text of an engine's configuration: what the next run begins with before it knows anything else.

It needs nothing but the standard library, so that a process can read it within milliseconds of its start. `settings` are words of
the one who writes it: a text written under other settings is none to begin with. Whatever the bytes, decoding gives a value or a
StoreDataError.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from overlaynet.errors import StoreDataError
from overlaynet.model.addresses import MacAddress, Mtu, Vni
from overlaynet.model.dataplane import PumpConfig, PumpPeer, Vteps

_FORM = 1


def encode_running(config: PumpConfig | None, settings: Sequence[str]) -> bytes:
    """The JSON text of what an engine runs with, ending in a newline; of None: that there is none."""
    return json.dumps({"form": _FORM, "settings": list(settings), "engine": config and _engine(config)}).encode() + b"\n"


def decode_running(text: bytes, settings: Sequence[str]) -> PumpConfig | None:
    """The configuration whose text this is; None: there is none, or it was written under other settings.

    StoreDataError: it is no such text, or one of another form.
    """
    try:
        value = json.loads(text)
        if value["form"] != _FORM:
            raise StoreDataError("engine", f"has form {value['form']}, this version knows {_FORM}")
        if value["settings"] != list(settings) or value["engine"] is None:
            return None
        return _config(value["engine"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreDataError("engine", f"{type(error).__name__}: {error}") from None


def _engine(config: PumpConfig) -> dict[str, object]:
    return {
        "link": config.link,
        "listen": [str(address) for address in config.listen],
        "port": config.port,
        "mtu": config.mtu,
        "local": [str(prefix) for prefix in config.local],
        "addresses": [str(address) for address in config.addresses],
        "vteps": None if config.vteps is None else [config.vteps.vni, str(config.vteps.v4), str(config.vteps.v6)],
        "tap": config.tap,
        "peers": [
            [[str(prefix) for prefix in peer.subnets], str(peer.address), peer.port, peer.vtep and str(peer.vtep)]
            for peer in config.peers
        ],
    }


def _config(engine: Any) -> PumpConfig:
    vteps = engine["vteps"]
    return PumpConfig(
        link=engine["link"],
        listen=tuple(ip_address(text) for text in engine["listen"]),
        port=engine["port"],
        mtu=Mtu(engine["mtu"]),
        local=tuple(ip_network(text) for text in engine["local"]),
        addresses=tuple(ip_address(text) for text in engine["addresses"]),
        peers=tuple(
            PumpPeer(
                tuple(ip_network(text) for text in subnets),
                ip_address(address),
                port,
                None if vtep is None else MacAddress.parse(vtep),
            )
            for subnets, address, port, vtep in engine["peers"]
        ),
        tap=engine.get("tap"),
        vteps=None if vteps is None else Vteps(Vni(vteps[0]), MacAddress.parse(vteps[1]), MacAddress.parse(vteps[2])),
    )

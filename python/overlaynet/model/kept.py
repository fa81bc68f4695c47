"""The last good snapshot of a host, and its text: what it needs to go on forwarding while its store cannot be reached.

The text is JSON for one file in the state directory. Leases in it have the form that stores keep them in. Whatever the bytes,
decoding gives a value or a StoreDataError.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network

import msgspec

from overlaynet.errors import ConfigError, StoreDataError
from overlaynet.model.addresses import Prefix
from overlaynet.model.lease import HostId, Lease
from overlaynet.model.lease_text import decode_attributes, encode_attributes, lease_key, parse_lease_key
from overlaynet.model.network import parse_network

_FORM = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """What a host kept of the store named `store`: a valid configuration, every lease, and which of them is its own.

    `revision` is the newest at which this was known to be whole. `networks` are those of earlier configurations in which routes
    of ours may be left.
    """

    store: str
    config: bytes
    revision: int
    own: Lease
    leases: tuple[Lease, ...]
    networks: tuple[Prefix, ...] = ()


class _Lease(msgspec.Struct, frozen=True, omit_defaults=True):
    subnets: str
    attributes: msgspec.Raw
    owner: str | None = None
    features: tuple[str, ...] = ()
    reserved: bool = False
    created: int = 0


class _File(msgspec.Struct, frozen=True, omit_defaults=True):
    form: int
    store: str
    revision: int
    config: str
    own: _Lease
    leases: tuple[_Lease, ...]
    networks: tuple[str, ...] = ()


_DECODER = msgspec.json.Decoder(_File)


def encode_kept(kept: Kept) -> bytes:
    """The JSON text of `kept`, ending in a newline."""
    file = _File(
        _FORM,
        kept.store,
        kept.revision,
        kept.config.decode(),
        _stored(kept.own),
        tuple(_stored(lease) for lease in kept.leases),
        tuple(str(network) for network in kept.networks),
    )
    return msgspec.json.encode(file) + b"\n"


def decode_kept(text: bytes) -> Kept:
    """The value whose text this is. StoreDataError: it is none, or one of another form."""
    try:
        file = _DECODER.decode(text)
        if file.form != _FORM:
            raise StoreDataError("snapshot", f"has form {file.form}, this version knows {_FORM}")
        config = file.config.encode()
        parse_network(config)
        leases = tuple(_lease(lease) for lease in file.leases)
        networks = tuple(ip_network(network) for network in file.networks)
        return Kept(file.store, config, file.revision, _lease(file.own), leases, networks)
    except (msgspec.MsgspecError, ConfigError, ValueError, RecursionError) as error:
        raise StoreDataError("snapshot", str(error)) from None


def _stored(lease: Lease) -> _Lease:
    return _Lease(
        lease_key(lease.subnets),
        msgspec.Raw(encode_attributes(lease.attributes)),
        lease.owner,
        lease.features,
        lease.reserved,
        lease.created,
    )


def _lease(stored: _Lease) -> Lease:
    return Lease(
        subnets=parse_lease_key(stored.subnets),
        attributes=decode_attributes(bytes(stored.attributes)),
        owner=None if stored.owner is None else HostId(stored.owner),
        features=stored.features,
        reserved=stored.reserved,
        created=stored.created,
    )

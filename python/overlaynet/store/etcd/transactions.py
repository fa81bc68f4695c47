"""What transactions are made of: conditions on keys, and operations."""

from __future__ import annotations

from overlaynet.store.etcd import rpc_pb2 as rpc
from overlaynet.store.etcd.keys import range_end


def unchanged_since(prefix: bytes, revision: int) -> rpc.Compare:
    """No key that begins with `prefix` was created or changed after `revision`."""
    return rpc.Compare(
        result=rpc.Compare.LESS, target=rpc.Compare.MOD, key=prefix, range_end=range_end(prefix), mod_revision=revision + 1
    )


def changed_at(key: bytes, revision: int) -> rpc.Compare:
    """The key was last changed at `revision`; 0: it is not there."""
    return rpc.Compare(result=rpc.Compare.EQUAL, target=rpc.Compare.MOD, key=key, mod_revision=revision)


def is_there(key: bytes) -> rpc.Compare:
    """The key exists."""
    return rpc.Compare(result=rpc.Compare.GREATER, target=rpc.Compare.VERSION, key=key, version=0)


def has_lease(key: bytes, lease: int) -> rpc.Compare:
    """The key hangs on the etcd lease; 0: on none, or it is not there."""
    return rpc.Compare(result=rpc.Compare.EQUAL, target=rpc.Compare.LEASE, key=key, lease=lease)


def has_value(key: bytes, value: bytes) -> rpc.Compare:
    """The key holds `value`."""
    return rpc.Compare(result=rpc.Compare.EQUAL, target=rpc.Compare.VALUE, key=key, value=value)


def put(key: bytes, value: bytes, lease: int = 0) -> rpc.RequestOp:
    """Write the key, hung on an etcd lease."""
    return rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value, lease=lease))


def delete(key: bytes) -> rpc.RequestOp:
    """Delete the key."""
    return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))


def read(key: bytes) -> rpc.RequestOp:
    """Read the key."""
    return rpc.RequestOp(request_range=rpc.RangeRequest(key=key))


def read_changed(prefix: bytes, after: int) -> rpc.RequestOp:
    """Read all keys that begin with `prefix` and were created or changed after the revision `after`."""
    return rpc.RequestOp(request_range=rpc.RangeRequest(key=prefix, range_end=range_end(prefix), min_mod_revision=after + 1))

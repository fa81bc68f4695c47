"""Every exception that overlaynet raises on purpose.

One class for each decision that a caller makes: correct the input, retry, load again, claim again, give up. An exception's
attributes are data; its text is built from them and names the thing, its value and what would be right. Each class carries the
exit code with which the command-line programs end when it is the reason (`docs/operations.md` lists them).
"""

from __future__ import annotations

import os
from typing import ClassVar

__all__ = [
    "AddressInUseError",
    "CaptureError",
    "ConfigError",
    "ConflictError",
    "DaemonRunningError",
    "DaemonUnreachableError",
    "DataplaneError",
    "DecodeError",
    "HistoryGoneError",
    "HostIdInUseError",
    "InvariantError",
    "KernelBusyError",
    "KernelError",
    "KernelPermissionError",
    "KernelVanishedError",
    "LabError",
    "LeaseLostError",
    "NetworkNotConfiguredError",
    "OverlaynetError",
    "PrefixError",
    "StaleSnapshotError",
    "StoreDataError",
    "StoreError",
    "StoreUnavailableError",
    "SubnetsExhaustedError",
]

_LONGEST_SHOWN = 400
"""How many characters of a value an error shows: more would hide what is wrong with it."""


class OverlaynetError(Exception):
    """The base of all errors raised by overlaynet."""

    exit_code: ClassVar[int] = 1


class ConfigError(OverlaynetError):
    """A setting, flag or stored configuration cannot be used: `field` has `value`, and `why` says what would be right."""

    exit_code = 2

    def __init__(self, field: str, value: object, why: str) -> None:
        shown = repr(value)
        super().__init__(f"{field}: {shown if len(shown) <= _LONGEST_SHOWN else shown[:_LONGEST_SHOWN] + '...'}: {why}")
        self.field = field
        self.value = value
        self.why = why


class PrefixError(OverlaynetError, ValueError):
    """A text, number or buffer is not a prefix or address of the family that is wanted."""

    exit_code = 2

    def __init__(self, value: object, why: str) -> None:
        super().__init__(f"{value!r}: {why}")
        self.value = value
        self.why = why


class DecodeError(OverlaynetError, ValueError):
    """Bytes are not a valid header of `layer`: at `offset`, `need` bytes are needed and `have` are there.

    `why` names another fault than missing bytes (a wrong version, say); then `need` and `have` give the expected and found
    values where there are such.
    """

    def __init__(self, layer: str, offset: int, need: int, have: int, why: str = "truncated") -> None:
        super().__init__(f"{layer} at byte {offset}: {why}: need {need}, have {have}")
        self.layer = layer
        self.offset = offset
        self.need = need
        self.have = have
        self.why = why


class CaptureError(OverlaynetError):
    """A capture is damaged, or none at all: at byte `offset` of `name`, for the reason `why`. What came before it is good."""

    exit_code = 11

    def __init__(self, name: str, offset: int, why: str) -> None:
        super().__init__(f"{name}: damaged at byte {offset}: {why}")
        self.name = name
        self.offset = offset
        self.why = why


class StoreError(OverlaynetError):
    """The base of what a store can answer other than success."""

    exit_code = 3


class StoreUnavailableError(StoreError):
    """The store cannot be reached or did not answer in time: try again later; what is known stays true meanwhile."""

    def __init__(self, store: str, why: str) -> None:
        super().__init__(f"store {store}: unavailable: {why}")
        self.store = store
        self.why = why


class NetworkNotConfiguredError(StoreError):
    """The store answers and holds no network configuration yet."""

    def __init__(self, store: str) -> None:
        super().__init__(f"store {store}: no network configured: `overlaynet --store {store} network set FILE` creates one")
        self.store = store


class ConflictError(StoreError):
    """The store changed since the caller looked: `key` is taken or is not the caller's. Load again, choose again."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"{key}: {why}")
        self.key = key
        self.why = why


class StaleSnapshotError(ConflictError):
    """A conflict with a claim that was chosen from what is no longer true: nothing is known to be in its way any more."""


class LeaseLostError(StoreError):
    """The caller's lease on `subnet` no longer exists or belongs to another host. Claim again."""

    def __init__(self, subnet: str, why: str) -> None:
        super().__init__(f"lease {subnet}: lost: {why}")
        self.subnet = subnet
        self.why = why


class HistoryGoneError(StoreError):
    """A watch cannot be resumed at `revision`, since the store no longer keeps what came after it. Load again.

    `replaced`: what was seen up to there is not the store's past: it was put back to a backup, or another took its place.
    """

    def __init__(self, revision: int, *, replaced: bool = False) -> None:
        why = "the store was put back or replaced" if replaced else f"changes after revision {revision} are no longer kept"
        super().__init__(f"{why}: load again")
        self.revision = revision
        self.replaced = replaced


class StoreDataError(StoreError):
    """The store holds something at `key` that is not what should be there."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"{key}: {why}")
        self.key = key
        self.why = why


class SubnetsExhaustedError(StoreError):
    """No subnet of the network is free."""

    exit_code = 4

    def __init__(self, network: str, leases: int) -> None:
        super().__init__(f"network {network}: no free subnet: {leases} are leased; widen the network or release leases")
        self.network = network
        self.leases = leases


class AddressInUseError(StoreError):
    """Another live host's lease carries this host's public address."""

    exit_code = 4

    def __init__(self, address: str, subnet: str, owner: str) -> None:
        super().__init__(
            f"public address {address}: in use by host {owner} (subnet {subnet}): "
            "give this host another with --public-ip, or stop the other host and release its lease"
        )
        self.address = address
        self.subnet = subnet
        self.owner = owner


class HostIdInUseError(StoreError):
    """Another host, at `address`, has claimed the lease on `subnet` under this host's own identity `host`."""

    exit_code = 4

    def __init__(self, host: str, subnet: str, address: str) -> None:
        super().__init__(
            f"host id {host}: in use by another host too, at {address}, which has taken the lease {subnet} by it (a copied state "
            "directory?): this host has a new identity, and another subnet, from its next start"
        )
        self.host = host
        self.subnet = subnet
        self.address = address


class KernelError(OverlaynetError):
    """The kernel refused an operation: `action` on the object `key` ended with `errno`."""

    exit_code = 5

    def __init__(self, errno: int, action: str, key: str, detail: str = "") -> None:
        reason = detail or os.strerror(errno)
        super().__init__(f"kernel: {action} {key}: {reason} (errno {errno})")
        self.errno = errno
        self.action = action
        self.key = key
        self.detail = detail


class KernelBusyError(KernelError):
    """The kernel refused for now (a dump was interrupted, a buffer was full): the same call may pass later."""


class KernelVanishedError(KernelError):
    """The object was made, and somebody removed it before it was complete."""


class KernelPermissionError(KernelError):
    """The process lacks a right; `detail` names the capability."""

    exit_code = 6


class DataplaneError(OverlaynetError):
    """The packet engine could not do `action`; `why` names the thing, its value and the system's reason."""

    exit_code = 7

    def __init__(self, action: str, why: str) -> None:
        super().__init__(f"packet engine: {action}: {why}")
        self.action = action
        self.why = why


class DaemonRunningError(OverlaynetError):
    """Another daemon already serves this network namespace, or uses this state directory."""

    exit_code = 8


class DaemonUnreachableError(OverlaynetError):
    """No daemon answers at the control socket."""

    exit_code = 9

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"control socket {path}: {why}: is overlaynet-daemon running, with this --run-dir?")
        self.path = path
        self.why = why


class LabError(OverlaynetError):
    """A lab could not be built, used or taken down."""

    exit_code = 10


class InvariantError(OverlaynetError):
    """Something that cannot happen has happened: a defect in overlaynet itself."""

    exit_code = 70

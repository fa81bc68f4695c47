"""The kernel's refusals as errors that say what is wrong and what would be right."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Final

from overlaynet.errors import KernelBusyError, KernelError, KernelPermissionError

_BUSY: Final = frozenset({errno.EBUSY, errno.ENOBUFS, errno.EAGAIN, errno.EINTR})
_FORBIDDEN: Final = frozenset({errno.EPERM, errno.EACCES, errno.EROFS})
_HINTS: Final[Mapping[int, str]] = {
    errno.ENETUNREACH: "the gateway is not a neighbour on that link",
    errno.EHOSTUNREACH: "the gateway is not a neighbour on that link",
    errno.EADDRINUSE: "another program or device holds the UDP port",
}


def as_kernel_error(error: OSError, action: str, key: str) -> KernelError:
    """The error as ours: busy and forbidden ones by their class, with the kernel's own words where it had any."""
    number = error.errno or errno.EIO
    plain = os.strerror(number)
    words = "" if error.strerror in (None, plain) else str(error.strerror)
    if number in _FORBIDDEN:
        where = "" if error.filename is None else f"{error.filename}: "
        also = "" if error.filename is None else ", and this path must be writable to it"
        return KernelPermissionError(number, action, key, f"{where}{words or plain}: the process needs CAP_NET_ADMIN{also}")
    if number == errno.ENOENT and error.filename is not None:
        hint = ": load the kernel module tun, or give the container the device" if str(error.filename) == "/dev/net/tun" else ""
        return KernelError(number, action, key, f"{error.filename} is missing{hint}")
    hint = _HINTS.get(number, "")
    detail = f"{hint} ({words or plain})" if hint else words
    return (KernelBusyError if number in _BUSY else KernelError)(number, action, key, detail)

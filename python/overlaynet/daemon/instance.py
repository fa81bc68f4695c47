"""One daemon for each network namespace, by an abstract socket: the kernel keeps it per namespace and frees it at the end."""

from __future__ import annotations

import errno
import socket

from overlaynet.errors import DaemonRunningError

_NAME = "\0overlaynet-daemon"


def claim_namespace() -> socket.socket:
    """The socket that marks this network namespace as served, for as long as it is open. DaemonRunningError: one serves it."""
    marker = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        marker.bind(_NAME)
    except OSError as error:
        marker.close()
        if error.errno == errno.EADDRINUSE:
            text = "another overlaynet-daemon serves this network namespace: stop it first (`overlaynet status` shows it)"
            raise DaemonRunningError(text) from None
        raise
    return marker

"""What must be done from inside a network namespace: opening sockets, /proc/sys/net, TUN devices.

A thread of its own enters the namespace once (setns(2) moves only the calling thread) and does these things there, so that the
event loop and every other thread stay where they are. /proc/sys/net shows the namespace of the thread that opens it.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from overlaynet.errors import KernelError

__all__ = ["NamespaceThread", "create_tun", "read_sysctl", "route_socket", "write_sysctl"]

_T = TypeVar("_T")

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_IFF_TUN = 0x0001
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_TUN_EXCL = 0x8000
_TUN_DEVICE = Path("/dev/net/tun")
_SYSCTLS = Path("/proc/sys/net")
_NAMESPACES = Path("/run/netns")
_SO_RCVBUFFORCE = 33
# Room for the events of some ten thousand changed entries; the kernel counts more than a message's own size.
_RECEIVE_BYTES = 16 << 20


class NamespaceThread:
    """A thread inside one network namespace: the one called `name` under /run/netns, or the process's own."""

    def __init__(self, name: str | None = None) -> None:
        self._name = name
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netns")
        self._inside = name is None

    async def call(self, function: Callable[[], _T]) -> _T:
        """The function's result, called in the thread. KernelError: the namespace cannot be entered."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, function)

    def close(self) -> None:
        """End the thread, as soon as what it does is done."""
        self._pool.shutdown(wait=False)

    def _run(self, function: Callable[[], _T]) -> _T:
        if not self._inside:
            _enter(str(self._name))
            self._inside = True
        return function()


def _enter(name: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        descriptor = os.open(_NAMESPACES / name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(error.errno or errno.EINVAL, "enter", f"network namespace {name}") from error
    try:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise KernelError(ctypes.get_errno(), "enter", f"network namespace {name}")
    finally:
        os.close(descriptor)


def route_socket() -> socket.socket:
    """A new rtnetlink socket in the calling thread's namespace, neither bound nor blocking."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
        try:
            made.setsockopt(socket.SOL_SOCKET, option, _RECEIVE_BYTES)
            break
        except PermissionError:
            continue
    return made


def read_sysctl(path: str) -> str | None:
    """The value of a sysctl below /proc/sys/net, or None if there is none."""
    try:
        return (_SYSCTLS / path).read_text(encoding="ascii").strip()
    except OSError:
        return None


def write_sysctl(path: str, value: str) -> None:
    """Write a sysctl below /proc/sys/net if it has another value. OSError as the kernel gives it."""
    if read_sysctl(path) != value:
        (_SYSCTLS / path).write_text(value, encoding="ascii")


def create_tun(name: str, *, ethernet: bool = False) -> None:
    """Make a persistent TUN device (with `ethernet` a TAP device) without packet information header; EEXIST (as OSError) if the
    name is taken.

    The same two ioctl(2) as `ip tuntap add` (drivers/net/tun.c), with IFF_TUN_EXCL, which answers EBUSY to a name that is
    taken by anything.
    """
    descriptor = os.open(_TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            flags = (_IFF_TAP if ethernet else _IFF_TUN) | _IFF_NO_PI | _IFF_TUN_EXCL
            fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode("ascii"), flags))
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
            raise
        fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
    finally:
        os.close(descriptor)

"""What the kernel's refusals become."""

from __future__ import annotations

import errno
import os

import pytest
from overlaynet.errors import KernelBusyError, KernelError, KernelPermissionError
from overlaynet.kernel.refusals import as_kernel_error


def refused(number: int, words: str | None = None, path: str | None = None) -> KernelError:
    return as_kernel_error(OSError(number, words or os.strerror(number), path), "create", "route 10.1.4.0/24")


@pytest.mark.parametrize("number", [errno.EBUSY, errno.ENOBUFS, errno.EINTR, errno.EAGAIN])
def test_what_may_pass_later_is_busy(number: int) -> None:
    assert type(refused(number)) is KernelBusyError


def test_a_missing_right_names_the_capability() -> None:
    error = refused(errno.EPERM)
    assert type(error) is KernelPermissionError
    assert "CAP_NET_ADMIN" in str(error)


def test_a_read_only_path_is_named() -> None:
    error = refused(errno.EROFS, path="/proc/sys/net/ipv4/ip_forward")
    assert type(error) is KernelPermissionError
    assert "/proc/sys/net/ipv4/ip_forward: Read-only file system" in str(error)


def test_a_missing_tun_device_says_what_to_do() -> None:
    assert "/dev/net/tun is missing: load the kernel module tun" in str(refused(errno.ENOENT, path="/dev/net/tun"))
    assert str(refused(errno.ENOENT, path="/proc/sys/net/x")).endswith("/proc/sys/net/x is missing (errno 2)")


def test_the_kernels_own_words_are_kept_beside_ours() -> None:
    text = str(refused(errno.ENETUNREACH, "Nexthop has invalid gateway"))
    assert "the gateway is not a neighbour on that link (Nexthop has invalid gateway)" in text
    assert str(refused(errno.EINVAL, "Invalid prefsrc address")).endswith(": Invalid prefsrc address (errno 22)")
    assert str(refused(errno.EEXIST)).endswith(": File exists (errno 17)")

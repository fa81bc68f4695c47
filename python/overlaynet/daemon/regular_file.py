"""Reading a file of ours in whose place may be anything: a FIFO, for which its reader would wait for ever, or one without end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_MOST_BYTES = 256 << 20
"""More than the snapshot of a million hosts."""


def read_regular(path: Path) -> bytes:
    """All bytes of the file. OSError: it cannot be read, is no file, or too large to be one of ours."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        there = os.fstat(descriptor)
        if not stat.S_ISREG(there.st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        if there.st_size > _MOST_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)

"""A file that the daemon keeps as it was last told: written whole or not at all, again after a failure, again when it vanishes.

A disk that is full or a folder that somebody removed is said once and tried again every second; it never ends the daemon.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from overlaynet.daemon.state import replace_file

log = structlog.get_logger()

_RETRY_S = 1.0


class OutFile:
    """One file of `mode`, in a folder that is made with `folder_mode` if it is missing; `name` is what messages call it.

    It is due at most every `spacing_s` seconds: what changes more often is written as it is then.
    """

    def __init__(self, path: Path, mode: int, folder_mode: int, name: str, *, spacing_s: float = 0.0) -> None:
        self._path = path
        self._modes = mode, folder_mode
        self._name = name
        self._content: Callable[[], bytes] | None = None
        self._written: Callable[[], bytes] | None = None
        self._spacing_s = spacing_s
        self._tried_at = -math.inf
        self._failed = False

    def put(self, content: Callable[[], bytes]) -> None:
        """From now on the file should hold what `content` gives; it is called when the file is written."""
        self._content = content

    def has(self, content: Callable[[], bytes]) -> None:
        """The file holds what `content` gives already: it is written only when it vanishes."""
        self._content = self._written = content

    @property
    def unwritten(self) -> bool:
        """Whether the file does not hold what it should, as far as this process knows."""
        return self._content is not self._written

    @property
    def due(self) -> bool:
        """Whether to write now: something is new, a failure is a second old, or the file was removed."""
        wait = max(self._spacing_s, _RETRY_S if self._failed else 0.0)
        if self._content is None or time.monotonic() < self._tried_at + wait:
            return False
        return self.unwritten or not self._path.exists()

    def write(self) -> None:
        """Write it, and wait until it is on the disk; a failure is logged, the first of a row."""
        content = self._content
        if content is None:
            return
        self._tried_at = time.monotonic()
        mode, folder_mode = self._modes
        try:
            replace_file(self._path, content(), mode, folder_mode=folder_mode)
        except OSError as error:
            if not self._failed:
                log.error(f"{self._name} cannot be written: trying again", path=str(self._path), why=error.strerror)
            self._failed = True
            return
        self._failed, self._written = False, content
        log.debug(f"{self._name} written", path=str(self._path))

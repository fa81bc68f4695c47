"""The traffic generator as a program inside a pod: `flood`, `count`, `reflect` or `probe`, arguments and result as JSON.

A program that listens says so first, in a line of its own, so that nothing is sent before.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from overlaynet import _core

LISTENS = "listens"

_CALLS: dict[str, Callable[..., Any]] = {
    "flood": _core.flood,
    "count": _core.count,
    "reflect": _core.reflect,
    "probe": _core.probe,
}


def main(name: str, arguments: str) -> None:
    """Run one call and print what it returns."""
    given = json.loads(arguments)
    for field in ("to", "bind"):
        if field in given:
            given[field] = tuple(given[field])
    if "bind" in given:
        print(LISTENS, flush=True)  # noqa: T201 - a program's output
    print(json.dumps(_CALLS[name](**given)), flush=True)  # noqa: T201 - a program's output


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The cyclic garbage collector, told what a daemon is like: most of what it makes stays for as long as a peer does.

Left to itself it looks through all objects again and again while tens of thousands are made that are no garbage, which takes
longer than making them. Reference counts free nearly everything here; cycles come from exceptions and ended tasks, some tens of
objects each, and can wait.
"""

from __future__ import annotations

import gc

_YOUNG = 10_000
"""New containers between two looks at the young: those of some hundred peers, or of hundreds of ended tasks."""

_OLDER = (100, 20)
"""So many looks at the young between two at all that have survived one: more than a start among ten thousand peers makes."""


def spare_collector() -> None:
    """Have the collector look seldom, and never at what the imports have made."""
    gc.freeze()
    gc.set_threshold(_YOUNG, *_OLDER)


def settle_collector() -> None:
    """Never look again at what has been made by now, since one look at what ten thousand peers need takes half a second.

    What is frozen is still freed by its count. Calling this again costs next to nothing.
    """
    gc.freeze()

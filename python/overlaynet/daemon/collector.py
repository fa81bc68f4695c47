"""The cyclic garbage collector, told what a daemon is like: most of what it makes stays for as long as a peer does.

Left to itself it looks through all objects again and again while tens of thousands are made that are no garbage, which takes
longer than making them. So it hardly looks during a start, and never again at what was there when the host became ready.

From then on it looks often: cycles come from exceptions, ended tasks, and above all from pyroute2, each of whose messages holds
itself (some two hundred objects for one link). A host with much to heal makes thousands of them a second, and what is left lying
scatters what is allocated meanwhile, so that the process grows.
"""

from __future__ import annotations

import gc

_STARTING = (10_000, 100, 20)
"""New containers between two looks at the young, and so many looks before one at the older: more than a start makes."""

_SETTLED = (2_000, 5, 5)
"""The same for a host that is ready: looks of a millisecond. A look at ten thousand peers that came later takes 35 ms, once."""


def spare_collector() -> None:
    """Have the collector look seldom, and never at what the imports have made."""
    gc.freeze()
    gc.set_threshold(*_STARTING)


def settle_collector() -> None:
    """Never look again at what has been made by now, since one look at what ten thousand peers need takes half a second.

    What is frozen is still freed by its count. What is made from now on is looked at often. Calling this again costs next to
    nothing.
    """
    gc.freeze()
    gc.set_threshold(*_SETTLED)

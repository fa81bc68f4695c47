"""Many changes of the store as one: what has come meanwhile is looked at once.

Where a whole network starts at once each host hears of every other. A reconciler that took a step for each would take a step
for each pair of hosts.
"""

from __future__ import annotations

from collections.abc import Iterable

from overlaynet.model.snapshot import Change, Changes, ConfigPut
from overlaynet.reconcile.events import Event, StoreChanged


def coalesced(events: Iterable[Event]) -> list[Event]:
    """The events in order, with neighbours among the store's changes as one event.

    A change of the configuration stays by itself: what it does depends on what came before it.
    """
    found: list[Event] = []
    run: list[Changes] = []
    for event in events:
        if isinstance(event, StoreChanged) and not any(isinstance(one, ConfigPut) for one in event.changes.changes):
            if run and event.changes.revision < run[-1].revision:
                found += _joined(run)
                run = []
            run.append(event.changes)
            continue
        found += _joined(run)
        run = []
        found.append(event)
    return found + _joined(run)


def _joined(run: list[Changes]) -> list[Event]:
    if not run:
        return []
    changes: list[Change] = [change for one in run for change in one.changes]
    return [StoreChanged(run[0] if len(run) == 1 else Changes(run[-1].revision, tuple(changes)))]

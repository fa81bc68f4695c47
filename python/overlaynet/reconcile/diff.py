"""The difference between what a kernel should hold and what it holds, as operations.

Both sides are sets of values. A value has a key, which says which object it is, and fields, which say what it is like; comparing
by key alone would miss a peer whose address changed while nobody watched. So for each wanted object there are four cases:

    equal to what was seen        nothing
    its key was seen as ours      Put(wanted, replaces=seen): replace exactly what was seen, nothing newer
    its key was seen as foreign   a conflict: shown, never written, never fought
    its key was not seen          Put(wanted): create exclusively, so that a foreign entry made meanwhile survives

and what is ours, was seen and is not wanted is deleted, if the caller says that the wanted side is complete. Sysctls are never
taken back: what they were before is not known, and others may have come to rely on them.

Order. Objects lean on one another: an address on its link, a route on its link, its gateway's
neighbour entry and its next hop. Puts go in the
order of kinds and deletes in reverse, after all puts, so that a peer that moves is reachable by its new entries before the old
ones go. A link's own sysctls follow the link, since they exist with it.

A link that has to be replaced may be made again by the kernel adapter, and what stood on it is gone then, silently. This function
does not guess: entries on it that were seen equal are left, and the caller observes again after every operation on a link; they
are missing then, and put. Equal sides give no operation at all, which is what makes a restart invisible.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from overlaynet.model.kernel import (
    Delete,
    FdbEntry,
    KernelObject,
    LinkAddress,
    Neighbour,
    NextHop,
    ObjectKind,
    Observation,
    Operation,
    Put,
    Route,
    Sysctl,
    TunLink,
    VxlanLink,
    in_order,
)

__all__ = ["Difference", "diff", "diff_by_key", "link_of"]


@dataclass(frozen=True, slots=True)
class Difference:
    """What to do, in order, and what stands in the way: the keys of wanted objects with a text that shows the foreign entry."""

    operations: tuple[Operation, ...]
    conflicts: tuple[tuple[Hashable, str], ...] = ()


def link_of(item: KernelObject) -> str | None:
    """The name of the link on which `item` stands; None for links themselves and for what stands on none."""
    match item:
        case LinkAddress() | Neighbour() | FdbEntry() | NextHop() | Route() | Sysctl():
            return item.link
        case _:
            return None


def diff(wanted: Iterable[KernelObject], observation: Observation, *, complete: bool) -> Difference:
    """The operations that bring what was observed to what is wanted; `complete` allows deletes."""
    return diff_by_key(wanted, {item.key: item for item in observation.objects}, dict(observation.foreign), complete=complete)


def diff_by_key(
    wanted: Iterable[KernelObject], seen: Mapping[Hashable, KernelObject], foreign: Mapping[Hashable, str], *, complete: bool
) -> Difference:
    """The same for what was seen by its keys. Of the same kind, puts keep the order in which they are wanted."""
    wanted = list(wanted)
    keys: set[Hashable] = {item.key for item in wanted}
    if not foreign:
        # Nothing can be in the way of anything: what is there is done with, which is nearly all.
        wanted = [item for item in wanted if seen.get(item.key) is not item]
    puts: list[Put] = []
    conflicts: dict[Hashable, str] = {}
    lost_links: dict[str | None, str] = {}
    for item in _in_sequence(wanted):
        key = item.key
        have = seen.get(key)
        if have is None and key in foreign:
            conflicts[key] = foreign[key]
            if isinstance(item, VxlanLink | TunLink):
                lost_links[item.name] = foreign[key]
        elif conflicts and (over := _hop_key(item)) in conflicts:
            # Whatever leads over somebody else's next hop is none of ours any more.
            conflicts[key] = f"its next hop is somebody else's: {conflicts[over]}"
            keys.discard(key)
        elif lost_links and (link := link_of(item)) in lost_links:
            conflicts[key] = f"its link {link} is somebody else's: {lost_links[link]}"
        elif have is not item and have != item:
            puts.append(Put(item, replaces=have))
    deletes: list[Delete] = []
    if complete:
        stale = [
            item
            for key, item in seen.items()
            if key not in keys and item.kind is not ObjectKind.SYSCTL and link_of(item) not in lost_links
        ]
        deletes = [Delete(item) for item in reversed(in_order(stale))]
    return Difference((*puts, *deletes), tuple(conflicts.items()))


def _hop_key(item: KernelObject) -> Hashable:
    """The key of the next hop over which a route leads; for all else a key that nothing has."""
    return (ObjectKind.NEXT_HOP, item.next_hop) if isinstance(item, Route) else None


def _in_sequence(wanted: Iterable[KernelObject]) -> Iterator[KernelObject]:
    """The objects in the order in which they are made."""
    kinds: dict[ObjectKind, list[KernelObject]] = {kind: [] for kind in ObjectKind}
    for item in wanted:
        kinds[item.kind].append(item)
    sysctls = kinds.pop(ObjectKind.SYSCTL)
    yield from (item for item in sysctls if link_of(item) is None)
    yield from kinds.pop(ObjectKind.LINK)
    yield from (item for item in sysctls if link_of(item) is not None)
    for rest in kinds.values():
        yield from rest

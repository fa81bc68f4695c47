"""From what the kernel dumped to an Observation: what is ours, what is foreign and in the way, and the underlay; pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING

from overlaynet.kernel import messages
from overlaynet.kernel.interfaces import interface_address, usable
from overlaynet.kernel.names import is_our_link
from overlaynet.model.addresses import LinkIndex, Prefix
from overlaynet.model.kernel import KernelObject, ObjectKind, Underlay

if TYPE_CHECKING:
    from overlaynet.kernel.messages import LinkView
    from overlaynet.kernel.rtnetlink import Record


def names_of(links: Iterable[LinkView]) -> dict[LinkIndex, str]:
    """The links' names by their numbers."""
    return {view.index: view.name for view in links}


def sort_links(links: Mapping[str, LinkView]) -> tuple[list[KernelObject], list[tuple[Hashable, str]]]:
    """Links with our names: ours, and those of a kind that we never make."""
    names = names_of(links.values())
    ours: list[KernelObject] = []
    foreign: list[tuple[Hashable, str]] = []
    for view in links.values():
        if is_our_link(view.name):
            made = messages.link_object(view, names)
            if made is None:
                foreign.append(((ObjectKind.LINK, view.name), f"link {view.name} of kind {view.kind or 'unknown'}"))
            else:
                ours.append(made)
    return ours, foreign


def see_underlay(
    name: str, links: Mapping[str, LinkView], addresses: Iterable[Record], onlink: Iterable[Prefix]
) -> Underlay | None:
    """The underlay, or None if there is no such link. Link-local prefixes are no neighbours' addresses and are left out."""
    view = links.get(name)
    if view is None:
        return None
    own = [interface_address(record) for record in addresses if record["index"] == view.index]
    return Underlay(
        link=name,
        index=view.index,
        mtu=view.mtu,
        up=view.up,
        addresses=tuple(dict.fromkeys(entry.address for entry in own)),
        onlink=tuple(prefix for prefix in dict.fromkeys(onlink) if not prefix.is_link_local),
        usable=usable(own),
    )

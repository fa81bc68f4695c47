"""The routes of a kernel in memory. However they come and go, what leads over each next hop stays counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, MutableMapping

from overlaynet.model.kernel import Route


class RouteTable(MutableMapping[Hashable, Route]):
    """Routes by key, which counts what leads over each next hop: most next hops go when nothing does any more."""

    def __init__(self) -> None:
        self.over: Counter[int | None] = Counter()
        self._routes: dict[Hashable, Route] = {}

    def __getitem__(self, key: Hashable) -> Route:
        return self._routes[key]

    def __setitem__(self, key: Hashable, route: Route) -> None:
        before = self._routes.get(key)
        if before is not None:
            self.over[before.next_hop] -= 1
        self.over[route.next_hop] += 1
        self._routes[key] = route

    def __delitem__(self, key: Hashable) -> None:
        self.over[self._routes.pop(key).next_hop] -= 1

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._routes)

    def __len__(self) -> int:
        return len(self._routes)

"""The host's kernel as a port: observe what is ours, perform operations, hear of changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from typing import Protocol

from overlaynet.errors import KernelError
from overlaynet.model.kernel import KernelObject, Observation, Operation, Scope

__all__ = ["Kernel"]


class Kernel(Protocol):
    """One network namespace's links, addresses, neighbours, forwarding entries, next hops, routes and sysctls."""

    async def observe(self, scope: Scope, expected: Mapping[Hashable, KernelObject] | None = None) -> Observation:
        """Everything in `scope` that is ours, and what is in its way. KernelError: the dump failed.

        `expected` are objects by their keys: what reads like one of them may be that very value.
        """

    async def perform(self, operations: Sequence[Operation]) -> list[KernelError | None]:
        """Perform the operations in order; the result has, at each one's place, its refusal or None.

        A `Put` that replaces nothing is exclusive: EEXIST if anything is there, ours or not. A `Delete` of what is gone
        succeeds.
        """

    def changes(self, scope: Scope) -> AsyncIterator[None]:
        """One item, soon after links, addresses, neighbours, forwarding entries or routes in `scope` have changed; bursts
        are one item. An overflow of the kernel's queue is an item too: nothing is missed silently.
        """

    @property
    def writes(self) -> int:
        """How many operations this process has sent to the kernel."""

    @property
    def next_hops(self) -> bool:
        """Whether this kernel knows next-hop objects (Linux 5.3)."""

    async def aclose(self) -> None:
        """Close the sockets."""

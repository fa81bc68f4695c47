"""How long to wait before something is tried again: doubling, bounded, and spread by a hash in place of chance.

The spread is a function of a name and the number of the attempt: hosts with other names wait for other spans, and the same inputs
give the same run.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits from `first_s`, doubling up to `most_s`; each is spread over its upper half by `name` and the attempt."""

    name: str
    first_s: float = 0.1
    most_s: float = 5.0

    def delay_s(self, attempt: int) -> float:
        """Seconds to wait after failure number `attempt`, which counts from 1."""
        whole = min(self.most_s, self.first_s * 2.0 ** min(max(attempt, 1) - 1, 30))
        return whole * (0.5 + self.share(attempt) / 2)

    def share(self, attempt: int) -> float:
        """A number from 0 to 1, spread evenly over the names."""
        digest = hashlib.sha256(f"{self.name}/{attempt}".encode()).digest()
        return int.from_bytes(digest[:4]) / 2**32

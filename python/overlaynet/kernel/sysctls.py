"""What values below /proc/sys/net mean to us; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from overlaynet.kernel.names import is_our_link
from overlaynet.model.kernel import Sysctl

_STRICT: Final = "1"


def seen_sysctl(path: str, value: str) -> Sysctl:
    """A sysctl that was read; those of a link of ours (`ipv4/conf/LINK/...`) carry its name."""
    parts = path.split("/")
    return Sysctl(path, value, parts[2] if len(parts) > 3 and is_our_link(parts[2]) else None)


def rp_filter_warnings(values: Mapping[str, str | None]) -> tuple[str, ...]:
    """A line for each link whose reverse path filter is strict (Documentation/networking/ip-sysctl.rst).

    `values` maps link names, and `all`, to their `rp_filter`; the larger of a link's own and `all` counts.
    """
    overall = values.get("all") or "0"
    return tuple(
        f"net.ipv4.conf.{name}.rp_filter is {_STRICT} (strict): packets that arrive on {name} are dropped when their source is "
        f"routed elsewhere; set it to 2 (loose) or 0"
        for name, value in values.items()
        if name != "all" and value is not None and max(value, overall) == _STRICT
    )

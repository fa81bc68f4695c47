"""The engine's binding: what cannot be had is a DataplaneError that names it. Its traffic is tested in the lab."""

from __future__ import annotations

import pytest
from overlaynet._core import Pump
from overlaynet.errors import DataplaneError


@pytest.mark.parametrize(
    ("tun", "bind", "named"),
    [
        ("lo", ("127.0.0.1", 0), "lo"),
        ("a-name-of-more-than-15-bytes", ("127.0.0.1", 0), "a-name-of-more-than-15-bytes"),
        ("ovt-none", ("not an address", 0), "not an address"),
    ],
)
def test_what_cannot_be_had_is_named(tun: str, bind: tuple[str, int], named: str) -> None:
    with pytest.raises(DataplaneError, match=named):
        Pump(tun=tun, bind=[bind], mtu=1472, offloads=[])


def test_unknown_offload_is_named() -> None:
    with pytest.raises(DataplaneError, match="warp"):
        Pump(tun="lo", bind=[("127.0.0.1", 0)], mtu=1472, offloads=["tso", "warp"])

"""How tests are shared out among several processes: the lab's are one's, since they watch clocks; the others go file by file."""

from __future__ import annotations

from pathlib import Path

import pytest

LAB = Path(__file__).parent / "lab"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.xdist_group("lab" if LAB in item.path.parents else item.path.name))

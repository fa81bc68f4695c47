"""The report of a bench: what it holds, and on which side of a target a value lies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from overlaynet.lab.figures import Figure, Target, at_least, at_most, write_report


@pytest.mark.parametrize(
    ("target", "value", "met"),
    [(at_least(10), 10, True), (at_least(10), 9.99, False), (at_most(0.4), 0.4, True), (at_most(0.4), 0.41, False)],
)
def test_a_target_is_met_on_its_side_and_at_itself(target: Target, value: float, met: bool) -> None:
    assert Figure("ratio", value, "x", target).met is met


def test_a_report_holds_each_figure_as_a_row_and_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("before")
    write_report(
        path, command="make bench", figures=[Figure("lookup", 6.43219, "ns"), Figure("ours / theirs", 5, "x", at_least(4))]
    )
    report = json.loads(path.read_text())
    assert set(report) == {"command", "commit", "machine", "rows"}
    assert report["command"] == "make bench"
    assert report["rows"] == [
        {"figure": "lookup", "value": 6.432, "unit": "ns", "target": None, "met": None},
        {"figure": "ours / theirs", "value": 5.0, "unit": "x", "target": ">= 4", "met": True},
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]

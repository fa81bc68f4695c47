"""The judgement of claimants' logs sees what it is for: a farewell that takes too long, and an act after an unnoticed end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.etcd_evidence import Verdict, judge_acts

KEY = "10.1.0.0-24"


def line(t: float, kind: str, *, waited: float = 0.0, **fields: object) -> dict[str, Any]:
    return {"t": t, "waited": waited, "kind": kind, **fields}


@pytest.mark.parametrize(
    ("ends_at", "waited", "pauses", "is_late"),
    [
        (10.9, 0.0, [], False),
        (11.1, 0.0, [], True),
        (13.0, 2.5, [], False),
        (13.0, 1.5, [], True),
        (13.0, 0.0, [(9.0, 12.5)], False),
        (13.0, 0.0, [(9.0, 11.5)], True),
    ],
)
def test_farewell_is_held_to_a_second_of_the_holders_own_time(
    ends_at: float, waited: float, pauses: list[tuple[float, float]], is_late: bool
) -> None:
    verdict = Verdict()
    lines = [
        line(1.0, "starts"),
        line(2.0, "believes", key=KEY, handle=7, until=60.0),
        line(10.0, "gone", keys=[KEY]),
        line(ends_at, "believes", key="", handle=0, until=0.0, waited=waited),
    ]
    judge_acts(verdict, "host", lines, pauses)
    assert bool(verdict.faults) == is_late, verdict.faults


def test_act_after_an_end_is_a_fault_unless_the_end_was_noticed_or_put_off_before() -> None:
    held = [line(1.0, "starts"), line(2.0, "believes", key=KEY, handle=7, until=6.0)]
    act = line(6.5, "acts", what="Program", at=6.5)
    for between, faults in (
        ([], 1),
        ([line(6.4, "noticed")], 0),
        ([line(6.4, "believes", key=KEY, handle=7, until=10.0)], 0),
    ):
        verdict = Verdict()
        judge_acts(verdict, "host", [*held, *between, act], [])
        assert len(verdict.faults) == faults, verdict.faults

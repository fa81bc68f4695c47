"""The counter of losses counts: nothing on a clean path, and each packet that a rule drops."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest
from overlaynet.lab import system
from overlaynet.lab.lab import Lab
from overlaynet.lab.numbered import flowing
from overlaynet.lab.topology import Plan, plan_lab

from tests.lab.conftest import lab_name


@pytest.fixture(scope="module")
def lab(bring_up: Callable[[Plan], Lab]) -> Lab:
    return bring_up(plan_lab(lab_name("numbered"), hosts=2, backend="host-gw"))


def test_a_clean_path_loses_nothing(lab: Lab) -> None:
    with flowing(lab, "pod1", "pod2") as flow:
        flow.run_for(1.0)
        loss = flow.end()
    assert loss.there.sent >= 900
    assert loss.back.sent >= 900
    assert loss.lost == 0
    assert loss.there.repeated == loss.back.repeated == 0


def test_what_a_rule_drops_is_counted_in_its_direction(lab: Lab) -> None:
    rules = """
    table inet drops {
      chain forward { type filter hook forward priority 0; ip daddr %s udp dport 9000 numgen inc mod 10 == 0 counter drop; }
    }"""
    host = lab.plan.hosts[0].namespace
    subprocess.run(system.enter(host, "nft", "-f", "-"), input=rules % lab.pod_address("pod2"), text=True, check=True)
    try:
        with flowing(lab, "pod1", "pod2") as flow:
            flow.run_for(1.0)
            loss = flow.end()
        listed = subprocess.run(
            system.enter(host, "nft", "-j", "list", "chain", "inet", "drops", "forward"), capture_output=True, check=True
        )
    finally:
        subprocess.run(system.enter(host, "nft", "delete", "table", "inet", "drops"), check=True)
    counters = [
        item["counter"]["packets"]
        for entry in json.loads(listed.stdout)["nftables"]
        for item in entry.get("rule", {}).get("expr", [])
        if "counter" in item
    ]
    assert counters == [loss.there.lost]
    assert loss.there.lost >= 90
    assert loss.back.lost == 0

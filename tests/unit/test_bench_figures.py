"""Figures of a bench: medians of each path, ratios within the rounds, targets where they belong."""

from __future__ import annotations

import pytest
from overlaynet.errors import ConfigError
from overlaynet.lab.bench import PATHS, SPACINGS_MS, Sample, plan_bench
from overlaynet.lab.bench_figures import figures


def sample(tcp: float, small: float, rtt: float) -> Sample:
    return Sample({1: tcp, 4: tcp}, small, 0.1, dict.fromkeys(SPACINGS_MS, (rtt, 2 * rtt)), (rtt, rtt), 1.0, 2.0)


def test_ratios_are_those_of_each_round_and_not_of_the_medians() -> None:
    samples = {
        ("veth", "vxlan"): [sample(10, 100, 10), sample(20, 100, 10), sample(40, 100, 10)],
        ("veth", "udp"): [sample(8, 300, 20), sample(8, 300, 20), sample(8, 100, 20)],
        ("veth", "udp-plain"): [sample(1, 50, 30), sample(1, 50, 30), sample(1, 50, 30)],
    }
    found = {one.figure: one for one in figures(samples)}
    assert found["veth, vxlan: TCP, one stream"].value == 20
    ratio = found["veth, udp / vxlan: TCP, one stream"]
    assert ratio.value == pytest.approx(0.4)
    assert (str(ratio.target), ratio.met) == (">= 0.55", False)
    assert found["veth, udp / vxlan: TCP, one stream, lowest round"].value == pytest.approx(0.2)
    assert found["veth, udp / vxlan: 64-byte UDP delivered"].met is True
    assert found["veth, udp / udp-plain: TCP, one stream"].met is False
    assert found["veth, udp / udp-plain: RTT median, one every 0.5 ms"].value == pytest.approx(2 / 3)
    assert found["veth, udp / udp-plain: RTT 99 %, one every 10 ms"].met is True


@pytest.mark.parametrize(("tcp", "is_a_stand_in"), [(0.31, True), (0.29, False)])
def test_plain_path_that_is_slower_than_what_it_stands_for_is_shown(tcp: float, is_a_stand_in: bool) -> None:
    samples = {("veth", "vxlan"): [sample(10, 100, 10)], ("veth", "udp-plain"): [sample(tcp, 50, 30)]}
    found = {one.figure: one.met for one in figures(samples)}
    assert found["veth, udp-plain / vxlan: TCP, one stream"] is is_a_stand_in


def test_a_path_that_carries_nothing_has_no_ratio() -> None:
    samples = {("wire", "vxlan"): [sample(0, 0, 1)], ("wire", "udp"): [sample(1, 1, 1)]}
    assert not any("/ vxlan" in one.figure for one in figures(samples))


def test_unknown_path_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"warp.*udp-plain"):
        plan_bench("ovt", ["udp", "warp"])
    assert plan_bench("ovt", list(PATHS)).keys() == PATHS.keys()

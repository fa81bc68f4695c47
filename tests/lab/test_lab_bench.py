"""`overlaynet lab bench` measures real paths, writes its report, and leaves nothing behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

from overlaynet.lab import lab as labs
from overlaynet.lab.bench import Effort, measure, plan_bench
from overlaynet.lab.bench_figures import figures
from overlaynet.lab.figures import write_report


def test_a_short_bench_measures_every_path_and_takes_its_labs_down(tmp_path: Path) -> None:
    name = f"ovtb{os.getpid() % 100_000}"
    effort = Effort(tcp_s=1, small_s=0.2, probes=20)
    steps: list[str] = []

    samples = measure(plan_bench(name, ["udp", "udp-plain"]), ("wire",), 1, effort, lambda _, step: steps.append(step))

    assert set(samples) == {("wire", "udp"), ("wire", "udp-plain")}
    for (one,) in samples.values():
        assert one.tcp_gbit_s[1] > 0
        assert one.tcp_gbit_s[4] > 0
        assert one.small_kpps > 0
        assert 0 <= one.small_lost < 1
        assert all(0 < median <= late for median, late in one.rtt_us.values())
        assert one.cpu_s_per_gb > 0
    assert not any(found.startswith(name) for found in labs.names())
    report = tmp_path / "report.json"
    write_report(report, command="test", figures=figures(samples))
    assert {"figure", "value", "unit", "target", "met"} == set(json.loads(report.read_text())["rows"][0])

"""Samples as figures: medians, and ratios between paths with the median and the lowest of the rounds; pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from overlaynet.lab.bench import SPACINGS_MS, WITHOUT, Sample
from overlaynet.lab.figures import Figure, Target, at_least, at_most

Samples = dict[tuple[str, str], list[Sample]]


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of a sample."""

    name: str
    unit: str
    of: Callable[[Sample], float]


TCP_ONE = Measure("TCP, one stream", "Gbit/s", lambda sample: sample.tcp_gbit_s[1])
TCP_FOUR = Measure("TCP, four streams", "Gbit/s", lambda sample: sample.tcp_gbit_s[4])
SMALL = Measure("64-byte UDP delivered", "kpps", lambda sample: sample.small_kpps)


def _rtt(spacing: float, at: int) -> Measure:
    name = f"RTT {('median', '99 %')[at]}, one every {spacing:g} ms"
    return Measure(name, "us", lambda sample: sample.rtt_us[spacing][at])


RTTS = tuple(_rtt(spacing, at) for spacing in SPACINGS_MS for at in (0, 1))

MEASURES = (
    TCP_ONE,
    TCP_FOUR,
    SMALL,
    Measure("64-byte UDP lost", "part", lambda sample: sample.small_lost),
    *RTTS,
    Measure("RTT median under load", "us", lambda sample: sample.loaded_rtt_us[0]),
    Measure("RTT 99 % under load", "us", lambda sample: sample.loaded_rtt_us[1]),
    Measure("CPU of both hosts and pods", "s/GB", lambda sample: sample.cpu_s_per_gb),
    Measure("busy cores, TCP one stream", "cores", lambda sample: sample.busy_cores),
)

_TO_VXLAN = (TCP_ONE, TCP_FOUR, SMALL)

TARGETS: dict[tuple[str, str, str, str], Target] = {
    ("veth", "udp", "udp-plain", TCP_ONE.name): at_least(10),
    ("wire", "udp", "udp-plain", TCP_ONE.name): at_least(8),
    ("veth", "udp", "vxlan", TCP_ONE.name): at_least(0.55),
    ("wire", "udp", "vxlan", TCP_ONE.name): at_least(0.9),
    ("veth", "udp", "vxlan", TCP_FOUR.name): at_least(0.4),
    ("wire", "udp", "vxlan", TCP_FOUR.name): at_least(0.7),
    ("veth", "vxlan-user", "vxlan", TCP_ONE.name): at_least(0.6),
    ("wire", "vxlan-user", "vxlan", TCP_ONE.name): at_least(0.95),
    **{(link, path, "vxlan", SMALL.name): at_least(2.7) for link in ("veth", "wire") for path in ("udp", "vxlan-user")},
    # What flannel's own proxy does at least: ratios to a stand-in that is slower than what it stands for say nothing.
    ("veth", "udp-plain", "vxlan", TCP_ONE.name): at_least(0.03),
    ("wire", "udp-plain", "vxlan", TCP_ONE.name): at_least(0.06),
    # Noise: 10 %.
    **{(link, "udp", "udp-plain", rtt.name): at_most(1.1) for link in ("veth", "wire") for rtt in RTTS},
    **{(link, "udp", "udp-plain", RTTS[0].name): at_most(0.6) for link in ("veth", "wire")},
}


def figures(samples: Samples) -> list[Figure]:
    """Each path's medians, its ratios to vxlan, those of `udp` to `udp-plain`, and those of `udp` without an offload to `udp`."""
    found = []
    for (link, path), rounds in samples.items():
        for measure in MEASURES:
            value = statistics.median(measure.of(sample) for sample in rounds)
            found.append(Figure(f"{link}, {path}: {measure.name}", value, measure.unit))
        compared: list[tuple[str, Sequence[Measure]]] = []
        if path != "vxlan" and (link, "vxlan") in samples:
            compared.append(("vxlan", _TO_VXLAN))
        if path == "udp" and (link, "udp-plain") in samples:
            compared.append(("udp-plain", (TCP_ONE, SMALL, *RTTS)))
        if path in WITHOUT and (link, "udp") in samples:
            compared.append(("udp", (*_TO_VXLAN, RTTS[0])))
        for other, measures in compared:
            found += _ratios(link, path, other, measures, samples)
    return found


def _ratios(link: str, path: str, other: str, measures: Sequence[Measure], samples: Samples) -> list[Figure]:
    found = []
    for measure in measures:
        pairs = zip(samples[link, path], samples[link, other], strict=True)
        ratios = [measure.of(ours) / measure.of(theirs) for ours, theirs in pairs if measure.of(theirs)]
        if not ratios:
            continue
        name = f"{link}, {path} / {other}: {measure.name}"
        target = TARGETS.get((link, path, other, measure.name))
        found.append(Figure(name, statistics.median(ratios), "x", target))
        found.append(Figure(f"{name}, lowest round", min(ratios), "x"))
    return found

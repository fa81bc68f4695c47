"""What grows with the number of hosts and how, as a drawing: SVG 1.1 by hand, four panels, both axes logarithmic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from overlaynet.lab.simulation.figures import quantile
from overlaynet.lab.simulation.scenario import Outcome

WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 56, 36
COLORS = ("#1b6ca8", "#c8553d", "#3a7d44", "#7b4b94")

Value = Callable[[Outcome], float | None]


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: its name, and its value for a size; None where there is none."""

    name: str
    value: Value


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves with one unit."""

    title: str
    unit: str
    lines: tuple[Line, ...]


def _lag(share: float) -> Value:
    return lambda one: quantile(one.lags, share) if one.lags else None


def _rate(number: Callable[[Outcome], float]) -> Value:
    return lambda one: number(one) / one.minutes if one.minutes else None


PANELS = (
    Panel(
        "Time until the network agrees",
        "s",
        (
            Line("all start at once: until each reaches each", lambda one: one.reached_s),
            Line("one change, 99th percentile", _lag(0.99)),
            Line("one change, median", _lag(0.5)),
        ),
    ),
    Panel(
        "Messages and writes of one host, under churn",
        "per minute",
        (
            Line("events received", _rate(lambda one: one.traffic.events / one.hosts)),
            Line("kernel writes", _rate(lambda one: one.churn_writes)),
            Line("requests sent", _rate(lambda one: one.traffic.requests / one.hosts)),
            Line("changes of its lease in the store", _rate(lambda one: one.traffic.writes / one.hosts)),
        ),
    ),
    Panel(
        "One host, while all start at once",
        "number",
        (
            Line("kernel writes", lambda one: one.start_writes),
            Line("events received", lambda one: one.start_events / one.hosts),
            Line("batches that they become", lambda one: one.start_batches),
        ),
    ),
    Panel(
        "The store comes back to all at once",
        "s",
        (
            Line("in turns: until all follow", lambda one: one.turns.followed_s),
            Line("in turns: its queue", lambda one: one.turns.behind_s),
            Line("without turns: until all follow", lambda one: one.no_turns.followed_s),
            Line("without turns: its queue", lambda one: one.no_turns.behind_s),
        ),
    ),
)


def plot(outcomes: Sequence[Outcome]) -> str:
    """The drawing. The same outcomes give the same bytes."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {2 * HEIGHT}" '
        f'width="{2 * WIDTH}" height="{2 * HEIGHT}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, panel in enumerate(PANELS):
        parts.append(f'<g transform="translate({number % 2 * WIDTH} {number // 2 * HEIGHT})">')
        parts += _panel(panel, outcomes)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, outcomes: Sequence[Outcome]) -> list[str]:
    curves = [
        [(float(one.hosts), value) for one in outcomes if (value := line.value(one)) is not None and value > 0]
        for line in panel.lines
    ]
    values = [value for curve in curves for _, value in curve] or [1.0]
    across = _Scale(min(one.hosts for one in outcomes), max(one.hosts for one in outcomes), LEFT, WIDTH - RIGHT)
    up = _Scale(max(min(values), max(values) / 1e7), max(values), HEIGHT - BOTTOM, TOP)
    parts = [f'<text x="{LEFT}" y="16" font-size="13" font-weight="bold">{escape(panel.title)}, {escape(panel.unit)}</text>']
    for power in across.powers:
        x = across.at(10.0**power)
        parts.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{10**power:,}</text>')
    for power in up.powers:
        y = up.at(10.0**power)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:,.10g}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">hosts</text>')
    for number, (line, curve) in enumerate(zip(panel.lines, curves, strict=True)):
        color = COLORS[number]
        x, y = LEFT + number % 2 * 175, 30 + number // 2 * 14
        parts.append(f'<rect x="{x}" y="{y - 5}" width="10" height="3" fill="{color}"/>')
        parts.append(f'<text x="{x + 14}" y="{y}" font-size="9">{escape(line.name)}</text>')
        points = [(across.at(hosts), up.at(value)) for hosts, value in curve]
        if len(points) > 1:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>' for x, y in points]
    return parts


class _Scale:
    """Whole powers of ten around `least` and `most`, laid out from `first` to `last`."""

    def __init__(self, least: float, most: float, first: float, last: float) -> None:
        self._low = math.floor(math.log10(least))
        self._high = max(self._low + 1, math.ceil(math.log10(most)))
        self._first, self._last = first, last
        self.powers = range(self._low, self._high + 1)

    def at(self, value: float) -> float:
        place = (max(math.log10(value), self._low) - self._low) / (self._high - self._low)
        return self._first + place * (self._last - self._first)

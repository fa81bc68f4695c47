"""What simulated networks have shown, as figures of a report."""

from __future__ import annotations

from collections.abc import Sequence

from overlaynet.lab.figures import Figure, at_most
from overlaynet.lab.simulation.scenario import PATIENCE_S, Outcome


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all are no larger than; there is one."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def figures_of(one: Outcome) -> list[Figure]:
    """The figures of one size. What was not reached in the time that a run waits for it has that time."""
    name = f"{one.hosts} hosts"
    minutes = max(one.minutes, 1e-9)
    found = [
        Figure(f"{name}: start, until the last has its lease", _reached(one.leased_s), "s"),
        Figure(f"{name}: start, until each reaches each", _reached(one.reached_s), "s"),
        Figure(f"{name}: start, events that the store sends, per host", one.start_events / one.hosts, "events"),
        Figure(f"{name}: start, batches of kernel writes, per host", one.start_batches, "batches"),
        Figure(f"{name}: start, kernel writes, per host", one.start_writes, "writes"),
    ]
    if one.lags:
        for label, share in (("median", 0.5), ("99th percentile", 0.99), ("most", 1.0)):
            found.append(
                Figure(f"{name}: from a change in the store to a kernel, {label}", 1e3 * quantile(one.lags, share), "ms")
            )
    if one.minutes:
        per_host = one.hosts * minutes
        found += [
            Figure(f"{name}: requests, per host", one.traffic.requests / per_host, "1/min"),
            Figure(f"{name}: events that the store sends, per host", one.traffic.events / per_host, "1/min"),
            Figure(f"{name}: changes in the store, per host", one.traffic.writes / per_host, "1/min"),
            Figure(f"{name}: kernel writes, per host", one.churn_writes / minutes, "1/min"),
        ]
    if one.returns:
        found += [
            Figure(f"{name}: after a cut, until all is right again, median", quantile(one.returns, 0.5), "s"),
            Figure(f"{name}: after a cut, until all is right again, most", quantile(one.returns, 1.0), "s"),
        ]
    for label, outage in (("in turns", one.turns), ("without turns", one.no_turns)):
        found += [
            Figure(f"{name}: store back, {label}, most that its queue is behind", outage.behind_s, "s"),
            Figure(f"{name}: store back, {label}, loads per host", outage.loads / one.hosts, "loads"),
            Figure(f"{name}: store back, {label}, until all follow", _reached(outage.followed_s), "s"),
        ]
    found.append(Figure(f"{name}: hosts that found no subnet", one.refused, "hosts"))
    found.append(Figure(f"{name}: overlapping leases, kernels that differ", len(one.faults), "faults", at_most(0)))
    return found


def _reached(seconds: float | None) -> float:
    return PATIENCE_S if seconds is None else seconds

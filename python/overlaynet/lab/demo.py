"""The demonstration: for each backend a lab, traffic between its pods, and a line of figures.

A backend is ok when in every family of the lab no ping was lost, the file arrived unchanged and the TCP stream came about; the
stream's figure is that of the slower family. A backend that fails does not
keep the others from being shown. Every lab is taken down, however the demonstration ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from overlaynet.errors import ConfigError, OverlaynetError
from overlaynet.lab import etcd, system, traffic
from overlaynet.lab import lab as labs
from overlaynet.lab.topology import BACKENDS, Plan, parse_families, plan_lab

Progress = Callable[[str, str], None]
"""Told the backend and the step that begins."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What one backend did; `error` says why it did nothing."""

    pings: traffic.Pings = field(default_factory=traffic.Pings)
    file_sha256_equal: bool = False
    tcp_gbit_s: float = 0.0
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing was lost."""
        return not self.error and self.pings.sent > 0 and self.pings.lost == 0 and self.file_sha256_equal and self.tcp_gbit_s > 0

    @property
    def figures(self) -> dict[str, object]:
        """The outcome as the report has it."""
        return {
            "ok": self.ok,
            "pings_sent": self.pings.sent,
            "pings_lost": self.pings.lost,
            "file_sha256_equal": self.file_sha256_equal,
            "tcp_gbit_s": self.tcp_gbit_s,
            "rtt_us_median": self.pings.rtt_us_median,
        }


@dataclass(frozen=True, slots=True)
class Size:
    """How much traffic a demonstration makes."""

    pings: int = 5
    file_bytes: int = 256 * traffic.MIB
    tcp_s: int = 5


def plan_demo(name: str, *, hosts: int, backends: str, family: str) -> tuple[Plan, ...]:
    """A plan for each of the comma-separated backends. ConfigError names what is unknown or too small."""
    families = parse_families(family)
    if hosts < 2:
        raise ConfigError("--hosts", hosts, "traffic needs 2 hosts or more")
    wanted = tuple(dict.fromkeys(part.strip() for part in backends.split(",")))
    for backend in wanted:
        if backend not in BACKENDS:
            raise ConfigError("--backend", backend, f"a backend is one of {', '.join(BACKENDS)}")
    return tuple(plan_lab(name, hosts=hosts, backend=backend, families=families) for backend in wanted)


def demonstrate(plans: Sequence[Plan], *, size: Size, progress: Progress, store: str | None = None) -> dict[str, Shown]:
    """What each plan's backend did, in order, with its leases in `store` (see `lab.up`).

    LabError: a program or a right is missing; nothing was made.
    """
    system.require("ip", *traffic.PROGRAMS, *([etcd.STORE] if store == etcd.STORE else []))
    return {plan.backend: _show(plan, size, progress, store) for plan in plans}


def _show(plan: Plan, size: Size, progress: Progress, store: str | None) -> Shown:
    def say(step: str) -> None:
        progress(plan.backend, step)

    try:
        with labs.running(plan, store=store, progress=say) as lab:
            first, last = plan.pods[0].name, plan.pods[-1].name
            say(f"{size.pings} pings from every pod to every other")
            pings = traffic.ping_all(lab, count=size.pings)
            equal, rates = True, []
            for family in plan.families.members:
                say(f"a file of {size.file_bytes // traffic.MIB} MiB from {first} to {last} over HTTP, IPv{family.value}")
                equal = traffic.move_file(lab, first, last, family=family, size_bytes=size.file_bytes) and equal
                say(f"TCP from {first} to {last}, IPv{family.value}, {size.tcp_s} s")
                rates.append(traffic.tcp_gbit_s(lab, first, last, family=family, seconds=size.tcp_s))
            say("down")
        return Shown(pings, equal, min(rates))
    except OverlaynetError as error:
        return Shown(error="\n".join([str(error), *getattr(error, "__notes__", [])]))

"""What an independent observer of etcd and the claimants' own logs show, and the judgement of both.

The observer is etcdctl's own watch of everything under the prefix. The properties that `judge` holds them against:

(a) at every revision no two leases overlap in either family;
(b) nobody overwrites, renews or deletes a lease that is not its own;
(c) the intervals in which different owners believe in overlapping subnets never overlap, save after an administrator's deletion,
    where the belief ends when the former holder's watch has delivered it;
(d) after any pause the first act is to look at the deadline: nothing is asked of the store, published or written before.
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overlaynet.model.lease import Subnets
from overlaynet.model.lease_text import decode_attributes, parse_lease_key

from tests.contract.namespaces import Namespace

FAREWELL_S = 1.0
"""How long after its watch delivered a deletion a holder may go on believing, in time of its own: pauses do not count, nor
waits for a processor."""

Pauses = dict[str, list[tuple[float, float]]]
"""The spans in which each host was stopped."""


def boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class Interval:
    """A time in which a host believes that subnets are its own."""

    host: str
    subnets: Subnets
    handle: int
    start: float
    end: float


@dataclass(slots=True)
class Seen:
    """One lease as the observer sees it."""

    handle: int
    host: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision, the moment of its arrival, and its events: key under the prefix, whether put, etcd lease, value."""

    number: int
    at: float
    events: list[tuple[str, bool, int, bytes]]


class Observer:
    """etcdctl's watch from the first revision on; each answer with the moment at which it was read.

    A watch that etcd gives up, as it does where there is no leader, is begun again after the last revision that it told.
    """

    def __init__(self, space: Namespace, endpoints: str, prefix: str) -> None:
        self._command = space.command(
            "etcdctl", "--endpoints", endpoints, "watch", "--prefix", "-w", "json", f"{prefix}/", "--rev"
        )
        self._start = f"{prefix}/"
        self._next = 1
        self._closed = False
        self._history: list[Revision] = []
        self._process = self._watch()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _watch(self) -> subprocess.Popen[bytes]:
        environment = {"ETCDCTL_API": "3", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        command = [*self._command, str(self._next)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)

    def _follow(self) -> None:
        while not self._closed:
            with self._process as process:
                assert process.stdout is not None
                for line in process.stdout:
                    answer = json.loads(line)
                    if answer.get("Canceled"):
                        process.kill()
                        break
                    self._take(boot_time(), answer.get("Events") or ())
            time.sleep(0.1)
            if not self._closed:
                self._process = self._watch()

    def _take(self, at: float, events: Sequence[dict[str, Any]]) -> None:
        for event in events:
            pair = event["kv"]
            key = base64.b64decode(pair["key"]).decode().removeprefix(self._start)
            value = base64.b64decode(pair.get("value", ""))
            number = int(pair["mod_revision"])
            if not self._history or self._history[-1].number != number:
                self._history.append(Revision(number, at, []))
            self._history[-1].events.append((key, not event.get("type"), int(pair.get("lease", 0)), value))
            self._next = number + 1

    def close(self) -> None:
        """End the watch."""
        self._closed = True
        self._process.kill()
        self._thread.join(10)

    def history(self) -> list[Revision]:
        """Everything that was seen, in order."""
        return list(self._history)


def read_log(path: Path) -> list[dict[str, Any]]:
    """A claimant's lines; the last may be cut by a kill, and was not said then."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def intervals(host: str, lines: list[dict[str, Any]]) -> list[Interval]:
    """The times of belief in a log. A belief lasts until the log says otherwise, or by itself until its end."""
    found: list[Interval] = []
    now: Interval | None = None
    for line in lines:
        if line["kind"] not in {"believes", "starts"}:
            continue
        if now is not None:
            same = line.get("handle") == now.handle and line.get("key") == str(now.subnets)
            now.end = line["until"] if same and line["t"] <= now.end else min(now.end, line["t"])
            if same and line["t"] <= now.end:
                continue
        now = None
        if line["kind"] == "believes" and line["key"]:
            now = Interval(host, parse_lease_key(line["key"]), line["handle"], line["t"], line["until"])
            if now.end > now.start:
                found.append(now)
            else:
                now = None
    return found


@dataclass(slots=True)
class Verdict:
    """What is wrong, and how much there was to look at."""

    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    leases: dict[Subnets, Seen] = field(default_factory=dict)
    longest_farewell_s: float = 0.0

    @property
    def text(self) -> str:
        counted = f"{dict(self.counts)}, longest farewell {self.longest_farewell_s:.3f} s"
        return "\n".join([f"{len(self.faults)} faults", *self.faults[:20], counted])


def judge(
    observer: Observer, logs: dict[str, list[dict[str, Any]]], deleted_by_hand: set[int], pauses: Pauses | None = None
) -> Verdict:
    """Hold everything that was seen and said against (a) to (d). `logs` are by host, `deleted_by_hand` etcd lease ids."""
    verdict = Verdict()
    beliefs = {host: intervals(host, lines) for host, lines in logs.items()}
    by_handle: dict[int, list[Interval]] = {}
    for found in beliefs.values():
        for interval in found:
            by_handle.setdefault(interval.handle, []).append(interval)
    _judge_history(verdict, observer, by_handle, deleted_by_hand)
    _judge_beliefs(verdict, [one for found in beliefs.values() for one in found], deleted_by_hand)
    for host, lines in logs.items():
        judge_acts(verdict, host, lines, (pauses or {}).get(host, []))
    return verdict


def _judge_history(verdict: Verdict, observer: Observer, by_handle: dict[int, list[Interval]], deleted_by_hand: set[int]) -> None:
    leases = verdict.leases
    owners: dict[str, tuple[int, str]] = {}
    for one in observer.history():
        revision, at, events = one.number, one.at, one.events
        before = dict(leases)
        touched: list[Subnets] = []
        for key, is_put, handle, value in events:
            if key.startswith("overlaynet/owner/"):
                name = key.removeprefix("overlaynet/owner/")
                if is_put:
                    owners[name] = handle, json.loads(value)["host"]
                else:
                    owners.pop(name, None)
        for key, is_put, handle, value in events:
            if not key.startswith("subnets/"):
                continue
            name = key.removeprefix("subnets/")
            subnets = parse_lease_key(name)
            touched.append(subnets)
            if not is_put:
                verdict.counts["deletions"] += 1
                gone = leases.pop(subnets)
                moved = any(key.startswith("subnets/") and is_put for key, is_put, _, _ in events)
                if gone.handle in deleted_by_hand or moved:
                    continue
                for belief in by_handle.get(gone.handle, ()):
                    if belief.subnets == subnets and belief.start < at < belief.end:
                        verdict.faults.append(
                            f"(b) {name} of {gone.host} deleted at {at} while it was believed in until {belief.end}"
                        )
                continue
            verdict.counts["writes"] += 1
            decode_attributes(value)
            owner = owners.get(name)
            if owner is None or owner[0] != handle:
                verdict.faults.append(f"(b) revision {revision}: {name} was written without its owner")
                continue
            leases[subnets] = Seen(handle, owner[1], value)
            previous = before.get(subnets)
            if previous is not None and previous.host != owner[1]:
                verdict.faults.append(f"(b) revision {revision}: {name} of {previous.host} was overwritten by {owner[1]}")
        for subnets in touched:
            for other, seen in leases.items():
                if subnets in leases and other != subnets and other.overlaps(subnets):
                    verdict.faults.append(
                        f"(a) revision {revision}: {subnets} of {leases[subnets].host} and {other} of {seen.host}"
                    )
        held = Counter(seen.host for seen in leases.values())
        for host, count in held.items():
            if count > 1:
                verdict.faults.append(f"revision {revision}: {host} has {count} leases")
        verdict.counts["revisions"] += 1


def _judge_beliefs(verdict: Verdict, beliefs: list[Interval], deleted_by_hand: set[int]) -> None:
    verdict.counts["beliefs"] = len(beliefs)
    beliefs.sort(key=lambda one: one.start)
    open_ones: list[Interval] = []
    for one in beliefs:
        open_ones = [other for other in open_ones if other.end > one.start]
        for other in open_ones:
            if other.host != one.host and other.subnets.overlaps(one.subnets) and other.handle not in deleted_by_hand:
                verdict.faults.append(f"(c) {one} overlaps {other}")
        open_ones.append(one)
    holders: dict[Subnets, set[str]] = {}
    for one in beliefs:
        holders.setdefault(one.subnets, set()).add(one.host)
    verdict.counts["subnets that changed hands"] = sum(len(hosts) > 1 for hosts in holders.values())


def judge_acts(verdict: Verdict, host: str, lines: list[dict[str, Any]], pauses: list[tuple[float, float]]) -> None:
    """Hold one host's log against (b), the farewells of (c), and (d)."""
    own: set[int] = set()
    until = float("inf")
    key = ""
    noticed = False
    gone: dict[str, Any] | None = None
    for line in lines:
        match line["kind"]:
            case "starts":
                until, key, noticed, gone = float("inf"), "", False, None
                verdict.counts["starts"] += 1
            case "granted":
                own.add(line["handle"])
                # What etcd has just confirmed was not what was deleted: the watch was behind.
                gone = None if line["key"] == key else gone
            case "believes":
                if gone is not None:
                    took = _own_time(gone, line, pauses)
                    verdict.counts["farewells"] += 1
                    verdict.longest_farewell_s = max(verdict.longest_farewell_s, took)
                    if took > FAREWELL_S:
                        verdict.faults.append(f"(c) {host} believed in {key} for {took:.2f} s after it heard of its end")
                gone = None
                key = line["key"]
                until = line["until"] if key else float("inf")
                noticed = noticed and until <= line["t"]
            case "gone":
                if key in line["keys"] and line["t"] < until:
                    gone = line
            case "noticed":
                noticed = True
                verdict.counts["expiries noticed"] += 1
            case "asks" if line["what"] in {"renew", "update"} and line["handle"] not in own:
                verdict.faults.append(f"(b) {host} {line['what']}s {line['handle']}, which is not its own")
            case "acts" if key and line["at"] >= until and not noticed:
                verdict.faults.append(f"(d) {host}: {line['what']} {line['at'] - until:.3f} s after its lease's end, unnoticed")


def _own_time(before: dict[str, Any], after: dict[str, Any], pauses: list[tuple[float, float]]) -> float:
    """The seconds between two lines of a log in which the host could have done something."""
    start, end = before["t"], after["t"]
    stopped = sum(max(0.0, min(end, until) - max(start, since)) for since, until in pauses)
    return float(end - start - stopped - (after["waited"] - before["waited"]))

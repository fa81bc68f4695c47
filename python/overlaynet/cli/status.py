"""`overlaynet status`: what this host's daemon says of itself, over its socket."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from overlaynet.control.client import ask


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def status(settings: dict[str, Any], as_json: bool) -> None:
    """Show this host: lease, backend, peers and whether each is programmed, counters."""
    told = ask(Path(settings["run_dir"]), "status")["status"]
    if as_json:
        click.echo(json.dumps(told))
        return
    for line in _lines(told):
        click.echo(line)


def _lines(told: dict[str, Any]) -> list[str]:
    lease = told["lease"]
    if lease is None:
        held = "none"
    else:
        left = lease["remaining_s"]
        ends = "expired" if lease["expired"] else "never ends" if left is None else f"{left:.0f} s left"
        held = f"{lease['subnets']}, {ends}"
    store, trouble = told["store"], told["store_error"]
    store += f": {trouble.removeprefix(f'store {store}: ')}" if trouble else ""
    if told["store_lost_since_s"] is not None:
        store += f" (lost for {time.clock_gettime(time.CLOCK_BOOTTIME) - told['store_lost_since_s']:.0f} s)"
    rows = [
        ("host", told["host"]),
        ("state", _state(told)),
        ("network", ", ".join(told["network"]) or "not configured"),
        ("backend", told["backend"] or "-"),
        ("lease", held),
        ("public address", ", ".join(told["public_addresses"])),
        ("underlay", told["underlay"]),
        ("mtu", "-" if told["mtu"] is None else str(told["mtu"])),
        ("store", store),
        ("kernel writes", str(told["kernel_writes"])),
    ]
    lines = [f"{name:<16}{value}" for name, value in rows]
    lines += [f"{'warning':<16}{text}" for text in told["warnings"]]
    lines += [f"{'conflict':<16}{text}" for text in told["conflicts"]]
    lines += [f"{'refused lease':<16}{text}" for text in told["refused_leases"]]
    if told["unreadable_keys"]:
        lines.append(f"{'unreadable':<16}{told['unreadable_keys']} keys of the store")
    programmed = sum(1 for peer in told["peers"] if peer["state"] == "programmed")
    lines.append(f"{'peers':<16}{programmed} of {len(told['peers'])} programmed")
    for peer in told["peers"]:
        why = f": {peer['why']}" if peer["why"] else ""
        lines.append(f"  {peer['subnets']:<34}{peer['public_address']:<18}{peer['state']}{why}")
    lines += _counter_lines(told["counters"])
    return lines


def _state(told: dict[str, Any]) -> str:
    if told["ready"]:
        return "ready"
    return "not ready: runs from the snapshot of its last run until the store answers" if told["kept"] else "not ready"


def _counter_lines(counters: dict[str, Any]) -> list[str]:
    lines = [f"{name:<15} {value}" for name, value in counters.items() if isinstance(value, int)]
    lines += [f"{'dropped':<16}{count} {reason}" for reason, count in counters.get("drops", {}).items() if count]
    if "offloads" in counters:
        lines.append(f"{'offloads':<16}{', '.join(f'{name} {state}' for name, state in counters['offloads'].items())}")
    return lines

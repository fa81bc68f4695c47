"""`overlaynet leases` and `overlaynet lease`: who holds which subnet."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click

from overlaynet.errors import ConfigError, StoreDataError
from overlaynet.model.lease import Lease, Subnets
from overlaynet.model.lease_text import parse_lease_key
from overlaynet.store.location import StoreLocation


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def leases(settings: dict[str, Any], as_json: bool) -> None:
    """List the network's leases."""
    rows, unreadable = asyncio.run(_rows(settings["store"]))
    for key, why in unreadable:
        click.echo(f"overlaynet: warning: {key}: {why}", err=True)
    if as_json:
        click.echo(json.dumps({"leases": rows}))
        return
    for row in rows:
        remaining = row["remaining_s"]
        ends = "reserved" if row["reserved"] else "never ends" if remaining is None else f"{remaining:.0f} s left"
        address = row["public_ip"] or row["public_ipv6"] or "-"
        click.echo(f"{row['subnet']:<36}{address:<20}{row['backend']:<10}{ends:<14}{row['owner'] or '-'}")


@click.group()
def lease() -> None:
    """Act on one lease."""


@lease.command()
@click.argument("subnet")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def release(settings: dict[str, Any], subnet: str, as_json: bool) -> None:
    """Remove the lease on SUBNET (10.1.17.0/24 or 10.1.17.0-24), whoever holds it."""
    removed = asyncio.run(_revoke(settings["store"], _subnets(subnet)))
    if as_json:
        click.echo(json.dumps({"released": str(removed.subnets), "owner": removed.owner}))
    else:
        click.echo(f"{removed.subnets}: released")


def _subnets(text: str) -> Subnets:
    """The subnets that a user names: as a stored key, or as prefixes with slashes joined by `&` or a comma."""
    key = text.replace(",", "&").replace("/", "-")
    if ":" in key and "." not in key:
        key = f"0.0.0.0-0&{key}"
    try:
        return parse_lease_key(key)
    except StoreDataError as error:
        raise ConfigError("SUBNET", text, f"must be a leased subnet such as 10.1.17.0/24: {error.why}") from None


async def _rows(store_at: StoreLocation) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    from overlaynet.store.open import open_store

    store = open_store(store_at, make=False)
    try:
        snapshot = await store.load()
        remaining = await store.remaining(snapshot.leases)
    finally:
        await store.aclose()
    rows = [_row(lease, left) for lease, left in zip(snapshot.leases, remaining, strict=True)]
    return rows, [(bad.key, bad.why) for bad in snapshot.unreadable]


def _row(lease: Lease, remaining_s: float | None) -> dict[str, Any]:
    attributes = lease.attributes
    return {
        "subnet": str(lease.subnets),
        "public_ip": None if attributes.public_ipv4 is None else str(attributes.public_ipv4),
        "public_ipv6": None if attributes.public_ipv6 is None else str(attributes.public_ipv6),
        "backend": attributes.backend_type or "-",
        "owner": lease.owner,
        "reserved": lease.reserved,
        "remaining_s": remaining_s,
    }


async def _revoke(store_at: StoreLocation, subnets: Subnets) -> Lease:
    from overlaynet.store.open import open_store

    store = open_store(store_at, make=False)
    try:
        return await store.revoke(subnets)
    finally:
        await store.aclose()

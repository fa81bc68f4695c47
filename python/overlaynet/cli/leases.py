"""`overlaynet leases` and `overlaynet lease`: who holds which subnet."""

from __future__ import annotations

import asyncio
import json
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import click

from overlaynet.cli.flags import public_address
from overlaynet.errors import ConfigError, ConflictError, NetworkNotConfiguredError, StoreDataError
from overlaynet.model.lease import Lease, LeaseAttributes, Subnets
from overlaynet.model.lease_text import parse_lease_key
from overlaynet.model.network import parse_network
from overlaynet.reconcile.allocate import fits
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
        click.echo(_line(row))


@click.group()
def lease() -> None:
    """Act on one lease."""


_subnet = click.argument("subnet")
_as_json = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@lease.command()
@_subnet
@_as_json
@click.pass_obj
def show(settings: dict[str, Any], subnet: str, as_json: bool) -> None:
    """Show the lease or reservation on SUBNET (10.1.17.0/24 or 10.1.17.0-24)."""
    name = str(_subnets(subnet))
    rows, _ = asyncio.run(_rows(settings["store"], name))
    if not rows:
        raise ConflictError(f"subnet {name}", "is not leased")
    click.echo(json.dumps(rows[0]) if as_json else _line(rows[0]))


@lease.command()
@_subnet
@click.option("--public-ip", metavar="IP", help="The IPv4 address of the host that is to have SUBNET.")
@click.option("--public-ipv6", metavar="IP", help="Its IPv6 address.")
@_as_json
@click.pass_obj
def reserve(settings: dict[str, Any], subnet: str, public_ip: str | None, public_ipv6: str | None, as_json: bool) -> None:
    """Keep SUBNET, without end, for the host with these public addresses."""
    v4, v6 = public_address("--public-ip", public_ip, IPv4Address), public_address("--public-ipv6", public_ipv6, IPv6Address)
    if v4 is None and v6 is None:
        raise ConfigError("--public-ip", "", "say for which host: give --public-ip, --public-ipv6 or both")
    kept = asyncio.run(_reserve(settings["store"], subnet, LeaseAttributes(v4, v6)))
    whom = " and ".join(str(address) for address in (v4, v6) if address is not None)
    click.echo(json.dumps(_row(kept, None)) if as_json else f"{kept.subnets}: reserved for {whom}")


@lease.command()
@_subnet
@_as_json
@click.pass_obj
def release(settings: dict[str, Any], subnet: str, as_json: bool) -> None:
    """Remove the lease or reservation on SUBNET, whoever holds it. A holder that lives comes back to it."""
    removed = asyncio.run(_remove(settings["store"], _subnets(subnet), bar=False))
    if as_json:
        click.echo(json.dumps({"released": str(removed.subnets), "owner": removed.owner}))
    else:
        click.echo(f"{removed.subnets}: released")


@lease.command()
@_subnet
@_as_json
@click.pass_obj
def revoke(settings: dict[str, Any], subnet: str, as_json: bool) -> None:
    """Take SUBNET from whoever holds it: its host moves to another."""
    removed = asyncio.run(_remove(settings["store"], _subnets(subnet), bar=True))
    if as_json:
        click.echo(json.dumps({"revoked": str(removed.subnets), "owner": removed.owner}))
    else:
        click.echo(f"{removed.subnets}: revoked")


def _subnets(text: str) -> Subnets:
    """The subnets that a user names: as a stored key, or as prefixes with slashes joined by `&` or a comma."""
    key = text.replace(",", "&").replace("/", "-")
    if ":" in key and "." not in key:
        key = f"0.0.0.0-0&{key}"
    try:
        return parse_lease_key(key)
    except StoreDataError as error:
        raise ConfigError("SUBNET", text, f"must be a leased subnet such as 10.1.17.0/24: {error.why}") from None


async def _rows(store_at: StoreLocation, only: str | None = None) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    from overlaynet.store.open import open_store

    store = open_store(store_at, make=False)
    try:
        snapshot = await store.load()
        found = [lease for lease in snapshot.leases if only is None or str(lease.subnets) == only]
        remaining = await store.remaining(found)
    finally:
        await store.aclose()
    rows = [_row(lease, left) for lease, left in zip(found, remaining, strict=True)]
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


def _line(row: dict[str, Any]) -> str:
    remaining = row["remaining_s"]
    ends = "reserved" if row["reserved"] else "never ends" if remaining is None else f"{remaining:.0f} s left"
    address = row["public_ip"] or row["public_ipv6"] or "-"
    return f"{row['subnet']:<36}{address:<20}{row['backend']:<10}{ends:<14}{row['owner'] or '-'}"


async def _remove(store_at: StoreLocation, subnets: Subnets, *, bar: bool) -> Lease:
    from overlaynet.store.open import open_store

    store = open_store(store_at, make=False)
    try:
        return await store.revoke(subnets, bar=bar)
    finally:
        await store.aclose()


async def _reserve(store_at: StoreLocation, text: str, attributes: LeaseAttributes) -> Lease:
    """ConfigError: the network has no such subnet. ConflictError: something overlaps it."""
    from overlaynet.store.open import open_store

    subnets = _subnets(text)
    store = open_store(store_at, make=False)
    try:
        held = (await store.load()).config
        if held is None:
            raise NetworkNotConfiguredError(store_at.url)
        config, _ = parse_network(held)
        if not fits(config, subnets):
            leased = " and ".join(f"a /{half.subnet_len} from {half.subnet_min} to {half.subnet_max}" for half in config.families)
            raise ConfigError("SUBNET", text, f"must be what this network leases: {leased}")
        return await store.reserve(subnets, attributes)
    finally:
        await store.aclose()

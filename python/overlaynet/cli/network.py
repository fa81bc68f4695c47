"""`overlaynet network`: check, show and set the network's configuration."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import click

from overlaynet.errors import ConfigError, NetworkNotConfiguredError, StoreError
from overlaynet.model.network import NetworkConfig, parse_network
from overlaynet.store.location import StoreLocation


@click.group()
def network() -> None:
    """Check, show and set the network's configuration."""


@network.command()
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def check(file: str, as_json: bool) -> None:
    """Validate FILE (- is standard input) without any store, and show it with every default."""
    config, _ = _parse(_read(file))
    _show(config, as_json=as_json)


@network.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def show(settings: dict[str, Any], as_json: bool) -> None:
    """Show the network's configuration with every default."""
    text = asyncio.run(_load(settings["store"]))
    if text is None:
        raise NetworkNotConfiguredError(settings["store"].url)
    config, _ = _parse(text)
    _show(config, as_json=as_json)


@network.command("set")
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def set_(settings: dict[str, Any], file: str, as_json: bool) -> None:
    """Validate FILE (- is standard input), then put it into the store as it is."""
    text = _read(file)
    config, _ = _parse(text)
    asyncio.run(_put(settings["store"], text))
    _show(config, as_json=as_json)


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigError("FILE", file, f"cannot be read: {error.strerror}") from None


def _parse(text: bytes) -> tuple[NetworkConfig, tuple[str, ...]]:
    config, warnings = parse_network(text)
    for warning in warnings:
        click.echo(f"overlaynet: warning: {warning}", err=True)
    return config, warnings


def _show(config: NetworkConfig, *, as_json: bool) -> None:
    fields = json.loads(config.text)
    if as_json:
        click.echo(json.dumps(fields))
        return
    backend = fields.pop("Backend")
    for name, value in [*fields.items(), *((f"Backend.{key}", item) for key, item in backend.items())]:
        click.echo(f"{name:<24}{json.dumps(value) if isinstance(value, bool) else value}")


async def _load(store_at: StoreLocation) -> bytes | None:
    from overlaynet.store.open import open_store

    store = open_store(store_at, make=False)
    try:
        return (await store.load()).config
    finally:
        await store.aclose()


async def _put(store_at: StoreLocation, text: bytes) -> None:
    from overlaynet.store.open import open_store

    store = open_store(store_at)
    try:
        held = (await store.load()).config
        if held is not None and held != text:
            _warn_of_restart(held, text)
        await store.put_config(text)
    finally:
        await store.aclose()


def _warn_of_restart(held: bytes, text: bytes) -> None:
    """Say when running daemons will not take the change up."""
    try:
        before = parse_network(held)[0]
    except (ConfigError, StoreError):
        return
    after = parse_network(text)[0]
    if before.networks != after.networks or before.backend != after.backend:
        click.echo("overlaynet: warning: daemons that run keep the old network and backend until they are restarted", err=True)

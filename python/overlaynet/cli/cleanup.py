"""`overlaynet cleanup`: removes all that is ours from this host's kernel."""

from __future__ import annotations

import asyncio
import json
from ipaddress import IPv4Network, IPv6Network

import click

from overlaynet.daemon.instance import claim_namespace
from overlaynet.errors import KernelError
from overlaynet.kernel.netlink import NetlinkKernel
from overlaynet.model.kernel import Delete, ObjectKind, Scope, describe, in_order

_EVERYWHERE = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def cleanup(as_json: bool) -> None:
    """Remove all that is ours from this host's kernel: links, and next hops and routes with our protocol number.

    Sysctls stay as they are. Refused while a daemon serves this network namespace.
    """
    with claim_namespace():
        removed, failures = asyncio.run(_clean())
    if as_json:
        click.echo(json.dumps({"removed": removed, "failed": [str(error) for error in failures]}))
    else:
        for line in removed:
            click.echo(f"removed {line}")
        if not removed and not failures:
            click.echo("there was nothing")
    if failures:
        raise failures[0]


async def _clean() -> tuple[list[str], list[KernelError]]:
    async with await NetlinkKernel.open() as kernel:
        seen = await kernel.observe(Scope(underlay="", networks=_EVERYWHERE))
        doomed = [item for item in reversed(in_order(seen.objects)) if item.kind is not ObjectKind.SYSCTL]
        results = await kernel.perform([Delete(item) for item in doomed])
    removed = [describe(item) for item, error in zip(doomed, results, strict=True) if error is None]
    return removed, [error for error in results if error is not None]

"""A process that uses a store file as a daemon would, and says each step on its standard output as one line of JSON.

    python sqlite_host.py FILE HOST NUMBER COMMAND

`claim`: choose a subnet, claim it, choose again on a conflict, print its key. `loop`: claim, then renew and update for ever,
printing each answer. `hold TTL`: claim 10.1.1.0/24, print key and wall clock. `leases`: print keys and wall clock.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from ipaddress import IPv4Address
from pathlib import Path

from overlaynet.errors import ConflictError
from overlaynet.model.host import HostSettings
from overlaynet.model.lease import Grant, HostId, LeaseAttributes
from overlaynet.model.lease_text import parse_lease_key
from overlaynet.model.network import parse_network
from overlaynet.reconcile.allocate import choose
from overlaynet.store.sqlite import SqliteStore

CONFIG = parse_network(b'{"Network":"10.1.0.0/16","Backend":{"Type":"host-gw"}}')[0]


def say(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


async def claim(store: SqliteStore, host: HostId, address: IPv4Address) -> Grant:
    settings = HostSettings(host, "eth0", address, None, address, None)
    for attempt in range(1000):
        seen = await store.load()
        choice = choose(CONFIG, settings, seen.leases, attempt)
        try:
            return await store.claim(
                host, choice.subnets, LeaseAttributes(address), ttl_s=600, seen=seen, takes_over=choice.takes_over
            )
        except ConflictError:
            continue
    raise SystemExit("no subnet after 1000 attempts")


async def main(path: str, host_text: str, number: str, command: str, *rest: str) -> None:
    store = SqliteStore(Path(path))
    host, address = HostId(host_text), IPv4Address("192.0.2.0") + int(number)
    match command:
        case "claim":
            say(key=str((await claim(store, host, address)).lease.subnets))
        case "loop":
            grant = await claim(store, host, address)
            say(key=str(grant.lease.subnets), type="")
            for n in range(1_000_000):
                grant = await store.renew(grant)
                grant = await store.update(grant, LeaseAttributes(address, backend_type=f"t{n}"))
                say(key=str(grant.lease.subnets), type=f"t{n}")
        case "hold":
            subnets = parse_lease_key("10.1.1.0-24")
            await store.claim(host, subnets, LeaseAttributes(address), ttl_s=float(rest[0]), seen=await store.load())
            say(key=str(subnets), wall=time.time())
        case "leases":
            say(keys=[str(lease.subnets) for lease in (await store.load()).leases], wall=time.time())
    await store.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

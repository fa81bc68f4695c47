"""Many store clients in one process that all start at once: each loads, chooses and claims until it holds a lease.

    python etcd_crowd.py ENDPOINTS PREFIX FIRST COUNT

Says `ready` on standard output, waits for a line on standard input, then prints one JSON object: the seconds from that moment
until each client had its lease, the leases' keys, and how often a claim was refused.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from ipaddress import IPv4Address

from overlaynet.errors import ConflictError, StoreUnavailableError
from overlaynet.model.host import HostSettings
from overlaynet.model.lease import HostId, LeaseAttributes
from overlaynet.model.network import parse_network
from overlaynet.reconcile.allocate import choose
from overlaynet.reconcile.backoff import Backoff
from overlaynet.store.etcd.settings import parse_etcd_url
from overlaynet.store.etcd.store import EtcdStore

CONFIG = parse_network(b'{"Network":"10.0.0.0/12","SubnetLen":24,"Backend":{"Type":"udp"}}')[0]


async def main(endpoints: str, prefix: str, first: str, count: str) -> None:
    refusals = 0
    began = 0.0

    async def start(number: int) -> tuple[float, str]:
        nonlocal refusals
        host, address = HostId(f"{number:032x}"), IPv4Address("192.0.2.0") + number
        settings = HostSettings(host, "eth0", address, None, address, None)
        backoff = Backoff(f"{host}/lease")
        store = EtcdStore(parse_etcd_url(f"etcd://{endpoints}{prefix}"))
        attempt = 0
        try:
            while True:
                try:
                    seen = await store.load()
                    wanted = choose(CONFIG, settings, seen.leases, attempt)
                    grant = await store.claim(
                        host, wanted.subnets, LeaseAttributes(address), ttl_s=600, seen=seen, takes_over=wanted.takes_over
                    )
                    return time.monotonic() - began, str(grant.lease.subnets)
                except (ConflictError, StoreUnavailableError):
                    refusals += 1
                    attempt += 1
                    await asyncio.sleep(backoff.delay_s(attempt))
        finally:
            await store.aclose()

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    began = time.monotonic()
    held = await asyncio.gather(*(start(number) for number in range(int(first), int(first) + int(count))))
    answer = {"seconds": [seconds for seconds, _ in held], "keys": [key for _, key in held], "refusals": refusals}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

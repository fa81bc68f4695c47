"""A peer that the kernel refuses is shown with the kernel's own reason, tried again ever more rarely, and holds up nobody."""

from __future__ import annotations

import asyncio
import time
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from overlaynet.lab import lab as labs
from overlaynet.lab import traffic
from overlaynet.lab.lab import Lab
from overlaynet.lab.topology import plan_lab
from overlaynet.model.lease import LeaseAttributes, Subnets
from overlaynet.store.sqlite import SqliteStore

from tests.lab.conftest import run_overlaynet
from tests.lab.kernel_state import status, until

BAD = Subnets(IPv4Network("10.1.200.0/24"))


def test_peer_that_the_kernel_refuses_is_shown_with_its_reason_and_holds_up_nobody(name: str) -> None:
    lab = labs.up(plan_lab(name, hosts=2, backend="host-gw"))
    host = lab.plan.hosts[0]
    interface = host.address
    assert isinstance(interface, IPv4Interface)
    # On the link, as far as routes tell, and no gateway for any kernel: the link's broadcast address.
    asyncio.run(change(lab, LeaseAttributes(interface.network.broadcast_address, None, "host-gw")))
    try:
        until(lambda: states(lab).get(str(BAD)) == "failed")
        bad = next(peer for peer in status(lab, 1)["peers"] if peer["subnets"] == str(BAD))
        assert "invalid gateway" in bad["why"].lower()
        shown = run_overlaynet("--run-dir", str(lab.files.host(host).run), "status").stdout
        assert bad["why"] in " ".join(shown.split())
        assert [state for subnet, state in states(lab).items() if subnet != str(BAD)] == ["programmed"]
        assert traffic.ping(lab, "pod1", lab.pod_address("pod2"), count=2, interval_s=0.05).lost == 0
        lab.kill_daemon(host)
        lab.start_daemons([host])
        assert states(lab)[str(BAD)] == "failed"
        writes = int(status(lab, 1)["kernel_writes"])
        time.sleep(5.0)
        # Doubling from a tenth of a second: about six more attempts, where one each time would be thousands.
        assert int(status(lab, 1)["kernel_writes"]) - writes < 15
    finally:
        asyncio.run(change(lab, None))
    until(lambda: str(BAD) not in states(lab))


def states(lab: Lab) -> dict[str, str]:
    """Each peer's state by its subnet, at the first host."""
    return {peer["subnets"]: peer["state"] for peer in status(lab, 1).get("peers", ())}


async def change(lab: Lab, attributes: LeaseAttributes | None) -> None:
    """Reserve the bad subnet, or end that."""
    store = SqliteStore(Path(lab.store.removeprefix("sqlite:///")), make=False)
    try:
        if attributes is None:
            if any(lease.subnets == BAD for lease in (await store.load()).leases):
                await store.revoke(BAD, bar=False)
        else:
            await store.reserve(BAD, attributes)
    finally:
        await store.aclose()

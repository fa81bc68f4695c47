"""The clock by which a lease's end is told."""

from __future__ import annotations

import time
from ipaddress import IPv4Address

import pytest
from overlaynet.daemon import driver
from overlaynet.daemon.requests import Requests
from overlaynet.kernel.fake import FakeKernel
from overlaynet.model.lease import Grant, HostId, LeaseAttributes
from overlaynet.model.lease_text import parse_lease_key
from overlaynet.reconcile.actions import ClaimSubnet, RenewLease
from overlaynet.reconcile.events import LeaseGranted
from overlaynet.store import sqlite
from overlaynet.store.memory import MemoryStore


@pytest.mark.parametrize("boot_time", [driver.boot_time, sqlite.boot_time])
def test_clock_of_leases_runs_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch, boot_time: object) -> None:
    """CLOCK_BOOTTIME does; CLOCK_MONOTONIC, and so `time.monotonic`, does not (man 2 clock_gettime)."""
    clocks = {time.CLOCK_BOOTTIME: 4_000.0}
    monkeypatch.setattr(time, "clock_gettime", clocks.__getitem__)
    assert callable(boot_time)
    assert boot_time() == 4_000.0


class SlowStore(MemoryStore):
    """A store whose answers take ten seconds."""

    def __init__(self) -> None:
        self.now = 100.0
        super().__init__(lambda: self.now)

    async def renew(self, grant: Grant) -> Grant:
        try:
            return await super().renew(grant)
        finally:
            self.now += 10.0


async def test_grant_counts_from_the_moment_at_which_it_was_asked_for() -> None:
    """The store may count from any moment between the question and the answer: only the first is safe."""
    store = SlowStore()
    host, subnets, attributes = HostId("h"), parse_lease_key("10.1.2.0-24"), LeaseAttributes(IPv4Address("192.0.2.1"))
    requests = Requests(host, store, FakeKernel(), lambda: store.now)
    claimed = await requests.answer(ClaimSubnet(subnets, attributes, 60.0, await store.load()))
    assert isinstance(claimed, LeaseGranted)
    renewed = await requests.answer(RenewLease(claimed.grant))
    assert isinstance(renewed, LeaseGranted)
    assert (renewed.sent_at, store.now) == (100.0, 110.0)

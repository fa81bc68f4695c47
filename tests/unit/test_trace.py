"""Actions in words."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from overlaynet.errors import NetworkNotConfiguredError
from overlaynet.model.addresses import Mtu
from overlaynet.model.kept import Kept
from overlaynet.model.kernel import Delete, Put, Route, Scope
from overlaynet.model.lease import Grant
from overlaynet.model.network import SubnetEnv
from overlaynet.model.snapshot import Snapshot
from overlaynet.reconcile import actions as do
from overlaynet.reconcile.trace import SHOWN, trace

from tests.unit.host_world import peer, subnets

LEASE = peer(7)
GRANT = Grant(LEASE, 60.0, 1)
ENV = SubnetEnv(IPv4Network("10.5.0.0/16"), LEASE.subnets.v4, None, None, Mtu(1450), ip_masquerade=False)
ROUTE = Route(IPv4Network("10.5.7.0/24"), "eth0")
OTHER = Route(IPv4Network("10.5.7.0/24"), "ovl.1")


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (do.LoadSnapshot(), "load"),
        (do.Watch(7), "watch 7"),
        (do.ClaimSubnet(subnets(7), LEASE.attributes, 60.0, Snapshot(1, None, ())), "claim 10.5.7.0-24"),
        (do.RenewLease(GRANT), "renew 10.5.7.0-24"),
        (do.UpdateLease(GRANT, LEASE.attributes), "update 10.5.7.0-24"),
        (do.ReleaseLease(GRANT), "release 10.5.7.0-24"),
        (do.Observe(Scope("eth0", (), ())), "observe eth0"),
        (
            do.Program((Put(ROUTE), Put(OTHER, replaces=ROUTE), Delete(ROUTE))),
            "program create route 10.5.7.0/24 dev eth0; replace route 10.5.7.0/24 dev ovl.1; delete route 10.5.7.0/24 dev eth0",
        ),
        (do.ConfigurePump(None), "stop the engine"),
        (do.KeepSnapshot(Kept("memory:", b"{}", 9, LEASE, ())), "keep the snapshot of revision 9"),
        (do.PublishSubnetEnv(ENV), "publish 10.5.7.0/24 mtu 1450"),
        (do.AnnounceReady(), "announce readiness"),
        (do.Report("info", "lease", "held"), "report info lease: held"),
        (do.Stop(), "stop"),
        (do.Stop(NetworkNotConfiguredError("memory:")), f"stop: {NetworkNotConfiguredError('memory:')}"),
    ],
)
def test_action_is_one_line(action: do.Action, text: str) -> None:
    assert trace(action) == text


def test_many_operations_are_counted() -> None:
    line = trace(do.Program((Put(ROUTE),) * (SHOWN + 3)))
    assert line.endswith("; 3 more")
    assert line.count("create") == SHOWN

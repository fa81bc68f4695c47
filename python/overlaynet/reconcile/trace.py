"""Actions in words: a line each, for the log at its most talkative, and to hold one run against another."""

from __future__ import annotations

from typing import assert_never

from overlaynet.model.kernel import Delete, Operation, describe
from overlaynet.reconcile.actions import (
    Action,
    AnnounceReady,
    ClaimSubnet,
    ConfigurePump,
    KeepSnapshot,
    LoadSnapshot,
    Observe,
    Program,
    PublishSubnetEnv,
    ReleaseLease,
    RenewLease,
    Report,
    Stop,
    UpdateLease,
    Watch,
)

SHOWN = 100
"""How many operations of one action are named."""


def trace(action: Action) -> str:
    """What the action does to what."""
    match action:
        case LoadSnapshot():
            return "load"
        case Watch(after):
            return f"watch {after}"
        case ClaimSubnet(subnets=subnets):
            return f"claim {subnets}"
        case RenewLease(grant):
            return f"renew {grant.lease.subnets}"
        case UpdateLease(grant):
            return f"update {grant.lease.subnets}"
        case ReleaseLease(grant):
            return f"release {grant.lease.subnets}"
        case Observe(scope):
            return f"observe {scope.underlay}"
        case Program(operations):
            more = f"; {len(operations) - SHOWN} more" if len(operations) > SHOWN else ""
            return f"program {'; '.join(_operation(one) for one in operations[:SHOWN])}{more}"
        case ConfigurePump(config):
            return "stop the engine" if config is None else f"configure the engine on {config.link}"
        case KeepSnapshot(kept):
            return f"keep the snapshot of revision {kept.revision}"
        case PublishSubnetEnv(env):
            return f"publish {', '.join(str(one) for one in (env.v4_subnet, env.v6_subnet) if one)} mtu {env.mtu}"
        case AnnounceReady():
            return "announce readiness"
        case Report(level, topic, text):
            return f"report {level} {topic}: {text}"
        case Stop(error):
            return "stop" if error is None else f"stop: {error}"
        case _:
            assert_never(action)


def _operation(operation: Operation) -> str:
    if isinstance(operation, Delete):
        return f"delete {describe(operation.object)}"
    return f"{'create' if operation.replaces is None else 'replace'} {describe(operation.object)}"

"""Forwarding before all else: the packet engine begins with what it ran with in the last run, if that ended without warning.

This comes first of all in a daemon's life, before the store, the kernel and the logs' libraries are imported, so it imports none
of them. What it starts is provisional: the daemon that follows gives the engine what the store says, or stops it. It changes
nothing else, and nothing is wrong if it cannot: without its TUN, say after a boot, the engine waits for the daemon.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from overlaynet.daemon.regular_file import read_regular
from overlaynet.daemon.settings import Settings
from overlaynet.dataplane.kept import decode_running
from overlaynet.dataplane.pump import UdpEngine
from overlaynet.errors import DataplaneError, StoreDataError

ENGINE = "engine.json"
"""The file in the state directory that holds what the engine runs with."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The engine, which runs if there was something to go on with; else `why` may say what stood in the way."""

    engine: UdpEngine
    why: str | None = None


def resume(settings: Settings) -> Resumed:
    """The daemon's engine, at work if an earlier run with the same settings left word of its own."""
    engine = UdpEngine(settings.offloads, settings.source_check)
    try:
        config = decode_running(read_regular(settings.state_dir / ENGINE), resume_words(settings))
    except FileNotFoundError:
        return Resumed(engine)
    except OSError as error:
        # Where the directory itself cannot be used, the daemon is about to say so by the flag's name.
        there = os.path.isdir(settings.state_dir)  # noqa: PTH112  # is_dir() raises where the name is too long
        return Resumed(engine, f"{ENGINE}: {error.strerror}" if there else None)
    except StoreDataError as error:
        return Resumed(engine, str(error))
    if config is None:
        return Resumed(engine)
    try:
        engine.apply(config)
    except (DataplaneError, ValueError, TypeError, OverflowError) as error:
        return Resumed(engine, str(error))
    return Resumed(engine)


def resume_words(settings: Settings) -> tuple[str, ...]:
    """What must be as it was for the engine's configuration to be the same: where the store and the underlay are."""
    return (
        settings.store.url,
        *settings.iface,
        *settings.iface_regex,
        settings.iface_can_reach,
        str(settings.public_ip),
        str(settings.public_ipv6),
        str(settings.vxlan_mode),
    )

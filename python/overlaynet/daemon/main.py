"""From settings to a running daemon, in the order in which faults are found: nothing is touched before all is checked."""

from __future__ import annotations

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import structlog

from overlaynet.daemon.collector import spare_collector
from overlaynet.daemon.control_server import serving
from overlaynet.daemon.driver import Driver
from overlaynet.daemon.health import Health, serving_health
from overlaynet.daemon.instance import claim_namespace
from overlaynet.daemon.logs import set_up_logs
from overlaynet.daemon.notify import notify
from overlaynet.daemon.preflight import check_network, check_rights, tap_obstacles
from overlaynet.daemon.resume import ENGINE, Resumed, resume_words
from overlaynet.daemon.settings import Settings
from overlaynet.daemon.state import (
    check_place,
    check_private,
    forget_host,
    host_id,
    owning_directory,
    prepare_directory,
    read_kept,
)
from overlaynet.dataplane.pump import UdpEngine
from overlaynet.errors import ConfigError, HostIdInUseError, OverlaynetError, StoreDataError, StoreUnavailableError
from overlaynet.kernel.interfaces import ChosenUnderlay, Selection, choose_underlay
from overlaynet.kernel.netlink import NetlinkKernel
from overlaynet.model.dataplane import TAP
from overlaynet.model.host import HostSettings
from overlaynet.model.kept import Kept
from overlaynet.model.lease import HostId, Subnets
from overlaynet.model.network import parse_subnet_env
from overlaynet.reconcile.reconciler import Reconciler
from overlaynet.store import Store
from overlaynet.store.open import open_store

_BLOCKING = 2

log = structlog.get_logger()


def run_daemon(settings: Settings, resumed: Resumed) -> None:
    """Run until a signal, with an engine that may run already. Any OverlaynetError says why it could not start or go on."""
    spare_collector()
    set_up_logs(settings.log_format, settings.log_level)
    if resumed.why is not None:
        log.warning("the packet engine does not go on from the last run", why=resumed.why)
    elif resumed.engine.config is not None:
        log.info("the packet engine goes on from the last run", peers=len(resumed.engine.config.peers))
    check_rights()
    for why in tap_obstacles() if TAP in settings.offloads else ():
        log.warning("the TAP that --offload asks for is of no use here", why=why)
    store = open_store(settings.store)
    with claim_namespace():
        asyncio.run(_run(settings, store, resumed.engine))


async def _run(settings: Settings, store: Store, engine: UdpEngine) -> None:
    # The engine is told something, and a file is written: more does not block at once.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_BLOCKING, thread_name_prefix="blocking"))
    underlay = await choose_underlay(_selection(settings))
    if not underlay.up:
        log.warning("the underlay's link is down: no packet leaves before it is up", link=underlay.link)
    prepare_directory("--state-dir", settings.state_dir, 0o700)
    check_private("--state-dir", settings.state_dir)
    with owning_directory("--state-dir", settings.state_dir):
        await _run_in_place(settings, store, engine, underlay)


async def _run_in_place(settings: Settings, store: Store, engine: UdpEngine, underlay: ChosenUnderlay) -> None:
    prepare_directory("--run-dir", settings.run_dir, 0o755)
    prepare_directory("--subnet-file", settings.subnet_file.parent, 0o755)
    check_place("--subnet-file", settings.subnet_file)
    health = Health()
    with serving_health(health, settings.healthz_ip, settings.healthz_port):
        host = _host_settings(settings, host_id(settings.state_dir), underlay, store.traits.name)
        try:
            failure = await _serve(settings, host, store, health, engine)
        finally:
            await store.aclose()
    notify("STOPPING=1")
    log.info("stopped")
    if isinstance(failure, HostIdInUseError):
        forget_host(settings.state_dir, ENGINE)
    if failure is not None:
        raise failure


async def _serve(
    settings: Settings, host: HostSettings, store: Store, health: Health, engine: UdpEngine
) -> OverlaynetError | None:
    """The daemon's life, once the host is known; why it cannot go on, or None."""
    kept = _kept(settings.state_dir, host.store)
    async with await NetlinkKernel.open() as kernel:
        if kept is None:
            # A host that has served this network before goes on by what it knows; one that has not finds out first.
            try:
                await check_network((await store.load()).config, host, kernel)
            except StoreUnavailableError as unavailable:
                log.warning(str(unavailable))
        host = replace(host, next_hops=settings.next_hops and kernel.next_hops)
        driver = Driver(
            *(host.host, Reconciler(host, engine.config), store, kernel, engine, health),
            *(settings.subnet_file, settings.state_dir, resume_words(settings)),
        )
        _end_on_signals(driver, release=settings.release_on_exit)
        async with serving(settings.run_dir, driver.status, settings.socket_group):
            log.info("underlay chosen", link=host.underlay, public=_shown(host))
            failure = await driver.run(kept)
        await asyncio.to_thread(engine.apply, None)
        return failure


def _end_on_signals(driver: Driver, *, release: bool) -> None:
    """The first SIGTERM or SIGINT asks for an end, the second has its default effect."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        notify("STOPPING=1")
        driver.stop(release=release)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)


def _selection(settings: Settings) -> Selection:
    reach = None
    if settings.iface_can_reach:
        try:
            reach = ip_address(settings.iface_can_reach)
        except ValueError:
            raise ConfigError("--iface-can-reach", settings.iface_can_reach, "must be an IP address") from None
    return Selection(
        iface=settings.iface,
        iface_regex=settings.iface_regex,
        can_reach=reach,
        public_ipv4=settings.public_ip,
        public_ipv6=settings.public_ipv6,
    )


def _host_settings(settings: Settings, host: HostId, underlay: ChosenUnderlay, store: str) -> HostSettings:
    return HostSettings(
        host=host,
        underlay=underlay.link,
        public_ipv4=underlay.public_ipv4,
        public_ipv6=underlay.public_ipv6,
        local_ipv4=underlay.local_ipv4,
        local_ipv6=underlay.local_ipv6,
        ttl_s=settings.ttl_s,
        renew_margin_s=settings.renew_margin_s,
        previous=_previous(settings.subnet_file),
        enable_forwarding=settings.ip_forward,
        vxlan_mode=settings.vxlan_mode,
        vxlan_tap=TAP in settings.offloads,
        store=store,
    )


def _kept(state_dir: Path, store: str) -> Kept | None:
    """The last good snapshot of an earlier run with the same store."""
    try:
        kept = read_kept(state_dir)
    except StoreDataError as error:
        log.warning("the snapshot of an earlier run is passed over", why=str(error))
        return None
    if kept is not None and kept.store != store:
        log.warning("the snapshot of an earlier run is passed over", why=f"it is of another store, {kept.store}")
        return None
    return kept


def _previous(path: Path) -> Subnets | None:
    """The subnets in the subnet.env of an earlier run."""
    try:
        env = parse_subnet_env(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        log.warning("earlier subnet.env is passed over", path=str(path), why=str(error))
        return None
    return None if env.v4_subnet is None and env.v6_subnet is None else Subnets(env.v4_subnet, env.v6_subnet)


def _shown(host: HostSettings) -> str:
    return ", ".join(str(address) for address in (host.public_ipv4, host.public_ipv6) if address is not None)

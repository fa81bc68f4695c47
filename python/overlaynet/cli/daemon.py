"""`overlaynet-daemon`: flags to settings, then the daemon."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import click

from overlaynet.cli.failure import guarded
from overlaynet.cli.flags import Number, flag, path, public_address, rewrite
from overlaynet.cli.flannels import without_flannels
from overlaynet.cli.store_flags import store_flags, store_location
from overlaynet.daemon.resume import resume
from overlaynet.daemon.settings import Settings, SocketGroup, check_spans, parse_offloads, parse_span
from overlaynet.errors import ConfigError
from overlaynet.model.dataplane import OFFLOADS

_BOOLEANS = ("release-on-exit", "ip-forward", "next-hops")


@click.command(context_settings={"help_option_names": ["-h", "-help", "--help"], "max_content_width": 120})
@store_flags
@flag("state-dir", default="/var/lib/overlaynet", show_default=True, help="What this host keeps between runs.")
@flag("run-dir", default="/run/overlaynet", show_default=True, help="The control socket's directory.")
@flag("socket-group", default="", metavar="NAME", help="Group whose members may ask the daemon; the socket is then 0660.")
@flag("subnet-file", default="/run/flannel/subnet.env", show_default=True, help="Where subnet.env is written.")
@flag("iface", multiple=True, metavar="NAME|IP", help="Underlay interface; may be repeated, the first that is found is taken.")
@flag("iface-regex", multiple=True, metavar="REGEX", help="Underlay by a pattern for addresses, then for names.")
@flag("iface-can-reach", default="", metavar="IP", help="Underlay by the route to this address.")
@flag("public-ip", default="", metavar="IP", help="IPv4 address published to peers.")
@flag("public-ipv6", default="", metavar="IP", help="IPv6 address published to peers.")
@flag("subnet-lease-ttl", default="24h", show_default=True, metavar="SPAN", help="How long a lease lasts without renewal.")
@flag("subnet-lease-renew-margin", default=None, metavar="SPAN", help="Renew this long before the end; a bare number is minutes.")
@flag("healthz-ip", default="0.0.0.0", show_default=True, metavar="IP", help="Address for /healthz and /readyz.")  # noqa: S104
@flag("healthz-port", default=0, show_default=True, type=Number(0, 65_535), help="Port for them; 0 is off.")
@flag("release-on-exit", default=False, type=bool, show_default=True, metavar="BOOL", help="Give the lease back at the end.")
@flag("ip-forward", default=True, type=bool, show_default=True, metavar="BOOL", help="Turn IP forwarding on.")
@flag("next-hops", default=True, type=bool, show_default=True, metavar="BOOL", help="Use next-hop objects if the kernel can.")
@flag(
    "offload",
    default=",".join(OFFLOADS),
    show_default=True,
    metavar="LIST",
    help="What the packet engine may do in bulk, or none; default,tap for a TAP besides.",
)
@flag(
    "vxlan-mode",
    default=None,
    type=click.Choice(["kernel", "user"]),
    help="VXLAN by the kernel or the engine, whatever the network says.",
)
@flag(
    "source-check",
    default="strict",
    show_default=True,
    type=click.Choice(["strict", "inner", "off"]),
    help="How far the sources of packets to the packet engine must fit.",
)
@flag("log-format", default="text", show_default=True, type=click.Choice(["text", "json"]), help="Form of the log on stderr.")
@flag(
    "log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"]), help="Least level."
)
@click.option(
    "-v",
    "verbosity",
    default=0,
    type=Number(0),
    metavar="N",
    envvar=["OVERLAYNET_V", "FLANNELD_V"],
    help="1 or more: as --log-level debug.",
)
@click.option("--version", "-version", "show_version", is_flag=True, help="Print the version and end.")
def command(verbosity: int, *, show_version: bool, **flags: Any) -> int:
    """Lease a subnet for this host and keep its kernel state for the overlay network."""
    if show_version:
        from overlaynet import __version__

        click.echo(f"overlaynet-daemon {__version__}")
        return 0
    settings = _settings(flags, verbosity)
    # Forwarding first: what the daemon is made of takes hundreds of milliseconds to import.
    resumed = resume(settings)
    from overlaynet.daemon.main import run_daemon

    run_daemon(settings, resumed)
    return 0


def main() -> None:
    """Run the console script."""
    guarded("overlaynet-daemon", lambda: _start(sys.argv[1:]))


def _start(arguments: Sequence[str]) -> Any:
    ours, warnings = without_flannels(arguments, os.environ)
    for warning in warnings:
        click.echo(f"overlaynet-daemon: warning: {warning}", err=True)
    return command.main(rewrite(ours, _BOOLEANS), prog_name="overlaynet-daemon", standalone_mode=False)


def _settings(flags: dict[str, Any], verbosity: int) -> Settings:
    ttl_s = parse_span("--subnet-lease-ttl", flags["subnet_lease_ttl"])
    margin = flags["subnet_lease_renew_margin"]
    margin_s = None if margin is None else parse_span("--subnet-lease-renew-margin", margin, unit="m")
    check_spans(ttl_s, margin_s)
    public_ip = public_address("--public-ip", flags["public_ip"], IPv4Address)
    public_ipv6 = public_address("--public-ipv6", flags["public_ipv6"], IPv6Address)
    health_address = flags["healthz_ip"]
    try:
        healthz_ip = ip_address(health_address)
    except ValueError:
        raise ConfigError("--healthz-ip", health_address, "must be an IP address") from None
    return Settings(
        store=store_location(flags),
        state_dir=path("--state-dir", flags["state_dir"]),
        run_dir=path("--run-dir", flags["run_dir"]),
        socket_group=SocketGroup.of(flags["socket_group"]) if flags["socket_group"] else None,
        subnet_file=path("--subnet-file", flags["subnet_file"]),
        iface=tuple(flags["iface"]),
        iface_regex=tuple(flags["iface_regex"]),
        iface_can_reach=flags["iface_can_reach"],
        public_ip=public_ip,
        public_ipv6=public_ipv6,
        ttl_s=ttl_s,
        renew_margin_s=margin_s,
        healthz_ip=healthz_ip,
        healthz_port=flags["healthz_port"],
        release_on_exit=flags["release_on_exit"],
        ip_forward=flags["ip_forward"],
        next_hops=flags["next_hops"],
        offloads=parse_offloads(flags["offload"]),
        source_check=flags["source_check"],
        vxlan_mode=flags["vxlan_mode"],
        log_format=flags["log_format"],
        log_level="debug" if verbosity else flags["log_level"],
    )

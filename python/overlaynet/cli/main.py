"""`overlaynet`: the operator's commands. Each one is imported when it runs, so that every one starts at once."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from overlaynet.cli.failure import run
from overlaynet.cli.store_flags import store_flags, store_location

_COMMANDS = {
    "cleanup": ("overlaynet.cli.cleanup", "cleanup", "Remove all that is ours from this host's kernel."),
    "decode": ("overlaynet.cli.decode", "command", "Show packets of a capture, or in hexadecimal, layer by layer."),
    "lab": ("overlaynet.cli.lab", "lab", "Several hosts on one machine, in network namespaces."),
    "lease": ("overlaynet.cli.leases", "lease", "Act on one lease."),
    "leases": ("overlaynet.cli.leases", "leases", "List the network's leases."),
    "network": ("overlaynet.cli.network", "network", "The network's configuration."),
    "status": ("overlaynet.cli.status", "status", "What this host's daemon says of itself."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called; the list comes from a table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names."""
        del ctx
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, name, _ = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), name)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, without importing anything."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in sorted(_COMMANDS.items())])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@store_flags
@click.option(
    "--run-dir",
    envvar=["OVERLAYNET_RUN_DIR", "FLANNELD_RUN_DIR"],
    default="/run/overlaynet",
    show_default=True,
    help="The daemon's --run-dir.",
)
@click.version_option(package_name="overlaynet", prog_name="overlaynet")
@click.pass_context
def command(ctx: click.Context, /, run_dir: str, **flags: Any) -> None:
    """One network over many hosts: its configuration, its leases, and this host."""
    ctx.obj = {"store": store_location(flags), "run_dir": run_dir}


def main() -> None:
    """Run the console script."""
    run("overlaynet", command, sys.argv[1:])

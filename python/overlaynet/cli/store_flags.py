"""The flags that say where leases are kept, for the daemon and for the operator's commands; flannel's `--etcd-*` among them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from overlaynet.cli.flags import flag
from overlaynet.errors import ConfigError
from overlaynet.store.location import EtcdOptions, StoreLocation

DEFAULT_STORE = "sqlite:////var/lib/overlaynet/store.db"
DEFAULT_PREFIX = "/coreos.com/network"

CallableT = TypeVar("CallableT", bound=Callable[..., Any])

_FLAGS = (
    flag(
        "store",
        default=None,
        help=f"Where leases are kept: sqlite:///PATH or etcd://HOST:PORT/PREFIX. [default: {DEFAULT_STORE}]",
    ),
    flag("etcd-endpoints", default=None, metavar="URL,URL", help="etcd's members, as flannel has them; instead of --store."),
    flag("etcd-prefix", default=None, metavar="KEY", help=f"The prefix of the keys in etcd. [default: {DEFAULT_PREFIX}]"),
    flag("etcd-cafile", default="", metavar="FILE", help="Certificates of etcd's authority (PEM); turns TLS on."),
    flag("etcd-certfile", default="", metavar="FILE", help="This client's certificate (PEM)."),
    flag("etcd-keyfile", default="", metavar="FILE", help="Its key (PEM)."),
    flag("etcd-username", default="", metavar="NAME", help="User in etcd."),
    flag("etcd-password", default="", metavar="TEXT", help="Its password; visible to others on the command line."),
    flag("etcd-password-file", default="", metavar="FILE", help="A file with the password."),
)


def store_flags(function: CallableT) -> CallableT:
    """Give a click command the flags; `store_location` reads them."""
    for option in reversed(_FLAGS):
        function = option(function)
    return function


def store_location(flags: dict[str, Any]) -> StoreLocation:
    """Where the store is, taken out of a command's parameters. ConfigError names the flag that is wrong."""
    for name in ("store", "etcd_endpoints"):
        _check_no_secret(f"--{name.replace('_', '-')}", flags[name] or "")
    given = {name: flags.pop(name) for name in [name for name in flags if name == "store" or name.startswith("etcd_")]}
    password = given["etcd_password"]
    if given["etcd_password_file"]:
        if password:
            raise ConfigError(
                "--etcd-password-file", given["etcd_password_file"], "give the password once: here or by --etcd-password"
            )
        password = _password(given["etcd_password_file"])
    elif password and click.get_current_context().get_parameter_source("etcd_password") is click.core.ParameterSource.COMMANDLINE:
        program = click.get_current_context().find_root().info_name
        click.echo(f"{program}: warning: --etcd-password: every user of this host sees it: use --etcd-password-file", err=True)
    options = EtcdOptions(given["etcd_cafile"], given["etcd_certfile"], given["etcd_keyfile"], given["etcd_username"], password)
    endpoints, prefix = given["etcd_endpoints"], given["etcd_prefix"]
    if endpoints is None:
        if prefix is not None:
            raise ConfigError("--etcd-prefix", prefix, "goes with --etcd-endpoints; in --store it stands in the URL")
        return StoreLocation(DEFAULT_STORE if given["store"] is None else given["store"], options)
    if given["store"] is not None:
        raise ConfigError("--etcd-endpoints", endpoints, f"--store {given['store']} is given too: name one store")
    return StoreLocation(_url(endpoints, prefix or DEFAULT_PREFIX), options)


def _check_no_secret(flag: str, url: str) -> None:
    """ConfigError: the URL names a user, and with it a password that logs and `status` would show."""
    # A file's path may have the sign; elsewhere a password ends at the last one, whatever stands before it.
    hidden = re.sub(r"//[^/]*@", "//***@", url) if url.startswith("sqlite:") else re.sub(r"^(\w+://)?.*@", r"\1***@", url)
    if hidden != url:
        raise ConfigError(flag, hidden, "must name no user: give --etcd-username and --etcd-password-file")


def _url(endpoints: str, prefix: str) -> str:
    """Flannel's list of http and https URLs as one etcd URL."""
    schemes: set[str] = set()
    hosts: list[str] = []
    for text in endpoints.split(","):
        scheme, found, host = text.strip().rpartition("://")
        if not host or (found and scheme not in ("http", "https")):
            raise ConfigError("--etcd-endpoints", endpoints, "must be URLs such as http://192.0.2.1:2379, joined by commas")
        schemes.add(scheme or "http")
        hosts.append(host.rstrip("/"))
    if len(schemes) > 1:
        raise ConfigError("--etcd-endpoints", endpoints, "must be all http or all https")
    return f"{'etcds' if schemes == {'https'} else 'etcd'}://{','.join(hosts)}/{prefix.strip('/')}"


def _password(path: str) -> str:
    try:
        return Path(path).read_text().rstrip("\n")
    except OSError as error:
        raise ConfigError("--etcd-password-file", path, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError("--etcd-password-file", path, "must be text in UTF-8") from None

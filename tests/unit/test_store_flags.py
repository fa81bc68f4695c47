"""Where the store is, by flags: ours and flannel's, each wrong one named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from overlaynet.cli.store_flags import store_flags, store_location
from overlaynet.errors import ConfigError
from overlaynet.store.etcd.settings import parse_etcd_url
from overlaynet.store.location import StoreLocation


def location(*arguments: str, **environment: str) -> StoreLocation:
    found: list[StoreLocation] = []

    @click.command()
    @store_flags
    def command(**flags: Any) -> None:
        found.append(store_location(flags))

    done = CliRunner().invoke(command, arguments, env=environment)
    if done.exception is not None:
        raise done.exception
    return found[0]


@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        ((), "sqlite:////var/lib/overlaynet/store.db"),
        (("--store", "etcd://a:1/p"), "etcd://a:1/p"),
        (("-etcd-endpoints=http://a:1,http://b:2",), "etcd://a:1,b:2/coreos.com/network"),
        (("--etcd-endpoints", "https://a:1/", "--etcd-prefix", "/x/y/"), "etcds://a:1/x/y"),
        (("--etcd-endpoints", "a:1"), "etcd://a:1/coreos.com/network"),
    ],
)
def test_url(arguments: tuple[str, ...], url: str) -> None:
    assert location(*arguments).url == url


def test_ours_comes_before_flannels_environment() -> None:
    assert location(OVERLAYNET_STORE="etcd://a:1/p", FLANNELD_STORE="etcd://b:1/p").url == "etcd://a:1/p"
    assert location(FLANNELD_ETCD_ENDPOINTS="http://b:1").url == "etcd://b:1/coreos.com/network"


def test_password_from_a_file_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")

    place = location("--etcd-username", "u", "--etcd-password-file", str(tmp_path / "password"))

    assert place.etcd.password == "secret"
    assert "secret" not in repr(place)
    assert "secret" not in repr(parse_etcd_url("etcd://a", username="u", password="secret"))


@pytest.mark.parametrize(
    ("flag", "url"),
    [
        ("--store", "etcd://user:secret@a:1/p"),
        ("--store", "user:secret@a:1"),
        ("--store", "etcd://a:1,user:sec/secret@b:1/p"),
        ("--etcd-endpoints", "user:secret@a:1"),
        ("--etcd-endpoints", "a:1,user:secret@b:1"),
        ("--etcd-endpoints", "http://user:secret@a:1"),
    ],
)
def test_password_in_a_place_is_refused_and_not_shown(flag: str, url: str) -> None:
    with pytest.raises(ConfigError, match="must name no user") as caught:
        location(flag, url)
    assert caught.value.field == flag
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("--etcd-endpoints", "ftp://a"), "--etcd-endpoints"),
        (("--etcd-endpoints", "http://a:1,https://b:1"), "--etcd-endpoints"),
        (("--etcd-endpoints", "http://a:1", "--store", "etcd://b"), "--etcd-endpoints"),
        (("--etcd-prefix", "/x"), "--etcd-prefix"),
        (("--etcd-password-file", "/nowhere"), "--etcd-password-file"),
    ],
)
def test_what_is_wrong_is_named(arguments: tuple[str, ...], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        location(*arguments)
    assert caught.value.field == field

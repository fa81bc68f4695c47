"""From the daemon's command line and environment to its settings."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import click
import pytest
from overlaynet.cli import daemon as cli
from overlaynet.cli.flags import rewrite
from overlaynet.cli.flannels import without_flannels
from overlaynet.daemon import main as daemon_main
from overlaynet.daemon.settings import Settings, check_spans, parse_span
from overlaynet.errors import ConfigError


def settings(monkeypatch: pytest.MonkeyPatch, *arguments: str, **environment: str) -> Settings:
    taken: list[Settings] = []
    monkeypatch.setattr(daemon_main, "run_daemon", lambda settings, _: taken.append(settings))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    cli.command.main(rewrite(arguments, cli._BOOLEANS), standalone_mode=False)
    return taken[0]


def test_without_a_flag_the_defaults_are_the_documented_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch)
    assert found.store.url == "sqlite:////var/lib/overlaynet/store.db"
    assert found.state_dir == Path("/var/lib/overlaynet")
    assert found.run_dir == Path("/run/overlaynet")
    assert found.subnet_file == Path("/run/flannel/subnet.env")
    assert (found.ttl_s, found.renew_margin_s) == (86_400, None)
    assert (found.healthz_ip, found.healthz_port) == (IPv4Address(0), 0)
    assert (found.release_on_exit, found.ip_forward) == (False, True)


def test_flannels_spelling_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(
        monkeypatch,
        *("-iface=eth0", "-iface", "192.0.2.1", "--iface-regex", "^10[.]"),
        *("-public-ip=203.0.113.1", "-public-ipv6", "2001:db8::1"),
        *("-subnet-file", "env", "-healthz-ip=::1", "-healthz-port=8080"),
        *("-subnet-lease-renew-margin=60", "-release-on-exit", "-ip-forward=false", "-v=3"),
    )
    assert found.iface == ("eth0", "192.0.2.1")
    assert found.iface_regex == ("^10[.]",)
    assert (found.public_ip, found.public_ipv6) == (IPv4Address("203.0.113.1"), IPv6Address("2001:db8::1"))
    assert found.subnet_file == Path("env").absolute()
    assert (found.healthz_ip, found.healthz_port) == (IPv6Address("::1"), 8080)
    assert found.renew_margin_s == 3600  # flannel's unit for it is the minute
    assert (found.release_on_exit, found.ip_forward) == (True, False)
    assert found.log_level == "debug"


def test_flag_comes_before_our_environment_and_that_before_flannels(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = {"OVERLAYNET_HEALTHZ_PORT": "2"}, {"FLANNELD_HEALTHZ_PORT": "3"}
    assert settings(monkeypatch, "--healthz-port", "1", **ours, **theirs).healthz_port == 1
    assert settings(monkeypatch).healthz_port == 2
    monkeypatch.delenv("OVERLAYNET_HEALTHZ_PORT")
    assert settings(monkeypatch).healthz_port == 3


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--public-ip", "2001:db8::1"),
        ("--public-ip", "0.0.0.0"),
        ("--public-ip", "224.0.0.1"),
        ("--public-ipv6", "192.0.2.1"),
        ("--public-ipv6", "::"),
        ("--public-ipv6", "::1"),
        ("--public-ipv6", "::ffff:192.0.2.1"),
        ("--public-ipv6", "2001:db8::1%eth0"),
        ("--public-ipv6", "fe80::1"),
        ("--state-dir", ""),
        ("--run-dir", ""),
        ("--subnet-file", ""),
        ("--subnet-lease-ttl", "\N{ARABIC-INDIC DIGIT ONE}s"),
        ("--healthz-ip", "localhost"),
        ("--subnet-lease-ttl", "-1s"),
        ("--subnet-lease-ttl", "1w"),
        ("--subnet-lease-ttl", "0.5s"),
        ("--subnet-lease-ttl", "4000d"),
        ("--subnet-lease-renew-margin", "0"),
        ("--subnet-lease-renew-margin", "24h"),
    ],
)
def test_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, flag: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(monkeypatch, flag, value)
    assert caught.value.field == flag


@pytest.mark.parametrize("arguments", [("--healthz-port", "65536"), ("--log-level", "loud"), ("--ip-forward=maybe",), ("eth0",)])
def test_wrong_usage_is_told_by_click(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError):
        settings(monkeypatch, *arguments)


@pytest.mark.parametrize("words", [("-v", "3"), ("--v", "3"), ("--v=3",), ("-v=11",)])
def test_verbosity_is_taken_in_each_of_go_s_spellings(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    assert settings(monkeypatch, *words).log_level == "debug"
    assert settings(monkeypatch, FLANNELD_V="1").log_level == "debug"


def test_switch_takes_its_value_from_the_next_word_too(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch, "--next-hops", "false", "-release-on-exit", "true", "--ip-forward", "--iface", "eth0")
    assert (found.next_hops, found.release_on_exit, found.ip_forward, found.iface) == (False, True, True, ("eth0",))


@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [
        (["--healthz-port", "65536"], {}, "--healthz-port: '65536': must be a whole number from 0 to 65535"),
        (["-v", "loud"], {}, "-v: 'loud': must be a whole number from 0 up"),
        ([], {"FLANNELD_HEALTHZ_PORT": "0x10"}, "FLANNELD_HEALTHZ_PORT: '0x10': must be a whole number from 0 to 65535"),
        ([], {"OVERLAYNET_LOG_FORMAT": "xml"}, "OVERLAYNET_LOG_FORMAT: 'xml' is not one of 'text', 'json'."),
        (["--log-format", "xml"], {"OVERLAYNET_LOG_FORMAT": "json"}, "--log-format: 'xml' is not one of 'text', 'json'."),
        (["--ip-masq"], {}, "--ip-masq: 'true': overlaynet does not masquerade: leave it out"),
        (["-ip-masq=true"], {}, "--ip-masq: 'true': overlaynet does not masquerade: leave it out"),
        (["--kube-subnet-mgr"], {}, "--kube-subnet-mgr: 'true': overlaynet has no Kubernetes store: leave it out"),
        (["--iptables-resync", "5"], {}, "--iptables-resync: 'true': overlaynet writes no iptables or nftables rules"),
    ],
)
def test_line_begins_with_where_the_value_came_from(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    environment: dict[str, str],
    line: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["overlaynet-daemon", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert said.startswith(f"overlaynet-daemon: {line}")
    assert said.count("\n") == 1


def test_what_flannel_turns_off_and_is_not_here_is_passed_over() -> None:
    off = ["--ip-masq=false", "-kube-subnet-mgr=0", "--iface", "eth0", "--", "--ip-masq"]
    environment = {"FLANNELD_IP_MASQ": "true", "FLANNELD_KUBE_SUBNET_MGR": "false", "FLANNELD_IFACE": "eth0"}
    ours, warnings = without_flannels(off, environment)
    assert ours == ["--iface", "eth0", "--", "--ip-masq"]
    (warning,) = warnings
    assert warning.startswith("FLANNELD_IP_MASQ=true is ignored: overlaynet does not masquerade")


@pytest.mark.parametrize("word", ["-h", "-help", "--help"])
def test_help_is_printed_for_each_spelling(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert cli.command.main(rewrite([word], cli._BOOLEANS), standalone_mode=False) == 0
    assert "--subnet-file" in capsys.readouterr().out


def test_version_is_printed_and_no_daemon_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delattr(daemon_main, "run_daemon")
    for flag in ("--version", "-version"):
        assert cli.command.main([flag], standalone_mode=False) == 0
        assert capsys.readouterr().out.startswith("overlaynet-daemon ")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("24h", 86_400), ("2d", 172_800), ("1.5h", 5_400), (" 7s ", 7)]
)
def test_span(text: str, seconds: float) -> None:
    assert parse_span("--span", text) == seconds


@pytest.mark.parametrize("text", ["", "s", "1 s", "1h30m", "-1", "1e3"])
def test_what_is_no_span_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--span: .*90s, 10m or 24h"):
        parse_span("--span", text)


def test_spans_that_fit_each_other_pass() -> None:
    check_spans(1.0, None)
    check_spans(60.0, 59.9)
    with pytest.raises(ConfigError, match="below the lease's TTL, 60s"):
        check_spans(60.0, 60.0)


def test_only_bare_booleans_and_verbosity_are_rewritten() -> None:
    arguments = ["-ip-forward", "--release-on-exit=false", "-v=2", "--iface", "eth0", "--", "-ip-forward"]
    assert rewrite(arguments, cli._BOOLEANS) == [
        "--ip-forward=true",
        *("--release-on-exit=false", "-v", "2", "--iface", "eth0"),
        *("--", "-ip-forward"),
    ]

"""How every program ends: one line, the documented code, and never a traceback."""

from __future__ import annotations

import errno
from collections.abc import Callable

import click
import pytest
from overlaynet.cli.failure import guarded, run
from overlaynet.errors import (
    ConfigError,
    DaemonRunningError,
    InvariantError,
    KernelError,
    KernelPermissionError,
    OverlaynetError,
    StoreUnavailableError,
    SubnetsExhaustedError,
)


def raising(error: BaseException) -> Callable[[], object]:
    def body() -> object:
        raise error

    return body


def ended(body: Callable[[], object]) -> object:
    with pytest.raises(SystemExit) as caught:
        guarded("program", body)
    return caught.value.code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("--flag", "value", "must be another"), 2),
        (StoreUnavailableError("etcd://a", "no answer"), 3),
        (SubnetsExhaustedError("10.1.0.0/26", 3), 4),
        (KernelError(errno.EEXIST, "create", "link"), 5),
        (KernelPermissionError(errno.EPERM, "create", "link"), 6),
        (DaemonRunningError("another"), 8),
        (InvariantError("cannot be"), 70),
        (ConfigError("--flag", "long " * 100_000, "must be short"), 2),
        (OverlaynetError("first line\n  second line"), 1),
    ],
)
def test_error_is_one_line_and_its_code(capsys: pytest.CaptureFixture[str], error: OverlaynetError, code: int) -> None:
    assert ended(raising(error)) == code
    assert capsys.readouterr() == ("", f"program: {' '.join(str(error).split())}\n")


def test_output_that_cannot_be_written_is_no_defect_and_another_file_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(raising(OSError(errno.ENOSPC, "No space left on device"))) == 1
    assert ended(raising(OSError(errno.ENOSPC, "No space left on device", "/a/file"))) == 70
    assert ended(raising(OSError(errno.ENOENT, "No such file"))) == 70
    first, *others = capsys.readouterr().err.splitlines()
    assert first == "program: what there is to say cannot be written: No space left on device"
    assert ["defect" in line for line in others] == [True, True]


def test_defect_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    groups = ExceptionGroup("tasks", [ExceptionGroup("more", [ZeroDivisionError("of this")])])
    assert ended(raising(groups)) == 70
    line = capsys.readouterr().err
    assert line == "program: defect in overlaynet: ZeroDivisionError('of this'): set OVERLAYNET_DEBUG=1 to see where\n"


@pytest.mark.parametrize("error", [ConfigError("--flag", "value", "no"), ZeroDivisionError()])
def test_whoever_asks_sees_where(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setenv("OVERLAYNET_DEBUG", "1")
    with pytest.raises(type(error)):
        guarded("program", raising(error))


def test_interrupt_is_what_a_shell_expects(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(raising(KeyboardInterrupt())) == 130
    assert ended(raising(click.Abort())) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (3, 3), ("text", 0)])
def test_result_is_the_code(result: object, code: int) -> None:
    assert ended(lambda: result) == code


def test_wrong_usage_is_one_line_and_help_is_success(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    @click.option("--number", type=int)
    def command(number: int) -> None: ...

    for arguments, code in ((["--number", "one"], 2), (["--nubmer", "1"], 2), (["more"], 2), (["--help"], 0)):
        with pytest.raises(SystemExit) as caught:
            run("program", command, arguments)
        assert caught.value.code == code
        told = capsys.readouterr()
        assert len(told.err.splitlines()) == (1 if code else 0)
        assert told.err.startswith("program: " if code else "")


def test_group_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    @click.group()
    def command() -> None: ...

    with pytest.raises(SystemExit) as caught:
        run("program", command, [])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("Usage: program")


def test_value_that_would_hide_the_reason_is_cut() -> None:
    assert len(str(ConfigError("--flag", "x" * 1_000_000, "must be short"))) < 500

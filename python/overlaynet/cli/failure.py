"""How a command ends when it cannot do its work: one line on standard error, and the documented exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import click

from overlaynet.errors import OverlaynetError

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_DEFECT = 70

_OUTPUT_IS_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def fail(program: str, text: str, code: int) -> NoReturn:
    """End with one line and an exit code; with the code alone where nobody takes the line."""
    try:
        sys.stderr.write(f"{program}: {' '.join(text.split())}\n")
    except OSError:
        # What is left in its buffer would be tried again at the end, and change the code.
        sys.stderr = None
    raise SystemExit(code)


def run(program: str, command: click.Command, arguments: Sequence[str]) -> NoReturn:
    """Run a click command to the end of the process."""
    guarded(program, lambda: command.main(list(arguments), prog_name=program, standalone_mode=False))


def guarded(program: str, body: Callable[[], object]) -> NoReturn:
    """Run `body`, and end the process: with its integer result, or with one line for what went wrong."""
    if sys.stderr is None:
        # Closed from the start: its number must not go to a file or socket of ours.
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # for as long as the process runs
    try:
        result = body()
    except click.exceptions.Exit as end:
        raise SystemExit(end.exit_code) from None
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(error.format_message().rstrip("\n") + "\n")
        raise SystemExit(EXIT_USAGE) from None
    except click.BadParameter as error:
        fail(program, _named(error), EXIT_USAGE)
    except click.ClickException as error:
        fail(program, error.format_message(), EXIT_USAGE if isinstance(error, click.UsageError) else error.exit_code)
    except click.Abort:
        raise SystemExit(130) from None
    except OverlaynetError as error:
        if os.environ.get("OVERLAYNET_DEBUG"):
            raise
        fail(program, str(error), error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(0) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:  # a defect of ours: one line for the operator, the rest for who asks for it
        if os.environ.get("OVERLAYNET_DEBUG"):
            raise
        if isinstance(error, OSError) and error.errno in _OUTPUT_IS_FULL and error.filename is None:
            fail(program, f"what there is to say cannot be written: {error.strerror}", EXIT_FAILURE)
        fail(program, f"defect in overlaynet: {_innermost(error)!r}: set OVERLAYNET_DEBUG=1 to see where", EXIT_DEFECT)
    raise SystemExit(result if isinstance(result, int) else 0)


def _named(error: click.BadParameter) -> str:
    """The error by the flag's name, or by the environment variable that it came from."""
    option, context = error.param, error.ctx
    if not isinstance(option, click.Option) or isinstance(error, click.MissingParameter):
        return error.format_message()
    name = max(option.opts, key=len)
    if context is not None and context.get_parameter_source(option.name or "") is click.core.ParameterSource.ENVIRONMENT:
        variables = [option.envvar] if isinstance(option.envvar, str) else option.envvar or ()
        name = next((variable for variable in variables if os.environ.get(variable)), name)
    return f"{name}: {error.message}"


def _innermost(error: BaseException) -> BaseException:
    """The first error that is no group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

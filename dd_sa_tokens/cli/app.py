"""The root command: the options for all commands, the entry point, and errors as exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, TextIO

import typer

from dd_sa_tokens._version import __version__
from dd_sa_tokens.errors import DatadogError

from .exit_codes import EXIT_CODES, NAME, CommandError, ExitCode, cannot_write, exit_code, explain
from .interrupts import handled_signals, ignore_signals
from .io.console import Messages
from .io.files import STANDARD_OUTPUT
from .options import Options, with_options

app: typer.Typer = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    # Plain help has no frames, so that the help of a command fits a screen.
    rich_markup_mode=None,
    # Python's own tracebacks show no values; rich's can show local variables, and keys with them.
    pretty_exceptions_enable=False,
)


def run() -> None:
    """Run the command that the arguments name, and exit with its status."""
    fill_standard_descriptors()
    if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison] - None where it was closed
        with suppress(AttributeError):  # a replacement in a test may not have it
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType] - a TextIOWrapper has it
    messages = Messages()
    with handled_signals():
        code = guarded(_run_app, messages)
    failure = _flush(sys.stdout)
    if isinstance(failure, BrokenPipeError):
        code = ExitCode.BROKEN_PIPE
    elif failure is not None and not code:  # otherwise a message was printed
        messages.fail(str(cannot_write(STANDARD_OUTPUT, failure)))
        code = ExitCode.FAILED
    _flush(sys.stderr)
    ignore_signals()
    sys.exit(code)


def fill_standard_descriptors() -> None:
    """Open the null device where standard input, output or error is closed, so that no socket gets its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number


def _run_app() -> int:
    try:
        app(prog_name=NAME)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except BrokenPipeError:
        raise
    except OSError as error:  # of what typer prints; commands handle their own errors
        if _is_about_usage(error):
            return ExitCode.USAGE
        raise cannot_write(STANDARD_OUTPUT, error) from None
    return ExitCode.OK


def _is_about_usage(error: BaseException | None) -> bool:
    """Return whether an error came while typer printed a usage error, to standard error."""
    while error is not None and getattr(error, "exit_code", None) != ExitCode.USAGE:
        error = error.__context__
    return error is not None


def guarded(work: Callable[[], int], messages: Messages, verbosity: int = 0) -> int:
    """Do a command's work, and turn each exception into an exit code.

    Args:
        work: Returns the exit code.
        messages: Prints the line that says what went wrong.
        verbosity: Above 0, an unexpected exception is printed with its places in the source. Its text is never
            printed: it may quote a key.

    Raises:
        BadParameter: An argument is invalid. typer prints it.
        Exit: For typer, too.
    """
    try:
        return work()
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except BrokenPipeError:
        discard(sys.stdout)
        return ExitCode.BROKEN_PIPE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except DatadogError as error:
        messages.fail(explain(error))
        return exit_code(error)
    except CommandError as error:
        messages.fail(str(error))
        return error.code
    except Exception as error:  # noqa: BLE001 - users must not see a traceback
        _report(error, messages, verbosity)
        return ExitCode.FAILED


def _report(error: BaseException, messages: Messages, verbosity: int) -> None:
    if verbosity:
        for line in "".join(traceback.format_tb(error.__traceback__)).splitlines():
            messages.say(line)
    messages.fail(
        f"unexpected {type(error).__name__}: this is a bug of {NAME}, please report it"
        + ("" if verbosity else " with the output of --verbose")
    )


def _flush(stream: TextIO | None) -> OSError | None:
    """Write what a stream has buffered, or discard it. Return the error if it cannot be written."""
    if stream is None:
        return None
    try:
        stream.flush()
    except OSError as error:
        discard(stream)
        return error
    return None


def discard(stream: TextIO) -> None:
    """Discard what a stream has buffered: it cannot be written, and Python would print an error when it exits."""
    with suppress(OSError, ValueError, AttributeError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, stream.fileno())
        os.close(devnull)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"{NAME} {__version__}")
        raise typer.Exit


@app.callback(epilog=EXIT_CODES)
@with_options
def root(
    context: typer.Context,
    options: Options,
    *,
    version: Annotated[  # noqa: ARG001 - its callback handles it before a command is needed
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Manage the access tokens of Datadog service accounts.

    Credentials come from the environment: DD_API_KEY and DD_APP_KEY, or DD_ACCESS_TOKEN (or DD_BEARER_TOKEN), which
    wins. Results go to standard output, messages to standard error. The options can stand before the command or after
    it.
    """
    context.obj = options

"""The root of the command line, and running under it: loops, signals, and an end without a traceback."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Annotated, Any, TypeVar

import typer

from dd_sa_tokens._version import __version__
from dd_sa_tokens.errors import DatadogError

from .console import NAME, Messages
from .outcome import EXIT_CODES, CommandError, ExitCode, exit_code, explain

T = TypeVar("T")

_new_loop: Callable[[], asyncio.AbstractEventLoop] | None
try:
    from uvloop import new_event_loop as _new_loop
except ImportError:
    _new_loop = None

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    # Python's own tracebacks name no values; those of rich can show local variables, keys among them.
    pretty_exceptions_enable=False,
)


def run() -> None:
    """Run the command that the arguments name, and exit with its status."""
    # Python prints the warnings of a logger without a handler. Commands say themselves what went wrong.
    logging.getLogger("dd_sa_tokens").addHandler(logging.NullHandler())
    _keep_standard_files()
    if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison] - it is None where it was closed
        with suppress(AttributeError):  # a test's stand-in need not have it
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType] - of what is usual
    code = guarded(_run_app, Messages())
    try:
        if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison] - as above
            sys.stdout.flush()
    except OSError as error:
        silence_stdout()
        code = ExitCode.BROKEN_PIPE if isinstance(error, BrokenPipeError) else code or ExitCode.FAILED
    sys.exit(code)


def _keep_standard_files() -> None:
    """Put the null device where standard input, output or error was closed: a socket must not take its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _run_app() -> int:
    try:
        app(prog_name=NAME)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    return ExitCode.OK


def guarded(work: Callable[[], int], messages: Messages, verbosity: int = 0) -> int:
    """Do a command's work, and return its exit code, whatever it raises.

    Args:
        work: Returns the exit code where all goes as foreseen.
        messages: Where to say in one line what went wrong.
        verbosity: Above 0, an exception that nobody foresaw is shown with the places in the source that it came by.
            Its text is not shown: it may quote a key.

    Raises:
        BadParameter: The arguments cannot be right; for typer to show.
        Exit: For typer, too.
    """
    try:
        return work()
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except BrokenPipeError:
        silence_stdout()
        return ExitCode.BROKEN_PIPE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except DatadogError as error:
        messages.fail(explain(error))
        return exit_code(error)
    except CommandError as error:
        messages.fail(str(error))
        return ExitCode.FAILED
    except Exception as error:  # noqa: BLE001 - no traceback may reach a user
        _report(error, messages, verbosity)
        return ExitCode.FAILED


def _report(error: BaseException, messages: Messages, verbosity: int) -> None:
    if verbosity:
        for line in "".join(traceback.format_tb(error.__traceback__)).splitlines():
            messages.say(line)
    messages.fail(
        f"unexpected {type(error).__name__}; this is a fault of {NAME}, please report it"
        + ("" if verbosity else " with what --verbose shows")
    )


def silence_stdout() -> None:
    """Send what is still to be flushed nowhere: at its end, Python would complain that nobody reads it."""
    with suppress(OSError, ValueError, AttributeError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end, under uvloop where that is installed.

    Raises:
        KeyboardInterrupt: It was interrupted: by Ctrl-C, or by SIGTERM.
    """
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        try:
            return runner.run(_terminable(main))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


async def _terminable(main: Coroutine[Any, Any, T]) -> T:
    task = asyncio.current_task()
    assert task is not None
    with suppress(NotImplementedError, RuntimeError, ValueError):  # on Windows, or not in the main thread
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await main


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    if wanted:
        typer.echo(f"{NAME} {__version__}")
        raise typer.Exit


@app.callback(epilog=EXIT_CODES)
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Look after the access tokens of Datadog service accounts.

    Credentials come from the environment only: DD_API_KEY and DD_APP_KEY, or DD_ACCESS_TOKEN. So does the site
    (DD_SITE), where --site does not say another. Results go to standard output, everything else to standard error.
    """

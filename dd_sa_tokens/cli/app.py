"""The root of the command line, and what all commands share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

import typer

from dd_sa_tokens._version import __version__

T = TypeVar("T")

_new_loop: Callable[[], asyncio.AbstractEventLoop] | None
try:
    from uvloop import new_event_loop as _new_loop
except ImportError:
    _new_loop = None

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    # Python's own tracebacks name no values; those of rich can show local variables, keys among them.
    pretty_exceptions_enable=False,
)


def run() -> None:
    """Run the command that the arguments name, and exit with its status."""
    # Python prints the warnings of a logger without a handler. Commands say themselves what went wrong.
    logging.getLogger("dd_sa_tokens").addHandler(logging.NullHandler())
    app(prog_name="dd-sa-tokens")


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end, under uvloop where that is installed."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(main)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    if wanted:
        typer.echo(f"dd-sa-tokens {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Look after the access tokens of Datadog service accounts."""

"""Where results go and how they are written, as the options say."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Annotated

import attrs
import typer
from rich.console import Console

from dd_sa_tokens.errors import DatadogError
from dd_sa_tokens.models import AccessToken

from .console import Messages, PipedConsole
from .formats import Format, FormatName, make_format
from .outcome import CommandError
from .resume import LinesFile
from .sinks import Device, ReplacedFile, Sink, Stdout

TABLE_WIDTH = 120  # columns of a table in a file

FormatOption = Annotated[
    FormatName | None,
    typer.Option(
        "--format",
        help="How to write the results; by default a table on a terminal, what a file's suffix says, else jsonl.",
        show_default=False,
    ),
]
OutputOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Write to a file instead of standard output. It appears as a whole at the end; but jsonl is appended, "
        "line by line.",
        show_default=False,
    ),
]


@attrs.frozen
class Destination:
    """What was asked for.

    Attributes:
        format: The format.
        path: The file; `None` for standard output.
    """

    format: FormatName
    path: Path | None

    @property
    def is_terminal(self) -> bool:
        """Whether the results go to a terminal."""
        return self.path is None and stdout_is_terminal()


def stdout_is_terminal() -> bool:
    """Tell whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()  # pyright: ignore[reportUnnecessaryComparison] - it is None where it was closed


def choose_destination(format_name: FormatName | None, output: str | None) -> Destination:
    """Choose the format where none was asked for.

    Args:
        format_name: The format that was asked for.
        output: The file that was asked for; `-` is standard output, too.
    """
    path = None if output in {None, "-"} else Path(output or "")
    if format_name is not None:
        return Destination(format_name, path)
    if path is None:
        return Destination("table" if stdout_is_terminal() else "jsonl", path)
    by_suffix: dict[str, FormatName] = {".json": "json", ".csv": "csv"}
    return Destination(by_suffix.get(path.suffix.lower(), "jsonl"), path)


@attrs.define
class Output:
    """Results on their way out. Nothing is written before the first one, since there may be none for an error."""

    format: Format
    sink: Sink
    empty: bool = True

    async def token(self, token: AccessToken) -> None:
        """Write a token."""
        await self._write(self.format.token(token))

    async def failure(self, token_id: str, error: DatadogError) -> None:
        """Write an ID that failed."""
        await self._write(self.format.failure(token_id, error))

    async def end(self) -> None:
        """Bring the document to its end."""
        await self._write(self.format.end())

    async def _write(self, text: str) -> None:
        begun, self.empty = not self.empty, False
        await self.sink.write(text if begun else self.format.begin() + text)


@asynccontextmanager
async def open_output(
    destination: Destination, messages: Messages, *, order: Sequence[str] = (), sink: Sink | None = None
) -> AsyncGenerator[Output, None]:
    """Take results, and bring the document to its end, also where they end too early.

    Args:
        destination: Where to, and how.
        messages: Where to say what became of a file.
        order: For tables, see there.
        sink: One that was opened before; otherwise it is opened here.

    Raises:
        BadParameter: The file cannot be written.
        CommandError: The file cannot be written any more.
    """
    in_file = Console(file=StringIO(), width=TABLE_WIDTH, color_system=None, highlight=False)
    console = PipedConsole(highlight=False) if destination.path is None else in_file
    output = Output(make_format(destination.format, console, order), sink or open_sink(destination, messages))
    try:
        yield output
        await output.end()
    except BaseException as error:
        empty = output.empty
        try:
            if not empty and not isinstance(error, BrokenPipeError | CommandError):
                await output.end()
        finally:
            output.sink.abandon(empty=empty)
        raise
    output.sink.finish()


def open_sink(destination: Destination, messages: Messages) -> Sink:
    """Open what the results go to.

    Raises:
        BadParameter: The file cannot be written, or is not what it would have to be.
    """
    return open_file(destination.path, messages, growing=destination.format == "jsonl")


def open_file(path: Path | None, messages: Messages, *, growing: bool = False, option: str = "--output") -> Sink:
    """Open a file, or standard output.

    Args:
        path: The file; `None` for standard output.
        messages: Where to say what became of it.
        growing: Whether it is one of JSON lines, to which lines are added.
        option: The option that named it.

    Raises:
        BadParameter: It cannot be written, or is not what it would have to be.
    """
    if path is None:
        return Stdout()
    try:
        if path.exists() and not path.is_file():
            return Device(path)
        return LinesFile(path) if growing else ReplacedFile(path, messages)
    except OSError as error:
        raise typer.BadParameter(f"cannot write {path}: {error.strerror}", param_hint=option) from None

"""The results of a command on their way out: what the options say about format and file, and records becoming text."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import attrs
import typer
from rich.console import Console

from .exit_codes import CommandError
from .io.console import Messages, PipedConsole, StandardOutputBuffer, is_terminal
from .io.files import Sink, is_stream, open_file
from .io.formats import ACCOUNT_COLUMNS, TOKEN_COLUMNS, Format, Record, RecordFormat, make_format
from .io.jsonl import JsonlMode, ResumableJsonl
from .report.tables import AccountTable, TokenTables

FormatName = Literal["table", RecordFormat]
N = TypeVar("N", bound=str)

SUFFIXES: Mapping[str, FormatName] = {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}

_FILE_WIDTH = 120  # columns of a table in a file

FormatOption = Annotated[
    FormatName | None,
    typer.Option("--format", help="Default: by FILE's suffix, or table, or jsonl.", show_default=False),
]
OutputOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="Replace FILE instead of printing.", show_default=False)
]
AppendOption = Annotated[bool, typer.Option("--append", help="Add the results to a jsonl FILE.")]


@attrs.frozen
class Layout:
    """How records of a kind are laid out.

    Attributes:
        columns: The columns of CSV.
        table: Makes the format of the tables for a console, with the IDs in the order of the rows.
    """

    columns: Sequence[str]
    table: Callable[[Console, Sequence[str]], Format]


TOKENS = Layout(TOKEN_COLUMNS, TokenTables)
ACCOUNTS = Layout(ACCOUNT_COLUMNS, AccountTable)


@attrs.frozen
class Destination:
    """Where the results go, as the options say.

    Attributes:
        format: The format.
        path: The file; `None` for standard output.
        mode: For a file of JSON lines that grows: what happens to the lines that it has. `None` for any other.
    """

    format: FormatName
    path: Path | None
    mode: JsonlMode | None = None


def output_path(output: str | None) -> Path | None:
    """Return the file that the option names; `None` for standard output, which is `-` as well."""
    return None if output is None or output == "-" else Path(output)


def choose_format(
    asked: N | None,
    path: Path | None,
    suffixes: Mapping[str, N],
    *,
    on_terminal: N,
    otherwise: N,
    option: str = "--output",
) -> N:
    """Return the format that was asked for, else the one that the suffix of the file says.

    Args:
        asked: The format that was asked for.
        path: The file; `None` for standard output.
        suffixes: The formats by suffix.
        on_terminal: The format for a terminal.
        otherwise: The format for a pipe, and for a file without a suffix.
        option: The option that names the file.

    Raises:
        BadParameter: The suffix says none of the formats.
    """
    if asked is not None:
        return asked
    if path is None:
        return on_terminal if is_terminal(sys.stdout) else otherwise
    if not path.suffix or is_stream(path):
        return otherwise
    if (known := suffixes.get(path.suffix.lower())) is None:
        advice = "; for another name, give --format" if option == "--output" else ""  # others have no format to give
        raise typer.BadParameter(
            f"the suffix of {path.name} is not one of {', '.join(suffixes)}{advice}", param_hint=option
        )
    return known


def choose_destination(
    format_name: FormatName | None,
    output: str | None,
    *,
    append: bool = False,
    resume: bool = False,
    grows: bool = False,
) -> Destination:
    """Choose the format, the file and its mode.

    Args:
        format_name: `--format`.
        output: `--output`.
        append: `--append`.
        resume: `--resume`.
        grows: Whether JSON lines that replace others grow in their file, so that another run can resume it.

    Raises:
        BadParameter: The options do not fit each other.
    """
    path = output_path(output)
    chosen: FormatName = choose_format(format_name, path, SUFFIXES, on_terminal="table", otherwise="jsonl")
    for option, given in (("--resume", resume), ("--append", append)):
        if given and (chosen != "jsonl" or path is None):
            raise typer.BadParameter("it needs --output with a jsonl file", param_hint=option)
    if append and resume:
        raise typer.BadParameter("give --append or --resume, not both", param_hint="--append")
    mode: JsonlMode | None = "resume" if resume else "append" if append else "replace" if grows else None
    return Destination(chosen, path, mode if chosen == "jsonl" else None)


def progress_allowed(sink: Sink, *, at_end: bool) -> bool:
    """Return whether no results can appear between the redraws of a progress line.

    Args:
        sink: Takes the results. The reader of a pipe may write to the same terminal, as `head` and `less` do.
        at_end: Whether the results come after the progress, as a table does.
    """
    return not sink.is_pipe and (at_end or not sink.is_terminal)


@attrs.define
class Results:
    """Writes records. It writes nothing before the first one, because an error may come instead.

    Attributes:
        format: Turns records into text.
        sink: Takes the text.
        progress_allowed: Whether a progress line does no harm.
        empty: Whether nothing was written.
    """

    format: Format
    sink: Sink
    progress_allowed: bool
    empty: bool = True

    async def write(self, record: Record) -> None:
        """Write a record."""
        await self._write(self.format.record(record))

    async def end(self) -> None:
        """Write the end of the document."""
        await self._write(self.format.end())

    async def _write(self, text: str) -> None:
        begun, self.empty = not self.empty, False
        await self.sink.write(text if begun else self.format.begin() + text)


@asynccontextmanager
async def open_results(
    destination: Destination,
    messages: Messages,
    *,
    layout: Layout = TOKENS,
    order: Sequence[str] = (),
    sink: Sink | None = None,
) -> AsyncGenerator[Results, None]:
    """Open the results. At the end of the context the document is completed, even if an error ended it early.

    Args:
        destination: The format and the file.
        messages: Prints what was kept if the command fails.
        layout: How the records are laid out.
        order: For a table: the IDs in the order of its rows.
        sink: The file, if it was opened before.

    Raises:
        BadParameter: The file cannot be opened.
        CommandError: The file cannot be written.
    """
    sink = sink or open_sink(destination.path, messages, destination.mode)
    results = Results(
        _format_for(destination, sink, layout, order),
        sink,
        progress_allowed(sink, at_end=destination.format == "table"),
    )
    try:
        yield results
        await results.end()
    except BaseException as error:
        empty = results.empty
        try:
            if not (empty or sink.is_blocked or isinstance(error, BrokenPipeError | CommandError)):
                await results.end()
        finally:
            sink.abandon(empty=empty)
        raise
    sink.finish()


def _format_for(destination: Destination, sink: Sink, layout: Layout, order: Sequence[str]) -> Format:
    if destination.format == "table":
        return layout.table(table_console(destination.path), order)
    columns, for_terminal = layout.columns, sink.is_terminal
    return make_format(destination.format, columns, ascii_only=not sink.is_utf8, for_terminal=for_terminal)


def table_console(path: Path | None) -> PipedConsole:
    """Return a console that draws tables in memory, with the width and the colours of their destination."""
    if path is None:
        return PipedConsole(file=StandardOutputBuffer())
    return PipedConsole(file=StringIO(), width=_FILE_WIDTH, color_system=None)


def open_sink(path: Path | None, messages: Messages, mode: JsonlMode | None = None, option: str = "--output") -> Sink:
    """Open what the results go to.

    Args:
        path: The file; `None` for standard output.
        messages: Prints what was kept if the command fails.
        mode: For a file of JSON lines that grows line by line; without it, a file is replaced as a whole.
        option: The option that named the file.

    Raises:
        BadParameter: The file cannot be opened.
        CommandError: Results cannot be added to the file.
    """
    try:
        if path is None or mode is None or is_stream(path):
            return open_file(path, messages)
        return ResumableJsonl(path, messages, mode)
    except OSError as error:
        failure = typer.BadParameter(f"cannot write to {path}: {error.strerror}", param_hint=option)
    raise failure

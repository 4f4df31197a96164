"""`dd-sa-tokens get`: fetch tokens by their IDs, any number of them."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import attrs
import typer

from dd_sa_tokens._validation import Strategy
from dd_sa_tokens.client import TokensClient
from dd_sa_tokens.errors import DatadogError

from .command import Run, ServiceAccount, command
from .console import NAME, Messages
from .ids import Source, gather, open_ids
from .outcome import ExitCode, Tally, explain
from .output import (
    Destination,
    FormatOption,
    Output,
    OutputOption,
    choose_destination,
    open_output,
    open_sink,
)
from .progress import with_bar
from .resume import LinesFile
from .sinks import Sink

_FAILURES_SHOWN = 3


@attrs.define
class Wanted:
    """The IDs to ask for.

    Attributes:
        ids: All that were given.
        known: IDs not to ask for. What is asked for joins them. `None` to ask for each position.
        given: How many were given, as far as is known.
    """

    ids: Source
    known: set[str] | None
    given: int = 0

    def select(self) -> Source:
        """Return those to ask for: a list if all are known already."""
        if not isinstance(self.ids, list):
            return self._each(self.ids)
        self.given = len(self.ids)
        known = self.known
        return self.ids if known is None else [each for each in dict.fromkeys(self.ids) if each not in known]

    async def _each(self, ids: AsyncIterator[str]) -> AsyncIterator[str]:
        async for token_id in ids:
            self.given += 1
            if self.known is None:
                yield token_id
            elif token_id not in self.known:
                self.known.add(token_id)
                yield token_id


@attrs.frozen
class Fetch:
    """What is to be fetched, and where to.

    Attributes:
        service_account_id: The account.
        wanted: The IDs.
        strategy: See `TokensClient.get_tokens`.
        destination: Where the results go.
        sink: That, opened.
    """

    service_account_id: str
    wanted: Wanted
    strategy: Strategy
    destination: Destination
    sink: Sink


@command
def get(
    run: Run,
    service_account_id: ServiceAccount,
    token_ids: Annotated[
        list[str] | None, typer.Argument(metavar="TOKEN_ID", help="IDs of tokens.", show_default=False)
    ] = None,
    *,
    ids_from: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Read IDs from a file, one a line; - is standard input. Blank lines and # comments are skipped.",
            show_default=False,
        ),
    ] = None,
    strategy: Annotated[
        Strategy,
        typer.Option(
            help="How to spend as few requests as possible: one for each ID (get), the account's list first (list), or "
            "whichever takes fewer where that can be told (auto)."
        ),
    ] = "auto",
    format_name: FormatOption = None,
    output: OutputOption = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a jsonl file of --output: what it holds is not fetched again, what failed is tried again.",
        ),
    ] = False,
) -> int:
    """Fetch tokens by their IDs, any number of them.

    Results are written as they come. An ID that fails does not stop the others.
    """
    if not token_ids and ids_from is None:
        raise typer.BadParameter("there is nothing to fetch: give TOKEN_IDs, or --ids-from", param_hint="TOKEN_ID")
    destination = choose_destination(format_name, output)
    if resume and (destination.format != "jsonl" or destination.path is None):
        raise typer.BadParameter("it needs the jsonl file of an earlier run, as --output", param_hint="--resume")
    client = run.client()
    ids = gather(token_ids or (), None if ids_from is None else open_ids(ids_from))
    sink = open_sink(destination, run.messages)
    wanted = Wanted(ids, _known(sink, run.messages, resume=resume))
    fetch = Fetch(service_account_id, wanted, strategy, destination, sink)
    return run.wait_for(_get(run, client, fetch, from_stdin=ids_from == "-"))


def _known(sink: Sink, messages: Messages, *, resume: bool) -> set[str] | None:
    """Return the IDs that a file holds already, if the results go to one that each ID is to be in once."""
    if not isinstance(sink, LinesFile):
        return None
    there = len(sink.done)
    if not resume:
        if there:
            messages.say(f"{sink.name} holds {there} tokens already; with --resume they would not be fetched again")
        return set()
    sink.one_line_each = True
    if there:
        messages.say(f"{sink.name} holds {there} tokens already; they are not fetched again")
    return sink.done


async def _get(run: Run, client: TokensClient, fetch: Fetch, *, from_stdin: bool) -> int:
    """Fetch, and return the exit code."""
    ids = fetch.wanted.select()
    order = ids if isinstance(ids, list) else []
    tally = Tally(len(ids) if isinstance(ids, list) else None)
    failures: list[DatadogError] = []
    in_the_way = fetch.destination.is_terminal and fetch.destination.format != "table"
    try:
        async with (
            client,
            open_output(fetch.destination, run.messages, order=order, sink=fetch.sink) as output,
        ):
            work = _stream(client, fetch, ids, output, tally=tally, failures=failures)
            await with_bar(work, run.messages, tally, client, wanted=not in_the_way)
            if not fetch.wanted.given:
                raise typer.BadParameter("there are no IDs in it", param_hint="--ids-from")
    except asyncio.CancelledError:
        run.messages.fail(_interrupted(fetch.sink, tally, from_stdin=from_stdin))
        raise
    _report(run.messages, tally, failures, in_table=fetch.destination.format == "table")
    return tally.exit_code


async def _stream(
    client: TokensClient, fetch: Fetch, ids: Source, output: Output, *, tally: Tally, failures: list[DatadogError]
) -> None:
    results = client.stream_tokens(fetch.service_account_id, ids, strategy=fetch.strategy)
    async with aclosing(results):
        async for item in results:
            if item.token is not None:
                tally.succeeded += 1
                await output.token(item.token)
                continue
            assert item.error is not None
            tally.fail(item.error)
            if len(failures) < _FAILURES_SHOWN:
                failures.append(item.error)
            await output.failure(item.token_id, item.error)


def _report(messages: Messages, tally: Tally, failures: list[DatadogError], *, in_table: bool) -> None:
    """Say what failed: the first ones each, and all in numbers."""
    if not failures:
        return
    if tally.exit_code == ExitCode.REFUSED:
        messages.fail(explain(failures[0]))
    elif not in_table:
        for error in failures:
            messages.fail(str(error))
    if tally.done > 1:
        messages.fail(tally.summary())


def _interrupted(sink: Sink, tally: Tally, *, from_stdin: bool) -> str:
    """Say what is kept, and how to go on."""
    if not isinstance(sink, LinesFile):
        return f"interrupted after {tally.done} tokens; with --output FILE.jsonl a run can be resumed"
    again = " with the same IDs on standard input" if from_stdin else ""
    return f"interrupted; {sink.name} holds what had come. Resume{again}: {command_line('--resume')}"


def command_line(option: str) -> str:
    """Return the command that was typed, with an option more."""
    program, *arguments = sys.argv
    typed = [NAME] if Path(program).name != "__main__.py" else ["python", "-m", "dd_sa_tokens"]
    if option not in arguments:
        arguments[1:1] = [option]
    return shlex.join([*typed, *arguments])

"""`dd-sa-tokens get`: fetch tokens by their IDs, any number of them."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import attrs
import typer

from dd_sa_tokens._validation import Strategy, canonical_id
from dd_sa_tokens.cli.command import AccountOrOrg, Org, Run, command
from dd_sa_tokens.cli.exit_codes import NAME, ExitCode, Tally, explain
from dd_sa_tokens.cli.interrupts import run_async
from dd_sa_tokens.cli.io.console import Messages
from dd_sa_tokens.cli.io.files import Sink
from dd_sa_tokens.cli.io.formats import failure_record, token_record
from dd_sa_tokens.cli.io.ids import Source, gather, open_ids
from dd_sa_tokens.cli.io.jsonl import ResumableJsonl
from dd_sa_tokens.cli.io.progress import with_bar
from dd_sa_tokens.cli.output import (
    AppendOption,
    Destination,
    FormatOption,
    OutputOption,
    Results,
    choose_destination,
    open_results,
    open_sink,
)
from dd_sa_tokens.client import TokensClient
from dd_sa_tokens.errors import DatadogError
from dd_sa_tokens.results import SourceError, TokenResult

_FAILURES_SHOWN = 3
_USER_AND_PASSWORD = re.compile("(?<=://).*@", re.DOTALL)  # of a URL


@attrs.define
class Wanted:
    """The IDs to fetch.

    Attributes:
        ids: All IDs that were given.
        done: The IDs that the file of an earlier run holds, in their canonical form. They are not fetched again.
        once: Whether each ID is fetched once, even if it is given twice.
        tally: Counts the IDs that are skipped.
        given: How many IDs were given, so far.
    """

    ids: Source
    done: set[str]
    once: bool
    tally: Tally
    given: int = 0
    _seen: set[str] = attrs.field(factory=set[str], init=False)

    def select(self) -> Source:
        """Return the IDs to fetch: a list if all are known in advance."""
        if not isinstance(self.ids, list):
            return self._each(self.ids)
        selected = [token_id for token_id in self.ids if self._is_wanted(token_id)]
        self.tally.total = len(selected) + self.tally.skipped
        return selected

    async def _each(self, ids: AsyncIterator[str]) -> AsyncIterator[str]:
        async for token_id in ids:
            if self._is_wanted(token_id):
                yield token_id

    def _is_wanted(self, token_id: str) -> bool:
        self.given += 1
        if not self.once:
            return True
        key = canonical_id(token_id)
        if key in self._seen:
            return False
        self._seen.add(key)
        if key not in self.done:
            return True
        self.done.remove(key)  # `_seen` has it now: no ID is in memory twice
        self.tally.skipped += 1
        return False


@attrs.frozen
class Fetch:
    """What to fetch, and where the results go.

    Attributes:
        service_account_id: The service account; `None` to find the tokens in the organization's list.
        wanted: The IDs.
        strategy: See `TokensClient.get_tokens`.
        destination: The format and the file.
        sink: The file, opened.
    """

    service_account_id: str | None
    wanted: Wanted
    strategy: Strategy
    destination: Destination
    sink: Sink


@command
def get(
    run: Run,
    service_account_id: AccountOrOrg = None,
    token_ids: Annotated[
        list[str] | None, typer.Argument(metavar="TOKEN_ID", help="The tokens' IDs.", show_default=False)
    ] = None,
    *,
    org: Org = False,
    ids_from: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Read IDs, one a line; - for standard input.", show_default=False),
    ] = None,
    strategy: Annotated[Strategy, typer.Option(help="How to fetch with few requests.")] = "auto",
    format_name: FormatOption = None,
    output: OutputOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the jsonl FILE of an earlier run.")] = False,
    append: AppendOption = False,
) -> int:
    """Fetch tokens by their IDs. An ID that fails does not stop the others.

    With --org, all arguments are IDs of tokens, which are found in the organization's list.
    """
    if org and service_account_id is not None:
        token_ids, service_account_id = [service_account_id, *(token_ids or ())], None
    if not org and service_account_id is None:
        raise typer.BadParameter("give the ID of a service account or --org", param_hint="SA_ID")
    if org and strategy != "auto":
        raise typer.BadParameter("with --org, tokens are found in the list", param_hint="--strategy")
    if not token_ids and ids_from is None:
        raise typer.BadParameter("there is nothing to fetch: give TOKEN_IDs, or --ids-from", param_hint="TOKEN_ID")
    destination = choose_destination(format_name, output, append=append, resume=resume, grows=True)
    client = run.client()
    ids = gather(token_ids or (), None if ids_from is None else open_ids(ids_from), ids_from or "-")
    sink = open_sink(destination.path, run.messages, destination.mode)
    wanted = Wanted(ids, _done(sink, run.messages, resume=resume), once=isinstance(sink, ResumableJsonl), tally=Tally())
    fetch = Fetch(service_account_id, wanted, strategy, destination, sink)
    return run_async(_get(run, client, fetch, from_stdin=ids_from == "-"))


def _done(sink: Sink, messages: Messages, *, resume: bool) -> set[str]:
    """Return the IDs that are not to be fetched again."""
    if not (resume and isinstance(sink, ResumableJsonl)):
        return set()
    if sink.done:
        messages.say(f"{sink.name} has {len(sink.done)} tokens already; they are not fetched again")
    return sink.done


async def _get(run: Run, client: TokensClient, fetch: Fetch, *, from_stdin: bool) -> int:
    """Fetch, and return the exit code."""
    wanted, destination, messages = fetch.wanted, fetch.destination, run.messages
    ids, tally = wanted.select(), wanted.tally
    failures: list[DatadogError] = []
    order = ids if isinstance(ids, list) else []
    try:
        async with client, open_results(destination, messages, order=order, sink=fetch.sink) as results:
            work = _stream(client, fetch, ids, results, failures)
            await with_bar(work, messages, tally, client, allowed=results.progress_allowed)
            if not wanted.given:
                raise typer.BadParameter("the file has no IDs", param_hint="--ids-from")
    except asyncio.CancelledError:
        messages.fail(_interrupted(fetch.sink, tally, from_stdin=from_stdin))
        raise
    _report(messages, tally, failures, in_table=destination.format == "table")
    return tally.exit_code


async def _stream(
    client: TokensClient, fetch: Fetch, ids: Source, results: Results, failures: list[DatadogError]
) -> None:
    tally = fetch.wanted.tally
    if fetch.service_account_id is None:
        items = _find(client, ids)
    else:
        items = client.stream_tokens(fetch.service_account_id, ids, strategy=fetch.strategy, include_leak=True)
    async with aclosing(items):
        async for item in items:
            if item.token is not None:
                tally.succeeded += 1
                await results.write(token_record(item.token))
                continue
            assert item.error is not None
            tally.fail(item.error)
            if len(failures) < _FAILURES_SHOWN:
                failures.append(item.error)
            await results.write(failure_record(item.token_id, item.error))


async def _find(client: TokensClient, ids: Source) -> AsyncGenerator[TokenResult, None]:
    """Find tokens in the organization's list. Like a stream, it yields what was found before the source failed."""
    failure: BaseException | None = None
    try:
        found = await client.find_tokens(ids, include_leak=True)
    except SourceError as error:
        found, failure = error.partial, error.__cause__
    for result in found:
        yield result
    if failure is not None:
        raise failure


def _report(messages: Messages, tally: Tally, failures: list[DatadogError], *, in_table: bool) -> None:
    """Print the first failures, and how many there are."""
    if not failures:
        return
    if tally.exit_code == ExitCode.REFUSED:
        messages.fail(explain(failures[0]))
    elif not in_table:
        for error in failures:
            messages.fail(explain(error))
    if tally.attempted > 1:
        messages.fail(tally.summary())


def _interrupted(sink: Sink, tally: Tally, *, from_stdin: bool) -> str:
    """Return a line that says what was kept, and how to continue."""
    if not isinstance(sink, ResumableJsonl):
        return f"interrupted after {tally.done} tokens; a run with --output FILE.jsonl can be resumed"
    if sink.is_removed:
        return "interrupted before the first result; nothing was written"
    command, left_out = _resuming_command()
    needs = ["the same IDs on standard input"] if from_stdin else []
    needs += ["the user and password of --proxy, which are left out here"] if left_out else []
    again = f" with {' and '.join(needs)}" if needs else ""
    return f"interrupted; {sink.name} has the results so far. Resume{again}: {command}"


def _resuming_command() -> tuple[str, bool]:
    """Return the command that the user typed, with --resume, and whether a user and password are left out of it.

    The text may go to a log, so it does not repeat those of a proxy.
    """
    program, *typed = sys.argv
    name = [NAME] if Path(program).name != "__main__.py" else ["python", "-m", "dd_sa_tokens"]
    arguments = [_USER_AND_PASSWORD.sub("", word) for word in typed if word not in {"--resume", "--append"}]
    arguments.insert(arguments.index("get") + 1, "--resume")  # not at the end, where a -- would make it an ID
    return shlex.join([*name, *arguments]), any(map(_USER_AND_PASSWORD.search, typed))

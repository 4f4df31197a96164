"""`dd-sa-tokens list`: all tokens of a service account."""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated

import typer

from dd_sa_tokens._validation import Sort
from dd_sa_tokens.cli.command import Run, ServiceAccount, command
from dd_sa_tokens.cli.exit_codes import ExitCode, Tally
from dd_sa_tokens.cli.interrupts import run_async
from dd_sa_tokens.cli.io.formats import token_record
from dd_sa_tokens.cli.io.progress import with_bar
from dd_sa_tokens.cli.output import (
    AppendOption,
    FormatOption,
    OutputOption,
    Results,
    choose_destination,
    open_results,
)


@command
def list_tokens(
    run: Run,
    service_account_id: ServiceAccount,
    *,
    filter_text: Annotated[
        str | None, typer.Option("--filter", metavar="TEXT", help="Only tokens that match TEXT.", show_default=False)
    ] = None,
    sort: Annotated[
        Sort | None,
        typer.Option(
            metavar="FIELD",
            help="name, created_at, expires_at or last_used_at; descending with a - before it.",
            show_default=False,
        ),
    ] = None,
    format_name: FormatOption = None,
    output: OutputOption = None,
    append: AppendOption = False,
) -> int:
    """List the tokens of a service account."""
    destination = choose_destination(format_name, output, append=append)
    client, tally = run.client(), Tally()

    async def write(results: Results) -> None:
        async with aclosing(client.list_tokens(service_account_id, filter=filter_text, sort=sort)) as tokens:
            async for token in tokens:
                tally.succeeded += 1
                await results.write(token_record(token))

    async def list_all() -> None:
        async with client, open_results(destination, run.messages) as results:
            await with_bar(write(results), run.messages, tally, client, allowed=results.progress_allowed)

    run_async(list_all())
    if not tally.done:
        run.messages.say("there are no tokens" + (" that match" if filter_text else ""))
    return ExitCode.OK

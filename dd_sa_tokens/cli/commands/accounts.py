"""`dd-sa-tokens accounts`: the service accounts of the organization."""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated

import typer

from dd_sa_tokens.cli.command import Run, command
from dd_sa_tokens.cli.exit_codes import ExitCode, Tally
from dd_sa_tokens.cli.interrupts import run_async
from dd_sa_tokens.cli.io.formats import account_record
from dd_sa_tokens.cli.io.progress import with_bar
from dd_sa_tokens.cli.output import (
    ACCOUNTS,
    AppendOption,
    FormatOption,
    OutputOption,
    Results,
    choose_destination,
    open_results,
)


@command
def list_accounts(
    run: Run,
    *,
    filter_text: Annotated[
        str | None, typer.Option("--filter", metavar="TEXT", help="Only accounts that match TEXT.", show_default=False)
    ] = None,
    format_name: FormatOption = None,
    output: OutputOption = None,
    append: AppendOption = False,
) -> int:
    """List the service accounts of the organization, with the IDs that other commands need."""
    destination = choose_destination(format_name, output, append=append)
    client, tally = run.client(), Tally(noun="accounts")

    async def write(results: Results) -> None:
        async with aclosing(client.list_service_accounts(filter=filter_text)) as accounts:
            async for account in accounts:
                tally.succeeded += 1
                await results.write(account_record(account))

    async def list_all() -> None:
        async with client, open_results(destination, run.messages, layout=ACCOUNTS) as results:
            await with_bar(write(results), run.messages, tally, client, allowed=results.progress_allowed)

    run_async(list_all())
    if not tally.done:
        run.messages.say("there are no service accounts" + (" that match" if filter_text else ""))
    return ExitCode.OK

"""`dd-sa-tokens list`: all tokens of a service account."""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated

import typer

from dd_sa_tokens._validation import Sort
from dd_sa_tokens.client import TokensClient

from .command import Run, ServiceAccount, command
from .outcome import ExitCode, Tally
from .output import Destination, FormatOption, Output, OutputOption, choose_destination, open_output
from .progress import with_bar


@command
def list_tokens(
    run: Run,
    service_account_id: ServiceAccount,
    *,
    filter_text: Annotated[
        str | None, typer.Option("--filter", metavar="TEXT", help="Only tokens that match this.", show_default=False)
    ] = None,
    sort: Annotated[Sort | None, typer.Option(help="The order; downwards with a -.", show_default=False)] = None,
    format_name: FormatOption = None,
    output: OutputOption = None,
) -> int:
    """List the tokens of a service account."""
    client, destination = run.client(), choose_destination(format_name, output)
    return run.wait_for(_list(run, client, destination, service_account_id, filter_text=filter_text, sort=sort))


async def _list(
    run: Run,
    client: TokensClient,
    destination: Destination,
    service_account_id: str,
    *,
    filter_text: str | None,
    sort: Sort | None,
) -> int:
    tally = Tally()
    in_the_way = destination.is_terminal and destination.format != "table"
    async with client:
        tokens = client.list_tokens(service_account_id, filter=filter_text, sort=sort)

        async def write(output: Output) -> None:
            async with aclosing(tokens):
                async for token in tokens:
                    tally.succeeded += 1
                    await output.token(token)

        async with open_output(destination, run.messages) as output:
            await with_bar(write(output), run.messages, tally, client, wanted=not in_the_way)
    if not tally.done:
        run.messages.say("there are no tokens" + (" that match" if filter_text else ""))
    return ExitCode.OK

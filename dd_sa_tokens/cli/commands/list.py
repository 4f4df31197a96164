"""`dd-sa-tokens list`: all tokens of a service account, or of the organization."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Annotated, TypeVar

import typer

from dd_sa_tokens._validation import Sort
from dd_sa_tokens.cli.command import AccountOrOrg, Org, Run, command
from dd_sa_tokens.cli.exit_codes import ExitCode, Tally
from dd_sa_tokens.cli.interrupts import run_async
from dd_sa_tokens.cli.io.formats import Record, token_record
from dd_sa_tokens.cli.io.progress import with_bar
from dd_sa_tokens.cli.output import (
    TOKENS,
    AppendOption,
    Destination,
    FormatOption,
    Layout,
    OutputOption,
    Results,
    choose_destination,
    open_results,
)
from dd_sa_tokens.client import TokensClient

T = TypeVar("T")


@command
def list_tokens(
    run: Run,
    service_account_id: AccountOrOrg = None,
    *,
    org: Org = False,
    leaked: Annotated[bool, typer.Option("--leaked", help="Only tokens whose keys are known to be leaked.")] = False,
    filter_text: Annotated[
        str | None, typer.Option("--filter", metavar="TEXT", help="Only tokens that match TEXT.", show_default=False)
    ] = None,
    sort: Annotated[
        Sort | None,
        typer.Option(
            metavar="FIELD",
            help="name, created_at, expires_at, last_used_at or leaked; descending with a - before it.",
            show_default=False,
        ),
    ] = None,
    format_name: FormatOption = None,
    output: OutputOption = None,
    append: AppendOption = False,
) -> int:
    """List the tokens of a service account, or with --org of the organization."""
    if (service_account_id is None) != org:
        raise typer.BadParameter("give the ID of a service account or --org", param_hint="SA_ID")
    destination = choose_destination(format_name, output, append=append)
    client = run.client()
    listing = (
        client.list_organization_tokens
        if service_account_id is None
        else partial(client.list_tokens, service_account_id)
    )
    listed = listing(filter=filter_text, sort=sort, leaked_only=leaked, include_leak=True)

    return print_listed(run, client, listed, token_record, destination, matching=bool(filter_text or leaked))


def print_listed(
    run: Run,
    client: TokensClient,
    listed: AsyncGenerator[T, None],
    to_record: Callable[[T], Record],
    destination: Destination,
    *,
    matching: bool,
    noun: str = "tokens",
    layout: Layout = TOKENS,
) -> int:
    """Print a list as it arrives, and return the exit code.

    Args:
        run: The run of the command.
        client: The client that lists; it is closed at the end.
        listed: What it lists.
        to_record: Makes a record of an item.
        destination: Where the records go.
        matching: Whether the user gave a filter.
        noun: What an item is, in the plural.
        layout: How the records are laid out.
    """
    tally = Tally(noun=noun)

    async def write(results: Results) -> None:
        async with aclosing(listed) as items:
            async for item in items:
                tally.succeeded += 1
                await results.write(to_record(item))

    async def list_all() -> None:
        async with client, open_results(destination, run.messages, layout=layout) as results:
            await with_bar(write(results), run.messages, tally, client, allowed=results.progress_allowed)

    run_async(list_all())
    if not tally.done:
        run.messages.say(f"there are no {noun}" + (" that match" if matching else ""))
    return ExitCode.OK

"""`dd-sa-tokens accounts`: the service accounts of the organization."""

from __future__ import annotations

from typing import Annotated

import typer

from dd_sa_tokens.cli.command import Run, command
from dd_sa_tokens.cli.io.formats import account_record
from dd_sa_tokens.cli.output import ACCOUNTS, AppendOption, FormatOption, OutputOption, choose_destination

from .list import print_listed


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
    client, noun = run.client(), "service accounts"
    accounts = client.list_service_accounts(filter=filter_text)
    return print_listed(
        run, client, accounts, account_record, destination, matching=bool(filter_text), noun=noun, layout=ACCOUNTS
    )

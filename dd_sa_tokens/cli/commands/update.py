"""`dd-sa-tokens update`: change a token's name, its scopes, or both."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from dd_sa_tokens.cli.command import Run, ServiceAccount, Token, command
from dd_sa_tokens.cli.exit_codes import ExitCode, shell_command
from dd_sa_tokens.cli.interrupts import run_async
from dd_sa_tokens.cli.io.formats import token_record
from dd_sa_tokens.cli.output import AppendOption, FormatOption, OutputOption, choose_destination, open_results


@command
def update(
    run: Run,
    service_account_id: ServiceAccount,
    token_id: Token,
    *,
    name: Annotated[str | None, typer.Option(help="Its new name.", show_default=False)] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="A permission. All that are given replace all that it has.", show_default=False),
    ] = None,
    format_name: FormatOption = None,
    output: OutputOption = None,
    append: AppendOption = False,
) -> int:
    """Change a token's name, its scopes, or both."""
    if name is None and not scope:
        raise typer.BadParameter("there is nothing to change: give --name, --scope or both", param_hint="--name")
    client, destination = run.client(), choose_destination(format_name, output, append=append)

    async def change() -> int:
        try:
            async with client, open_results(destination, run.messages) as results:
                token = await client.update_token(service_account_id, token_id, name=name, scopes=scope or None)
                await results.write(token_record(token))
        except asyncio.CancelledError:
            look = shell_command("get", service_account_id, token_id)
            run.messages.fail(f"interrupted; {token_id} may have been changed. To look at it: {look}")
            raise
        return ExitCode.OK

    return run_async(change())

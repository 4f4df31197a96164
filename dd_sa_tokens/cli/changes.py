"""`dd-sa-tokens create`, `update` and `revoke`."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Annotated, Literal

import attrs
import typer
from rich.prompt import Confirm

from dd_sa_tokens.client import TokensClient
from dd_sa_tokens.errors import DatadogError, UnauthorizedError
from dd_sa_tokens.models import AccessToken, CreatedToken

from .command import Run, ServiceAccount, Token, command
from .console import NAME
from .formats import flat
from .outcome import CommandError, ExitCode, Tally, explain
from .output import FormatOption, OutputOption, choose_destination, open_output
from .records import to_json
from .sinks import write_stdout
from .tables import cell
from .times import choose_expiry, parse_moment, parse_span

ExpiresAt = Annotated[
    datetime | None,
    typer.Option(
        parser=parse_moment,
        metavar="ISO",
        help="When it stops working; UTC unless it says otherwise.",
        show_default=False,
    ),
]
ExpiresIn = Annotated[
    timedelta | None,
    typer.Option(parser=parse_span, metavar="SPAN", help="The same, from now: 90d, 12w, 36h.", show_default=False),
]


@command
def create(
    run: Run,
    service_account_id: ServiceAccount,
    *,
    name: Annotated[str, typer.Option(help="Its name.", show_default=False)],
    scope: Annotated[
        list[str], typer.Option(help="A permission, such as dashboards_read. Can be repeated.", show_default=False)
    ],
    expires_at: ExpiresAt = None,
    expires_in: ExpiresIn = None,
    format_name: Annotated[
        Literal["secret", "json"],
        typer.Option("--format", help="The secret alone, or a JSON object of the token with its secret as key."),
    ] = "secret",
) -> int:
    """Make a token, and print its secret to standard output: it is shown this once, and cannot be read again.

    Without --expires-at or --expires-in it never expires.
    """
    client, ends = run.client(), choose_expiry(expires_at, expires_in)
    created = run.wait_for(_create(run, client, service_account_id, name=name, scopes=scope, ends=ends))
    token = created.token
    secret = created.key.reveal()
    try:
        write_stdout(f"{secret if format_name == 'secret' else to_json({**flat(token), 'key': secret})}\n")
    except (OSError, CommandError):
        undo = f"{NAME} revoke {service_account_id} {token.id}"
        run.messages.fail(f"the secret of token {token.id} could not be written, and is lost; to revoke it: {undo}")
        raise
    run.messages.say(
        f"made {describe(token)}, which {_end_of(token)}; "
        "its secret is on standard output, this once, and cannot be read again"
    )
    return ExitCode.OK


async def _create(
    run: Run, client: TokensClient, service_account_id: str, *, name: str, scopes: list[str], ends: datetime | None
) -> CreatedToken:
    try:
        async with client:
            return await client.create_token(service_account_id, name=name, scopes=scopes, expires_at=ends)
    except asyncio.CancelledError:
        look = f"{NAME} list {service_account_id} --sort=-created_at"
        run.messages.fail(f"interrupted; there may be a new token, whose secret nobody knows. To look: {look}")
        raise


@command
def update(
    run: Run,
    service_account_id: ServiceAccount,
    token_id: Token,
    *,
    name: Annotated[str | None, typer.Option(help="Its new name.", show_default=False)] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="A permission, in place of all that it has now. Can be repeated.", show_default=False),
    ] = None,
    format_name: FormatOption = None,
    output: OutputOption = None,
) -> int:
    """Change a token's name, its scopes, or both."""
    if name is None and not scope:
        raise typer.BadParameter("there is nothing to change: give --name, --scope or both", param_hint="--name")
    client, destination = run.client(), choose_destination(format_name, output)

    async def change() -> int:
        try:
            async with client, open_output(destination, run.messages) as out:
                token = await client.update_token(service_account_id, token_id, name=name, scopes=scope or None)
                await out.token(token)
        except asyncio.CancelledError:
            run.messages.fail(f"interrupted; {token_id} may have been changed, or not")
            raise
        return ExitCode.OK

    return run.wait_for(change())


@command
def revoke(
    run: Run,
    service_account_id: ServiceAccount,
    token_ids: Annotated[list[str], typer.Argument(metavar="TOKEN_ID", help="IDs of tokens.", show_default=False)],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Revoke tokens. Within seconds they no longer work, and nothing brings them back."""
    if not yes and not run.messages.can_ask:
        raise typer.BadParameter("there is no terminal to ask at, so --yes is needed", param_hint="--yes")
    work = Revocation(run, service_account_id, list(dict.fromkeys(token_ids)))
    if not yes:
        # Asked between two runs of the loop: under one, Ctrl-C would not end the question.
        run.wait_for(work.look(run.client()))
        if not work.confirmed():
            run.messages.say("nothing was revoked")
            return work.tally.exit_code or ExitCode.FAILED
    run.wait_for(work.carry_out(run.client()))
    return work.tally.exit_code


@attrs.define
class Revocation:
    """Tokens that are to be revoked.

    Attributes:
        run: The command's.
        service_account_id: The account.
        token_ids: Those that are left.
        names: What they are called, as far as that was looked at.
        tally: Those that were dealt with.
    """

    run: Run
    service_account_id: str
    token_ids: list[str]
    names: dict[str, str] = attrs.field(factory=dict[str, str])
    tally: Tally = attrs.field(factory=Tally)

    async def look(self, client: TokensClient) -> None:
        """See what the tokens are called, and drop those that are not there."""
        async with client:
            for item in await client.get_tokens(self.service_account_id, self.token_ids):
                if item.token is not None:
                    self.names[item.token_id] = describe(item.token)
                elif item.error is not None:
                    self._fail(item.error)
        self.token_ids = [*self.names]

    def confirmed(self) -> bool:
        """Ask."""
        if not self.names:
            return False
        question = "Revoke " + ", ".join(self.names.values()) + "?"
        try:
            return Confirm.ask(cell(question), console=self.run.messages.console, default=False)
        except EOFError:
            return False

    async def carry_out(self, client: TokensClient) -> None:
        """Revoke them, one after the other, so that it is clear what was done when it stops."""
        async with client:
            for token_id in self.token_ids:
                try:
                    await client.revoke_token(self.service_account_id, token_id)
                except asyncio.CancelledError:
                    self.run.messages.fail(f"interrupted; {token_id} may have been revoked, or not")
                    raise
                except DatadogError as error:
                    self._fail(error)
                    if isinstance(error, UnauthorizedError):
                        return
                else:
                    self.tally.succeeded += 1
                    self.run.messages.say(f"revoked {self.names.get(token_id, token_id)}")

    def _fail(self, error: DatadogError) -> None:
        # What to do about refused keys is said once.
        self.run.messages.fail(str(error) if self.tally.failed else explain(error))
        self.tally.fail(error)


def describe(token: AccessToken) -> str:
    """Name a token in a sentence."""
    return f"{token.name!r} ({token.id})" if token.name else token.id


def _end_of(token: AccessToken) -> str:
    return "never expires" if token.expires_at is None else f"expires at {token.expires_at:%Y-%m-%d %H:%M %Z}"

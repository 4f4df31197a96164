"""`dd-sa-tokens revoke`: revoke tokens, after a question."""

from __future__ import annotations

import asyncio
from typing import Annotated

import attrs
import typer

from dd_sa_tokens._validation import unique_ids
from dd_sa_tokens.cli.command import Run, ServiceAccount, Tokens, command, describe
from dd_sa_tokens.cli.exit_codes import ExitCode, Tally, explain, shell_command
from dd_sa_tokens.cli.interrupts import run_async
from dd_sa_tokens.cli.report.tables import cell
from dd_sa_tokens.client import TokensClient
from dd_sa_tokens.errors import DatadogError, UnauthorizedError


@command
def revoke(
    run: Run,
    service_account_id: ServiceAccount,
    token_ids: Tokens,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Revoke tokens. Within seconds they stop working, for good."""
    if not yes and not run.messages.can_ask:
        raise typer.BadParameter("there is no terminal for the question, so --yes is needed", param_hint="--yes")
    revocation = Revocation(run, service_account_id, unique_ids(token_ids))
    if not yes:
        # The question comes between two runs of the loop: under a loop, Ctrl-C would not end it.
        run_async(revocation.look_up(run.client()))
        if not revocation.confirmed():
            run.messages.say("nothing was revoked")
            return revocation.tally.exit_code or ExitCode.FAILED
    run_async(revocation.revoke_all(run.client()))
    return revocation.tally.exit_code


@attrs.define
class Revocation:
    """The tokens to revoke.

    Attributes:
        run: The run of the command.
        service_account_id: The service account.
        token_ids: The IDs of the tokens that are still to be revoked.
        names: The names of the tokens that were looked up.
        tally: Counts the tokens.
    """

    run: Run
    service_account_id: str
    token_ids: list[str]
    names: dict[str, str] = attrs.field(factory=dict[str, str])
    tally: Tally = attrs.field(factory=Tally)

    async def look_up(self, client: TokensClient) -> None:
        """Look up the names of the tokens, and leave out those that do not exist."""
        async with client:
            for item in await client.get_tokens(self.service_account_id, self.token_ids):
                if item.token is not None:
                    self.names[item.token_id] = describe(item.token)
                elif item.error is not None:
                    self._fail(item.error)
        self.token_ids = [*self.names]

    def confirmed(self) -> bool:
        """Ask, and return whether the answer is yes."""
        if not self.names:
            return False
        from rich.prompt import Confirm  # noqa: PLC0415 - only a question needs it

        question = "Revoke " + ", ".join(self.names.values()) + "?"
        try:
            return Confirm.ask(cell(question), console=self.run.messages.console, default=False)
        except EOFError:
            return False

    async def revoke_all(self, client: TokensClient) -> None:
        """Revoke one token after the other, so that it is clear after an error which are revoked."""
        async with client:
            for token_id in self.token_ids:
                try:
                    await client.revoke_token(self.service_account_id, token_id)
                except asyncio.CancelledError:
                    look = shell_command("get", self.service_account_id, token_id)
                    self.run.messages.fail(f"interrupted; {token_id} may have been revoked. To look for it: {look}")
                    raise
                except DatadogError as error:
                    self._fail(error)
                    if isinstance(error, UnauthorizedError):
                        return
                else:
                    self.tally.succeeded += 1
                    self.run.messages.say(f"revoked {self.names.get(token_id, token_id)}")

    def _fail(self, error: DatadogError) -> None:
        # The advice about refused keys is printed once.
        again = isinstance(error, UnauthorizedError) and self.tally.failed
        self.run.messages.fail(str(error) if again else explain(error))
        self.tally.fail(error)

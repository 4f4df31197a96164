"""`dd-sa-tokens create`: create a token, and print its secret once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Annotated, Any, Literal

import typer

from dd_sa_tokens.cli.command import Run, ServiceAccount, command, describe
from dd_sa_tokens.cli.exit_codes import CommandError, ExitCode, shell_command
from dd_sa_tokens.cli.interrupts import run_async
from dd_sa_tokens.cli.io.console import Messages
from dd_sa_tokens.cli.io.files import Sink, open_stdout
from dd_sa_tokens.cli.io.formats import to_json, token_record
from dd_sa_tokens.cli.times import ExpiresAt, ExpiresIn, choose_expiry
from dd_sa_tokens.client import TokensClient
from dd_sa_tokens.models import AccessToken, CreatedToken

ANSWER_WITHIN = 5.0
"""Seconds that an interrupted command waits for the answer to a request that was sent."""

SecretFormat = Annotated[
    Literal["secret", "json"],
    typer.Option("--format", help="The secret alone, or a JSON object of the token with its secret as key."),
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
    format_name: SecretFormat = "secret",
) -> int:
    """Create a token, and print its secret to standard output.

    The secret is printed this once and cannot be read again. Without --expires-at or --expires-in the token never
    expires.
    """
    client, messages, ends = run.client(), run.messages, choose_expiry(expires_at, expires_in)
    stdout = open_stdout()  # a closed one must be seen before a secret is made that it cannot take

    async def create_and_print() -> int:
        async with client:
            creating = client.create_token(service_account_id, name=name, scopes=scope, expires_at=ends)
            created, interrupted = await _create(messages, client, service_account_id, creating)
            # Before the client is closed: a signal could end that wait, and the secret would be lost.
            await _print_secret(messages, service_account_id, created, format_name, stdout)
            how = "interrupted, but the API had created the token: " if interrupted else ""
            messages.say(
                f"{how}created {describe(created.token)}, which {_expiry(created.token)}; "
                "its secret is on standard output, this once, and cannot be read again"
            )
        return ExitCode.INTERRUPTED if interrupted else ExitCode.OK

    return run_async(create_and_print())


async def _print_secret(
    messages: Messages,
    service_account_id: str,
    created: CreatedToken,
    format_name: Literal["secret", "json"],
    stdout: Sink,
) -> None:
    """Print the secret. If that fails, or a signal ends it, the message names the token."""
    token, secret = created.token, created.key.reveal()
    record = {**token_record(token), "key": secret}
    text = secret if format_name == "secret" else to_json(record, ascii_only=not stdout.is_utf8)
    undo = shell_command("revoke", service_account_id, token.id)
    try:
        await stdout.write(f"{text}\n")
    except (OSError, CommandError):
        messages.fail(f"the secret of token {token.id} could not be written and is lost. To revoke the token: {undo}")
        raise
    except asyncio.CancelledError:
        messages.fail(f"interrupted; the secret of token {token.id} may be lost. To revoke the token: {undo}")
        raise


async def _create(
    messages: Messages, client: TokensClient, service_account_id: str, call: Coroutine[Any, Any, CreatedToken]
) -> tuple[CreatedToken, bool]:
    """Create the token.

    Returns:
        The token, and whether a signal came meanwhile.
    """
    creating = asyncio.ensure_future(call)
    try:
        return await asyncio.shield(creating), False
    except asyncio.CancelledError:
        if client.stats.requests:
            with suppress(asyncio.CancelledError):  # a second signal ends the wait
                await asyncio.wait([creating], timeout=ANSWER_WITHIN)
    if not creating.done():
        creating.cancel()
        with suppress(asyncio.CancelledError):  # a third signal must not end the command before its message
            await asyncio.wait([creating])
    if creating.done() and not creating.cancelled():
        return creating.result(), True
    if client.stats.requests:
        look = shell_command("list", service_account_id, "--sort=-created_at")
        messages.fail(f"interrupted; there may be a new token, whose secret is lost. To look for it: {look}")
    else:
        messages.fail("interrupted; nothing was created")
    raise asyncio.CancelledError


def _expiry(token: AccessToken) -> str:
    return "never expires" if token.expires_at is None else f"expires at {token.expires_at:%Y-%m-%d %H:%M %Z}"

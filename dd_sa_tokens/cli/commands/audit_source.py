"""Reads the tokens to audit: those of some service accounts, or those of the organization."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing

import attrs

from dd_sa_tokens.cli.exit_codes import ExitCode, Tally, explain
from dd_sa_tokens.cli.io.console import Messages
from dd_sa_tokens.cli.io.progress import with_bar
from dd_sa_tokens.client import TokensClient
from dd_sa_tokens.errors import DatadogError
from dd_sa_tokens.models import AccessToken

_AT_ONCE = 8  # service accounts: each reads its pages ahead
_NO_OWNER = "unknown"


@attrs.frozen
class AuditSource:
    """What was read.

    Attributes:
        accounts: The tokens by the IDs of the service accounts that could be read.
        errors: The errors of the service accounts that could not be read.
        names: The names of service accounts by their IDs, as far as they are known.
    """

    accounts: Mapping[str, list[AccessToken]]
    errors: Mapping[str, DatadogError] = attrs.field(factory=dict[str, DatadogError])
    names: Mapping[str, str] = attrs.field(factory=dict[str, str])

    @property
    def exit_code(self) -> ExitCode:
        """The exit code for all accounts together."""
        tally = Tally(succeeded=len(self.accounts))
        for error in self.errors.values():
            tally.fail(error)
        return tally.exit_code


async def read_organization(client: TokensClient, messages: Messages, *, progress: bool) -> AuditSource:
    """Read all tokens of the organization, and the names of the service accounts that own them.

    Args:
        client: The client.
        messages: Shows the progress, and says why there are no names.
        progress: Whether to show the progress.

    Raises:
        DatadogError: The list of tokens could not be read.
    """
    tokens: defaultdict[str, list[AccessToken]] = defaultdict(list)
    tally = Tally()

    async def read() -> None:
        async with aclosing(client.list_organization_tokens(include_leak=True)) as listed:
            async for token in listed:
                tally.succeeded += 1
                tokens[token.service_account_id or _NO_OWNER].append(token)

    await with_bar(read(), messages, tally, client, allowed=progress)
    names = await _read_names(client, tokens.keys() - {_NO_OWNER}, messages)
    return AuditSource(tokens, names=names)


async def _read_names(client: TokensClient, account_ids: Collection[str], messages: Messages) -> dict[str, str]:
    """Return the names of service accounts. If they cannot be read, the report has the IDs."""
    names: dict[str, str] = {}
    if not account_ids:
        return names
    try:
        async with aclosing(client.list_service_accounts(service_account_ids=account_ids)) as accounts:
            async for account in accounts:
                if account.name:
                    names[account.id] = account.name
    except DatadogError as error:
        messages.say(f"the report has IDs instead of some names of service accounts: {explain(error)}")
    return names


async def read_accounts(
    client: TokensClient, account_ids: Collection[str], messages: Messages, *, progress: bool
) -> AuditSource:
    """Read the tokens of service accounts, several accounts at a time.

    Args:
        client: The client.
        account_ids: The service accounts.
        messages: Shows the progress, and says which accounts could not be read.
        progress: Whether to show the progress.

    Raises:
        InvalidArgumentError: An ID is invalid; nothing was sent.
    """
    # Made before anything is sent, so that an invalid ID is refused first.
    lists = {account: client.list_tokens(account, include_leak=True) for account in account_ids}
    errors: dict[str, DatadogError] = {}
    tokens: dict[str, list[AccessToken]] = {account: [] for account in lists}
    tally, at_once = Tally(), asyncio.Semaphore(_AT_ONCE)

    async def read(account: str, listed: AsyncGenerator[AccessToken, None]) -> None:
        try:
            async with at_once, aclosing(listed):
                async for token in listed:
                    tally.succeeded += 1
                    tokens[account].append(token)
        except DatadogError as error:
            errors[account] = error

    async def read_each() -> None:
        async with asyncio.TaskGroup() as group:
            for account, listed in lists.items():
                group.create_task(read(account, listed))

    await with_bar(read_each(), messages, tally, client, allowed=progress)
    # An account with an error is left out: some of its tokens must not look like all.
    source = AuditSource(
        {account: tokens[account] for account in lists if account not in errors},
        {account: errors[account] for account in lists if account in errors},
    )
    _report_errors(messages, source)
    return source


def _report_errors(messages: Messages, source: AuditSource) -> None:
    """Print which accounts could not be read, and why."""
    if not source.errors:
        return
    if source.exit_code == ExitCode.REFUSED:
        messages.fail(explain(next(iter(source.errors.values()))))
    else:
        for error in source.errors.values():
            messages.fail(explain(error))
    total = len(source.accounts) + len(source.errors)
    if total > 1:
        messages.fail(f"{len(source.errors)} of {total} service accounts could not be read")

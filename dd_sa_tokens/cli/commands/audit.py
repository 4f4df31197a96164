"""`dd-sa-tokens audit`: find tokens of service accounts that need attention."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import attrs
import typer

from dd_sa_tokens.audit import Level, Rule, rules_with
from dd_sa_tokens.cli.command import Run, command
from dd_sa_tokens.cli.exit_codes import ExitCode, Tally, explain
from dd_sa_tokens.cli.interrupts import run_async
from dd_sa_tokens.cli.io.console import Messages
from dd_sa_tokens.cli.io.files import Sink
from dd_sa_tokens.cli.io.formats import make_format
from dd_sa_tokens.cli.io.progress import with_bar
from dd_sa_tokens.cli.output import (
    SUFFIXES,
    FormatName,
    OutputOption,
    choose_format,
    open_replaced,
    output_path,
    progress_allowed,
    table_console,
)
from dd_sa_tokens.cli.report.audit_result import COLUMNS, AuditResult, count, finding_record, run_audit
from dd_sa_tokens.cli.report.html import render_report
from dd_sa_tokens.cli.report.text import print_audit
from dd_sa_tokens.cli.times import parse_moment, parse_span
from dd_sa_tokens.client import TokensClient
from dd_sa_tokens.errors import DatadogError
from dd_sa_tokens.models import AccessToken

AuditFormat = Literal[FormatName, "html"]

PAGE_SUFFIXES: Mapping[str, Literal["html"]] = {".html": "html", ".htm": "html"}

_AT_ONCE = 8  # service accounts: each reads its pages ahead
_SHOWN = 15  # tokens of an account, and findings of a rule, on a terminal


@attrs.frozen(kw_only=True)
class _Plan:
    """What to audit, by which rules, and where the result goes."""

    accounts: Sequence[str]
    rules: Sequence[Rule]
    now: datetime
    fail_on: Level | None
    format: AuditFormat
    path: Path | None
    sink: Sink


@attrs.frozen
class _Read:
    """The tokens of the service accounts that could be read, and the errors of the others."""

    accounts: dict[str, list[AccessToken]] = attrs.field(factory=dict[str, list[AccessToken]])
    errors: dict[str, DatadogError] = attrs.field(factory=dict[str, DatadogError])

    @property
    def exit_code(self) -> ExitCode:
        """The exit code for all accounts together."""
        tally = Tally(succeeded=len(self.accounts))
        for error in self.errors.values():
            tally.fail(error)
        return tally.exit_code


Accounts = Annotated[
    list[str], typer.Argument(metavar="SA_ID", help="The IDs of the service accounts.", show_default=False)
]
Expiring = Annotated[
    timedelta, typer.Option(parser=parse_span, metavar="SPAN", help="For rule expires-soon: the time left.")
]
Unused = Annotated[
    timedelta, typer.Option(parser=parse_span, metavar="SPAN", help="For rule unused: the time since then.")
]
ManyScopes = Annotated[int, typer.Option(min=0, metavar="N", help="For rule many-scopes: more than N.")]
Now = Annotated[
    datetime | None,
    typer.Option(
        parser=parse_moment,
        metavar="ISO",
        help="Judge from this moment.",
        show_default=False,
    ),
]
FailOn = Annotated[
    Level | None,
    typer.Option(help="Exit with 5 from this level on.", show_default=False),
]
AuditFormatOption = Annotated[
    AuditFormat | None,
    typer.Option(
        "--format",
        help="Default: by FILE's suffix, or table, or jsonl.",
        show_default=False,
    ),
]


@command
def audit(
    run: Run,
    service_account_ids: Accounts,
    *,
    # The types are ignored because typer parses these defaults and shows them in the help.
    expiring_within: Expiring = "30d",  # type: ignore[assignment] # pyright: ignore[reportArgumentType]
    unused_for: Unused = "90d",  # type: ignore[assignment] # pyright: ignore[reportArgumentType]
    many_scopes: ManyScopes = 10,
    now: Now = None,
    fail_on: FailOn = None,
    format_name: AuditFormatOption = None,
    output: OutputOption = None,
) -> int:
    """Find tokens that are expired, unused, too powerful, or need rotation."""
    path = output_path(output)
    suffixes: dict[str, AuditFormat] = {**SUFFIXES, **PAGE_SUFFIXES}
    chosen: AuditFormat = choose_format(format_name, path, suffixes, on_terminal="table", otherwise="jsonl")
    rules = rules_with(expiring_within=expiring_within, unused_for=unused_for, broad_scopes=many_scopes)
    client = run.client()
    plan = _Plan(
        accounts=list(dict.fromkeys(service_account_ids)),
        rules=rules,
        now=now or datetime.now(UTC),
        fail_on=fail_on,
        format=chosen,
        path=path,
        sink=open_replaced(path, run.messages),
    )
    if plan.sink.is_terminal and chosen == "html":
        raise typer.BadParameter("a terminal cannot show a page: give --output report.html", param_hint="--format")
    return run_async(_audit(run.messages, client, plan))


async def _audit(messages: Messages, client: TokensClient, plan: _Plan) -> int:
    """Read the accounts, audit their tokens, write the result, and return the exit code."""
    empty = True
    try:
        async with client:
            read = await _read_all(client, plan, messages)
        _report_errors(messages, read)
        if not read.accounts:
            return read.exit_code
        unread = {account: str(error) for account, error in read.errors.items()}
        result = run_audit(read.accounts, now=plan.now, rules=plan.rules, unread=unread)
        await plan.sink.write(_document(result, plan))
        plan.sink.finish()
        empty = False
    finally:
        if empty:
            plan.sink.abandon(empty=True)
    return _conclude(messages, result, plan) or read.exit_code


async def _read_all(client: TokensClient, plan: _Plan, messages: Messages) -> _Read:
    """Read the tokens of all accounts, several accounts at a time."""
    # Made before anything is sent, so that an invalid ID is refused first.
    lists = {account: client.list_tokens(account) for account in plan.accounts}
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

    await with_bar(read_each(), messages, tally, client, allowed=progress_allowed(plan.sink, at_end=True))
    # An account with an error is left out: some of its tokens must not look like all.
    return _Read(
        {account: tokens[account] for account in lists if account not in errors},
        {account: errors[account] for account in lists if account in errors},
    )


def _report_errors(messages: Messages, read: _Read) -> None:
    """Print which accounts could not be read, and why."""
    if not read.errors:
        return
    if read.exit_code == ExitCode.REFUSED:
        messages.fail(explain(next(iter(read.errors.values()))))
    else:
        for error in read.errors.values():
            messages.fail(explain(error))
    total = len(read.accounts) + len(read.errors)
    if total > 1:
        messages.fail(f"{len(read.errors)} of {total} service accounts could not be read")


def _document(result: AuditResult, plan: _Plan) -> str:
    sink = plan.sink
    if plan.format == "html":
        page = render_report(result)
        return page if sink.is_utf8 else page.encode("ascii", "xmlcharrefreplace").decode()
    if plan.format != "table":
        records = make_format(plan.format, COLUMNS, ascii_only=not sink.is_utf8, for_terminal=sink.is_terminal)
        return records.document(map(finding_record, result.findings))
    console = table_console(plan.path)
    with console.capture() as capture:
        print_audit(console, result, limit=_SHOWN if sink.is_terminal else None)
    return capture.get()


def _conclude(messages: Messages, result: AuditResult, plan: _Plan) -> int:
    """Print what the output does not show, and return exit code 5 if `--fail-on` asks for it."""
    if plan.path is not None:
        levels = f"; tokens by their worst finding: {result.tokens_by_level()}" if result.total else ""
        messages.say(f"{plan.path}: {result.headline()}{levels}")
    elif plan.format not in {"table", "html"} and not result.findings:
        messages.say(f"nothing was found: {result.headline()}")
    if plan.fail_on is None or not (bad := result.at_least(plan.fail_on)):
        return ExitCode.OK
    worse = "" if plan.fail_on == max(Level) else " or worse"
    messages.fail(f"{count(bad, 'finding')} of level {plan.fail_on}{worse}")
    return ExitCode.FINDINGS

"""`dd-sa-tokens audit`: find tokens that need attention, of service accounts or of the organization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import attrs
import typer

from dd_sa_tokens._validation import unique_ids
from dd_sa_tokens.audit import Level, Rule, rules_with
from dd_sa_tokens.cli.command import Org, Run, command
from dd_sa_tokens.cli.exit_codes import ExitCode
from dd_sa_tokens.cli.interrupts import run_async
from dd_sa_tokens.cli.io.console import Messages
from dd_sa_tokens.cli.io.files import Sink
from dd_sa_tokens.cli.io.formats import make_format
from dd_sa_tokens.cli.output import (
    SUFFIXES,
    FormatName,
    OutputOption,
    choose_format,
    open_sink,
    output_path,
    progress_allowed,
    table_console,
)
from dd_sa_tokens.cli.report.audit_result import COLUMNS, AuditResult, count, run_audit
from dd_sa_tokens.cli.report.text import print_audit
from dd_sa_tokens.cli.times import parse_moment, parse_span
from dd_sa_tokens.client import TokensClient

from .audit_source import AuditSource, read_accounts, read_organization

AuditFormat = Literal[FormatName, "html"]

PAGE_SUFFIXES: Mapping[str, Literal["html"]] = {".html": "html", ".htm": "html"}

_SHOWN = 15  # tokens of an account, and findings of a rule, on a terminal


@attrs.frozen(kw_only=True)
class _Plan:
    """What to audit, by which rules, and where the result goes. Without accounts: the whole organization."""

    accounts: Sequence[str] | None
    rules: Sequence[Rule]
    now: datetime
    fail_on: Level | None
    format: AuditFormat
    path: Path | None
    sink: Sink


Accounts = Annotated[
    list[str] | None,
    typer.Argument(metavar="SA_ID", help="The IDs of the service accounts; not with --org.", show_default=False),
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
    typer.Option(parser=parse_moment, metavar="ISO", help="Judge from this moment.", show_default=False),
]
FailOn = Annotated[Level | None, typer.Option(help="Exit with 5 from this level on.", show_default=False)]
AuditFormatOption = Annotated[
    AuditFormat | None,
    typer.Option("--format", help="Default: by FILE's suffix, or table, or jsonl.", show_default=False),
]


@command
def audit(
    run: Run,
    service_account_ids: Accounts = None,
    *,
    org: Org = False,
    # The types are ignored because typer parses these defaults and shows them in the help.
    expiring_within: Expiring = "30d",  # type: ignore[assignment] # pyright: ignore[reportArgumentType]
    unused_for: Unused = "90d",  # type: ignore[assignment] # pyright: ignore[reportArgumentType]
    many_scopes: ManyScopes = 10,
    now: Now = None,
    fail_on: FailOn = None,
    format_name: AuditFormatOption = None,
    output: OutputOption = None,
) -> int:
    """Find tokens that are leaked, expired, unused, too powerful, or need rotation."""
    if bool(service_account_ids) == org:
        raise typer.BadParameter("give the IDs of service accounts or --org", param_hint="SA_ID")
    path = output_path(output)
    suffixes: dict[str, AuditFormat] = {**SUFFIXES, **PAGE_SUFFIXES}
    chosen: AuditFormat = choose_format(format_name, path, suffixes, on_terminal="table", otherwise="jsonl")
    rules = rules_with(expiring_within=expiring_within, unused_for=unused_for, many_scopes=many_scopes)
    client = run.client()
    plan = _Plan(
        accounts=unique_ids(service_account_ids) if service_account_ids else None,
        rules=rules,
        now=now or datetime.now(UTC),
        fail_on=fail_on,
        format=chosen,
        path=path,
        sink=open_sink(path, run.messages),
    )
    if plan.sink.is_terminal and chosen == "html":
        raise typer.BadParameter("a terminal cannot show a page: give --output report.html", param_hint="--format")
    return run_async(_audit(run.messages, client, plan))


async def _audit(messages: Messages, client: TokensClient, plan: _Plan) -> int:
    """Read the tokens, audit them, write the result, and return the exit code."""
    empty = True
    try:
        async with client:
            source = await _read(messages, client, plan)
        if not source.accounts and source.errors:
            return source.exit_code
        unread = {account: str(error) for account, error in source.errors.items()}
        result = run_audit(source.accounts, now=plan.now, rules=plan.rules, unread=unread, names=source.names)
        await plan.sink.write(_document(result, plan))
        plan.sink.finish()
        empty = False
    finally:
        if empty:
            plan.sink.abandon(empty=True)
    return _conclude(messages, result, plan) or source.exit_code


async def _read(messages: Messages, client: TokensClient, plan: _Plan) -> AuditSource:
    progress = progress_allowed(plan.sink, at_end=True)
    if plan.accounts is None:
        return await read_organization(client, messages, progress=progress)
    return await read_accounts(client, plan.accounts, messages, progress=progress)


def _document(result: AuditResult, plan: _Plan) -> str:
    sink = plan.sink
    if plan.format == "html":
        from dd_sa_tokens.cli.report.html import render_report  # noqa: PLC0415 - only a page needs it

        page = render_report(result)
        return page if sink.is_utf8 else page.encode("ascii", "xmlcharrefreplace").decode()
    if plan.format != "table":
        records = make_format(plan.format, COLUMNS, ascii_only=not sink.is_utf8, for_terminal=sink.is_terminal)
        return records.document(map(result.record, result.findings))
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

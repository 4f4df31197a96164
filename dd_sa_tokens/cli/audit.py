"""`dd-sa-tokens audit`: what is wrong with the tokens of service accounts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Annotated, Literal

import attrs
import typer
from rich.console import Console

from dd_sa_tokens.audit import Level, Rule, rules_with
from dd_sa_tokens.client import TokensClient
from dd_sa_tokens.errors import DatadogError
from dd_sa_tokens.models import AccessToken

from .audited import Audit, carry_out, count, count_levels, sum_up, write_records
from .command import Run, command
from .console import Messages, PipedConsole
from .formats import FormatName
from .outcome import ExitCode, Tally, explain
from .output import TABLE_WIDTH, Destination, choose_destination, open_file, stdout_is_terminal
from .progress import with_bar
from .report import render_report
from .sinks import Sink
from .text_report import print_audit
from .times import parse_moment, parse_span

_AT_ONCE = 8  # accounts: each reads its pages ahead
_SHOWN = 15  # tokens of an account, and findings of a rule, on a terminal

AuditFormatName = Literal[FormatName, "html"]


@attrs.frozen(kw_only=True)
class _Plan:
    """What is to be audited, by what, and where the result goes; `destination` is `None` for a page of HTML."""

    accounts: Sequence[str]
    rules: Sequence[Rule]
    now: datetime
    fail_on: Level | None
    destination: Destination | None
    path: Path | None
    sink: Sink


@attrs.frozen
class _Read:
    """The accounts that could be read, and the errors of the others."""

    accounts: dict[str, list[AccessToken]] = attrs.field(factory=dict[str, list[AccessToken]])
    errors: dict[str, DatadogError] = attrs.field(factory=dict[str, DatadogError])

    @property
    def exit_code(self) -> ExitCode:
        """The code for all accounts together."""
        tally = Tally(succeeded=len(self.accounts))
        for error in self.errors.values():
            tally.fail(error)
        return tally.exit_code


Accounts = Annotated[list[str], typer.Argument(metavar="SA_ID", help="IDs of service accounts.", show_default=False)]
Expiring = Annotated[
    timedelta, typer.Option(parser=parse_span, metavar="SPAN", help="How far ahead an expiry is found.")
]
Unused = Annotated[
    timedelta, typer.Option(parser=parse_span, metavar="SPAN", help="For how long a token may go unused.")
]
Broad = Annotated[int, typer.Option(min=0, metavar="N", help="How many scopes a token may have.")]
Now = Annotated[
    datetime | None,
    typer.Option(
        parser=parse_moment,
        metavar="ISO",
        help="The moment to judge from, instead of now; UTC unless it says otherwise.",
        show_default=False,
    ),
]
FailOn = Annotated[
    Level | None,
    typer.Option(help="Exit with code 5 if something of this level or worse is found.", show_default=False),
]
AuditFormatOption = Annotated[
    AuditFormatName | None,
    typer.Option(
        "--format",
        help="How to write the findings; by default a table on a terminal, what a file's suffix says, else jsonl. "
        "html is a page to look at, for a file or a pipe.",
        show_default=False,
    ),
]
WholeOutput = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Write to a file instead of standard output. It appears as a whole at the end.",
        show_default=False,
    ),
]


@command
def audit(
    run: Run,
    service_account_ids: Accounts,
    *,
    # Types are ignored because typer parses these defaults, and shows them so.
    expiring_within: Expiring = "30d",  # type: ignore[assignment] # pyright: ignore[reportArgumentType]
    unused_for: Unused = "90d",  # type: ignore[assignment] # pyright: ignore[reportArgumentType]
    broad_scopes: Broad = 10,
    now: Now = None,
    fail_on: FailOn = None,
    format_name: AuditFormatOption = None,
    output: WholeOutput = None,
) -> int:
    """Find tokens that are expired, about to expire, unused, too powerful or not rotated, in any number of accounts."""
    destination, path = choose_format(format_name, output)
    rules = rules_with(expiring_within=expiring_within, unused_for=unused_for, broad_scopes=broad_scopes)
    client = run.client()
    plan = _Plan(
        accounts=list(dict.fromkeys(service_account_ids)),
        rules=rules,
        now=now or datetime.now(UTC),
        fail_on=fail_on,
        destination=destination,
        path=path,
        sink=open_file(path, run.messages),
    )
    return run.wait_for(_audit(run.messages, client, plan))


def choose_format(format_name: AuditFormatName | None, output: str | None) -> tuple[Destination | None, Path | None]:
    """Choose the format where none was asked for.

    Returns:
        How and where to write, or `None` for a page of HTML; and the file, `None` for standard output.

    Raises:
        BadParameter: A page of HTML would go to a terminal.
    """
    path = None if output in {None, "-"} else Path(output or "")
    by_suffix = format_name is None and path is not None and path.suffix.lower() in {".html", ".htm"}
    if format_name != "html" and not by_suffix:
        destination = choose_destination(format_name, output)
        return destination, destination.path
    if path is None and stdout_is_terminal():
        raise typer.BadParameter(
            "a page of HTML is not for a terminal: give --output report.html", param_hint="--format"
        )
    return None, path


async def _audit(messages: Messages, client: TokensClient, plan: _Plan) -> int:
    """Read the accounts, judge, write, and return the exit code."""
    empty = True
    try:
        async with client:
            read = await _read_all(client, plan, messages)
        _report_errors(messages, read)
        if not read.accounts:
            return read.exit_code
        unread = {account: str(error) for account, error in read.errors.items()}
        found = carry_out(read.accounts, now=plan.now, rules=plan.rules, unread=unread)
        await plan.sink.write(_document(found, plan))
        plan.sink.finish()
        empty = False
    finally:
        if empty:
            plan.sink.abandon(empty=True)
    return _conclude(messages, found, plan) or read.exit_code


async def _read_all(client: TokensClient, plan: _Plan, messages: Messages) -> _Read:
    """Read the tokens of all accounts, several accounts at a time."""
    # Made before anything is sent: an ID that cannot be right is refused here.
    lists = {account: client.list_tokens(account) for account in plan.accounts}
    errors: dict[str, DatadogError] = {}
    tokens: dict[str, list[AccessToken]] = {account: [] for account in lists}
    tally, places = Tally(), asyncio.Semaphore(_AT_ONCE)

    async def read(account: str, listed: AsyncGenerator[AccessToken, None]) -> None:
        try:
            async with places, aclosing(listed):
                async for token in listed:
                    tally.succeeded += 1
                    tokens[account].append(token)
        except DatadogError as error:
            errors[account] = error

    async def read_each() -> None:
        async with asyncio.TaskGroup() as group:
            for account, listed in lists.items():
                group.create_task(read(account, listed))

    is_text = plan.destination is not None and plan.destination.format == "table"
    await with_bar(
        read_each(), messages, tally, client, wanted=is_text or plan.path is not None or not stdout_is_terminal()
    )
    # Half of an account's tokens must not look like all.
    return _Read(
        {account: tokens[account] for account in lists if account not in errors},
        {account: errors[account] for account in lists if account in errors},
    )


def _report_errors(messages: Messages, read: _Read) -> None:
    """Say which accounts could not be read, and why."""
    if not read.errors:
        return
    if read.exit_code == ExitCode.REFUSED:
        messages.fail(explain(next(iter(read.errors.values()))))
    else:
        for error in read.errors.values():
            messages.fail(str(error))
    total = len(read.accounts) + len(read.errors)
    if total > 1:
        messages.fail(f"{len(read.errors)} of {total} service accounts could not be read")


def _document(found: Audit, plan: _Plan) -> str:
    destination = plan.destination
    if destination is None:
        return page(found)
    if destination.format != "table":
        return write_records(found, destination.format, for_terminal=destination.is_terminal)
    in_file = Console(file=StringIO(), width=TABLE_WIDTH, color_system=None, highlight=False)
    console = PipedConsole(highlight=False) if destination.path is None else in_file
    with console.capture() as capture:
        print_audit(console, found, limit=_SHOWN if destination.is_terminal else None)
    return capture.get()


def page(found: Audit) -> str:
    """Return an audit as a page of HTML."""
    text = render_report(found.accounts, found.findings, now=found.now, rules=found.rules, unread=found.unread)
    return f"{text}\n"


def _conclude(messages: Messages, found: Audit, plan: _Plan) -> int:
    """Say what the reader of the output does not see there, and return 5 if what was found is bad enough."""
    in_sight = plan.path is None and plan.destination is not None
    if plan.path is not None:
        messages.say(f"{plan.path}: {sum_up(found)}" + (f" ({count_levels(found)})" if found.total else ""))
    elif in_sight and plan.destination is not None and plan.destination.format != "table" and not found.findings:
        messages.say(f"nothing was found: {sum_up(found)}")
    if plan.fail_on is None or not (bad := found.at_least(plan.fail_on)):
        return ExitCode.OK
    worse = "" if plan.fail_on == Level.HIGH else " or worse"
    messages.fail(f"{count(bad, 'finding')} of level {plan.fail_on}{worse}")
    return ExitCode.FINDINGS

"""`dd-sa-tokens demo`: a bulk fetch from a fake Datadog server on this machine, to watch the rate limit at work."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from contextlib import aclosing, contextmanager, suppress
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer
from rich.console import Console

from dd_sa_tokens.audit import DEFAULT_RULES
from dd_sa_tokens.cli.command import Run, command
from dd_sa_tokens.cli.exit_codes import Tally
from dd_sa_tokens.cli.interrupts import run_async
from dd_sa_tokens.cli.io.console import Messages
from dd_sa_tokens.cli.io.files import Sink, open_stdout
from dd_sa_tokens.cli.io.formats import token_record
from dd_sa_tokens.cli.io.progress import BAR_EVERY, Show, bar, count_text, status_text, watch
from dd_sa_tokens.cli.output import choose_format, open_sink, table_console
from dd_sa_tokens.cli.report.audit_result import run_audit
from dd_sa_tokens.cli.report.html import render_report
from dd_sa_tokens.cli.report.tables import cell, tokens_table
from dd_sa_tokens.client import TokensClient
from dd_sa_tokens.models import AccessToken

from .audit import PAGE_SUFFIXES

if TYPE_CHECKING:
    from dd_sa_tokens.testing import FakeDatadog

_IN_TABLE = 10  # tokens in the table
_FAILURES_SHOWN = 3
_LATENCY = 0.02  # seconds before each answer
_LINE_EVERY = 1.0  # seconds

_FAULTS: tuple[dict[str, Any], ...] = ({"status": 503}, {"drop": True}, {"truncate": True})


@attrs.frozen
class Settings:
    """The settings of the demo.

    Attributes:
        tokens: How many tokens the fake server holds.
        limit: How many requests it allows in each period.
        period: Seconds.
        faults: Per cent of the requests that fail.
        report: The file for an audit of the tokens; `None` for no audit.
    """

    tokens: int
    limit: int
    period: float
    faults: int
    report: Path | None = None


@attrs.define
class Fetched:
    """What the demo has fetched.

    Attributes:
        tally: Counts the tokens.
        wanted: The IDs of the tokens to keep.
        tokens: The kept tokens by ID.
        failures: The errors of the tokens that failed.
    """

    tally: Tally
    wanted: frozenset[str]
    tokens: dict[str, AccessToken] = attrs.field(factory=dict[str, AccessToken])
    failures: list[str] = attrs.field(factory=list[str])

    def kept(self, token_ids: list[str]) -> list[AccessToken]:
        """Return the kept tokens among these, in their order."""
        return [self.tokens[token_id] for token_id in token_ids if token_id in self.tokens]


def least_seconds(start: float, requests: int, limit: int, period: float) -> float:
    """Return the time from the start until the rate limit admits the last request, at the earliest.

    Windows begin at whole multiples of the period, and each allows `limit` requests.

    Args:
        start: When the first request is sent, in seconds since the epoch.
        requests: How many requests there are.
        limit: Requests allowed in a window.
        period: Length of a window, in seconds.

    Returns:
        Seconds.
    """
    windows_later = (requests - 1) // limit
    if windows_later <= 0:
        return 0.0
    return (math.floor(start / period) + windows_later) * period - start


def fault_count(tokens: int, percent: int) -> int:
    """Return how many requests must fail so that they are `percent` of all requests, themselves included."""
    return round(tokens * percent / (100 - percent))


@command
def demo(
    run: Run,
    *,
    tokens: Annotated[int, typer.Option(min=1, max=100_000, help="Tokens to fetch.")] = 300,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Requests allowed in each period.")] = 100,
    period: Annotated[float, typer.Option(min=1.0, max=3600.0, help="Length of the period, in seconds.")] = 5.0,
    faults: Annotated[int, typer.Option(min=0, max=90, help="Per cent of the requests that fail.")] = 0,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Audit the tokens, and write the page to FILE.", show_default=False),
    ] = None,
) -> int:
    """Fetch tokens from a fake Datadog server, to see the rate limit at work.

    It runs on this machine, and needs no keys and no network.
    """
    given = [name for name, value in attrs.asdict(run.options).items() if value is not None and name != "verbose"]
    if given:
        raise typer.BadParameter(
            "the demo has its own server and settings", param_hint=f"--{given[0].replace('_', '-')}"
        )
    settings = Settings(tokens, limit, period, faults, report)
    if report is None:
        return run_async(_demo(settings, run.messages, None))
    choose_format(None, report, PAGE_SUFFIXES, on_terminal="html", otherwise="html", option="--report")
    sink = open_sink(report, run.messages, option="--report")
    empty = True
    try:
        code = run_async(_demo(settings, run.messages, sink))
        sink.finish()
        empty = False
    finally:
        if empty:
            sink.abandon(empty=True)
    return code


async def _demo(settings: Settings, messages: Messages, sink: Sink | None) -> int:
    """Run the demo, and return the exit code: 1 if a token was not fetched."""
    from dd_sa_tokens.testing import FakeDatadog  # noqa: PLC0415 - a server makes the start of each command 15% slower

    stdout, out = open_stdout(), table_console(None)
    rate_limit = (settings.limit, settings.period)
    async with (
        FakeDatadog(tokens=settings.tokens, rate_limit=rate_limit, latency=_LATENCY) as datadog,
        TokensClient(base_url=datadog.url, api_key=datadog.api_key, app_key=datadog.app_key) as client,
    ):
        first = datadog.token_ids[:_IN_TABLE]
        fetched = Fetched(Tally(settings.tokens), frozenset(first if sink is None else datadog.token_ids))
        start = time.time()
        with suppress(OSError):  # a standard error that cannot be written does not stop a command
            messages.console.print(
                _introduction(settings, datadog.url, least_seconds(start, settings.tokens, *rate_limit))
            )
        live = messages.can_redraw and not stdout.is_pipe
        with (bar if live else _lines)(messages, fetched.tally, client) as show:
            await watch(_fetch(client, datadog, settings, fetched), show, BAR_EVERY if live else _LINE_EVERY)
        seconds = time.time() - start  # on the clock that the windows follow
        with out.capture() as shown:
            _print_tokens(out, fetched.kept(first), fetched.tally)
            for label, value in _summary(settings, fetched.tally, datadog, client, (start, seconds)):
                out.print(f"{label:<24}{value}")
        await stdout.write(shown.get())
        if sink is not None:
            tokens = {datadog.service_account_id: fetched.kept(datadog.token_ids)}
            result = run_audit(tokens, now=datetime.now(UTC), rules=DEFAULT_RULES)
            await sink.write(render_report(result))
            with out.capture() as shown:
                out.print(f"{'Tokens by worst finding':<24}{result.tokens_by_level()}", soft_wrap=True)
                out.print(cell(f"{'Report':<24}{settings.report}"), soft_wrap=True)
            await stdout.write(shown.get())
    for failure in fetched.failures:
        messages.say(failure, style="red")
    return int(bool(fetched.tally.failed))


def _introduction(settings: Settings, url: str, least: float) -> str:
    return (
        f"A fake Datadog server on this machine ({url}) holds {settings.tokens} tokens and allows "
        f"{settings.limit} requests per {settings.period:g} s.\n"
        "Each token is fetched by a request of its own"
        + (f", so this takes at least {least:.1f} s." if least else ".")
        + (f"\n{settings.faults}% of the requests fail." if settings.faults else "")
    )


@contextmanager
def _lines(messages: Messages, tally: Tally, client: TokensClient) -> Generator[Show, None, None]:
    """Give a function that prints the progress as a line."""
    yield lambda: messages.say(f"{count_text(tally)}, {status_text(tally, client)}")


async def _fetch(client: TokensClient, datadog: FakeDatadog, settings: Settings, fetched: Fetched) -> None:
    token_ids = _with_faults(datadog, fault_count(settings.tokens, settings.faults))
    # Not by listing: with a hundred tokens in each answer there would be nothing to watch.
    async with aclosing(client.stream_tokens(datadog.service_account_id, token_ids, strategy="get")) as results:
        async for item in results:
            if item.token is not None:
                fetched.tally.succeeded += 1
                if item.token_id in fetched.wanted:
                    fetched.tokens[item.token_id] = item.token
            elif item.error is not None:
                fetched.tally.fail(item.error)
                if len(fetched.failures) < _FAILURES_SHOWN:
                    fetched.failures.append(str(item.error))


def status_faults(count: int) -> int:
    """Return how many of the first `count` faults are HTTP statuses. Those come before the rate limit is counted."""
    return sum("status" in fault for fault in islice(cycle(_FAULTS), count))


def _with_faults(datadog: FakeDatadog, count: int) -> Iterator[str]:
    """Yield the IDs, and script the faults meanwhile: spread evenly, and the same in each run."""
    token_ids = datadog.token_ids
    kinds = cycle(_FAULTS)
    scripted = 0
    for number, token_id in enumerate(token_ids, 1):
        while scripted < number * count // len(token_ids):
            datadog.fail_next(1, **next(kinds))
            scripted += 1
        yield token_id


def _print_tokens(out: Console, tokens: list[AccessToken], tally: Tally) -> None:
    if tokens:
        out.print(f"\nThe first {len(tokens)} of {tally.succeeded} tokens:\n")
        out.print(tokens_table([token_record(token) for token in tokens], out.width, with_id=False))
        out.print()


def _summary(
    settings: Settings, tally: Tally, datadog: FakeDatadog, client: TokensClient, took: tuple[float, float]
) -> Iterator[tuple[str, str]]:
    start, seconds = took
    unseen = datadog.requests - client.stats.requests
    # A scripted status does not count toward the rate limit, and neither does a 429.
    allowed = datadog.requests - datadog.rejected - status_faults(fault_count(settings.tokens, settings.faults))
    least = least_seconds(start, allowed, settings.limit, settings.period)
    yield "Fetched", f"{tally.succeeded} of {tally.total}"
    yield "Failed", f"{tally.failed}"
    yield "Requests", f"{datadog.requests}" + (f" ({unseen} sent again by aiohttp itself)" if unseen else "")
    yield "Retries", f"{client.stats.retries}"
    yield "429 responses", f"{datadog.rejected}"
    yield "Time", f"{seconds:.2f} s"
    yield "Theoretical minimum", f"{least:.2f} s (the rate limit admits request {allowed} no earlier)"

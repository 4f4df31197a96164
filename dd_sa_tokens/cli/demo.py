"""`dd-sa-tokens demo`: a bulk fetch against a pretend Datadog on this machine, to watch how the quota is kept."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any

import attrs
import typer
from rich.console import Console

from dd_sa_tokens.audit import DEFAULT_RULES
from dd_sa_tokens.client import TokensClient
from dd_sa_tokens.models import AccessToken
from dd_sa_tokens.results import TokenResult
from dd_sa_tokens.testing import FakeDatadog

from .app import guarded, run_async
from .audit import page
from .audited import carry_out, count_levels
from .command import Verbosity
from .console import Messages, PipedConsole, log_to
from .output import open_file
from .progress import BAR_EVERY, Show, bar, count_text, status_text, watch
from .sinks import Sink
from .tables import cell, print_tokens

_IN_TABLE = 10  # tokens in the table
_FAILURES_SHOWN = 3
_LATENCY = 0.02  # seconds before each answer
_LINE_EVERY = 1.0  # seconds

_FAULTS: tuple[dict[str, Any], ...] = ({"status": 503}, {"drop": True}, {"truncate": True})


@attrs.frozen
class Settings:
    """What the demo is to show.

    Attributes:
        tokens: How many the pretend Datadog holds.
        limit: Requests that it allows in each period.
        period: Seconds.
        faults: Per cent of the requests that are made to fail.
        report: The file for an audit of the tokens, if one is wanted.
    """

    tokens: int
    limit: int
    period: float
    faults: int
    report: Path | None = None


@attrs.define
class Tally:
    """How far the fetch has come.

    Attributes:
        total: Tokens to fetch.
        shown: IDs of the tokens for the table.
        fetched: Tokens that came.
        failures: Results without a token.
        first: The tokens for the table.
        kept: All tokens, if they are to be audited.
    """

    total: int
    shown: tuple[str, ...]
    fetched: int = 0
    failures: list[TokenResult] = attrs.field(factory=list[TokenResult])
    first: dict[str, AccessToken] = attrs.field(factory=dict[str, AccessToken])
    kept: dict[str, AccessToken] | None = None

    @property
    def done(self) -> int:
        """Tokens that need not be waited for any more."""
        return self.fetched + len(self.failures)

    def add(self, item: TokenResult) -> None:
        """Count one result."""
        if item.token is None:
            self.failures.append(item)
            return
        self.fetched += 1
        if item.token_id in self.shown:
            self.first[item.token_id] = item.token
        if self.kept is not None:
            self.kept[item.token_id] = item.token


def least_seconds(start: float, requests: int, limit: int, period: float) -> float:
    """Return how long after the start the quota lets the last request go, at the earliest.

    Windows begin at whole multiples of the period, and each allows `limit` requests.

    Args:
        start: When the first request goes, in seconds since the epoch.
        requests: How many there are.
        limit: Requests allowed in a window.
        period: Seconds from window to window.
    """
    windows_later = (requests - 1) // limit
    if windows_later <= 0:
        return 0.0
    return (math.floor(start / period) + windows_later) * period - start


def fault_count(tokens: int, percent: int) -> int:
    """Return how many requests must fail so that they are so many per cent of all: the tokens' own and the faulty."""
    return round(tokens * percent / (100 - percent))


def demo(
    *,
    tokens: Annotated[int, typer.Option(min=1, max=100_000, help="Tokens to fetch.")] = 300,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Requests allowed in each period.")] = 100,
    period: Annotated[float, typer.Option(min=1.0, max=3600.0, help="Length of the period in seconds.")] = 5.0,
    faults: Annotated[int, typer.Option(min=0, max=90, help="Per cent of the requests that are made to fail.")] = 0,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Audit the tokens, and write the report: a page of HTML.", show_default=False
        ),
    ] = None,
    verbose: Verbosity = 0,
) -> None:
    """Fetch many tokens from a pretend Datadog on this machine, and watch the quota being kept.

    Needs no keys and no network.
    """
    messages, settings = Messages(), Settings(tokens, limit, period, faults, report)
    log_to(messages, verbose)
    raise typer.Exit(guarded(lambda: _run(settings, messages), messages, verbose))


def _run(settings: Settings, messages: Messages) -> int:
    if settings.report is None:
        return run_async(_demo(settings, messages, None))
    sink = open_file(settings.report, messages, option="--report")
    empty = True
    try:
        code = run_async(_demo(settings, messages, sink))
        sink.finish()
        empty = False
    finally:
        if empty:
            sink.abandon(empty=True)
    return code


async def _demo(settings: Settings, messages: Messages, sink: Sink | None) -> int:
    """Run the demo, and return the exit code: 1 if a token was not fetched."""
    out, err = PipedConsole(highlight=False), messages.console
    quota = (settings.limit, settings.period)
    async with (
        FakeDatadog(tokens=settings.tokens, rate_limit=quota, latency=_LATENCY) as datadog,
        TokensClient(base_url=datadog.url, api_key=datadog.api_key, app_key=datadog.app_key) as client,
    ):
        tally = Tally(settings.tokens, tuple(datadog.token_ids[:_IN_TABLE]), kept=None if sink is None else {})
        start = time.time()
        err.print(_introduction(settings, datadog.url, least_seconds(start, settings.tokens, *quota)))
        live = messages.can_redraw
        with (bar if live else _lines)(messages, tally, client) as show:
            await watch(_fetch(client, datadog, settings, tally), show, BAR_EVERY if live else _LINE_EVERY)
        seconds = time.time() - start  # on the clock that the windows go by
        _print_tokens(out, tally)
        for label, value in _summary(settings, tally, datadog, client, (start, seconds)):
            out.print(f"{label:<24}{value}")
        if sink is not None and tally.kept is not None:
            tokens = [tally.kept[token_id] for token_id in datadog.token_ids if token_id in tally.kept]
            found = carry_out({datadog.service_account_id: tokens}, now=datetime.now(UTC), rules=DEFAULT_RULES)
            await sink.write(page(found))
            for label, value in (("Audit", count_levels(found)), ("Report", str(settings.report))):
                out.print(cell(f"{label:<24}{value}"), soft_wrap=True)
    for item in tally.failures[:_FAILURES_SHOWN]:
        messages.say(str(item.error), style="red")
    return int(bool(tally.failures))


def _introduction(settings: Settings, url: str, least: float) -> str:
    return (
        f"A pretend Datadog on this machine ({url}) holds {settings.tokens} tokens and allows "
        f"{settings.limit} requests per {settings.period:g} s.\n"
        "Each token is fetched by a request of its own"
        + (f", so this takes at least {least:.1f} s." if least else ".")
        + (f"\n{settings.faults}% of the requests are made to fail." if settings.faults else "")
    )


@contextmanager
def _lines(messages: Messages, tally: Tally, client: TokensClient) -> Generator[Show, None, None]:
    """Offer a function that prints a line."""
    yield lambda: messages.say(f"{count_text(tally)}, {status_text(tally, client)}")


async def _fetch(client: TokensClient, datadog: FakeDatadog, settings: Settings, tally: Tally) -> None:
    token_ids = _with_faults(datadog, fault_count(settings.tokens, settings.faults))
    # Never by listing: with a hundred tokens in each answer there would be nothing to watch.
    async with aclosing(client.stream_tokens(datadog.service_account_id, token_ids, strategy="get")) as results:
        async for item in results:
            tally.add(item)


def status_faults(count: int) -> int:
    """Return how many of so many faults are answers in front of the API, which spend no quota."""
    return sum("status" in fault for fault in islice(cycle(_FAULTS), count))


def _with_faults(datadog: FakeDatadog, count: int) -> Iterator[str]:
    """Yield the IDs, and script the faults on the way, spread evenly and the same in each run."""
    token_ids = datadog.token_ids
    kinds = cycle(_FAULTS)
    scripted = 0
    for number, token_id in enumerate(token_ids, 1):
        while scripted < number * count // len(token_ids):
            datadog.fail_next(1, **next(kinds))
            scripted += 1
        yield token_id


def _print_tokens(out: Console, tally: Tally) -> None:
    tokens = [tally.first[token_id] for token_id in tally.shown if token_id in tally.first]
    if tokens:
        out.print(f"\nThe first {len(tokens)} of {tally.fetched} tokens:\n")
        print_tokens(out, tokens)
        out.print()


def _summary(
    settings: Settings, tally: Tally, datadog: FakeDatadog, client: TokensClient, took: tuple[float, float]
) -> Iterator[tuple[str, str]]:
    start, seconds = took
    unseen = datadog.requests - client.stats.requests
    # A scripted status comes from in front of the API and spends no quota; nor does a 429.
    allowed = datadog.requests - datadog.rejected - status_faults(fault_count(settings.tokens, settings.faults))
    least = least_seconds(start, allowed, settings.limit, settings.period)
    yield "Fetched", f"{tally.fetched} of {tally.total}"
    yield "Failed", f"{len(tally.failures)}"
    yield "Requests", f"{datadog.requests}" + (f" ({unseen} sent again by aiohttp itself)" if unseen else "")
    yield "Retries", f"{client.stats.retries}"
    yield "429s met", f"{datadog.rejected}"
    yield "Time", f"{seconds:.2f} s"
    yield "Least the quota allows", f"{least:.2f} s (request number {allowed} may not go sooner)"

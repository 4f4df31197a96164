"""`dd-sa-tokens demo`: a bulk fetch against a pretend Datadog on this machine, to watch how the quota is kept."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import aclosing, contextmanager
from itertools import cycle, islice
from typing import Annotated, Any

import attrs
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from dd_sa_tokens.client import TokensClient
from dd_sa_tokens.models import AccessToken, RateLimit
from dd_sa_tokens.results import TokenResult
from dd_sa_tokens.testing import FakeDatadog

from .app import app, run_async
from .tables import print_tokens

_IN_TABLE = 10  # tokens in the table
_FAILURES_SHOWN = 3
_LATENCY = 0.02  # seconds before each answer
_BAR_EVERY = 0.1  # seconds: the countdown shows tenths
_LINE_EVERY = 1.0  # seconds
_QUOTA_WIDTH = len("quota 0/100 left, next window in 3.1 s")  # so that the bar beside it keeps its length

_FAULTS: tuple[dict[str, Any], ...] = ({"status": 503}, {"drop": True}, {"truncate": True})


@attrs.frozen
class Settings:
    """What the demo is to show.

    Attributes:
        tokens: How many the pretend Datadog holds.
        limit: Requests that it allows in each period.
        period: Seconds.
        faults: Per cent of the requests that are made to fail.
    """

    tokens: int
    limit: int
    period: float
    faults: int


@attrs.define
class Tally:
    """How far the fetch has come.

    Attributes:
        total: Tokens to fetch.
        shown: IDs of the tokens for the table.
        fetched: Tokens that came.
        failures: Results without a token.
        first: The tokens for the table.
    """

    total: int
    shown: tuple[str, ...]
    fetched: int = 0
    failures: list[TokenResult] = attrs.field(factory=list[TokenResult])
    first: dict[str, AccessToken] = attrs.field(factory=dict[str, AccessToken])

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


def quota_text(rate: RateLimit | None, *, more: bool) -> str:
    """Describe what is left of the quota, and the wait for the next window where nothing is and more is needed."""
    if rate is None or rate.remaining is None:
        return "quota not known yet"
    text = f"quota {rate.remaining}/{rate.limit} left"
    if more and rate.remaining == 0 and rate.reset is not None:
        text += f", next window in {rate.reset:.1f} s"
    return text


@app.command()
def demo(
    *,
    tokens: Annotated[int, typer.Option(min=1, max=100_000, help="Tokens to fetch.")] = 300,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Requests allowed in each period.")] = 100,
    period: Annotated[float, typer.Option(min=1.0, max=3600.0, help="Length of the period in seconds.")] = 5.0,
    faults: Annotated[int, typer.Option(min=0, max=90, help="Per cent of the requests that are made to fail.")] = 0,
) -> None:
    """Fetch many tokens from a pretend Datadog on this machine, and watch the quota being kept.

    Needs no keys and no network.
    """
    if not run_async(_demo(Settings(tokens, limit, period, faults))):
        raise typer.Exit(1)


async def _demo(settings: Settings) -> bool:
    """Run the demo, and tell whether every token was fetched."""
    out, err = Console(highlight=False), Console(stderr=True, highlight=False)
    quota = (settings.limit, settings.period)
    async with (
        FakeDatadog(tokens=settings.tokens, rate_limit=quota, latency=_LATENCY) as datadog,
        TokensClient(base_url=datadog.url, api_key=datadog.api_key, app_key=datadog.app_key) as client,
    ):
        tally = Tally(settings.tokens, tuple(datadog.token_ids[:_IN_TABLE]))
        start = time.time()
        err.print(_introduction(settings, datadog.url, least_seconds(start, settings.tokens, *quota)))
        live = _can_redraw(err)
        with (_bar if live else _lines)(err, tally, client) as show:
            await _watch(_fetch(client, datadog, settings, tally), show, _BAR_EVERY if live else _LINE_EVERY)
        seconds = time.time() - start  # on the clock that the windows go by
        _print_tokens(out, tally)
        for label, value in _summary(settings, tally, datadog, client, (start, seconds)):
            out.print(f"{label:<24}{value}")
    for item in tally.failures[:_FAILURES_SHOWN]:
        err.print(str(item.error), style="red", markup=False, soft_wrap=True)
    return not tally.failures


def _introduction(settings: Settings, url: str, least: float) -> str:
    return (
        f"A pretend Datadog on this machine ({url}) holds {settings.tokens} tokens and allows "
        f"{settings.limit} requests per {settings.period:g} s.\n"
        "Each token is fetched by a request of its own"
        + (f", so this takes at least {least:.1f} s." if least else ".")
        + (f"\n{settings.faults}% of the requests are made to fail." if settings.faults else "")
    )


def _can_redraw(err: Console) -> bool:
    # FORCE_COLOR makes rich take a pipe for a terminal, but a bar that redraws itself is of no use there.
    return sys.stderr.isatty() and err.is_interactive


Show = Callable[[], None]


@contextmanager
def _bar(err: Console, tally: Tally, client: TokensClient) -> Generator[Show, None, None]:
    """Offer a function that draws the bar anew."""
    # Room is left for the ^C that a terminal echoes: on a line of its own it would make the last redraw miss its line.
    others = len(f"{tally.total}/{tally.total} tokens") + _QUOTA_WIDTH + len("  ^C")
    columns = (
        TextColumn("{task.completed}/{task.total} tokens"),
        BarColumn(bar_width=max(8, min(60, err.width - others))),
        TextColumn("{task.fields[quota]}", table_column=Column(min_width=_QUOTA_WIDTH, no_wrap=True)),
    )
    # Not drawn from rich's own thread: the client must be looked at under its loop only.
    with Progress(*columns, console=err, auto_refresh=False) as progress:
        task = progress.add_task("", total=tally.total, quota="")

        def show() -> None:
            progress.update(task, completed=tally.done, quota=_status(tally, client), refresh=True)

        yield show


@contextmanager
def _lines(err: Console, tally: Tally, client: TokensClient) -> Generator[Show, None, None]:
    """Offer a function that prints a line."""

    def show() -> None:
        err.print(f"{tally.done}/{tally.total} tokens, {_status(tally, client)}", soft_wrap=True)

    yield show


def _status(tally: Tally, client: TokensClient) -> str:
    return quota_text(client.rate_limit, more=tally.done < tally.total)


async def _watch(work: Coroutine[Any, Any, None], show: Show, every: float) -> None:
    """Wait for the work, and show how it goes all the while, also when nothing comes."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        while not task.done():
            show()
            await asyncio.wait([task], timeout=every)
    show()


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

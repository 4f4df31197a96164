"""The progress line on standard error: how many tokens are done, and what is left of the rate limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from dd_sa_tokens.cli.exit_codes import Tally
from dd_sa_tokens.client import TokensClient
from dd_sa_tokens.models import RateLimit

from .console import Messages

T = TypeVar("T")
Show = Callable[[], None]

BAR_EVERY = 0.1  # seconds: the countdown shows tenths

# The longest usual text, so that the bar beside it keeps its length.
_RATE_LIMIT_WIDTH = len("rate limit 0/100 left, next window in 3.1 s")
_LEAST_BAR = 8  # columns


def rate_limit_text(rate_limit: RateLimit | None, *, more: bool) -> str:
    """Describe what is left of the rate limit.

    Args:
        rate_limit: The current window.
        more: Whether more requests are needed. Then the text names the wait for the next window, if there is one.
    """
    if rate_limit is None or rate_limit.remaining is None:
        return "rate limit not known yet"
    text = f"rate limit {rate_limit.remaining}/{rate_limit.limit} left"
    if more and rate_limit.remaining == 0 and rate_limit.reset is not None:
        text += f", next window in {rate_limit.reset:.1f} s"
    return text


def count_text(tally: Tally) -> str:
    """Return how many tokens are done, and of how many if that is known."""
    return f"{tally.done} {tally.noun}" if tally.total is None else f"{tally.done}/{tally.total} {tally.noun}"


def status_text(tally: Tally, client: TokensClient) -> str:
    """Describe the rate limit as far as this command needs it."""
    return rate_limit_text(client.rate_limit, more=tally.total is None or tally.done < tally.total)


@contextmanager
def bar(messages: Messages, tally: Tally, client: TokensClient) -> Generator[Show, None, None]:
    """Show a bar while the context is open. It gives a function that draws the bar again."""
    # Only a terminal needs them, and they cost a start some milliseconds.
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - see above
    from rich.table import Column  # noqa: PLC0415 - see above

    console = messages.console
    # A terminal echoes Ctrl-C as ^C. Without room for it the line would wrap, and the last redraw would miss it.
    widest = len(f"{tally.total}/{tally.total}" if tally.total is not None else "100000") + len(f" {tally.noun}")
    room = console.width - widest - _RATE_LIMIT_WIDTH - len("  ^C")
    columns = [
        TextColumn("{task.fields[count]}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=min(60, room)),
        TextColumn("{task.fields[status]}", table_column=Column(min_width=_RATE_LIMIT_WIDTH, no_wrap=True)),
    ]
    if room < _LEAST_BAR:
        columns = [TextColumn("{task.fields[count]}, {task.fields[status]}", table_column=Column(no_wrap=True))]
    # rich must not draw from a thread of its own: the client may be read in the thread of its loop only.
    with Progress(*columns, console=console, auto_refresh=False, redirect_stdout=False) as progress:
        task = progress.add_task("", total=tally.total, count="", status="")

        def show() -> None:
            progress.update(
                task,
                completed=tally.done,
                total=tally.total,
                count=count_text(tally),
                status=status_text(tally, client),
                refresh=True,
            )

        yield show


async def watch(work: Coroutine[Any, Any, T], show: Show, every: float) -> T:
    """Wait for the work, and show its progress at an interval, even if nothing arrives.

    Args:
        work: The work.
        show: Shows the progress.
        every: The interval, in seconds.

    Returns:
        What the work returns.
    """
    ticking = asyncio.ensure_future(_tick(show, every))
    try:
        return await work
    finally:
        ticking.cancel()
        await asyncio.wait([ticking])
        show()


async def _tick(show: Show, every: float) -> None:
    while True:
        show()
        await asyncio.sleep(every)


async def with_bar(
    work: Coroutine[Any, Any, T], messages: Messages, tally: Tally, client: TokensClient, *, allowed: bool
) -> T:
    """Wait for the work, with a bar if standard error is a terminal.

    Args:
        work: The work.
        messages: Draws the bar.
        tally: What the bar counts.
        client: The client, for its rate limit.
        allowed: Whether no results can appear in the same terminal meanwhile.

    Returns:
        What the work returns.
    """
    if not (allowed and messages.can_redraw):
        return await work
    with bar(messages, tally, client) as show:
        return await watch(work, show, BAR_EVERY)

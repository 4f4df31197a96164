"""How far a fetch has come and what the quota says, on stderr while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from dd_sa_tokens.client import TokensClient
from dd_sa_tokens.models import RateLimit

from .console import Messages

T = TypeVar("T")
Show = Callable[[], None]

BAR_EVERY = 0.1  # seconds: the countdown shows tenths

_QUOTA_WIDTH = len("quota 0/100 left, next window in 3.1 s")  # so that the bar beside it keeps its length
_NARROWEST_BAR = 8


class Counted(Protocol):
    """What can be shown."""

    @property
    def done(self) -> int:
        """Tokens that need not be waited for any more."""
        ...

    @property
    def total(self) -> int | None:
        """All of them; `None` while that is not known."""
        ...


def quota_text(rate: RateLimit | None, *, more: bool) -> str:
    """Describe what is left of the quota, and the wait for the next window where nothing is and more is needed."""
    if rate is None or rate.remaining is None:
        return "quota not known yet"
    text = f"quota {rate.remaining}/{rate.limit} left"
    if more and rate.remaining == 0 and rate.reset is not None:
        text += f", next window in {rate.reset:.1f} s"
    return text


def count_text(counted: Counted) -> str:
    """Say how many there are of how many."""
    return f"{counted.done} tokens" if counted.total is None else f"{counted.done}/{counted.total} tokens"


def status_text(counted: Counted, client: TokensClient) -> str:
    """Describe the quota as far as this fetch needs it."""
    return quota_text(client.rate_limit, more=counted.total is None or counted.done < counted.total)


@contextmanager
def bar(messages: Messages, counted: Counted, client: TokensClient) -> Generator[Show, None, None]:
    """Offer a function that draws the bar anew."""
    console = messages.console
    # Room is left for the ^C that a terminal echoes: on a line of its own it would make the last redraw miss its line.
    widest = len(f"{counted.total}/{counted.total} tokens" if counted.total is not None else "100000 tokens")
    room = console.width - widest - _QUOTA_WIDTH - len("  ^C")
    columns = [
        TextColumn("{task.fields[count]}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=min(60, room)),
        TextColumn("{task.fields[quota]}", table_column=Column(min_width=_QUOTA_WIDTH, no_wrap=True)),
    ]
    if room < _NARROWEST_BAR:
        columns = [TextColumn("{task.fields[count]}, {task.fields[quota]}", table_column=Column(no_wrap=True))]
    # Not drawn from rich's own thread: the client must be looked at under its loop only.
    with Progress(*columns, console=console, auto_refresh=False, redirect_stdout=False) as progress:
        task = progress.add_task("", total=counted.total, count="", quota="")

        def show() -> None:
            progress.update(
                task,
                completed=counted.done,
                count=count_text(counted),
                quota=status_text(counted, client),
                refresh=True,
            )

        yield show


async def watch(work: Coroutine[Any, Any, T], show: Show, every: float) -> T:
    """Wait for the work, and show how it goes all the while, also when nothing comes."""
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
    work: Coroutine[Any, Any, T], messages: Messages, counted: Counted, client: TokensClient, *, wanted: bool = True
) -> T:
    """Wait for the work, with a bar if stderr is a terminal.

    Args:
        work: The work.
        messages: Where the bar is drawn.
        counted: What it shows.
        client: The client, for its quota.
        wanted: Whether a bar would not disturb what the terminal shows beside it.
    """
    if not (wanted and messages.can_redraw):
        return await work
    with bar(messages, counted, client) as show:
        return await watch(work, show, BAR_EVERY)

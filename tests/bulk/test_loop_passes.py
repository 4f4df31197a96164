"""A bulk fetch of very many positions lets the event loop run in between.

No time is measured: between two passes of the loop at most a fixed number of positions may be handled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import attrs
import pytest
from support.bulk import Service, plain

from dd_sa_tokens import AccessToken, NotFoundError, TokenResult
from dd_sa_tokens._bulk import collect, stream

POSITIONS = 20_000
MOST_AT_ONCE = 5_000  # positions; the package handles 1,000 of them, in less than 10 ms


@attrs.define
class Work:
    """Counts what is done between two passes of the event loop.

    Attributes:
        most: The most that was done between two passes.
    """

    most: int = 0
    _now: int = 0

    def done(self) -> None:
        """Count one piece of work."""
        self._now += 1
        self.most = max(self.most, self._now)

    async def watch(self) -> None:
        """Begin to count anew in each pass of the event loop."""
        while True:
            self._now = 0
            await asyncio.sleep(0)


@pytest.fixture
async def work() -> AsyncIterator[Work]:
    """Work whose passes are counted until the test ends."""
    work = Work()
    task = asyncio.create_task(work.watch())
    yield work
    task.cancel()


def counted(work: Work, make: Callable[[int], Any], count: int = POSITIONS) -> Iterator[Any]:
    """Give positions, and count each of them as work."""
    for number in range(count):
        work.done()
        yield make(number)


def count_copies(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count each copy of an error, which is what a repeated failing ID costs, as work."""
    copy = NotFoundError.with_context

    def with_context(error: NotFoundError, **context: Any) -> NotFoundError:
        work.done()
        return copy(error, **context)

    monkeypatch.setattr(NotFoundError, "with_context", with_context)


UUID_TAIL = "-0000" * 3 + "-" + "0" * 12
KINDS: dict[str, Callable[[int], Any]] = {
    "the same ID": lambda _: "t1",
    "a few IDs in turn": lambda number: f"t{number % 7}",
    "the same UUID in two cases": lambda number: ("0000000A" if number % 2 else "0000000a") + UUID_TAIL,
    "what is no ID": lambda number: number,
    "new ones, then the same": lambda number: f"t{min(number, 2_000)}",
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
async def test_very_many_positions_of_failing_ids(
    work: Work, monkeypatch: pytest.MonkeyPatch, kind: Callable[[int], Any]
) -> None:
    """Very many positions that repeat failing IDs are read, and answered, a few at a time."""
    count_copies(work, monkeypatch)
    service = Service(lambda token_id: NotFoundError("gone", token_id=token_id), delay=0)
    result = await collect(counted(work, kind), plain(service), 50)
    assert len(result) == POSITIONS
    assert not any(item.ok for item in result)
    assert work.most <= MOST_AT_ONCE


async def test_very_many_positions_of_an_async_source(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same holds for an async generator that never waits."""
    count_copies(work, monkeypatch)

    async def source() -> AsyncIterator[str]:
        for token_id in counted(work, lambda _: "t1"):
            yield token_id

    service = Service(lambda token_id: NotFoundError("gone", token_id=token_id), delay=0)
    result = await collect(source(), plain(service), 50)
    assert len(result) == POSITIONS
    assert work.most <= MOST_AT_ONCE


async def test_very_many_positions_of_a_stream(work: Work) -> None:
    """The same holds for a stream whose fetches never wait."""

    async def fetch(token_id: str) -> AccessToken:
        raise NotFoundError(token_id)

    found: list[TokenResult] = []
    async with aclosing(stream(counted(work, lambda _: "t1"), plain(fetch), 50)) as items:
        async for item in items:
            found.append(item)  # noqa: PERF401 - a comprehension would read no differently
    assert len(found) == POSITIONS
    assert work.most <= MOST_AT_ONCE

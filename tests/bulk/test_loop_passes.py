"""A bulk fetch of very many positions, and a list of many pages, let the event loop run in between.

No time is measured: between two passes of the loop at most a fixed number of positions may be handled, and one page.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import attrs
import pytest
from support.bulk import Direct, Service, plain
from support.internals import decode_with, json_loads_strictly
from support.lists import connected
from support.pages import Account
from support.payloads import names

from dd_sa_tokens import AccessToken, NotFoundError, TokenResult
from dd_sa_tokens._bulk import collect, find, stream
from dd_sa_tokens._pagination import read_pages
from dd_sa_tokens.testing import FakeDatadog

POSITIONS = 20_000
MOST_AT_ONCE = 5_000  # positions; the package handles 1,000 of them, in less than 10 ms


@attrs.define
class Work:
    """Counts what is done between two passes of the event loop.

    Attributes:
        most: The most that was done between two passes.
        passes: Passes of the loop so far.
    """

    most: int = 0
    passes: int = 0
    _now: int = 0

    def done(self) -> None:
        """Count one piece of work."""
        self._now += 1
        self.most = max(self.most, self._now)

    async def watch(self) -> None:
        """Begin to count anew in each pass of the event loop."""
        while True:
            self._now = 0
            self.passes += 1
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


class ReadOnce:
    """A source that has a length, and gives what an iterator gives."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    def __len__(self) -> int:
        return POSITIONS

    def __iter__(self) -> Iterator[Any]:
        return self._items


async def never_waiting(items: Iterator[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


async def no_rows() -> AsyncIterator[Any]:
    for row in ():
        yield row


async def test_a_sized_source_is_read_a_few_ids_at_a_time(work: Work) -> None:
    """A source that is read into a list first, such as a cursor, lets the event loop run meanwhile."""
    result = await collect(ReadOnce(counted(work, lambda _: "t1")), plain(Service(delay=0)), 50)
    assert len(result) == POSITIONS
    assert work.most <= MOST_AT_ONCE


@pytest.mark.parametrize("make", [iter, ReadOnce, never_waiting])
async def test_a_find_reads_a_few_ids_at_a_time(work: Work, make: Callable[[Iterator[Any]], Any]) -> None:
    """The same holds for the source of a find, of any kind."""
    result = await find(make(counted(work, lambda number: f"t{number}")), no_rows)
    assert len(result) == POSITIONS
    assert work.most <= MOST_AT_ONCE


async def test_ids_that_a_page_held_cost_no_fetch(work: Work) -> None:
    """Of 20,000 IDs that the list held, none but the first gets a fetch or passes of the loop of its own."""
    tokens = {token_id: AccessToken(id=token_id) for token_id in names(POSITIONS)}
    service = Service(delay=0)
    strategy = Direct(service)
    strategy.known = tokens
    before = work.passes
    result = await collect(counted(work, lambda number: f"t{number}"), lambda _ids: strategy, 50)
    assert [item.token for item in result] == list(tokens.values())
    assert len(service.asked) <= 1
    assert work.passes - before < 100
    assert work.most <= MOST_AT_ONCE


async def test_pages_that_are_there_are_consumed_one_by_one(work: Work) -> None:
    """Pages that come at once are given out in different passes of the loop."""
    account = Account(names(250), delay=0)
    async with aclosing(read_pages(account.read, 50, size=account.size)) as pages:
        async for _ in pages:
            work.done()
    assert work.most <= 2


@pytest.mark.parametrize("strategy", ["list", None])
async def test_pages_are_decoded_one_by_one(work: Work, monkeypatch: pytest.MonkeyPatch, strategy: Any) -> None:
    """Of the pages on their way one is decoded in a pass of the loop, by `get_tokens` and by `list_tokens`."""

    def loads(body: bytes) -> Any:
        work.done()
        return json_loads_strictly(body)

    decode_with(monkeypatch, loads)
    async with FakeDatadog(tokens=1_500, rate_limit=(10_000, 10.0)) as datadog, connected(datadog) as client:
        account = datadog.service_account_id
        if strategy:
            tokens = list((await client.get_tokens(account, datadog.token_ids, strategy=strategy)).tokens.values())
        else:
            tokens = [token async for token in client.list_tokens(account)]
    assert len(tokens) == 1_500
    assert work.most == 1

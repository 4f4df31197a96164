"""Sources of IDs of all kinds, and a fetch that answers them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Any

from support.waiting import HANG, turns

from dd_sa_tokens import (
    AccessToken,
    BulkResult,
    DatadogError,
    TokenResult,
)
from dd_sa_tokens._bulk import collect, stream
from dd_sa_tokens._validation import check_id

CONCURRENCY = 4
FOREVER = 10**9  # turns

Answer = Callable[[str], DatadogError | None]


class Service:
    """Answers fetches and counts them.

    Args:
        answer: Gives the error that an ID meets, or None.
        delay: Turns of the loop that a fetch takes, for all or by ID.
    """

    def __init__(self, answer: Answer = lambda _: None, delay: int | Callable[[str], int] = 1) -> None:
        self._answer = answer
        self._delay = delay
        self.asked: list[str] = []
        self.in_flight = 0
        self.most_in_flight = 0

    async def __call__(self, token_id: str) -> AccessToken:
        check_id("token_id", token_id, "get_token")
        self.asked.append(token_id)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await turns(self._delay if isinstance(self._delay, int) else self._delay(token_id))
        finally:
            self.in_flight -= 1
        error = self._answer(token_id)
        if error is not None:
            raise error
        return AccessToken(id=token_id)


def fail(*errors: type[DatadogError], **by_id: type[DatadogError]) -> Answer:
    """Answer all IDs with the errors in turn (the last one for good), or the named ones with theirs."""
    queue = list(errors)

    def answer(token_id: str) -> DatadogError | None:
        kind = by_id.get(token_id) if by_id else queue.pop(0) if len(queue) > 1 else queue[0]
        return None if kind is None else kind(f"{kind.__name__} for {token_id}", token_id=token_id)

    return answer


async def slowly(token_ids: Iterable[Any], delay: int = 1) -> AsyncIterator[Any]:
    """Give the IDs from an async generator."""
    for token_id in token_ids:
        await turns(delay)
        yield token_id


class ProgressBar:
    """A source with all ways of iteration, such as a progress bar, of which some may raise."""

    def __init__(self, ids: list[Any], *, sized: bool = True, sync: bool = True) -> None:
        self._ids = ids
        self._sized = sized
        self._sync = sync

    def __len__(self) -> int:
        if not self._sized:
            raise TypeError
        return len(self._ids)

    def __iter__(self) -> Iterator[Any]:
        if not self._sync:
            raise TypeError
        yield from self._ids

    def __aiter__(self) -> AsyncIterator[Any]:
        return slowly(self._ids)


class ReadOnce:
    """A source that has a length and a membership test, and is empty when it is read again, such as a cursor."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = deque(items)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __iter__(self) -> Iterator[Any]:
        while self._items:
            yield self._items.popleft()


class NoTruth(list[Any]):
    """A list without a truth value, such as a column of a data frame."""

    def __bool__(self) -> bool:
        raise ValueError


def breaking(token_ids: Iterable[str], error: BaseException) -> Iterator[str]:
    """Give the IDs, then break."""
    yield from token_ids
    raise error


async def breaking_slowly(token_ids: Iterable[str], error: BaseException) -> AsyncIterator[str]:
    """Give the IDs from an async generator, then break."""
    for token_id in breaking(token_ids, error):
        await turns(1)
        yield token_id


class Direct:
    """A strategy that fetches each ID by itself."""

    confirm = None

    def __init__(self, fetch: Any) -> None:
        self.fetch = fetch
        self.known: dict[str, AccessToken] = {}

    async def prepare(self) -> None:
        """Do nothing."""


def plain(fetch: Any) -> Any:
    """Return what makes a strategy that fetches each ID by itself."""
    return lambda _ids: Direct(fetch)


async def gather(token_ids: Any, fetch: Any, concurrency: int = CONCURRENCY) -> BulkResult:
    async with asyncio.timeout(HANG):
        return await collect(token_ids, plain(fetch), concurrency)


async def drain(
    token_ids: Any, fetch: Any, concurrency: int = CONCURRENCY
) -> tuple[list[TokenResult], Exception | None]:
    """Run a stream to its end: the results, and the error that it raised."""
    results: list[TokenResult] = []
    error: Exception | None = None
    async with asyncio.timeout(HANG):
        try:
            async with aclosing(stream(token_ids, plain(fetch), concurrency)) as items:
                async for item in items:
                    results.append(item)  # noqa: PERF401 - the results before an error are wanted
        except TimeoutError:
            raise
        except Exception as raised:  # noqa: BLE001 - the test looks at it
            error = raised
    return results, error

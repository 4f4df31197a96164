"""The bulk engine: N positions in, N results out, in bounded memory, even if some fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import aclosing

from dd_sa_tokens.errors import InvalidArgumentError
from dd_sa_tokens.results import BulkResult, SourceError, TokenResult

from .fetcher import reject_non_id
from .single_flight import copy_for_duplicate
from .strategy import FetchStrategy
from .worker_pool import WorkerPool

Source = Iterable[str] | AsyncIterable[str]


def check_source(token_ids: object) -> None:
    """Refuse a value that does not give IDs.

    Raises:
        InvalidArgumentError: It is a single `str` or `bytes`, or cannot be iterated over.
    """
    if isinstance(token_ids, str | bytes) or not isinstance(token_ids, Iterable | AsyncIterable):
        kind = type(token_ids).__name__
        msg = f"token_ids must be an iterable or async iterable of IDs, not a single {kind}"
        raise InvalidArgumentError(msg)


async def collect(token_ids: Source, strategy: FetchStrategy, concurrency: int) -> BulkResult:
    """Fetch all IDs, each different one once, and return the results in the order of the input.

    Args:
        token_ids: The IDs.
        strategy: Fetches them.
        concurrency: Most fetches at a time.

    Raises:
        SourceError: The iterable raised; the error carries what was fetched.
    """
    await strategy.prepare()
    unique = _Unique(token_ids)
    pool = WorkerPool(unique.ids, strategy.fetch, concurrency, collect_all=True)
    async with aclosing(pool.results()) as items:
        found = {item.token_id: item async for item in items}
    results = unique.arrange(found)
    error = pool.source_error
    if error is not None and not isinstance(error, Exception | asyncio.CancelledError):
        raise error
    if error is not None:
        msg = f"token_ids raised {type(error).__name__} after {len(results)} IDs; partial holds their results"
        raise SourceError(msg, operation="get_tokens", partial=results) from error
    return results


async def stream(token_ids: Source, strategy: FetchStrategy, concurrency: int) -> AsyncGenerator[TokenResult, None]:
    """Fetch all IDs and yield the results as they come.

    Args:
        token_ids: The IDs.
        strategy: Fetches them.
        concurrency: Most results in flight, or fetched and not consumed.

    Yields:
        One result for each position.

    Raises:
        DatadogError: No further ID can succeed: keys refused, or the client closed.
        Exception: What the iterable raised.
    """
    await strategy.prepare()
    source = aiter(token_ids) if isinstance(token_ids, AsyncIterable) else iter(token_ids)
    pool = WorkerPool(source, strategy.fetch, concurrency, collect_all=False)
    async with aclosing(pool.results()) as results:
        async for item in results:
            yield item
    if pool.source_error is not None:
        raise pool.source_error
    if pool.open_reason is not None:
        raise pool.open_reason


class _Unique:
    """The positions of the input, and each different ID among them once.

    Attributes:
        ids: Gives each different ID once, and notes the positions that it comes from.
    """

    def __init__(self, source: Source) -> None:
        self._positions: list[str | TokenResult] = []
        self._known: set[str] = set()
        self.ids: Iterator[str] | AsyncIterator[str]
        if isinstance(source, AsyncIterable):
            self.ids = _AsyncFilter(aiter(source), self)
        else:
            self.ids = (token_id for token_id in source if self.is_new(token_id))

    def is_new(self, token_id: str) -> bool:
        """Note a position; return whether its ID has to be fetched."""
        result = reject_non_id(token_id)
        if result is not None:
            self._positions.append(result)
            return False
        self._positions.append(token_id)
        new = token_id not in self._known
        self._known.add(token_id)
        return new

    def arrange(self, found: dict[str, TokenResult]) -> BulkResult:
        """Put the results in the order of the input; a position that repeats an ID gets an exception of its own."""
        given: set[str] = set()
        items: list[TokenResult] = []
        for position in self._positions:
            item = position if isinstance(position, TokenResult) else found[position]
            items.append(copy_for_duplicate(item) if item.token_id in given else item)
            given.add(item.token_id)
        return BulkResult(items)


class _AsyncFilter(AsyncIterator[str]):
    """The new IDs of an async iterator. It is no generator, so nothing is left to close when a fetch is cancelled."""

    def __init__(self, source: AsyncIterator[str], unique: _Unique) -> None:
        self._source = source
        self._unique = unique

    async def __anext__(self) -> str:
        while True:
            token_id = await anext(self._source)
            if self._unique.is_new(token_id):
                return token_id

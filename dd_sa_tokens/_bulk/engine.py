"""The bulk engine: N positions in, N results out, in bounded memory, even if some fail."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, cast

from dd_sa_tokens._cancellation import error_of
from dd_sa_tokens._validation import canonical_id
from dd_sa_tokens.errors import DatadogError, DeadlineExceededError
from dd_sa_tokens.models import AccessToken
from dd_sa_tokens.results import BulkResult, SourceError, TokenResult

from .deadline import Deadline
from .fetcher import without_request
from .ids import PAUSE, SLICE, Source, as_text, is_rereadable, list_if_sized
from .single_flight import copy_for_duplicate
from .strategy import FetchStrategy
from .worker_pool import WorkerPool

MakeStrategy = Callable[[Collection[object] | None], FetchStrategy]
"""Makes the strategy of a fetch, given its IDs if they may be read before."""


async def collect(
    token_ids: Source,
    make_strategy: MakeStrategy,
    concurrency: int,
    deadline_error: DeadlineExceededError | None = None,
) -> BulkResult:
    """Fetch all IDs, each different one once, and return the results in the order of the input.

    Args:
        token_ids: The IDs.
        make_strategy: Makes what fetches them.
        concurrency: Most fetches at a time.
        deadline_error: What IDs get that have no answer when its `deadline` passes; `None` for no deadline.

    Raises:
        SourceError: The iterable raised, or it is an async one and the deadline passed; the error carries what was
            fetched.
    """
    deadline = None if deadline_error is None else Deadline(deadline_error)
    token_ids, error = await list_if_sized(token_ids)
    ids = cast("Collection[object]", token_ids) if is_rereadable(token_ids) else None
    strategy = make_strategy(ids)
    await _prepare(strategy, deadline)
    unique = Unique(token_ids, known=strategy.known)
    pool = WorkerPool(unique.ids, strategy, concurrency, collect_all=True, deadline=deadline)
    async with aclosing(pool.results()) as items:
        found = {canonical_id(item.token_id): item async for item in items}
    error = error or pool.source_error
    if pool.is_expired:
        rest = unique.ids
        if isinstance(rest, _AsyncFilter):
            error = await _close_source(rest.source) or error or deadline_error
        else:
            assert pool.open_reason is not None
            error = await error_of(_answer_rest(rest, strategy, pool.open_reason, found)) or error
    results = await unique.arrange(found)
    if error is not None and not isinstance(error, Exception | asyncio.CancelledError):
        raise error
    if error is not None:
        raise make_source_error("get_tokens", error, results, deadline_error) from error
    return results


def make_source_error(
    operation: str, cause: BaseException, partial: BulkResult, deadline_error: DeadlineExceededError | None = None
) -> SourceError:
    """Return the error that carries the results of a source that was not read to its end.

    Args:
        operation: The method that the user called.
        cause: What the source raised, or the deadline's error.
        partial: The results.
        deadline_error: The deadline's error; `None` for no deadline.
    """
    what = "the deadline passed" if cause is deadline_error else f"token_ids raised {type(cause).__name__}"
    msg = f"{what} after {len(partial)} IDs; partial holds their results"
    return SourceError(msg, operation=operation, partial=partial)


async def _prepare(strategy: FetchStrategy, deadline: Deadline | None) -> None:
    if deadline is None:
        await strategy.prepare()
    else:
        await deadline.cut_short(strategy.prepare())


async def _answer_rest(
    token_ids: Iterable[Any], strategy: FetchStrategy, reason: DatadogError, found: dict[str, TokenResult]
) -> None:
    """Answer the IDs that no worker took, without a request."""
    for number, token_id in enumerate(token_ids, 1):
        if token_id is not PAUSE:
            found[canonical_id(token_id)] = without_request(token_id, strategy.known, reason)
        if token_id is PAUSE or number % SLICE == 0:
            await asyncio.sleep(0)


async def _close_source(source: object) -> BaseException | None:
    """Close an async generator that is not read to its end: it may hold a connection. Return what it raised."""
    return await error_of(source.aclose()) if isinstance(source, AsyncGenerator) else None


async def stream(
    token_ids: Source,
    make_strategy: MakeStrategy,
    concurrency: int,
    deadline_error: DeadlineExceededError | None = None,
) -> AsyncGenerator[TokenResult, None]:
    """Fetch all IDs and yield the results as they come.

    Args:
        token_ids: The IDs.
        make_strategy: Makes what fetches them.
        concurrency: Most results in flight, or fetched and not consumed.
        deadline_error: What is raised when its `deadline` passes; `None` for no deadline.

    Yields:
        One result for each position.

    Raises:
        DatadogError: No further ID can succeed: keys refused, the client closed, or the deadline passed.
        Exception: What the iterable raised.
    """
    deadline = None if deadline_error is None else Deadline(deadline_error)
    ids = cast("Collection[object]", token_ids) if is_rereadable(token_ids) else None
    strategy = make_strategy(ids)
    await _prepare(strategy, deadline)
    source = aiter(token_ids) if isinstance(token_ids, AsyncIterable) else iter(token_ids)
    pool = WorkerPool(source, strategy, concurrency, collect_all=False, deadline=deadline)
    async with aclosing(pool.results()) as results:
        async for item in results:
            yield item
    source_error = pool.source_error
    if pool.is_expired and source_error is None and ids is not None and isinstance(source, Iterator):
        async with aclosing(_known_rest(source, strategy.known)) as rest:
            async for item in rest:
                yield item
    if pool.is_expired:
        source_error = await _close_source(source) or source_error
    if source_error is not None:
        raise source_error
    if pool.open_reason is not None:
        raise pool.open_reason


async def _known_rest(source: Iterator[Any], known: Mapping[str, AccessToken]) -> AsyncGenerator[TokenResult, None]:
    """Yield the tokens that the list held for positions that no worker took. They need no request."""
    for number, value in enumerate(source if known else (), 1):
        token_id = as_text(value)
        if isinstance(token_id, str) and (token := known.get(canonical_id(token_id))) is not None:
            yield TokenResult(token_id, token)
        if number % SLICE == 0:
            await asyncio.sleep(0)


class Unique:
    """The positions of the input, and each different ID among them once.

    Args:
        source: The input.
        operation: What the errors of positions that are no IDs name.
        known: Tokens that need no fetch, by their IDs in the canonical form.

    Attributes:
        ids: Gives each different ID once, and notes the positions that it comes from. Of the known IDs it gives only
            the first, by which the circuit breaker learns that not everything is forbidden.
    """

    def __init__(
        self, source: Source, operation: str = "get_token", known: Mapping[str, AccessToken] = MappingProxyType({})
    ) -> None:
        self._operation = operation
        self._tokens = known
        self._gave_known = False
        self._positions: list[str | TokenResult] = []
        self._seen: set[str] = set()
        self.ids: Iterator[Any] | _AsyncFilter
        if isinstance(source, AsyncIterable):
            self.ids = _AsyncFilter(source, self)
        else:
            self.ids = self._filter(source)

    def _filter(self, source: Iterable[Any]) -> Iterator[Any]:
        for value in source:
            token_id = self.take(value)
            if token_id is not None:
                yield token_id
            elif len(self._positions) % SLICE == 0:
                yield PAUSE

    @property
    def at_slice_end(self) -> bool:
        """Whether the event loop should run before the next position is read."""
        return len(self._positions) % SLICE == 0

    def take(self, value: Any) -> str | None:
        """Note a position; return its ID if that has to be fetched."""
        token_id = as_text(value, self._operation)
        self._positions.append(token_id)
        if isinstance(token_id, TokenResult):
            return None
        key = canonical_id(token_id)
        if key in self._tokens:
            if self._gave_known:
                return None
            self._gave_known = True
        elif key in self._seen:
            return None
        else:
            self._seen.add(key)
        return token_id

    async def arrange(self, found: dict[str, TokenResult]) -> BulkResult:
        """Put the results in the order of the input, each with the text and an exception of its own position."""
        given: set[str] = set()
        items: list[TokenResult] = []
        for number, position in enumerate(self._positions, 1):
            if isinstance(position, TokenResult):
                items.append(position)
            elif (token := self._tokens.get(key := canonical_id(position))) is not None:
                items.append(TokenResult(position, token))
            else:
                item = found[key]
                items.append(copy_for_duplicate(item, position) if key in given else item)
                given.add(key)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        return BulkResult(items)


class _AsyncFilter(AsyncIterator[Any]):
    """The new IDs of an async iterable. It is no generator, so nothing is left to close when a fetch is cancelled.

    Attributes:
        source: The iterable; its iterator, once that has begun.
    """

    def __init__(self, source: AsyncIterable[Any], unique: Unique) -> None:
        self.source = source
        self._iterator: AsyncIterator[Any] | None = None
        self._unique = unique

    async def __anext__(self) -> Any:
        if self._iterator is None:  # here, and not before: what it raises is an error of the source
            self._iterator = self.source = aiter(self.source)
        while True:
            token_id = self._unique.take(await anext(self._iterator))
            if token_id is not None:
                return token_id
            if self._unique.at_slice_end:
                return PAUSE

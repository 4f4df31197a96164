"""Many IDs over any coroutine function: each answered once, in bounded memory, whatever single ones meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing

from ._crew import Crew
from ._inquiry import Fetch, not_an_id, twin
from .errors import InvalidArgumentError
from .results import BulkResult, SourceError, TokenResult

Plan = Callable[[], Awaitable[Fetch]]
Source = Iterable[str] | AsyncIterable[str]


def check_source(token_ids: object) -> None:
    """Refuse what is no collection of IDs.

    Raises:
        InvalidArgumentError: It is a single `str` or `bytes`, or cannot be iterated over.
    """
    if isinstance(token_ids, str | bytes) or not isinstance(token_ids, Iterable | AsyncIterable):
        kind = type(token_ids).__name__
        msg = f"token_ids must be an iterable or async iterable of IDs, not a single {kind}"
        raise InvalidArgumentError(msg)


async def collect(token_ids: Source, plan: Plan, width: int) -> BulkResult:
    """Fetch all IDs, each different one once, and return the results in the order of the input.

    Args:
        token_ids: The IDs.
        plan: Gives what fetches one.
        width: Most fetches at a time.

    Raises:
        SourceError: The iterable raised; the error carries what was fetched.
    """
    order = _Order(token_ids)
    crew = Crew(order.unique, await plan(), width, to_the_end=True)
    found = {item.token_id: item async for item in crew.results()}
    results = order.arrange(found)
    if crew.error is not None and not isinstance(crew.error, Exception | asyncio.CancelledError):
        raise crew.error
    if crew.error is not None:
        msg = f"token_ids raised {type(crew.error).__name__} after {len(results)} IDs; partial holds their results"
        raise SourceError(msg, operation="get_tokens", partial=results) from crew.error
    return results


async def stream(token_ids: Source, plan: Plan, width: int) -> AsyncGenerator[TokenResult, None]:
    """Fetch all IDs and yield the results as they come.

    Args:
        token_ids: The IDs.
        plan: Gives what fetches one.
        width: Most results in flight, or fetched and not consumed.

    Raises:
        DatadogError: No further ID can succeed: keys refused, or the client closed.
        Exception: What the iterable raised.
    """
    crew = Crew(_iterator(token_ids), await plan(), width, to_the_end=False)
    async with aclosing(crew.results()) as results:
        async for item in results:
            yield item
    if crew.error is not None:
        raise crew.error
    if crew.stopped is not None:
        raise crew.stopped


def _iterator(source: Source) -> Iterator[str] | AsyncIterator[str]:
    return aiter(source) if isinstance(source, AsyncIterable) else iter(source)


class _Order:
    """The positions of the input, and each different ID among them once."""

    def __init__(self, source: Source) -> None:
        self._positions: list[str | TokenResult] = []
        self._known: set[str] = set()
        self.unique = self._each_async(source) if isinstance(source, AsyncIterable) else self._each(source)

    def _each(self, source: Iterable[str]) -> Iterator[str]:
        for token_id in source:
            if self._is_new(token_id):
                yield token_id

    async def _each_async(self, source: AsyncIterable[str]) -> AsyncIterator[str]:
        async for token_id in source:
            if self._is_new(token_id):
                yield token_id

    def _is_new(self, token_id: str) -> bool:
        result = not_an_id(token_id)
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
            items.append(twin(item) if item.token_id in given else item)
            given.add(item.token_id)
        return BulkResult(items)

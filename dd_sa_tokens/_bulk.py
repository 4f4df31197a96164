"""Many IDs over any coroutine function: each answered once, in bounded memory, whatever single ones meet.

Workers share one iterator over the IDs. A worker takes an ID, asks for it, delivers the result, and may take the next
only when the consumer has room for another result. The workers are plain tasks that end with the generator that
delivers the results: a task group must not span a `yield`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Any, cast

from .errors import (
    ClientClosedError,
    ConfigurationError,
    DatadogError,
    ForbiddenError,
    InvalidArgumentError,
    UnauthorizedError,
    shown,
)
from .models import AccessToken
from .results import BulkResult, SourceError, TokenResult

MANY_FORBIDDEN = 10
"""403s, with nothing else come back, from which it follows that no other ID can succeed."""

Fetch = Callable[[Any], Awaitable[AccessToken]]
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


def _not_an_id(value: object) -> TokenResult | None:
    """Return the result for a position that holds no `str`, which may not even be hashable."""
    if isinstance(value, str):
        return None
    error = InvalidArgumentError(f"token_id must be a str, not {type(value).__name__}", operation="get_token")
    return TokenResult(f"<{type(value).__name__} {shown(value)}>", error=error)  # no ID looks like that


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
        result = _not_an_id(token_id)
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
            items.append(_twin(item) if item.token_id in given else item)
            given.add(item.token_id)
        return BulkResult(items)


def _twin(item: TokenResult) -> TokenResult:
    return item if item.error is None else TokenResult(item.token_id, error=item.error.with_context())


class Crew:
    """Workers that share an iterator, and what they have found out together.

    Args:
        source: Gives the IDs.
        fetch: Fetches one.
        width: Most results in flight, or fetched and not consumed.
        to_the_end: Whether every position of the source gets an answer that is kept: then the results need not wait to
            be consumed, and the rest of the source gets one, too, when no other ID can succeed.
    """

    def __init__(
        self, source: Iterator[str] | AsyncIterator[str], fetch: Fetch, width: int, *, to_the_end: bool
    ) -> None:
        self._to_the_end = to_the_end
        self._source = source
        self._is_async = isinstance(source, AsyncIterator)
        self._fetch = fetch
        self._width = width
        self._open = True  # the source may have more
        self._outstanding = 0  # positions taken and not consumed
        self._ready: deque[TokenResult] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._news: asyncio.Future[None] | None = None
        self._taking = asyncio.Lock()  # an async iterator cannot be asked twice at a time
        self._asking: dict[asyncio.Task[Any], None] = {}
        self._flights: dict[str, list[asyncio.Future[TokenResult]]] = {}
        self._confirming = asyncio.Lock()
        self._forbidden = 0
        self._refusal: ForbiddenError | None = None
        self._promising = False  # something else than a 403 has come back
        self._leaving = False
        self.error: BaseException | None = None
        self.broken: BaseException | None = None
        self.stopped: DatadogError | None = None

    async def results(self) -> AsyncGenerator[TokenResult, None]:
        """Yield the results as they come; at its end `error` (the source's) and `stopped` say what cut it short."""
        self._hire()
        try:
            while self._ready or self._at_work:
                while self._ready:
                    item = self._ready.popleft()
                    if not self._to_the_end:
                        self._outstanding -= 1
                        self._wake(1)
                    yield item
                if self._at_work:
                    self._news = asyncio.get_running_loop().create_future()
                    await self._news
        finally:
            self._leaving = True
            workers = list(self._workers)
            for worker in workers:
                worker.cancel()
            if workers:
                await asyncio.wait(workers)
        if self.broken is not None:
            raise self.broken

    def _hire(self) -> None:
        worker = asyncio.get_running_loop().create_task(self._work())
        self._workers.add(worker)
        worker.add_done_callback(self._leave)

    def _leave(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        self._tell()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _wake(self, count: int) -> None:
        while self._idle and count:
            worker = self._idle.popleft()
            if not worker.done():
                worker.set_result(None)
                count -= 1

    @property
    def _at_work(self) -> bool:
        # Once nothing more is to be sent, nobody waits for a source that is slow to give its next ID.
        return bool(self._asking if self.stopped is not None and not self._to_the_end else self._workers)

    @property
    def _suspicious(self) -> bool:
        return self._forbidden >= MANY_FORBIDDEN and not self._promising and self.stopped is None

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            while self._open:
                if self._outstanding >= self._width or self._suspicious:
                    self._idle.append(asyncio.get_running_loop().create_future())
                    await self._idle[-1]
                    continue
                self._outstanding += 1
                taken = await self._take_async(task) if self._is_async else self._take()
                if not taken:
                    self._outstanding -= 1
                    break
                if len(self._workers) < self._width and not self._idle:
                    self._hire()
                result = _not_an_id(taken[0]) or await self._answer(task, taken[0])
                self._ready.append(result)
                self._outstanding -= self._to_the_end  # all are kept then, so none has to wait to be consumed
                self._tell()
        except (Exception, asyncio.CancelledError) as error:
            if task.cancelling():
                raise
            self.broken = self.broken or error  # not about one ID: the consumer must see it
            self._end()

    def _take(self) -> tuple[str] | None:
        try:
            for token_id in cast("Iterator[str]", self._source):
                return (token_id,)
        except BaseException as error:  # noqa: BLE001 - whatever the source raised, a cancellation of its own included
            self.error = error
        self._end()
        return None

    async def _take_async(self, task: asyncio.Task[Any]) -> tuple[str] | None:
        try:
            async with self._taking:
                if self._open:
                    async for token_id in cast("AsyncIterator[str]", self._source):
                        return (token_id,)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and task.cancelling():
                raise
            self.error = error  # as above
        self._end()
        return None

    def _end(self) -> None:
        self._open = False
        self._wake(len(self._idle))

    async def _answer(self, task: asyncio.Task[Any], token_id: str) -> TokenResult:
        if self.stopped is not None:
            return self._not_sent(token_id, self.stopped)
        self._asking[task] = None
        try:
            result = await self._share(token_id)
        except asyncio.CancelledError:
            if self.stopped is None or self._leaving:
                raise
            task.uncancel()
            result = self._not_sent(token_id, self.stopped)
        finally:
            del self._asking[task]
        # Those that are still under way may yet show that not everything is forbidden.
        if self._suspicious and not self._asking and self._refusal is not None:
            self._stop(self._refusal)
        return result

    def _not_sent(self, token_id: str, why: DatadogError) -> TokenResult:
        return TokenResult(token_id, error=why.with_context(token_id=token_id, attempts=0))

    async def _share(self, token_id: str) -> TokenResult:
        """Ask for an ID, or wait for the answer if it is being asked for already."""
        flight = self._flights.get(token_id)
        if flight is not None:
            flight.append(asyncio.get_running_loop().create_future())
            return await flight[-1]
        flight = self._flights[token_id] = list[asyncio.Future[TokenResult]]()
        try:
            result = await self._ask(token_id)
            if isinstance(result.error, UnauthorizedError):
                result = await self._confirm(result)
        except BaseException:
            for twin in flight:
                twin.cancel()
            raise
        finally:
            del self._flights[token_id]
        self._note(result)
        for twin in flight:
            if not twin.done():
                twin.set_result(_twin(result))
        return result

    async def _ask(self, token_id: str) -> TokenResult:
        try:
            return TokenResult(token_id, await self._fetch(token_id))
        except ConfigurationError:
            raise  # it is the client that is wrong, not this ID
        except DatadogError as error:
            # Without its frames: a million failures must not keep a million of them alive.
            return TokenResult(token_id, error=error.with_traceback(None))

    async def _confirm(self, refused: TokenResult) -> TokenResult:
        """Try once more after a 401: keys are the same for all IDs, so one at a time makes sure for all of them."""
        async with self._confirming:
            if self.stopped is not None:
                return refused
            result = await self._ask(refused.token_id)
            if isinstance(result.error, UnauthorizedError):
                self._stop(result.error)
            return result

    def _note(self, result: TokenResult) -> None:
        """See what an answer says about all the other IDs."""
        if isinstance(result.error, ClientClosedError):
            self._stop(result.error)
        elif isinstance(result.error, ForbiddenError):
            self._forbidden, self._refusal = self._forbidden + 1, result.error
        elif not isinstance(result.error, InvalidArgumentError):
            was_suspicious, self._promising = self._suspicious, True
            if was_suspicious:
                self._wake(len(self._idle))

    def _stop(self, error: DatadogError) -> None:
        """Send nothing more: no other ID can succeed."""
        if self.stopped is not None:
            return
        self.stopped = error.with_context(token_id=None)
        self._open = self._open and self._to_the_end
        self._wake(len(self._idle))
        for task in self._asking:
            if task is not asyncio.current_task():
                task.cancel()

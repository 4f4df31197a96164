"""Workers that share an iterator over IDs: each takes one, has it answered, delivers the result, and takes the next.

A worker may take the next ID only when the consumer has room for another result. The workers are plain tasks that end
with the generator that delivers the results: a task group must not span a `yield`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

from ._inquiry import Fetch, Inquiry
from .errors import DatadogError
from .results import TokenResult


class Crew:
    """Workers that share an iterator.

    Args:
        source: Gives the IDs.
        fetch: Fetches one.
        width: Most results in flight, or fetched and not consumed.
        to_the_end: Whether every position of the source gets an answer that is kept: then `width` may be in flight and
            as many to be consumed, and the rest of the source gets an answer, too, when no other ID can succeed.

    Attributes:
        error: What the source raised, if it did.
        broken: What a worker raised that is not about one ID, if one did.
    """

    def __init__(
        self, source: Iterator[str] | AsyncIterator[str], fetch: Fetch, width: int, *, to_the_end: bool
    ) -> None:
        self._to_the_end = to_the_end
        self._source: Any = source  # an Iterator or an AsyncIterator
        self._is_async = isinstance(source, AsyncIterator)
        self._inquiry = Inquiry(fetch, self._reconsider)
        self._width = width
        self._open = True  # the source may have more
        self._outstanding = 0  # positions taken and not consumed
        self._ready: deque[TokenResult] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._news: asyncio.Future[None] | None = None
        self._taking = asyncio.Lock()  # an async iterator cannot be asked twice at a time
        self.error: BaseException | None = None
        self.broken: BaseException | None = None

    @property
    def stopped(self) -> DatadogError | None:
        """Why no other ID can succeed; `None` while one may."""
        return self._inquiry.stopped

    async def results(self) -> AsyncGenerator[TokenResult, None]:
        """Yield the results as they come; at its end `error` (the source's) and `stopped` say what cut it short."""
        self._hire()
        try:
            while self._ready or self._at_work:
                while self._ready:
                    item = self._ready.popleft()
                    self._outstanding -= not self._to_the_end
                    self._wake(1)
                    yield item
                if self._at_work:
                    self._news = asyncio.get_running_loop().create_future()
                    await self._news
        finally:
            workers = list(self._workers)
            for worker in workers:
                worker.cancel()
            if workers:
                await asyncio.wait(workers)
        if self.broken is not None:
            raise self.broken

    def _reconsider(self) -> None:
        """Let those who wait see whether to go on."""
        self._open = self._open and (self._to_the_end or self.stopped is None)
        self._wake(len(self._idle))

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
        return self._inquiry.busy if self.stopped is not None and not self._to_the_end else bool(self._workers)

    @property
    def _has_room(self) -> bool:
        return self._outstanding < self._width and len(self._ready) < self._width

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            while self._open:
                if not self._has_room or self._inquiry.suspicious:
                    self._idle.append(asyncio.get_running_loop().create_future())
                    await self._idle[-1]
                    continue
                self._outstanding += 1
                taken = await self._take_async(task) if self._is_async else self._take()
                if not taken:
                    break
                if len(self._workers) < self._width and not self._idle:
                    self._hire()
                result = await self._inquiry.answer(task, taken[0])
                self._ready.append(result)
                self._outstanding -= self._to_the_end  # all are kept then, so none has to wait to be consumed
                self._tell()
                # Others may have been answered at the same time: all answers first, then all new requests. What is done
                # many times in a row stays in the processor's caches; taking turns costs a sixth of the speed.
                await asyncio.sleep(0)
        except (Exception, asyncio.CancelledError) as error:
            if task.cancelling():
                raise
            self.broken = self.broken or error  # not about one ID: the consumer must see it
            self._end()

    def _take(self) -> tuple[str] | None:
        try:
            for token_id in self._source:
                return (token_id,)
        except BaseException as error:  # noqa: BLE001 - whatever the source raised, a cancellation of its own included
            self.error = error
        self._end()
        return None

    async def _take_async(self, task: asyncio.Task[Any]) -> tuple[str] | None:
        try:
            async with self._taking:
                if self._open:
                    async for token_id in self._source:
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

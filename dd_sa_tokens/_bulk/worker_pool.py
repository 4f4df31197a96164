"""Workers that share an iterator over IDs: each takes one, has it fetched, delivers the result, and takes the next.

A worker may take the next ID only when the consumer has room for another result. The workers are plain tasks that end
with the generator that delivers the results: a task group must not span a `yield`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

from dd_sa_tokens._cancellation import Cancellation
from dd_sa_tokens.errors import DatadogError
from dd_sa_tokens.results import TokenResult

from .deadline import Deadline
from .fetcher import Fetcher
from .ids import PAUSE
from .strategy import FetchStrategy


class WorkerPool:
    """Workers that share an iterator.

    Args:
        source: Gives the IDs, and `PAUSE` where the event loop should run.
        strategy: Fetches the tokens.
        concurrency: Most results in flight, or fetched and not consumed.
        collect_all: Whether every position of the source gets an answer that is kept. Then `concurrency` may be in
            flight and as many wait to be consumed. And when no other ID can succeed, the rest of the source gets an
            answer, too.
        deadline: When nothing more is sent, nor taken from the source.

    Attributes:
        source_error: What the source raised, if it did.
        is_expired: Whether the deadline passed before all was answered.
    """

    def __init__(
        self,
        source: Iterator[Any] | AsyncIterator[Any],
        strategy: FetchStrategy,
        concurrency: int,
        *,
        collect_all: bool,
        deadline: Deadline | None = None,
    ) -> None:
        self._collect_all = collect_all
        self._answers_rest = collect_all  # when no other ID can succeed
        self._deadline = deadline
        self._source: Any = source  # an Iterator or an AsyncIterator
        self._is_async = isinstance(source, AsyncIterator)
        self._fetcher = Fetcher(strategy.fetch, strategy.known, self._on_breaker_change, confirm=strategy.confirm)
        self._concurrency = concurrency
        self._takes_more = True  # workers go on taking IDs from the source
        self._paused = False  # the event loop runs before the source is asked again, by any worker
        self._outstanding = 0  # positions taken and not consumed
        self._ready: deque[TokenResult] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._wanted = 0  # workers that are being started
        self._ending = False  # the workers are cancelled by this pool
        self._idle: deque[asyncio.Future[None]] = deque()
        self._result_ready: asyncio.Future[None] | None = None
        self._source_lock = asyncio.Lock()  # an async iterator must not be asked twice at a time
        self.source_error: BaseException | None = None
        self.is_expired = False
        self._worker_error: BaseException | None = None  # not about one ID, so the consumer must see it

    @property
    def open_reason(self) -> DatadogError | None:
        """Why no other ID can succeed; `None` while one may."""
        return self._fetcher.breaker.open_reason

    async def results(self) -> AsyncGenerator[TokenResult, None]:
        """Yield the results as they come. At its end `source_error` and `open_reason` say what cut it short."""
        timer = self._set_timer()
        self._spawn_worker()
        try:
            while self._ready or self._running:
                while self._ready:
                    item = self._ready.popleft()
                    if not self._collect_all:
                        self._outstanding -= 1
                    self._wake(1)
                    yield item
                if self._running:
                    self._result_ready = asyncio.get_running_loop().create_future()
                    await self._result_ready
            await self._end_workers()
            while self._ready:  # a source that ignores cancellation may still have given an ID
                yield self._ready.popleft()
        finally:
            if timer is not None:
                timer.cancel()
            await self._end_workers()
        if self._worker_error is not None:
            raise self._worker_error

    async def _end_workers(self) -> None:
        self._ending, workers = True, list(self._workers)
        for worker in workers:
            worker.cancel()
        if workers:
            await asyncio.wait(workers)

    def _set_timer(self) -> asyncio.Handle | None:
        if self._deadline is None:
            return None
        if self._deadline.has_passed:
            self._expire(self._deadline)
            return None
        return asyncio.get_running_loop().call_at(self._deadline.at, self._expire, self._deadline)

    def _expire(self, deadline: Deadline) -> None:
        """End all requests, and take no more from the source: the deadline has passed."""
        if not self._takes_more and not self._fetcher.is_busy:
            return  # all was answered, though not all consumed
        self.is_expired, self._answers_rest = True, False
        self._fetcher.breaker.open(deadline.error)
        self._on_breaker_change()
        self._notify()

    def _on_breaker_change(self) -> None:
        """Wake the idle workers, which check whether to go on."""
        if self.open_reason is not None and not self._answers_rest:
            self._takes_more = False
        self._wake(len(self._idle))

    def _spawn_worker(self) -> None:
        """Start a worker. A worker that runs at once (an eager task factory) and wants another does not start it."""
        self._wanted += 1
        if self._wanted > 1:
            return
        while self._wanted:
            worker = asyncio.get_running_loop().create_task(self._run_worker())
            self._workers.add(worker)
            worker.add_done_callback(self._on_worker_done)
            self._wanted -= 1

    def _on_worker_done(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        self._notify()

    def _notify(self) -> None:
        if self._result_ready is not None and not self._result_ready.done():
            self._result_ready.set_result(None)

    def _wake(self, count: int) -> None:
        while self._idle and count:
            worker = self._idle.popleft()
            if not worker.done():
                worker.set_result(None)
                count -= 1

    @property
    def _running(self) -> bool:
        # Once nothing more is sent, a source that is slow to give its next ID is not waited for.
        if self.open_reason is not None and not self._answers_rest:
            return self._fetcher.is_busy
        return bool(self._workers)

    @property
    def _has_room(self) -> bool:
        return not self._paused and self._outstanding < self._concurrency and len(self._ready) < self._concurrency

    async def _run_worker(self) -> None:
        worker = Cancellation.of_current_task()
        try:
            while self._takes_more:
                if not self._has_room or self._fetcher.breaker.half_open:
                    self._idle.append(asyncio.get_running_loop().create_future())
                    await self._idle[-1]
                    continue
                self._outstanding += 1
                taken = await self._take_async(worker) if self._is_async else self._take()
                if not taken:
                    break
                if taken[0] is PAUSE:
                    self._outstanding -= 1
                    await self._pause()
                    continue
                if len(self._workers) + self._wanted < self._concurrency and not self._idle:
                    self._spawn_worker()
                result = await self._fetcher.fetch(worker, taken[0])
                self._ready.append(result)
                if self._collect_all:  # all are kept, so none has to wait to be consumed
                    self._outstanding -= 1
                self._notify()
                # Others may have been answered at the same time: all answers first, then all new requests. What is done
                # many times in a row stays in the processor's caches; taking turns costs a sixth of the speed.
                await asyncio.sleep(0)
        except (Exception, asyncio.CancelledError) as error:
            if worker.is_external() and self._ending:
                raise
            # A worker cancelled from outside leaves an ID without a result, so the whole fetch ends.
            self._worker_error = self._worker_error or error
            self._stop_taking()

    async def _pause(self) -> None:
        """Let the event loop run. Until then no other worker asks the source, or each would handle a slice of it."""
        self._paused = True
        try:
            await asyncio.sleep(0)
        finally:
            self._paused = False
            self._wake(len(self._idle))

    def _take(self) -> tuple[Any] | None:
        try:
            for token_id in self._source:
                return (token_id,)
        except BaseException as error:  # noqa: BLE001 - the source may raise anything, a CancelledError included
            self.source_error = error
        self._stop_taking()
        return None

    async def _take_async(self, worker: Cancellation) -> tuple[Any] | None:
        try:
            async with self._source_lock:
                if self._takes_more:
                    async for token_id in self._source:
                        return (token_id,)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and worker.is_external():
                raise
            self.source_error = error  # the source may raise anything, a CancelledError included
        self._stop_taking()
        return None

    def _stop_taking(self) -> None:
        self._takes_more = False
        self._wake(len(self._idle))

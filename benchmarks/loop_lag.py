"""What another task on the event loop feels: how late one runs that wants to run each millisecond, and who holds it."""

from __future__ import annotations

import asyncio
import gc
import selectors
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs

_INTERVAL = 0.001  # seconds


@attrs.define
class LoopLag:
    """How late the task ran. All times are in seconds."""

    lags: list[float] = attrs.Factory(list[float])  # the delay for each millisecond, in order
    longest_hold: float = 0.0
    """The most CPU time between two looks of the loop at its sockets and timers, without the pauses of
    Python's garbage collector. Other processes on the machine do not lengthen it."""
    _looked: float = -1.0  # CPU time when the loop had looked, without the collector's; below 0 at first
    _collecting: float = 0.0  # CPU time of the garbage collector so far
    _collection_start: float = 0.0

    @property
    def p50(self) -> float:
        return statistics.median(self.lags)

    @property
    def p99(self) -> float:
        """The delay that one in a hundred exceeds."""
        return statistics.quantiles(self.lags, n=100)[98]

    @property
    def worst(self) -> float:
        return max(self.lags)

    def on_collection(self, phase: str, _info: Mapping[str, int]) -> None:
        """Add the time of a collection."""
        if phase == "start":
            self._collection_start = time.thread_time()
        else:
            self._collecting += time.thread_time() - self._collection_start

    def on_look(self, *, done: bool) -> None:
        """Note that the loop begins to look, or is done with it."""
        now = time.thread_time() - self._collecting
        if not done and self._looked >= 0:
            self.longest_hold = max(self.longest_hold, now - self._looked)
        self._looked = now

    async def measure(self) -> None:
        """Run each millisecond until cancelled.

        A delay of 5 ms also delays the four runs that were due meanwhile, and each counts: so the percentiles are
        those of a request that arrives at a random time.
        """
        due = time.perf_counter() + _INTERVAL
        while True:
            await asyncio.sleep(max(due - time.perf_counter(), 0.0))
            now = time.perf_counter()
            while due <= now:
                self.lags.append(now - due)
                due += _INTERVAL


class _Selector(selectors.DefaultSelector):
    """Tells when the loop looks."""

    lag: LoopLag | None = None

    def select(self, timeout: float | None = None) -> Any:
        if self.lag is None:
            return super().select(timeout)
        self.lag.on_look(done=False)
        ready = super().select(timeout)
        self.lag.on_look(done=True)
        return ready


class WatchedLoop(asyncio.SelectorEventLoop):
    """An event loop whose passes can be measured."""

    def __init__(self) -> None:
        self.watched = _Selector()
        super().__init__(self.watched)


@asynccontextmanager
async def measured_lag() -> AsyncIterator[LoopLag]:
    """Measure while the context is open; on a `WatchedLoop`."""
    loop, lag = asyncio.get_running_loop(), LoopLag()
    assert isinstance(loop, WatchedLoop)
    gc.collect()
    await asyncio.sleep(0)  # the next pass is the first that is measured
    loop.watched.lag = lag
    gc.callbacks.append(lag.on_collection)
    task: asyncio.Task[Any] = asyncio.create_task(lag.measure())
    await asyncio.sleep(2 * _INTERVAL)  # it runs before what is measured begins
    try:
        yield lag
        await asyncio.sleep(2 * _INTERVAL)  # it runs after the last hold
    finally:
        loop.watched.lag = None
        gc.callbacks.remove(lag.on_collection)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

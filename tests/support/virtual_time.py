"""An event loop in which time jumps, and a rate limiter that runs under it."""

from __future__ import annotations

import asyncio
import functools
import math
import selectors
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import attrs

from dd_sa_tokens import RateLimit
from dd_sa_tokens._clock import Clock
from dd_sa_tokens._ratelimit import RateLimiter
from dd_sa_tokens.config import ConcurrencyBound

EPOCH = 1_800_000_000.0  # a whole multiple of every period used here
GET = "get_token"
LIST = "list_tokens"


class _JumpingSelector(selectors.SelectSelector):
    """Instead of waiting, it moves the loop's clock."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            msg = "all tasks wait, and no timer is set"
            raise AssertionError(msg)
        self.loop.now += max(timeout, 0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which time passes only when all tasks wait."""

    def __init__(self) -> None:
        self.now = 1000.0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    @property
    def timers(self) -> int:
        """Timers that are set."""
        return sum(not handle.cancelled() for handle in self._scheduled)


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test under the clock that jumps."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def now() -> float:
    return asyncio.get_running_loop().time()


def wall() -> float:
    return EPOCH - 1000.0 + now()


def make(concurrency: int = 50) -> RateLimiter:
    return RateLimiter(concurrency, clock=Clock(now, wall))


def rate(limit: int, remaining: int, reset: float, period: float = 10.0) -> RateLimit:
    return RateLimit(limit, period, remaining, reset, None)


async def enter(
    limiter: RateLimiter,
    operation: str = GET,
    max_wait: float | None = None,
    reserve: float = 0.0,
    bound: ConcurrencyBound | None = None,
) -> Any:
    permit = limiter.try_acquire(operation, reserve, bound)
    return permit or await limiter.acquire(operation, max_wait, reserve=reserve, bound=bound)


async def turns(count: int = 5) -> None:
    """Let each task that can run do so; no time passes."""
    for _ in range(count):
        await asyncio.sleep(0)


async def opened(limiter: RateLimiter, operation: str = GET, answer: RateLimit | None = None) -> None:
    """Let one request through and answer it, so that the rate limiter knows what there is to know."""
    permit = limiter.try_acquire(operation)
    assert permit is not None
    limiter.record_response(permit, answer, 200)


@attrs.define
class CountingServer:
    """A server's windows: calendar-aligned on its own clock, with the reset counted in whole seconds."""

    limit: int
    period: float = 10.0
    rounding: Callable[[float], float] = math.ceil
    clock_offset: float = 0.0
    spent: Counter[int] = attrs.field(factory=Counter)
    rejected: int = 0

    def spend(self) -> tuple[RateLimit, int]:
        """Count one request, now."""
        clock = wall() + self.clock_offset
        window = int(clock // self.period)
        reset = self.rounding((window + 1) * self.period - clock)
        if self.spent[window] >= self.limit:
            self.rejected += 1
            return rate(self.limit, 0, reset, self.period), 429
        self.spent[window] += 1
        return rate(self.limit, self.limit - self.spent[window], reset, self.period), 200

"""Tests on an event loop in which time jumps, and a rate limiter that runs under it."""

from __future__ import annotations

import asyncio
import functools
import math
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import attrs

from benchmarks.virtual_loop import EPOCH, VirtualLoop, run_virtual
from dd_sa_tokens import RateLimit
from dd_sa_tokens._clock import Clock
from dd_sa_tokens._ratelimit import RateLimiter
from dd_sa_tokens.config import ConcurrencyBound

START = 1000.0  # of the loop's clock
GET = "get_token"
LIST = "list_tokens"


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test under the clock that jumps."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_virtual(test(*args, **kwargs), start=START)

    return run


def now() -> float:
    return asyncio.get_running_loop().time()


def block(seconds: float) -> None:
    """Let time pass as if code held the loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.block(seconds)


def wall() -> float:
    return EPOCH - START + now()


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

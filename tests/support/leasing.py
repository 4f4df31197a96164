"""Limiters that share a limit through a store, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import attrs
import redis

from benchmarks.virtual_store import Script, VirtualStore
from dd_sa_tokens import RateLimit
from dd_sa_tokens._clock import Clock
from dd_sa_tokens._ratelimit import RateLimiter, share_limits
from dd_sa_tokens.fleet import Lease, LeaseRequest, WindowView

from .virtual_time import GET, CountingServer, now, wall


def virtual_store(connection: redis.Redis) -> VirtualStore:
    return VirtualStore(Script(connection, wall))


def sharing(store: Any, concurrency: int = 50) -> RateLimiter:
    """Return the limiter of a client that uses a store, in virtual time."""
    return RateLimiter(concurrency, clock=Clock(now, wall), shared=share_limits(store, "https://api.test"))


def seen(remaining: int, ends_in: float, limit: int = 100, period: float = 10.0, **more: Any) -> WindowView:
    """Describe a window as a client with a good clock sees it."""
    about: dict[str, Any] = {"uncertainty": 0.02} | more
    return WindowView(limit=limit, period=period, remaining=remaining, ends_in=ends_in, **about)


@attrs.define
class Fleet:
    """Clients that spend one limit, each through a limiter of its own.

    Attributes:
        server: The server's windows.
        latency: Seconds of a round trip to the server.
        received: When each answer came that was no 429.
    """

    server: CountingServer
    latency: float = 0.02
    received: list[float] = attrs.field(factory=list)

    async def send(self, limiter: RateLimiter, reserve: float = 0.0) -> int:
        """Send one request, once the limiter lets it pass; return the status."""
        permit: Any = limiter.try_acquire(GET, reserve) or await limiter.acquire(GET, reserve=reserve)
        await asyncio.sleep(self.latency / 2)
        said, status = self.server.spend()
        await asyncio.sleep(self.latency / 2)
        limiter.record_response(permit, said, status)
        if status == 200:
            self.received.append(now())
        return status

    async def fetch(self, limiter: RateLimiter, count: int) -> None:
        """Send requests until `count` have had an answer that is no 429."""

        async def one() -> None:
            while await self.send(limiter) == 429:
                pass

        await asyncio.gather(*(one() for _ in range(count)))

    def full_windows(self) -> list[int]:
        """Return how many requests each window admitted, without the first and the last."""
        return [count for _, count in sorted(self.server.spent.items())][1:-1]


def named(rate: RateLimit, name: str) -> RateLimit:
    return attrs.evolve(rate, name=name)


@attrs.define
class AnsweringStore:
    """A user's store that answers what a function says.

    Attributes:
        answer: Returns the lease for a request.
        requests: What the store was asked.
        checks: How often it was checked.
        latency: Seconds until it answers.
    """

    answer: Callable[[LeaseRequest], Lease | None]
    requests: list[LeaseRequest] = attrs.field(factory=list)
    checks: int = 0
    latency: float = 0.0

    def check(self) -> None:
        self.checks += 1

    async def lease(self, request: LeaseRequest) -> Lease | None:
        self.requests.append(request)
        if self.latency:
            await asyncio.sleep(self.latency)
        return self.answer(request)


def granting(most: int = 10, **about: Any) -> AnsweringStore:
    """Return a store that grants what is wanted, up to `most` each time, of a window of 100 per 10 s."""
    window: dict[str, Any] = {"window": 1, "limit": 100, "period": 10.0, "ends_in": 10.0, "left": 90} | about
    return AnsweringStore(lambda request: Lease(record=request.record, granted=min(request.wanted, most), **window))

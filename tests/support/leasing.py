"""The store's script on a real Redis with a clock of the test's own, and limiters that share it in virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import attrs
import redis

from dd_sa_tokens import RateLimit
from dd_sa_tokens._clock import Clock
from dd_sa_tokens._ratelimit import RateLimiter, share_limits
from dd_sa_tokens._ratelimit.leased_window import LeasedWindow
from dd_sa_tokens.fleet import Lease, LeaseRequest, WindowView, redis_store

from .virtual_time import GET, CountingServer, now, wall

_REAL_TIME = """local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
_GIVEN_TIME = "local now = tonumber(table.remove(ARGV))\n"
_names = itertools.count()


class Script:
    """The script, told what time it is.

    Args:
        connection: A Redis server.
        seconds: The clock.
    """

    def __init__(self, connection: redis.Redis, seconds: Callable[[], float]) -> None:
        assert _REAL_TIME in redis_store._SCRIPT
        self._run = connection.register_script(redis_store._SCRIPT.replace(_REAL_TIME, _GIVEN_TIME))
        self._seconds = seconds
        self._prefix = f"test{next(_names)}:"

    def lease(self, request: LeaseRequest) -> Lease:
        """Carry out one report and lease."""
        keys = [f"{self._prefix}{request.scope}:{name}" for name in (request.record, request.operation)]
        arguments = redis_store._arguments(request)
        return redis_store._read(self._run(keys, [*arguments, round(self._seconds() * 1000)]))


@attrs.define
class VirtualStore:
    """A store in virtual time: the real script on a real server, at the other end of a line of some length.

    Attributes:
        script: The script.
        latency: Seconds of a round trip.
        away: Whether it gives no answer.
        requests: What it was asked.
    """

    script: Script
    latency: float = 0.001
    away: bool = False
    requests: list[LeaseRequest] = attrs.field(factory=list)

    def check(self) -> None:
        """Be usable always."""

    async def lease(self, request: LeaseRequest) -> Lease | None:
        """Answer after half the way there and half the way back."""
        self.requests.append(request)
        await asyncio.sleep(self.latency / 2)
        lease = None if self.away else self.script.lease(request)
        await asyncio.sleep(self.latency / 2)
        return lease


def virtual_store(connection: redis.Redis) -> VirtualStore:
    return VirtualStore(Script(connection, wall))


def sharing(store: Any, concurrency: int = 50) -> RateLimiter:
    """Return the limiter of a client that uses a store, in virtual time."""
    return RateLimiter(concurrency, clock=Clock(now, wall), shared=share_limits(store, "https://api.test"))


def seen(remaining: int, ends_in: float, limit: int = 100, period: float = 10.0, **more: Any) -> WindowView:
    """Describe a window as a client with a good clock sees it."""
    about: dict[str, Any] = {"ends_within": ends_in, "uncertainty": 0.02, "trusts_wall_clock": True} | more
    return WindowView(limit=limit, period=period, remaining=remaining, ends_in=ends_in, **about)


def by_headers(limiter: RateLimiter) -> bool:
    """Return whether a limiter goes by the headers of its own answers alone."""
    return all(
        window._leases.by_headers
        for bucket in limiter._buckets.all
        if isinstance(window := bucket.window, LeasedWindow)
    )


def unspent(limiter: RateLimiter) -> int:
    """Return the number of permits that a limiter has leased and not used."""
    windows = [bucket.window for bucket in limiter._buckets.all]
    return sum(window._leases.unspent for window in windows if isinstance(window, LeasedWindow))


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

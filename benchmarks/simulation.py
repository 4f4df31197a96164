"""The real rate limiter on a virtual clock: clients that share a rate limit, by headers alone or through a store.

The windows are those of the fake Datadog server. Nothing of the limiter is copied here.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from functools import partial
from typing import Any

import attrs

from .internals import Clock, FixedWindow, RateLimitStore, Response, make_limiter, make_response
from .virtual_loop import run_virtual, wall_clock

OURS = "dd_sa_tokens, by headers"
WITH_STORE = "dd_sa_tokens, with a store"
EACH_WAITS = "each request waits after its 429"
ALL_WAIT = "all wait after a 429"
LIMITERS = (EACH_WAITS, ALL_WAIT, OURS)
"""What needs nothing but the responses."""


@attrs.define
class Server:
    """A server with a rate limit, at the other end of a slow line."""

    window: FixedWindow
    offset: float = 0.0  # seconds by which the server's clock is ahead of the clients'
    latency: float = 0.02  # mean seconds of a round trip; each half of it varies by half
    random: random.Random = attrs.Factory(lambda: random.Random(0))
    requests: Counter[int] = attrs.Factory(Counter[int])  # received, by window
    accepted: Counter[int] = attrs.Factory(Counter[int])  # not rejected, by window
    first: dict[int, float] = attrs.Factory(dict[int, float])
    """When the first request of a window came, in seconds since the epoch on the server's clock."""
    rejected: int = 0

    @property
    def full_windows(self) -> list[int]:
        """Requests accepted in each window between the first and the last."""
        return [count for _, count in sorted(self.accepted.items())][1:-1]

    async def respond(self) -> Response:
        """Carry a request to the server and the response back."""
        await asyncio.sleep(self.latency / 2 * self.random.uniform(0.5, 1.5))
        now = wall_clock() + self.offset
        admitted, headers = self.window.spend(now)
        number = int(now // self.window.period)
        self.requests[number] += 1
        self.first.setdefault(number, now)
        self.accepted[number] += admitted
        self.rejected += not admitted
        await asyncio.sleep(self.latency / 2 * self.random.uniform(0.5, 1.5))
        return make_response(200 if admitted else 429, headers, b"", wall_clock())


@attrs.define
class Client:
    """A client that needs a number of responses, through one rate limiter."""

    server: Server
    count: int  # requests that must succeed
    concurrency: int = 50
    start: float = 0.0  # seconds before it begins
    reserve: float = 0.0  # share of each window that it leaves to others
    limiter: str = OURS  # or `WITH_STORE`, or what clients commonly do: the others of `LIMITERS`
    store: RateLimitStore | None = None  # with `WITH_STORE`
    rejected: int = 0  # 429 responses received
    done: float = 0.0  # when it had all responses, on the loop's clock
    _paused_until: float = 0.0

    async def run(self) -> None:
        """Send requests until all have succeeded."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.start)
        limiter = make_limiter(self.concurrency, Clock(loop.time, wall_clock), self.store)
        remaining = iter(range(self.count))
        send = partial(self._with, limiter) if self.limiter in {OURS, WITH_STORE} else self._without

        async def work() -> None:
            for _ in remaining:
                while not await send():
                    pass

        await asyncio.gather(*(work() for _ in range(min(self.concurrency, self.count))))
        assert limiter.in_flight == 0
        self.done = loop.time()

    async def _with(self, limiter: Any) -> bool:
        permit = await limiter.acquire("get_token", reserve=self.reserve)
        response = await self._send()
        limiter.record_response(permit, response.rate_limit, response.status)
        return response.status == 200

    async def _without(self) -> bool:
        """Wait for the reset after a 429: this request alone, or all requests."""
        loop = asyncio.get_running_loop()
        if self.limiter == ALL_WAIT and loop.time() < self._paused_until:
            await asyncio.sleep(self._paused_until - loop.time())
        response = await self._send()
        if response.status == 429:
            reset = float(response.headers["X-RateLimit-Reset"])
            self._paused_until = loop.time() + reset
            if self.limiter == EACH_WAITS:
                await asyncio.sleep(reset)
        return response.status == 200

    async def _send(self) -> Response:
        response = await self.server.respond()
        self.rejected += response.status == 429
        return response


def run_all(clients: list[Client], start: float = 0.0) -> None:
    """Run clients beside one another, from `start` seconds after the beginning of a window."""

    async def main() -> None:
        await asyncio.sleep(start)
        await asyncio.gather(*(client.run() for client in clients))

    run_virtual(main())

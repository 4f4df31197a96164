"""A call with a `max_rate_limit_wait` is refused only when the window certainly has no room for it.

An answer's `remaining` may or may not count a request that is still in flight, so such a request counts once: either in
`remaining` or as in flight, never as both.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from support.virtual_time import GET, CountingServer, enter, make, now, rate, virtual

from dd_sa_tokens import RateLimitError
from dd_sa_tokens._ratelimit import Permit, RateLimiter

LIMIT = 100
MAX_WAIT = 2.0


class Calls:
    """Calls of one client, whose answers take a random time, there and back.

    Args:
        limiter: The client's.
        server: Counts the requests.
        seed: Of the random times.
        reserve: Share of each window that the calls leave to others.
        lost: Share of the requests whose answer is lost.
        unsent: Share of the requests that never leave.
    """

    def __init__(
        self,
        limiter: RateLimiter,
        server: CountingServer,
        seed: int,
        *,
        reserve: float = 0.0,
        lost: float = 0.0,
        unsent: float = 0.0,
    ) -> None:
        self._limiter = limiter
        self._server = server
        self._random = random.Random(seed)
        self._reserve = reserve
        self._lost = lost
        self._unsent = unsent
        self.outcomes: Counter[str] = Counter()

    async def call(self, max_wait: float | None = MAX_WAIT) -> None:
        """Make one call."""
        permit = await enter(self._limiter, GET, max_wait, self._reserve)
        if isinstance(permit, RateLimitError):
            self.outcomes["refused"] += 1
            return
        assert isinstance(permit, Permit)
        there, back = self._random.uniform(0.0, 0.1), self._random.uniform(0.0, 0.3)
        chance = self._random.random()
        await asyncio.sleep(there)
        if chance < self._unsent:
            self._limiter.cancel(permit)
            self.outcomes["not sent"] += 1
            return
        said, status = self._server.spend()
        await asyncio.sleep(back)
        if chance < self._unsent + self._lost:
            self._limiter.abandon(permit)
            self.outcomes["lost"] += 1
            return
        self._limiter.record_response(permit, said, status)
        self.outcomes[str(status)] += 1

    async def gather(self, count: int, max_wait: float | None = MAX_WAIT) -> None:
        """Make calls at the same time."""
        await asyncio.gather(*(self.call(max_wait) for _ in range(count)))


async def begin(at: float = 0.5) -> None:
    """Wait until so many seconds of a window of 10 s have passed."""
    await asyncio.sleep(math.ceil(now() / 10.0) * 10.0 + at - now())


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("concurrency", [10, 50, 200])
@virtual
async def test_nobody_is_refused_while_there_may_be_room(concurrency: int, seed: int) -> None:
    """80 calls at once, 100 in a window, with answers in random order: all 80 pass."""
    await begin()
    server = CountingServer(LIMIT)
    calls = Calls(make(concurrency), server, seed)
    await calls.gather(80)
    assert calls.outcomes == {"200": 80}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("before", [0.05, 0.2, 0.5, 1.9])
@virtual
async def test_nobody_is_refused_at_the_end_of_a_window(before: float, seed: int) -> None:
    """80 calls that begin shortly before the end of a window all pass: what does not fit into it waits for the next."""
    await begin(10.0 - before)
    server = CountingServer(LIMIT)
    calls = Calls(make(50), server, seed)
    await calls.gather(80)
    assert calls.outcomes == {"200": 80}


@pytest.mark.parametrize("seed", range(6))
@virtual
async def test_those_behind_the_last_place_are_refused(seed: int) -> None:
    """Of 130 calls at once, 100 pass and 30 are refused, and none of them met a 429."""
    await begin()
    server = CountingServer(LIMIT)
    calls = Calls(make(50), server, seed)
    await calls.gather(130)
    assert calls.outcomes == {"200": 100, "refused": 30}
    assert server.rejected == 0


@pytest.mark.parametrize("seed", range(6))
@virtual
async def test_a_reserve_is_no_room(seed: int) -> None:
    """With a reserve of a fifth, 80 calls pass and the next 15 are refused."""
    await begin()
    server = CountingServer(LIMIT)
    calls = Calls(make(50), server, seed, reserve=0.2)
    await calls.gather(95)
    assert calls.outcomes == {"200": 80, "refused": 15}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("unsent", [0.0, 0.2])
@virtual
async def test_lost_requests_take_no_more_than_their_own_place(unsent: float, seed: int) -> None:
    """80 calls, a fifth of which get no answer (and a fifth of which never leave): nobody is refused."""
    await begin()
    server = CountingServer(LIMIT)
    calls = Calls(make(50), server, seed, lost=0.2, unsent=unsent)
    await calls.gather(80)
    assert calls.outcomes["refused"] == 0
    assert calls.outcomes.total() == 80


@pytest.mark.parametrize("seed", range(6))
@virtual
async def test_those_that_never_left_make_room(seed: int) -> None:
    """160 calls, half of which never leave, fit into a window of 100, if they do not all begin together."""
    await begin()
    server = CountingServer(LIMIT)
    calls = Calls(make(50), server, seed, unsent=0.5)
    for _ in range(16):
        await calls.gather(10)
        await asyncio.sleep(0.05)
    assert calls.outcomes["refused"] == 0
    assert server.rejected == 0


@pytest.mark.parametrize("seed", range(6))
@virtual
async def test_calls_that_trickle_in(seed: int) -> None:
    """100 calls within two seconds of a window pass, and the next five are refused at once."""
    await begin()
    server = CountingServer(LIMIT)
    calls = Calls(make(50), server, seed)
    tasks: list[asyncio.Task[Any]] = []
    for _ in range(100):
        tasks.append(asyncio.create_task(calls.call()))
        await asyncio.sleep(0.02)
    await asyncio.gather(*tasks)
    assert calls.outcomes == {"200": 100}
    begun = now()
    await calls.gather(5)
    assert now() == begun
    assert calls.outcomes == {"200": 100, "refused": 5}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [10, 30])
@virtual
async def test_what_others_have_spent_is_no_room(share: int, seed: int) -> None:
    """If others have spent some of the window, as many calls pass as are left, and the rest are refused."""
    await begin()
    server = CountingServer(LIMIT)
    for _ in range(share):
        server.spend()
    calls = Calls(make(50), server, seed)
    await calls.gather(110 - share)
    assert calls.outcomes == {"200": 100 - share, "refused": 10}
    assert server.rejected == 0


ROUNDINGS: dict[str, Callable[[float], float]] = {"up": math.ceil, "down": math.floor, "nearest": round}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rounding", ROUNDINGS.values(), ids=list(ROUNDINGS))
@virtual
async def test_nobody_is_refused_with_any_rounding(rounding: Callable[[float], float], seed: int) -> None:
    """However the server rounds the reset, and in each of three windows, 80 calls pass."""
    await begin()
    server = CountingServer(LIMIT, rounding=rounding)
    calls = Calls(make(50), server, seed)
    for _ in range(3):
        await calls.gather(80)
        await begin()
    assert calls.outcomes == {"200": 240}


@virtual
async def test_a_refusal_names_the_wait() -> None:
    """A refused call says after how many seconds there is room again."""
    await begin()
    limiter = make()
    first = await enter(limiter)
    limiter.record_response(first, rate(1, 0, 10), 200)
    refusal = await enter(limiter, GET, 2.0)
    assert isinstance(refusal, RateLimitError)
    assert refusal.retry_after == pytest.approx(9.5, abs=0.1)

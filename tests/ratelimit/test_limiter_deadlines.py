"""Calls that wait for the rate limit up to a deadline."""

from __future__ import annotations

import asyncio

import pytest
from support.internals import waiting_at
from support.virtual_time import GET, enter, make, now, opened, rate, virtual
from support.waiting import turns

from dd_sa_tokens import RateLimitError
from dd_sa_tokens._ratelimit import Permit

# Patience


@virtual
async def test_calls_past_their_deadline_are_rejected_at_once() -> None:
    """A call that would have to wait beyond its deadline is rejected at once, with the seconds."""
    limiter = make()
    await opened(limiter, GET, rate(100, 0, 8))
    refusal = await limiter.acquire(GET, 5.0)
    assert now() == 1000.0
    assert isinstance(refusal, RateLimitError)
    assert refusal.retry_after == pytest.approx(8.0, abs=0.05)
    assert refusal.status == 429
    assert str(refusal).startswith("the rate limit is exhausted for 8.0 s, longer than max_rate_limit_wait allows")
    assert refusal.rate_limit is not None
    assert refusal.rate_limit.remaining == 0
    assert waiting_at(limiter) == 0
    assert limiter.in_flight == 0
    assert isinstance(await limiter.acquire(GET, 9.0), Permit)


@virtual
async def test_the_position_in_the_queue_counts() -> None:
    """With two requests a window, the third in the queue waits a window longer, and is refused by that measure."""
    limiter = make()
    await opened(limiter, GET, rate(2, 0, 10))
    patient = [asyncio.create_task(enter(limiter)) for _ in range(2)]
    await turns()
    refusal = await limiter.acquire(GET, 15.0)
    assert isinstance(refusal, RateLimitError)
    assert refusal.retry_after == pytest.approx(20.0, abs=0.1)
    assert now() == 1000.0
    third = asyncio.create_task(enter(limiter, GET, 21.0))
    await turns()
    assert not third.done()
    for task in (*patient, third):
        task.cancel()
    await asyncio.wait([*patient, third])
    assert waiting_at(limiter) == 0


@virtual
async def test_a_429_that_moves_the_window_beyond_the_deadline() -> None:
    """When the window's end moves, waiting calls that are then past their deadline are rejected at once."""
    limiter = make()
    await opened(limiter, GET, rate(100, 0, 5))
    calls = [asyncio.create_task(enter(limiter, GET, max_wait)) for max_wait in (6.0, 6.5, 60.0, None)]
    await asyncio.sleep(5.02)
    first = calls[0].result()
    assert isinstance(first, Permit)
    limiter.record_response(first, rate(100, 0, 10), 429)
    await turns()
    told = now()
    assert isinstance(calls[1].result(), RateLimitError)
    assert not calls[2].done()
    assert not calls[3].done()
    assert told - 1000.0 < 5.1
    await calls[2]
    assert 14 < now() - 1000.0 < 16


@virtual
async def test_no_call_waits_beyond_its_deadline() -> None:
    """A waiter that slips by one window, while the last in the queue does not, is rejected at its own deadline."""
    limiter = make()
    await opened(limiter, GET, rate(2, 0, 10))
    calls = [asyncio.create_task(enter(limiter, GET, max_wait)) for max_wait in (None, 15.0, None)]
    await asyncio.sleep(10.02)
    limiter.record_response(calls[0].result(), rate(2, 0, 10), 429)  # now the other two have to wait until 20
    refused = await calls[1]
    assert isinstance(refused, RateLimitError)
    assert refused.retry_after == pytest.approx(5.0, abs=0.1)
    assert now() - 1000.0 == pytest.approx(15.0, abs=0.01)
    assert isinstance(await calls[2], Permit)


@virtual
async def test_each_waiter_is_rejected_by_its_own_position_in_the_queue() -> None:
    """When the rate limit is put off by a window, only those are refused who are behind what the next one holds."""
    limiter = make()
    await opened(limiter, GET, rate(2, 0, 10))
    calls = [asyncio.create_task(enter(limiter, GET, 21.0)) for _ in range(4)]  # two in each of two windows
    await asyncio.sleep(10.02)
    limiter.record_response(calls[0].result(), rate(2, 0, 10), 429)
    await turns()
    assert [task.done() for task in calls] == [True, False, False, True]
    assert isinstance(calls[3].result(), RateLimitError)
    limiter.record_response(await calls[1], rate(2, 1, 10), 200)
    assert isinstance(await calls[2], Permit)
    assert now() - 1000.0 < 21


@virtual
async def test_a_deadline_that_is_short_by_a_moment() -> None:
    """Half a second more than a call is ready to wait is too long as well."""
    limiter = make()
    await opened(limiter, GET, rate(100, 0, 9))
    call = asyncio.create_task(enter(limiter, GET, 9.2))
    await turns()
    assert not call.done()
    limiter.pause(GET, 9.5)
    await turns()
    assert isinstance(call.result(), RateLimitError)


@virtual
async def test_a_pause_rejects_the_calls_with_a_deadline_only() -> None:
    """A pause that is longer than a call's deadline rejects that call, and no other, at once."""
    limiter = make()
    await opened(limiter, GET, rate(100, 0, 9))
    calls = [asyncio.create_task(enter(limiter, GET, max_wait)) for max_wait in (12.0, None, None)]
    await turns()
    calls[2].cancel()
    await turns()
    limiter.pause(GET, 60.0)
    await turns()
    assert [task.done() for task in calls] == [True, False, True]
    assert isinstance(calls[0].result(), RateLimitError)
    calls[1].cancel()


@virtual
async def test_a_deadline_does_not_reject_calls_that_wait_for_concurrency() -> None:
    """The deadline is about the rate limit: a call that waits for concurrency alone is not rejected."""
    limiter = make(concurrency=1)
    await opened(limiter)
    first = await enter(limiter)
    second = asyncio.create_task(enter(limiter, GET, 1.0))
    await asyncio.sleep(30)
    assert not second.done()
    limiter.record_response(first, None, 200)
    assert isinstance(await second, Permit)

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


@virtual
async def test_each_of_two_pauses_rejects_the_calls_that_it_puts_off() -> None:
    """A pause rejects one call; a longer one then rejects, at once too, a call that had 0.3 s to spare."""
    limiter = make()
    await opened(limiter, GET, rate(100, 0, 9))
    calls = [asyncio.create_task(enter(limiter, GET, max_wait)) for max_wait in (12.0, 20.3, None)]
    await turns()
    for seconds, rejected in ((20.0, [True, False, False]), (20.6, [True, True, False])):
        limiter.pause(GET, seconds)
        await turns()
        assert [task.done() for task in calls] == rejected
    assert now() == 1000.0
    calls[2].cancel()


@virtual
async def test_a_call_is_put_off_also_if_the_last_one_moves_up_first() -> None:
    """Calls behind one with a deadline are cancelled, so the last one passes earlier; a pause then counts as before."""
    limiter = make()
    await opened(limiter, GET, rate(2, 0, 10))
    calls = [asyncio.create_task(enter(limiter, GET, max_wait)) for max_wait in (15.0, None, None)]
    await turns()
    calls[2].cancel()
    await turns()
    for seconds, rejected in ((1.0, False), (16.0, True)):
        limiter.pause(GET, seconds)
        await turns()
        assert calls[0].done() == rejected
    assert now() == 1000.0
    calls[1].cancel()


@virtual
async def test_rejected_calls_make_room_for_those_behind_them() -> None:
    """With two requests a window, a 429 puts all off by one place; one call is rejected, and so the others are not."""
    limiter = make()
    await opened(limiter, GET, rate(2, 0, 10))
    waits = (None, 15.0, 21.0, 25.0, 31.0, 35.0)
    calls = [asyncio.create_task(enter(limiter, GET, max_wait)) for max_wait in waits]
    await asyncio.sleep(10.02)
    limiter.record_response(calls[0].result(), rate(2, 0, 10), 429)
    await turns()
    assert isinstance(calls[1].result(), RateLimitError)
    assert not any(task.done() for task in calls[2:])
    for task in calls[2:]:
        task.cancel()


@virtual
async def test_a_call_cancelled_in_the_moment_of_its_rejection() -> None:
    """A call that is cancelled in the tick of a pause beyond its deadline is cancelled, and others are rejected."""
    limiter = make()
    await opened(limiter, GET, rate(100, 0, 9))
    calls = [asyncio.create_task(enter(limiter, GET, 12.0)) for _ in range(2)]
    await turns()
    calls[0].cancel()
    limiter.pause(GET, 60.0)
    await turns()
    assert calls[0].cancelled()
    assert isinstance(calls[1].result(), RateLimitError)
    assert waiting_at(limiter) == 0


@virtual
async def test_a_call_that_passes_leaves_no_timer() -> None:
    """The timer of a deadline of an hour ends with its call."""
    limiter = make()
    await opened(limiter, GET, rate(100, 0, 9))
    assert isinstance(await limiter.acquire(GET, 3600.0), Permit)
    assert asyncio.get_running_loop().timers == 0

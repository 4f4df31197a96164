"""Calls of one client with different reserves, and with bounds of their own on what is in flight."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.function_calls import function_calls
from support.internals import waiting_at
from support.virtual_time import GET, LIST, CountingServer, block, enter, make, now, opened, rate, virtual
from support.waiting import turns

from dd_sa_tokens import RateLimitError
from dd_sa_tokens._ratelimit import Permit, RateLimiter
from dd_sa_tokens.config import ConcurrencyBound

HALF = 0.5


async def come(limiter: RateLimiter, *args: Any, **kwargs: Any) -> asyncio.Task[Any]:
    """Make a call, and let it wait or pass."""
    task = asyncio.create_task(enter(limiter, *args, **kwargs))
    await turns()
    return task


async def leave(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


# Reserves


@virtual
async def test_a_reserve_holds_for_its_own_calls_alone() -> None:
    """Half of a window of 20 is left: calls with a reserve of a half have to wait, ten others pass."""
    limiter = make()
    await opened(limiter, GET, rate(20, 10, 10))
    assert limiter.try_acquire(GET, HALF) is None
    await asyncio.sleep(1.1)  # after the slow start
    assert all(limiter.try_acquire(GET) for _ in range(10))
    assert limiter.try_acquire(GET) is None


@virtual
async def test_a_call_that_may_go_does_not_stand_behind_one_that_may_not() -> None:
    """While 30 calls wait for their share of the next window, one without a reserve passes in no time."""
    limiter = make()
    await opened(limiter, GET, rate(20, 10, 10))
    job = [await come(limiter, reserve=HALF) for _ in range(30)]
    web = await come(limiter)
    assert isinstance(web.result(), Permit)
    assert now() == 1000.0
    assert not any(task.done() for task in job)
    await leave(*job)
    assert waiting_at(limiter) == 0


@virtual
async def test_of_those_that_may_go_the_one_that_came_first_goes_first() -> None:
    """When the window begins anew, calls pass in the order of arrival, whatever their reserve."""
    limiter = make(concurrency=1)
    await opened(limiter, GET, rate(20, 0, 10))
    order: list[int] = []

    async def call(number: int, reserve: float) -> None:
        permit = await enter(limiter, reserve=reserve)
        order.append(number)
        limiter.record_response(permit, None, 200)

    tasks: list[asyncio.Task[None]] = []
    for number in range(9):
        tasks.append(asyncio.create_task(call(number, (HALF, 0.0, 0.2)[number % 3])))
        await turns()
    await asyncio.gather(*tasks)
    assert order == list(range(9))


@virtual
async def test_a_new_call_does_not_overtake_one_that_may_go_by_now() -> None:
    """A window has begun, and the timer has not fired yet: a new call passes after those that waited."""
    limiter = make()
    await opened(limiter, GET, rate(20, 0, 10))
    first = await come(limiter, reserve=HALF)
    block(11)
    second = asyncio.create_task(enter(limiter))
    await turns()
    assert isinstance(first.result(), Permit)
    assert not second.done()  # the other one is the window's probe
    await leave(second)


@virtual
async def test_one_timer_serves_all_reserves() -> None:
    """Calls with a hundred reserves wait for one window, with one timer, and each waits until its share is there."""
    limiter = make(concurrency=200)
    await opened(limiter, GET, rate(200, 0, 10))
    tasks = [await come(limiter, reserve=number / 100) for number in range(100)]
    assert asyncio.get_running_loop().timers == 1
    await asyncio.sleep(10.1)
    limiter.record_response(tasks[0].result(), rate(200, 199, 10), 200)
    await asyncio.sleep(1.1)
    assert sum(task.done() for task in tasks) == 67  # in order: number n goes while 200 - n > 2 * n
    await leave(*[task for task in tasks if not task.done()])


@virtual
async def test_the_longest_wait_is_measured_with_the_calls_own_reserve() -> None:
    """A call whose share is spent is refused at once, with the reason, while one without a reserve passes."""
    limiter = make()
    await opened(limiter, GET, rate(20, 10, 8))
    refused = await limiter.acquire(GET, 5.0, reserve=HALF)
    assert isinstance(refused, RateLimitError)
    assert refused.retry_after == pytest.approx(8.0, abs=0.05)
    assert "less the reserve of 0.5, is exhausted for 8.0 s" in str(refused)
    assert isinstance(await limiter.acquire(GET, 0.0), Permit)


@virtual
async def test_calls_with_a_reserve_do_not_lengthen_the_wait_of_others() -> None:
    """A call is not refused because of a hundred earlier ones that leave it half of the next window."""
    limiter = make()
    await opened(limiter, GET, rate(20, 0, 10))
    job = [await come(limiter, reserve=HALF) for _ in range(100)]
    web = await come(limiter, GET, 10.5)
    assert not web.done()
    assert isinstance(await limiter.acquire(GET, 95.0, reserve=HALF), RateLimitError)  # ten in a window: 110 s
    await asyncio.sleep(10.1)
    limiter.record_response(job[0].result(), rate(20, 19, 10), 200)
    await asyncio.sleep(0.4)
    limiter.record_response(job[1].result(), rate(20, 18, 10), 200)
    await leave(web, *[task for task in job if not task.done()])


@virtual
async def test_only_the_time_for_which_its_own_share_is_spent_counts_as_wait() -> None:
    """A call with a reserve waits for the rate limit from when its share is spent; others do not wait meanwhile."""
    limiter = make()
    await opened(limiter, GET, rate(20, 10, 10))
    job = await come(limiter, reserve=HALF)
    await asyncio.sleep(4)
    permit = await enter(limiter)
    assert permit.waited == 0
    limiter.cancel(permit)
    assert (await job).waited == pytest.approx(10.0, abs=0.05)
    assert limiter.waited == pytest.approx(10.0, abs=0.05)


# Bounds


@virtual
async def test_a_view_at_its_bound_does_not_hold_up_others() -> None:
    """Of five calls with a bound of two, two pass; a later call without the bound passes, too."""
    limiter, bound = make(concurrency=4), ConcurrencyBound(2)
    await opened(limiter)
    tasks = [await come(limiter, bound=bound) for _ in range(5)]
    assert [task.done() for task in tasks] == [True, True, False, False, False]
    other = await come(limiter)
    assert isinstance(other.result(), Permit)
    assert (bound.in_flight, limiter.in_flight) == (2, 3)
    await leave(*tasks[2:])


@virtual
async def test_calls_at_a_bound_pass_in_order_as_it_becomes_free() -> None:
    """Each answer lets the next call of the view pass; a cancelled one gives its place back."""
    limiter, bound = make(), ConcurrencyBound(1)
    await opened(limiter)
    tasks = [await come(limiter, (GET, LIST)[number % 2], bound=bound) for number in range(5)]
    assert [task.done() for task in tasks] == [True, False, False, False, False]
    await leave(tasks[2])
    for number in (0, 1, 3, 4):
        assert [task.done() for task in tasks][number:] == [True, *[n == 2 for n in range(number + 1, 5)]]
        limiter.record_response(tasks[number].result(), None, 200)
        await turns()
    assert (bound.in_flight, limiter.in_flight, waiting_at(limiter)) == (0, 0, 0)


@virtual
async def test_all_bounds_together_stay_within_the_clients_concurrency() -> None:
    """Three views that may have two in flight each have four together, where the client may have four."""
    limiter, bounds = make(concurrency=4), [ConcurrencyBound(2) for _ in range(3)]
    await opened(limiter)
    tasks = [await come(limiter, bound=bound) for bound in bounds for _ in range(3)]
    assert sum(task.done() for task in tasks) == limiter.in_flight == 4
    await leave(*[task for task in tasks if not task.done()])


@virtual
async def test_a_call_at_its_bound_is_not_refused_as_if_it_waited_for_the_rate_limit() -> None:
    """Thirty calls wait for their bound and 20 are left: a call with no patience passes, and theirs do not time out."""
    limiter, bound = make(), ConcurrencyBound(1)
    await opened(limiter, GET, rate(100, 20, 10))
    tasks = [await come(limiter, GET, None, bound=bound) for _ in range(30)]
    assert isinstance(await limiter.acquire(GET, 0.0), Permit)
    patient = await come(limiter, GET, 9.5, bound=ConcurrencyBound(1))
    assert isinstance(patient.result(), Permit)
    await leave(*tasks[1:])


@virtual
async def test_calls_with_one_reserve_pass_in_order_whether_they_have_a_bound_or_not() -> None:
    """Two views and the client take turns, with one request in flight in all: first come, first served."""
    limiter, bounds = make(concurrency=1), [None, ConcurrencyBound(2), ConcurrencyBound(3)]
    await opened(limiter)
    blocker = await enter(limiter)
    order: list[int] = []

    async def call(number: int) -> None:
        permit = await enter(limiter, bound=bounds[number % 3])
        order.append(number)
        limiter.record_response(permit, None, 200)

    tasks = [asyncio.create_task(call(number)) for number in range(9)]
    await turns()
    limiter.record_response(blocker, None, 200)
    await asyncio.gather(*tasks)
    assert order == list(range(9))


@pytest.mark.parametrize(
    ("reserve", "bound", "wait"),
    [(0.0, None, 20.0), (0.0, 1, 10.0), (HALF, None, 10.0), (HALF, 1, 10.0)],
    ids=["like it", "bound", "with a larger reserve", "both"],
)
@virtual
async def test_the_wait_counts_the_calls_that_certainly_pass_before(
    reserve: float, bound: int | None, wait: float
) -> None:
    """Of 20 calls that wait, those with a larger reserve or a bound may pass later: the next call skips them."""
    limiter = make()
    await opened(limiter, GET, rate(20, 0, 10))
    view = None if bound is None else ConcurrencyBound(bound)
    tasks = [await come(limiter, reserve=reserve, bound=view) for _ in range(20)]
    refusal = await limiter.acquire(GET, 5.0)
    assert isinstance(refusal, RateLimitError)
    assert refusal.retry_after == pytest.approx(wait, abs=0.1)
    await leave(*tasks)


@pytest.mark.parametrize(("bound", "wait"), [(None, 20.0), (1, 10.0)])
@virtual
async def test_calls_with_a_smaller_reserve_pass_before_unless_they_have_a_bound(
    bound: int | None, wait: float
) -> None:
    """18 calls without a reserve pass before one that may use 18 of 20; with a bound they may pass later."""
    limiter = make()
    await opened(limiter, GET, rate(20, 0, 10))
    view = None if bound is None else ConcurrencyBound(bound)
    tasks = [await come(limiter, bound=view) for _ in range(18)]
    refusal = await limiter.acquire(GET, 5.0, reserve=0.1)
    assert isinstance(refusal, RateLimitError)
    assert refusal.retry_after == pytest.approx(wait, abs=0.1)
    await leave(*tasks)


@virtual
async def test_calls_of_one_bound_count_for_each_other() -> None:
    """Twenty calls of a view pass before the next call of that view, which is told to wait a window longer."""
    limiter, bound = make(), ConcurrencyBound(50)
    await opened(limiter, GET, rate(20, 0, 10))
    tasks = [await come(limiter, reserve=0.2, bound=bound) for _ in range(20)]
    refusal = await limiter.acquire(GET, 5.0, reserve=0.2, bound=bound)
    assert isinstance(refusal, RateLimitError)
    assert refusal.retry_after == pytest.approx(20.0, abs=0.1)
    await leave(*tasks)


# Cost


@virtual
async def test_the_cost_of_a_waiter_does_not_grow_with_the_queues() -> None:
    """With three reserves and a bound, a waiter costs as many function calls among 1,200 as among 300."""

    async def calls(count: int) -> float:
        limiter, server, bound = make(concurrency=20), CountingServer(100), ConcurrencyBound(5)
        begin = asyncio.Event()

        async def call(number: int) -> None:
            await begin.wait()
            reserve = (0.0, 0.25, 0.5)[number % 3]
            permit = await enter(limiter, GET, 1e6, reserve, bound if number % 4 == 0 else None)
            limiter.record_response(permit, *server.spend())

        tasks = [asyncio.create_task(call(number)) for number in range(count)]
        await turns()
        with function_calls() as counted:
            begin.set()
            await asyncio.gather(*tasks)
        assert server.rejected == 0
        return counted() / count

    few, many = await calls(300), await calls(1_200)
    assert many < 1.2 * few


@virtual
async def test_a_call_past_its_deadline_is_rejected_when_other_calls_take_what_was_left() -> None:
    """A call that waits for no limit waits for the first answer; a job that came before it then takes the last place.

    The last call in its own queue was expected late all along, so that it is late says nothing new.
    """
    limiter = make()
    first = await enter(limiter)
    job = await come(limiter, reserve=0.1)
    web = [await come(limiter, GET, max_wait) for max_wait in (0.0, None)]
    limiter.record_response(first, rate(2, 1, 10), 200)
    await turns()
    limiter.record_response(job.result(), rate(2, 0, 10), 200)
    await turns()
    assert web[0].done()
    assert isinstance(web[0].result(), RateLimitError)
    assert now() == 1000.0
    assert not web[1].done()
    await leave(web[1])

"""The rate limiter by itself, under a clock that jumps: order, windows, cancellation, closing and cost."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import pytest
from support.function_calls import function_calls
from support.internals import replace_window, waiting_at, window_of
from support.virtual_time import GET, LIST, CountingServer, enter, make, now, opened, rate, virtual, wall
from support.waiting import turns

from dd_sa_tokens import ClientClosedError, RateLimit
from dd_sa_tokens._clock import Clock
from dd_sa_tokens._ratelimit import Permit, RateLimiter

# Order and concurrency


@virtual
async def test_no_call_waits_without_a_reason() -> None:
    """With nothing known but a success, each request passes at once, without a turn of the loop."""
    limiter = make(concurrency=1000)
    assert limiter.rate_limit is None
    await opened(limiter)
    permits = [limiter.try_acquire(GET) for _ in range(1000)]
    assert all(permit is not None and permit.waited == 0.0 for permit in permits)
    assert limiter.try_acquire(GET) is None
    assert limiter.in_flight == 1000
    assert limiter.waited == 0.0


@virtual
async def test_first_come_first_served() -> None:
    """Calls that wait for concurrency are sent in the order in which they came, over several operations too."""
    limiter = make(concurrency=3)
    await opened(limiter)
    await opened(limiter, LIST)
    order: list[int] = []
    most = 0

    async def call(number: int) -> None:
        nonlocal most
        operation = (GET, LIST)[number % 3 == 0]
        permit = await enter(limiter, operation)
        order.append(number)
        most = max(most, limiter.in_flight)
        await asyncio.sleep(0.1 + (number * 7 % 5) / 10)
        limiter.record_response(permit, None, 200)

    await asyncio.gather(*map(call, range(40)))
    assert order == list(range(40))
    assert most == 3
    assert limiter.in_flight == 0


@virtual
async def test_no_call_overtakes_waiting_ones() -> None:
    """A call that comes when concurrency has just become free is not sent before the calls that wait."""
    limiter = make(concurrency=1)
    await opened(limiter)
    permit = await enter(limiter)
    order: list[str] = []

    async def call(name: str) -> None:
        mine = await enter(limiter)
        order.append(name)
        limiter.record_response(mine, None, 200)

    early = [asyncio.create_task(call(name)) for name in ("first", "second")]
    await turns()
    limiter.record_response(permit, None, 200)
    late = asyncio.create_task(call("late"))
    await asyncio.gather(*early, late)
    assert order == ["first", "second", "late"]


@virtual
async def test_each_operation_has_a_window_of_its_own() -> None:
    """An operation whose limit is exhausted does not hold up another one, even one behind it in the queue."""
    limiter = make(concurrency=2)
    await opened(limiter, GET, rate(100, 0, 9))
    await opened(limiter, LIST, rate(100, 50, 9))
    stuck = asyncio.create_task(enter(limiter, GET))
    await turns()
    permit = await asyncio.wait_for(enter(limiter, LIST), 0.1)
    assert isinstance(permit, Permit)
    assert not stuck.done()
    begun = now()
    await stuck
    assert 8 < now() - begun < 9.1


@virtual
async def test_the_window_is_waited_for_in_order() -> None:
    """Calls that wait for the next window pass in order: one probe, then as many as the limit allows."""
    limiter, server = make(concurrency=5), CountingServer(40)
    await opened(limiter, GET, rate(40, 0, 10))
    order: list[tuple[int, float]] = []

    async def call(number: int) -> None:
        permit = await enter(limiter)
        order.append((number, now() - 1000.0))
        await asyncio.sleep(0.1)
        limiter.record_response(permit, *server.spend())

    tasks = [asyncio.create_task(call(number)) for number in range(43)]
    await asyncio.sleep(19)
    assert [number for number, _ in order] == list(range(40))
    begun = [at for _, at in order]
    assert 10 < begun[0] < 10.05
    assert begun[1:6] == pytest.approx([begun[0] + 0.1] * 5)
    await asyncio.gather(*tasks)
    assert [number for number, _ in order] == list(range(43))
    assert 20 < order[40][1] < 20.05
    assert server.rejected == 0
    assert (limiter.in_flight, waiting_at(limiter)) == (0, 0)


@virtual
async def test_one_timer_for_all() -> None:
    """A thousand who wait for two limits set one timer together, and none is left when all have passed."""
    limiter = make(concurrency=2000)
    await opened(limiter, GET, rate(2000, 0, 10))
    await opened(limiter, LIST, rate(2000, 0, 5))

    async def call(operation: str) -> None:
        limiter.record_response(await enter(limiter, operation), rate(2000, 1000, 10), 200)

    tasks = [asyncio.create_task(call((GET, LIST)[number % 2])) for number in range(1000)]
    await turns()
    assert waiting_at(limiter) == 1000
    assert asyncio.get_running_loop().timers == 1
    await asyncio.gather(*tasks)
    assert now() < 1011
    await asyncio.sleep(2)
    assert asyncio.get_running_loop().timers == 0


@virtual
async def test_the_nearer_of_two_windows_is_not_waited_for_longer() -> None:
    """The call whose window begins soonest passes first, even if a call for a later window has waited longer."""
    limiter = make()
    await opened(limiter, GET, rate(100, 0, 10))
    await opened(limiter, LIST, rate(100, 0, 5, 5))
    later = asyncio.create_task(enter(limiter, GET))
    await turns()
    await enter(limiter, LIST)
    assert now() == pytest.approx(1005, abs=0.02)
    await later
    assert now() == pytest.approx(1010, abs=0.02)


def test_waits_under_a_millisecond_with_uvloop() -> None:
    """A uvloop handle for less than 1 ms has no `when()`; waits that short work all the same."""
    uvloop = pytest.importorskip("uvloop")

    async def calls() -> int:
        limiter = RateLimiter(50)
        await opened(limiter)
        limiter.pause(GET, 0.0003)
        return len(await asyncio.gather(*(enter(limiter) for _ in range(3))))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(calls()) == 3


@virtual
async def test_a_window_that_begins_while_a_call_is_queued_is_not_missed() -> None:
    """Told to wait a moment before the window's begin, and queued a moment after it, a call passes all the same."""
    looks = [now()]
    limiter = RateLimiter(50, clock=Clock(lambda: looks.pop(0) if len(looks) > 1 else looks[0], wall))
    await opened(limiter, GET, rate(5, 0, 10))
    end = now() + window_of(limiter, GET).delay_until_admitted(now())
    looks[:] = [end - 0.001, end + 0.001]
    async with asyncio.timeout(1):
        assert isinstance(await limiter.acquire(GET), Permit)


# The first request of a window


@virtual
async def test_one_goes_alone_and_then_all() -> None:
    """While nothing is known one request goes alone; where its answer shows plenty, the others go at once."""
    limiter = make()
    first = await enter(limiter)
    others = [asyncio.create_task(enter(limiter)) for _ in range(49)]
    await asyncio.sleep(0.5)
    assert not any(task.done() for task in others)
    limiter.record_response(first, rate(1000, 999, 10), 200)
    await turns()
    assert all(task.done() for task in others)
    assert limiter.in_flight == 49


@virtual
async def test_one_goes_alone_and_then_as_many_as_may() -> None:
    """Where the first answer shows that little is left, no more than that go, and all of those within a second."""
    limiter = make()
    first = await enter(limiter)
    others = [asyncio.create_task(enter(limiter)) for _ in range(9)]
    await turns()
    limiter.record_response(first, rate(100, 6, 10), 200)
    await asyncio.sleep(1.01)
    assert [task.done() for task in others] == [True] * 6 + [False] * 3
    for task in others[6:]:
        task.cancel()
    await asyncio.wait(others)
    assert limiter.in_flight == 6


@pytest.mark.parametrize("status", [200, 201, 204])
@virtual
async def test_a_success_without_headers_lets_all_pass(status: int) -> None:
    """Where no limit is known, a 2xx without headers lets everybody in."""
    limiter = make()
    first = await enter(limiter)
    others = [asyncio.create_task(enter(limiter)) for _ in range(49)]
    await turns()
    limiter.record_response(first, None, status)
    await turns()
    assert all(task.done() for task in others)
    assert limiter.rate_limit is None


@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
@virtual
async def test_an_error_without_headers_changes_nothing(status: int) -> None:
    """An error page without headers says nothing about the rate limit: the next request goes alone."""
    limiter = make()
    first = await enter(limiter)
    others = [asyncio.create_task(enter(limiter)) for _ in range(3)]
    await turns()
    limiter.record_response(first, None, status)
    await turns()
    assert [task.done() for task in others] == [True, False, False]
    limiter.record_response(others[0].result(), rate(1000, 998, 10), 404)
    await turns()
    assert all(task.done() for task in others)


@pytest.mark.parametrize("leave", ["abandon", "cancel"])
@virtual
async def test_a_first_request_that_fails_makes_way(leave: str) -> None:
    """When the one that went alone is lost, or was never sent, the next one goes alone at once."""
    limiter = make()
    first = await enter(limiter)
    others = [asyncio.create_task(enter(limiter)) for _ in range(3)]
    await turns()
    getattr(limiter, leave)(first)
    await turns()
    assert [task.done() for task in others] == [True, False, False]
    limiter.record_response(others[0].result(), None, 200)
    await asyncio.gather(*others)
    assert now() == 1000.0


@pytest.mark.parametrize("which", ["first", "later"])
@virtual
async def test_a_stalled_probe_holds_the_others_for_a_second_at_most(which: str) -> None:
    """If the answer to the one that went alone does not come within a second, the others go, in either window."""
    limiter = make()
    if which == "later":
        await opened(limiter, GET, rate(100, 99, 10))
        await asyncio.sleep(12)
    begun = now()
    first = await enter(limiter)
    others = [asyncio.create_task(enter(limiter)) for _ in range(9)]
    await asyncio.sleep(0.99)
    assert not any(task.done() for task in others)
    await asyncio.gather(*others)
    assert now() - begun == pytest.approx(1.0)
    limiter.abandon(first)
    assert limiter.in_flight == 9


@virtual
async def test_stalled_probes_one_after_the_other_hold_the_others_no_longer() -> None:
    """The second counts from the first request that went alone, not anew from each that is lost."""
    limiter = make()
    permits: list[Permit] = []

    async def call() -> float:
        permits.append(await enter(limiter))
        return now() - 1000.0

    tasks = [asyncio.create_task(call()) for _ in range(20)]
    for _ in range(10):
        await asyncio.sleep(0.3)
        limiter.abandon(permits.pop())
    assert max(await asyncio.gather(*tasks)) < 4


# CountingServer


@virtual
async def test_no_more_than_remaining_are_in_flight() -> None:
    """Requests that are under way are taken for spent; a lost one stays spent, one that was never sent does not."""
    limiter = make()
    await opened(limiter, GET, rate(100, 4, 10))
    permits = [await enter(limiter) for _ in range(4)]
    assert limiter.try_acquire(GET) is None
    limiter.abandon(permits[0])
    assert limiter.try_acquire(GET) is None
    limiter.cancel(permits[1])
    assert limiter.try_acquire(GET) is not None
    assert limiter.try_acquire(GET) is None


@virtual
async def test_out_of_order_answers_do_not_raise_what_remains() -> None:
    """Of two answers the lower count holds, whichever comes last."""
    limiter = make()
    await opened(limiter, GET, rate(1000, 999, 10))
    early, late = await enter(limiter), await enter(limiter)
    for permit, left in ((late, 997), (early, 998)):
        limiter.record_response(permit, rate(1000, left, 10), 200)
        assert limiter.rate_limit is not None
        assert limiter.rate_limit.remaining == (996 if limiter.in_flight else 997)


@virtual
async def test_an_answer_without_headers_takes_one() -> None:
    """Once a limit is known, a 2xx without headers counts as one request."""
    limiter = make()
    await opened(limiter, GET, rate(100, 2, 10))
    await opened(limiter)
    await opened(limiter)
    assert limiter.try_acquire(GET) is None


@virtual
async def test_a_429_pauses_the_limiter_until_the_reset() -> None:
    """After a 429 no call passes before the window ends."""
    limiter = make()
    await opened(limiter, GET, rate(100, 50, 10))
    permit = await enter(limiter)
    limiter.record_response(permit, rate(100, 50, 10), 429)
    assert limiter.try_acquire(GET) is None
    begun = now()
    await enter(limiter)
    assert 10 < now() - begun < 10.1


@pytest.mark.parametrize(
    ("status", "answer", "seconds"),
    [(429, None, 30.0), (429, rate(100, 99, 5), 5.0), (200, None, 0.0), (200, rate(100, 99, 5), 0.0)],
    ids=["429", "429 with a reset", "200", "200 with headers"],
)
@virtual
async def test_only_a_429_without_a_reset_pauses_for_as_long_as_is_said(
    status: int, answer: RateLimit | None, seconds: float
) -> None:
    """A pause of 30 s is for a 429 whose headers do not say when the window ends; it holds for waiting calls, too."""
    limiter = make()
    first = await enter(limiter)
    second = asyncio.create_task(enter(limiter))
    await turns()
    limiter.record_response(first, answer, status, pause=30.0)
    await second
    assert now() - 1000.0 == pytest.approx(seconds, abs=0.1)


@virtual
async def test_after_a_pause_one_probe_goes_and_then_all() -> None:
    """After a pause without a known reset, one request goes alone."""
    limiter = make()
    await opened(limiter)
    limiter.pause(GET, 3.0)
    tasks = [asyncio.create_task(enter(limiter)) for _ in range(3)]
    await asyncio.sleep(2.99)
    assert not any(task.done() for task in tasks)
    await asyncio.sleep(0.02)
    assert [task.done() for task in tasks] == [True, False, False]
    limiter.record_response(tasks[0].result(), None, 200)
    await asyncio.gather(*tasks)
    assert now() - 1000.0 < 3.1


@virtual
async def test_the_time_spent_waiting_for_the_rate_limit_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """`waited` sums the waits of all calls, each permit has its own part, and one log record says so."""
    caplog.set_level(logging.INFO, "dd_sa_tokens")
    limiter = make(concurrency=5)
    await opened(limiter, GET, RateLimit(100, 10.0, 0, 10, "tokens"))
    tasks = [asyncio.create_task(enter(limiter)) for _ in range(3)]
    await asyncio.sleep(10.02)
    limiter.record_response(tasks[0].result(), rate(100, 99, 10), 200)
    permits = await asyncio.gather(*tasks)
    assert all(10 < permit.waited < 10.1 for permit in permits)
    assert limiter.waited == pytest.approx(sum(permit.waited for permit in permits))
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [("INFO", "the rate limit tokens is exhausted for 10.01 s")]


@virtual
async def test_each_wait_is_counted_by_itself_and_short_ones_are_too() -> None:
    """The wait of each call for the next window is its own, without those of earlier calls, even under a second."""
    limiter = make()
    for seconds in (0.3, 0.6):
        await opened(limiter, GET, rate(100, 0, 10))
        end = await asyncio.sleep(10 - seconds, now() + 10)
        permit = await enter(limiter)
        assert permit.waited == pytest.approx(seconds, abs=0.02)
        assert now() == pytest.approx(end, abs=0.02)
        limiter.cancel(permit)
    assert limiter.waited == pytest.approx(0.9, abs=0.03)


@virtual
async def test_the_time_before_a_call_came_is_not_its_wait() -> None:
    """A call that comes when the limit has been exhausted for a while waits from then on, in `waited`, too."""
    limiter = make()
    await opened(limiter, GET, rate(100, 0, 10))
    cancelled = asyncio.create_task(enter(limiter))
    await asyncio.sleep(2)
    cancelled.cancel()
    await asyncio.sleep(3)
    permit = await enter(limiter)
    assert permit.waited == pytest.approx(5, abs=0.02)
    assert limiter.waited == pytest.approx(7, abs=0.04)


@virtual
async def test_calls_that_came_before_the_window_was_known_to_be_exhausted_count_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Calls that queued behind the very first request wait for rate limit, too, once that is what they wait for."""
    caplog.set_level(logging.INFO, "dd_sa_tokens")
    limiter = make(concurrency=50)
    tasks = [asyncio.create_task(enter(limiter)) for _ in range(6)]
    await asyncio.sleep(0.5)
    limiter.record_response(tasks[0].result(), rate(10, 0, 10), 200)
    await asyncio.sleep(9.53)
    limiter.record_response(tasks[1].result(), rate(10, 9, 10), 200)
    permits = await asyncio.gather(*tasks)
    assert permits[0].waited == 0
    assert all(9.4 < permit.waited < 9.6 for permit in permits[1:])
    assert limiter.waited == pytest.approx(sum(permit.waited for permit in permits))
    assert len(caplog.records) == 1


@pytest.mark.parametrize("known", [None, rate(100, 2, 10)], ids=["unknown", "enough for both"])
@virtual
async def test_waiting_for_concurrency_is_not_waiting_for_the_rate_limit(known: RateLimit | None) -> None:
    """Time spent waiting for concurrency is not counted as a wait for the rate limit."""
    limiter = make(concurrency=1)
    await opened(limiter, GET, known)
    first = await enter(limiter)
    second = asyncio.create_task(enter(limiter))
    await asyncio.sleep(5)
    limiter.record_response(first, None, 200)
    assert (await second).waited == 0.0
    assert limiter.waited == 0.0


# Cancellation and the end


@virtual
async def test_a_cancelled_waiter_leaves_no_trace() -> None:
    """A call that is cancelled while it waits leaves the queue, and those behind it move up."""
    limiter = make(concurrency=1)
    await opened(limiter)
    first = await enter(limiter)
    tasks = [asyncio.create_task(enter(limiter)) for _ in range(5)]
    await turns()
    for number in (0, 2, 4):
        tasks[number].cancel()
    await turns()
    assert waiting_at(limiter) == 2
    assert limiter.in_flight == 1
    limiter.record_response(first, None, 200)
    await turns()
    assert [task.cancelled() for task in tasks] == [True, False, True, False, True]
    assert tasks[1].done()
    assert not tasks[3].done()
    limiter.cancel(tasks[1].result())
    limiter.cancel(await tasks[3])
    assert (limiter.in_flight, waiting_at(limiter)) == (0, 0)


@pytest.mark.parametrize("order", ["admitted, cancelled", "cancelled, admitted"])
@virtual
async def test_a_waiter_cancelled_as_it_is_admitted_gives_its_permit_back(order: str) -> None:
    """A waiter that is cancelled in the tick in which it is admitted passes its permit on."""
    limiter = make(concurrency=1)
    await opened(limiter, GET, rate(100, 2, 10))
    first = await enter(limiter)
    tasks = [asyncio.create_task(enter(limiter)) for _ in range(2)]
    await turns()
    if order == "cancelled, admitted":
        tasks[0].cancel()
    limiter.record_response(first, rate(100, 1, 10), 200)
    if order == "admitted, cancelled":
        tasks[0].cancel()
    await turns()
    assert tasks[0].cancelled()
    assert isinstance(tasks[1].result(), Permit)
    assert now() == 1000.0
    assert limiter.in_flight == 1
    seen = limiter.rate_limit
    assert seen is not None
    assert seen.remaining == 0  # one left, and that is under way
    limiter.cancel(tasks[1].result())
    assert limiter.in_flight == 0


@virtual
async def test_a_cancelled_first_request_makes_way() -> None:
    """When all who wait for the one that went alone are cancelled, and it too, the rate limiter is as new."""
    limiter = make()
    first = await enter(limiter)
    tasks = [asyncio.create_task(enter(limiter)) for _ in range(9)]
    await turns()
    for task in tasks:
        task.cancel()
    limiter.abandon(first)
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert (limiter.in_flight, waiting_at(limiter)) == (0, 0)
    assert isinstance(limiter.try_acquire(GET), Permit)


@virtual
async def test_a_first_request_cancelled_in_the_moment_of_its_turn_makes_way() -> None:
    """The next request becomes the probe at once."""
    limiter = make()
    first = await enter(limiter)
    tasks = [asyncio.create_task(enter(limiter)) for _ in range(3)]
    await turns()
    limiter.abandon(first)
    tasks[0].cancel()
    await turns()
    assert [task.done() for task in tasks] == [True, True, False]
    assert isinstance(tasks[1].result(), Permit)
    assert now() == 1000.0
    tasks[2].cancel()


@virtual
async def test_closing_ends_all_waits() -> None:
    """All calls that wait for a permit fail with an error of their own: the client was closed."""
    limiter = make(concurrency=1)
    await opened(limiter, LIST, rate(100, 0, 3600, 3600))
    permit = await enter(limiter)
    tasks = [asyncio.create_task(enter(limiter, (GET, LIST)[number % 2])) for number in range(6)]
    await turns()
    limiter.close()
    errors = await asyncio.gather(*tasks)
    assert {type(error) for error in errors} == {ClientClosedError}
    assert len({id(error) for error in errors}) == 6
    assert {str(error) for error in errors} == {"the client was closed while the call was waiting"}
    assert now() == 1000.0
    assert asyncio.get_running_loop().timers == 0
    limiter.abandon(permit)
    assert (limiter.in_flight, waiting_at(limiter)) == (0, 0)


@virtual
async def test_closing_in_the_moment_of_a_cancellation() -> None:
    """A call that is cancelled in the tick of the close is cancelled, and the others end."""
    limiter = make(concurrency=1)
    await opened(limiter)
    await enter(limiter)
    tasks = [asyncio.create_task(enter(limiter)) for _ in range(2)]
    await turns()
    tasks[0].cancel()
    limiter.close()
    await asyncio.wait(tasks)
    assert tasks[0].cancelled()
    assert isinstance(tasks[1].result(), ClientClosedError)


# Cost


@pytest.mark.parametrize("max_wait", [None, 1e6], ids=["no deadline", "a deadline"])
@virtual
async def test_the_cost_of_a_waiter_does_not_grow_with_the_queue(max_wait: float | None) -> None:
    """A waiter costs as many function calls among 2,400, window after window, as among 600."""

    async def calls(count: int) -> float:
        limiter = make(concurrency=20)
        server = CountingServer(100)
        begin = asyncio.Event()

        async def call() -> None:
            await begin.wait()
            permit = await enter(limiter, GET, max_wait)
            answer, status = server.spend()
            limiter.record_response(permit, answer, status)

        tasks = [asyncio.create_task(call()) for _ in range(count)]
        await turns()
        with function_calls() as counted:
            begin.set()
            await asyncio.gather(*tasks)
        return counted() / count

    few, many = await calls(600), await calls(2_400)
    assert many < 1.2 * few


@virtual
async def test_thousands_of_waiters() -> None:
    """3,000 calls that wait at once all pass, in order, and the window is asked a few times for each."""
    limiter = make(concurrency=50)
    await opened(limiter)
    asked: Counter[str] = Counter()

    class Counting:
        """The window, with a tally."""

        def __getattr__(self, name: str) -> Any:
            asked[name] += 1
            return getattr(window, name)

    window = window_of(limiter, GET)
    replace_window(limiter, GET, Counting())
    order: list[int] = []

    async def call(number: int) -> None:
        permit = await enter(limiter)
        order.append(number)
        limiter.record_response(permit, None, 200)

    blockers = [await enter(limiter) for _ in range(50)]
    tasks = [asyncio.create_task(call(number)) for number in range(3_000)]
    await turns()
    assert waiting_at(limiter) == 3_000
    asked.clear()
    for permit in blockers:
        limiter.record_response(permit, None, 200)
    await asyncio.gather(*tasks)
    assert order == list(range(3_000))
    assert asked.total() < 12 * 3_000

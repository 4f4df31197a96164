"""The gate under a clock that jumps: hours pass in milliseconds, and always the same way."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import math
import selectors
import sys
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.internals import replace_window, waiting_at, window_of

from dd_sa_tokens import ClientClosedError, RateLimit, RateLimitError
from dd_sa_tokens._gate import Gate
from dd_sa_tokens._ledger import Ticket

EPOCH = 1_800_000_000.0  # a whole multiple of every period used here
GET = "get_token"
LIST = "list_tokens"


class _JumpingSelector(selectors.SelectSelector):
    """Instead of waiting, it moves the loop's clock."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            msg = "everybody waits, and nothing will ever happen"
            raise AssertionError(msg)
        self.loop.now += max(timeout, 0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which time passes only when everybody waits."""

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


def make(places: int = 50, reserve: float = 0.0) -> Gate:
    return Gate(places, reserve=reserve, clock=now, wall=wall)


def rate(limit: int, remaining: int, reset: float, period: float = 10.0) -> RateLimit:
    return RateLimit(limit, period, remaining, reset, None)


async def enter(gate: Gate, operation: str = GET, patience: float | None = None) -> Any:
    return gate.try_enter(operation) or await gate.enter(operation, patience)


async def turns(count: int = 5) -> None:
    """Let everybody who can run do so; no time passes."""
    for _ in range(count):
        await asyncio.sleep(0)


async def opened(gate: Gate, operation: str = GET, answer: RateLimit | None = None) -> None:
    """Let one request through and answer it, so that the gate knows what there is to know."""
    ticket = gate.try_enter(operation)
    assert ticket is not None
    gate.answered(operation, ticket, answer, 200)


# Order and places


@virtual
async def test_nobody_waits_without_a_reason() -> None:
    """With nothing known but a success, each request passes at once, without a turn of the loop."""
    gate = make(places=1000)
    assert gate.rate_limit is None
    await opened(gate)
    assert all(gate.try_enter(GET) for _ in range(1000))
    assert gate.try_enter(GET) is None
    assert gate.in_flight == 1000
    assert gate.waited == 0.0


@virtual
async def test_first_come_first_served() -> None:
    """Those who wait for a place get it in the order in which they came, over several operations too."""
    gate = make(places=3)
    await opened(gate)
    await opened(gate, LIST)
    order: list[int] = []
    most = 0

    async def call(number: int) -> None:
        nonlocal most
        operation = (GET, LIST)[number % 3 == 0]
        ticket = await enter(gate, operation)
        order.append(number)
        most = max(most, gate.in_flight)
        await asyncio.sleep(0.1 + (number * 7 % 5) / 10)
        gate.answered(operation, ticket, None, 200)

    await asyncio.gather(*map(call, range(40)))
    assert order == list(range(40))
    assert most == 3
    assert gate.in_flight == 0


@virtual
async def test_nobody_overtakes_those_who_wait() -> None:
    """Who comes when a place has just become free does not get in before those who were promised it."""
    gate = make(places=1)
    await opened(gate)
    ticket = await enter(gate)
    order: list[str] = []

    async def call(name: str) -> None:
        mine = await enter(gate)
        order.append(name)
        gate.answered(GET, mine, None, 200)

    early = [asyncio.create_task(call(name)) for name in ("first", "second")]
    await turns()
    gate.answered(GET, ticket, None, 200)
    late = asyncio.create_task(call("late"))
    await asyncio.gather(*early, late)
    assert order == ["first", "second", "late"]


@virtual
async def test_quota_is_each_operation_s_own() -> None:
    """An operation whose quota is spent does not hold up another one that has some, even behind it in the queue."""
    gate = make(places=2)
    await opened(gate, GET, rate(100, 0, 9))
    await opened(gate, LIST, rate(100, 50, 9))
    stuck = asyncio.create_task(enter(gate, GET))
    await turns()
    ticket = await asyncio.wait_for(enter(gate, LIST), 0.1)
    assert isinstance(ticket, Ticket)
    assert not stuck.done()
    begun = now()
    await stuck
    assert 8 < now() - begun < 9.1


@virtual
async def test_the_window_is_waited_for_in_order() -> None:
    """Those who wait for the next window pass in order: one alone, and after its answer as many as the limit allows."""
    gate, server = make(places=5), Quota(40)
    await opened(gate, GET, rate(40, 0, 10))
    order: list[tuple[int, float]] = []

    async def call(number: int) -> None:
        ticket = await enter(gate)
        order.append((number, now() - 1000.0))
        await asyncio.sleep(0.1)
        gate.answered(GET, ticket, *server.spend())

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
    assert (gate.in_flight, waiting_at(gate)) == (0, 0)


@virtual
async def test_one_timer_for_all() -> None:
    """A thousand who wait for two quotas set one timer together, and none is left when all have passed."""
    gate = make(places=2000)
    await opened(gate, GET, rate(2000, 0, 10))
    await opened(gate, LIST, rate(2000, 0, 5))

    async def call(operation: str) -> None:
        gate.answered(operation, await enter(gate, operation), rate(2000, 1000, 10), 200)

    tasks = [asyncio.create_task(call((GET, LIST)[number % 2])) for number in range(1000)]
    await turns()
    assert waiting_at(gate) == 1000
    assert asyncio.get_running_loop().timers == 1
    await asyncio.gather(*tasks)
    assert now() < 1011
    await asyncio.sleep(2)
    assert asyncio.get_running_loop().timers == 0


@virtual
async def test_the_nearer_of_two_quotas_is_not_waited_for_longer() -> None:
    """Whose window begins soonest passes then, though somebody else has waited before for a later one."""
    gate = make()
    await opened(gate, GET, rate(100, 0, 10))
    await opened(gate, LIST, rate(100, 0, 5, 5))
    later = asyncio.create_task(enter(gate, GET))
    await turns()
    await enter(gate, LIST)
    assert now() == pytest.approx(1005, abs=0.02)
    await later
    assert now() == pytest.approx(1010, abs=0.02)


def test_waits_under_a_millisecond_with_uvloop() -> None:
    """uvloop sets no timer for less than a millisecond, so its handle cannot tell when it rings; nobody asks it."""
    uvloop = pytest.importorskip("uvloop")

    async def calls() -> int:
        gate = Gate(50)
        await opened(gate)
        gate.close(GET, 0.0003)
        return len(await asyncio.gather(*(enter(gate) for _ in range(3))))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(calls()) == 3


@virtual
async def test_a_window_that_begins_while_a_call_is_queued_is_not_missed() -> None:
    """Told to wait a moment before the window's begin, and queued a moment after it, a call passes all the same."""
    looks = [now()]
    gate = Gate(50, clock=lambda: looks.pop(0) if len(looks) > 1 else looks[0], wall=wall)
    await opened(gate, GET, rate(5, 0, 10))
    end = now() + window_of(gate, GET).wait(now())
    looks[:] = [end - 0.001, end + 0.001]
    async with asyncio.timeout(1):
        assert isinstance(await gate.enter(GET), Ticket)


# The first request of a window


@virtual
async def test_one_goes_alone_and_then_all() -> None:
    """While nothing is known one request goes alone; where its answer shows plenty, the others go at once."""
    gate = make()
    first = await enter(gate)
    others = [asyncio.create_task(enter(gate)) for _ in range(49)]
    await asyncio.sleep(0.5)
    assert not any(task.done() for task in others)
    gate.answered(GET, first, rate(1000, 999, 10), 200)
    await turns()
    assert all(task.done() for task in others)
    assert gate.in_flight == 49


@virtual
async def test_one_goes_alone_and_then_as_many_as_may() -> None:
    """Where the first answer shows that little is left, no more than that go, and all of those within a second."""
    gate = make()
    first = await enter(gate)
    others = [asyncio.create_task(enter(gate)) for _ in range(9)]
    await turns()
    gate.answered(GET, first, rate(100, 6, 10), 200)
    await asyncio.sleep(1.01)
    assert [task.done() for task in others] == [True] * 6 + [False] * 3
    for task in others[6:]:
        task.cancel()
    await asyncio.wait(others)
    assert gate.in_flight == 6


@pytest.mark.parametrize("status", [200, 201, 204])
@virtual
async def test_a_success_without_headers_opens_the_gate(status: int) -> None:
    """Where no limit is known, a 2xx without headers lets everybody in."""
    gate = make()
    first = await enter(gate)
    others = [asyncio.create_task(enter(gate)) for _ in range(49)]
    await turns()
    gate.answered(GET, first, None, status)
    await turns()
    assert all(task.done() for task in others)
    assert gate.rate_limit is None


@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
@virtual
async def test_an_error_without_headers_changes_nothing(status: int) -> None:
    """An error page without headers says nothing about the quota: the next request goes alone."""
    gate = make()
    first = await enter(gate)
    others = [asyncio.create_task(enter(gate)) for _ in range(3)]
    await turns()
    gate.answered(GET, first, None, status)
    await turns()
    assert [task.done() for task in others] == [True, False, False]
    gate.answered(GET, others[0].result(), rate(1000, 998, 10), 404)
    await turns()
    assert all(task.done() for task in others)


@pytest.mark.parametrize("leave", ["lost", "forget"])
@virtual
async def test_a_first_request_that_fails_makes_way(leave: str) -> None:
    """When the one that went alone is lost, or was never sent, the next one goes alone at once."""
    gate = make()
    first = await enter(gate)
    others = [asyncio.create_task(enter(gate)) for _ in range(3)]
    await turns()
    getattr(gate, leave)(GET, first)
    await turns()
    assert [task.done() for task in others] == [True, False, False]
    gate.answered(GET, others[0].result(), None, 200)
    await asyncio.gather(*others)
    assert now() == 1000.0


@pytest.mark.parametrize("window", ["first", "later"])
@virtual
async def test_a_stalled_first_request_holds_nobody_for_more_than_a_second(window: str) -> None:
    """If the answer to the one that went alone does not come within a second, the others go, in either window."""
    gate = make()
    if window == "later":
        await opened(gate, GET, rate(100, 99, 10))
        await asyncio.sleep(12)
    begun = now()
    first = await enter(gate)
    others = [asyncio.create_task(enter(gate)) for _ in range(9)]
    await asyncio.sleep(0.99)
    assert not any(task.done() for task in others)
    await asyncio.gather(*others)
    assert now() - begun == pytest.approx(1.0)
    gate.lost(GET, first)
    assert gate.in_flight == 9


@virtual
async def test_stalled_requests_one_after_the_other_hold_nobody_either() -> None:
    """The second counts from the first request that went alone, not anew from each that is lost."""
    gate = make()
    tickets: list[Ticket] = []

    async def call() -> float:
        tickets.append(await enter(gate))
        return now() - 1000.0

    tasks = [asyncio.create_task(call()) for _ in range(20)]
    for _ in range(10):
        await asyncio.sleep(0.3)
        gate.lost(GET, tickets.pop())
    assert max(await asyncio.gather(*tasks)) < 4


# Quota


@virtual
async def test_no_more_than_remaining_are_in_flight() -> None:
    """Requests that are under way are taken for spent; a lost one stays spent, one that was never sent does not."""
    gate = make()
    await opened(gate, GET, rate(100, 4, 10))
    tickets = [await enter(gate) for _ in range(4)]
    assert gate.try_enter(GET) is None
    gate.lost(GET, tickets[0])
    assert gate.try_enter(GET) is None
    gate.forget(GET, tickets[1])
    assert gate.try_enter(GET) is not None
    assert gate.try_enter(GET) is None


@virtual
async def test_out_of_order_answers_do_not_raise_the_quota() -> None:
    """Of two answers the lower count holds, whichever comes last."""
    gate = make()
    await opened(gate, GET, rate(1000, 999, 10))
    early, late = await enter(gate), await enter(gate)
    for ticket, left in ((late, 997), (early, 998)):
        gate.answered(GET, ticket, rate(1000, left, 10), 200)
        assert gate.rate_limit is not None
        assert gate.rate_limit.remaining == (996 if gate.in_flight else 997)


@virtual
async def test_an_answer_without_headers_takes_one() -> None:
    """Once a limit is known, a 2xx without headers counts as one request."""
    gate = make()
    await opened(gate, GET, rate(100, 2, 10))
    await opened(gate)
    await opened(gate)
    assert gate.try_enter(GET) is None


@virtual
async def test_a_429_closes_the_gate_until_the_reset() -> None:
    """After a 429 nobody passes before the window is over."""
    gate = make()
    await opened(gate, GET, rate(100, 50, 10))
    ticket = await enter(gate)
    gate.answered(GET, ticket, rate(100, 50, 10), 429)
    assert gate.try_enter(GET) is None
    begun = now()
    await enter(gate)
    assert 10 < now() - begun < 10.1


@virtual
async def test_a_closed_gate_opens_for_one_and_then_all() -> None:
    """After a pause without a known reset, one request goes alone."""
    gate = make()
    await opened(gate)
    gate.close(GET, 3.0)
    tasks = [asyncio.create_task(enter(gate)) for _ in range(3)]
    await asyncio.sleep(2.99)
    assert not any(task.done() for task in tasks)
    await asyncio.sleep(0.02)
    assert [task.done() for task in tasks] == [True, False, False]
    gate.answered(GET, tasks[0].result(), None, 200)
    await asyncio.gather(*tasks)
    assert now() - 1000.0 < 3.1


@virtual
async def test_the_time_spent_waiting_for_quota_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """`waited` adds up what all calls waited for quota, each ticket knows its own part, and one log record says so."""
    caplog.set_level(logging.INFO, "dd_sa_tokens")
    gate = make(places=5)
    await opened(gate, GET, RateLimit(100, 10.0, 0, 10, "tokens"))
    tasks = [asyncio.create_task(enter(gate)) for _ in range(3)]
    await asyncio.sleep(10.02)
    gate.answered(GET, tasks[0].result(), rate(100, 99, 10), 200)
    tickets = await asyncio.gather(*tasks)
    assert all(10 < ticket.waited < 10.1 for ticket in tickets)
    assert gate.waited == pytest.approx(sum(ticket.waited for ticket in tickets))
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [("INFO", "the quota tokens is spent for 10.01 s")]


@virtual
async def test_each_wait_for_quota_is_counted_by_itself_and_short_ones_are_too() -> None:
    """A call that waits for the next window is told its own wait, not those of calls before, even under a second."""
    gate = make()
    for seconds in (0.3, 0.6):
        await opened(gate, GET, rate(100, 0, 10))
        end = await asyncio.sleep(10 - seconds, now() + 10)
        ticket = await enter(gate)
        assert ticket.waited == pytest.approx(seconds, abs=0.02)
        assert now() == pytest.approx(end, abs=0.02)
        gate.forget(GET, ticket)
    assert gate.waited == pytest.approx(0.9, abs=0.03)


@virtual
async def test_those_who_came_before_the_quota_was_known_to_be_spent_count_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Calls that queued behind the very first request wait for quota, too, once that is what they wait for."""
    caplog.set_level(logging.INFO, "dd_sa_tokens")
    gate = make(places=50)
    tasks = [asyncio.create_task(enter(gate)) for _ in range(6)]
    await asyncio.sleep(0.5)
    gate.answered(GET, tasks[0].result(), rate(10, 0, 10), 200)
    await asyncio.sleep(9.53)
    gate.answered(GET, tasks[1].result(), rate(10, 9, 10), 200)
    tickets = await asyncio.gather(*tasks)
    assert tickets[0].waited == 0
    assert all(9.4 < ticket.waited < 9.6 for ticket in tickets[1:])
    assert gate.waited == pytest.approx(sum(ticket.waited for ticket in tickets))
    assert len(caplog.records) == 1


@pytest.mark.parametrize("known", [None, rate(100, 2, 10)], ids=["no quota", "enough for both"])
@virtual
async def test_waiting_for_a_place_is_not_waiting_for_quota(known: RateLimit | None) -> None:
    """Time spent waiting for one of the client's places is not counted as a wait for quota."""
    gate = make(places=1)
    await opened(gate, GET, known)
    first = await enter(gate)
    second = asyncio.create_task(enter(gate))
    await asyncio.sleep(5)
    gate.answered(GET, first, None, 200)
    assert (await second).waited == 0.0
    assert gate.waited == 0.0


# Patience


@virtual
async def test_the_impatient_are_told_at_once() -> None:
    """Who would have to wait longer than its patience is refused in the same moment, and told for how long."""
    gate = make()
    await opened(gate, GET, rate(100, 0, 8))
    refusal = await gate.enter(GET, 5.0)
    assert now() == 1000.0
    assert isinstance(refusal, RateLimitError)
    assert refusal.retry_after == pytest.approx(8.0, abs=0.05)
    assert refusal.status == 429
    assert str(refusal).startswith("the quota is spent for 8.0 s, longer than max_rate_limit_wait allows")
    assert refusal.rate_limit is not None
    assert refusal.rate_limit.remaining == 0
    assert waiting_at(gate) == 0
    assert gate.in_flight == 0
    assert isinstance(await gate.enter(GET, 9.0), Ticket)


@virtual
async def test_the_place_in_the_queue_counts() -> None:
    """With two requests a window, the third in the queue waits a window longer, and is refused by that measure."""
    gate = make()
    await opened(gate, GET, rate(2, 0, 10))
    patient = [asyncio.create_task(enter(gate)) for _ in range(2)]
    await turns()
    refusal = await gate.enter(GET, 15.0)
    assert isinstance(refusal, RateLimitError)
    assert refusal.retry_after == pytest.approx(20.0, abs=0.1)
    assert now() == 1000.0
    third = asyncio.create_task(enter(gate, GET, 21.0))
    await turns()
    assert not third.done()
    for task in (*patient, third):
        task.cancel()
    await asyncio.wait([*patient, third])
    assert waiting_at(gate) == 0


@virtual
async def test_patience_that_a_429_uses_up() -> None:
    """When the quota is put off while they wait, those whose patience no longer suffices are told at once."""
    gate = make()
    await opened(gate, GET, rate(100, 0, 5))
    calls = [asyncio.create_task(enter(gate, GET, patience)) for patience in (6.0, 6.5, 60.0, None)]
    await asyncio.sleep(5.02)
    first = calls[0].result()
    assert isinstance(first, Ticket)
    gate.answered(GET, first, rate(100, 0, 10), 429)
    await turns()
    told = now()
    assert isinstance(calls[1].result(), RateLimitError)
    assert not calls[2].done()
    assert not calls[3].done()
    assert told - 1000.0 < 5.1
    await calls[2]
    assert 14 < now() - 1000.0 < 16


@virtual
async def test_nobody_waits_longer_than_its_patience() -> None:
    """Who is put off by a window, although the last in the queue is not, is refused when its patience ends."""
    gate = make()
    await opened(gate, GET, rate(2, 0, 10))
    calls = [asyncio.create_task(enter(gate, GET, patience)) for patience in (None, 15.0, None)]
    await asyncio.sleep(10.02)
    gate.answered(GET, calls[0].result(), rate(2, 0, 10), 429)  # now the other two have to wait until 20
    refused = await calls[1]
    assert isinstance(refused, RateLimitError)
    assert refused.retry_after == pytest.approx(5.0, abs=0.1)
    assert now() - 1000.0 == pytest.approx(15.0, abs=0.01)
    assert isinstance(await calls[2], Ticket)


@virtual
async def test_each_waiter_is_told_by_its_own_place_in_the_queue() -> None:
    """When the quota is put off by a window, only those are refused who are behind what the next one holds."""
    gate = make()
    await opened(gate, GET, rate(2, 0, 10))
    calls = [asyncio.create_task(enter(gate, GET, 21.0)) for _ in range(4)]  # two in each of two windows
    await asyncio.sleep(10.02)
    gate.answered(GET, calls[0].result(), rate(2, 0, 10), 429)
    await turns()
    assert [task.done() for task in calls] == [True, False, False, True]
    assert isinstance(calls[3].result(), RateLimitError)
    gate.answered(GET, await calls[1], rate(2, 1, 10), 200)
    assert isinstance(await calls[2], Ticket)
    assert now() - 1000.0 < 21


@virtual
async def test_patience_that_is_short_by_a_moment() -> None:
    """Half a second more than a call is ready to wait is too long as well."""
    gate = make()
    await opened(gate, GET, rate(100, 0, 9))
    call = asyncio.create_task(enter(gate, GET, 9.2))
    await turns()
    assert not call.done()
    gate.close(GET, 9.5)
    await turns()
    assert isinstance(call.result(), RateLimitError)


@virtual
async def test_a_closing_is_told_to_the_impatient_among_the_patient() -> None:
    """A gate that is closed for longer than somebody's patience tells so, whoever waits beside them or has left."""
    gate = make()
    await opened(gate, GET, rate(100, 0, 9))
    calls = [asyncio.create_task(enter(gate, GET, patience)) for patience in (12.0, None, None)]
    await turns()
    calls[2].cancel()
    await turns()
    gate.close(GET, 60.0)
    await turns()
    assert [task.done() for task in calls] == [True, False, True]
    assert isinstance(calls[0].result(), RateLimitError)
    calls[1].cancel()


@virtual
async def test_patience_does_not_hurry_those_who_wait_for_a_place() -> None:
    """Patience is about quota: who waits for a place only is not refused."""
    gate = make(places=1)
    await opened(gate)
    first = await enter(gate)
    second = asyncio.create_task(enter(gate, GET, 1.0))
    await asyncio.sleep(30)
    assert not second.done()
    gate.answered(GET, first, None, 200)
    assert isinstance(await second, Ticket)


# Cancellation and the end


@virtual
async def test_a_cancelled_waiter_leaves_no_trace() -> None:
    """Who is cancelled while waiting is gone from the queue, and those behind move up."""
    gate = make(places=1)
    await opened(gate)
    first = await enter(gate)
    tasks = [asyncio.create_task(enter(gate)) for _ in range(5)]
    await turns()
    for number in (0, 2, 4):
        tasks[number].cancel()
    await turns()
    assert waiting_at(gate) == 2
    assert gate.in_flight == 1
    gate.answered(GET, first, None, 200)
    await turns()
    assert [task.cancelled() for task in tasks] == [True, False, True, False, True]
    assert tasks[1].done()
    assert not tasks[3].done()
    gate.forget(GET, tasks[1].result())
    gate.forget(GET, await tasks[3])
    assert (gate.in_flight, waiting_at(gate)) == (0, 0)


@pytest.mark.parametrize("order", ["admitted, cancelled", "cancelled, admitted"])
@virtual
async def test_a_waiter_cancelled_in_the_moment_of_its_turn_gives_the_place_back(order: str) -> None:
    """Cancelled in the same tick in which it is let in, a waiter passes its place and its quota on."""
    gate = make(places=1)
    await opened(gate, GET, rate(100, 2, 10))
    first = await enter(gate)
    tasks = [asyncio.create_task(enter(gate)) for _ in range(2)]
    await turns()
    if order == "cancelled, admitted":
        tasks[0].cancel()
    gate.answered(GET, first, rate(100, 1, 10), 200)
    if order == "admitted, cancelled":
        tasks[0].cancel()
    await turns()
    assert tasks[0].cancelled()
    assert isinstance(tasks[1].result(), Ticket)
    assert now() == 1000.0
    assert gate.in_flight == 1
    seen = gate.rate_limit
    assert seen is not None
    assert seen.remaining == 0  # one left, and that is under way
    gate.forget(GET, tasks[1].result())
    assert gate.in_flight == 0


@virtual
async def test_a_cancelled_first_request_makes_way() -> None:
    """When all who wait for the one that went alone are cancelled, and it too, the gate is as new."""
    gate = make()
    first = await enter(gate)
    tasks = [asyncio.create_task(enter(gate)) for _ in range(9)]
    await turns()
    for task in tasks:
        task.cancel()
    gate.lost(GET, first)
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert (gate.in_flight, waiting_at(gate)) == (0, 0)
    assert isinstance(gate.try_enter(GET), Ticket)


@virtual
async def test_a_first_request_cancelled_in_the_moment_of_its_turn_makes_way() -> None:
    """The next one goes alone in its place, at once."""
    gate = make()
    first = await enter(gate)
    tasks = [asyncio.create_task(enter(gate)) for _ in range(3)]
    await turns()
    gate.lost(GET, first)
    tasks[0].cancel()
    await turns()
    assert [task.done() for task in tasks] == [True, True, False]
    assert isinstance(tasks[1].result(), Ticket)
    assert now() == 1000.0
    tasks[2].cancel()


@virtual
async def test_shutting_ends_all_waits() -> None:
    """All who wait, for quota or for a place, are told that the client was closed, each with its own error."""
    gate = make(places=1)
    await opened(gate, LIST, rate(100, 0, 3600, 3600))
    ticket = await enter(gate)
    tasks = [asyncio.create_task(enter(gate, (GET, LIST)[number % 2])) for number in range(6)]
    await turns()
    gate.shut()
    errors = await asyncio.gather(*tasks)
    assert {type(error) for error in errors} == {ClientClosedError}
    assert len({id(error) for error in errors}) == 6
    assert {str(error) for error in errors} == {"the client was closed while the call was waiting"}
    assert now() == 1000.0
    assert asyncio.get_running_loop().timers == 0
    gate.lost(GET, ticket)
    assert (gate.in_flight, waiting_at(gate)) == (0, 0)


# Cost


@pytest.mark.parametrize("patience", [None, 1e6], ids=["patient", "with a limit to their patience"])
@virtual
async def test_the_cost_of_a_waiter_does_not_grow_with_the_queue(patience: float | None) -> None:
    """A waiter costs as many function calls among twelve thousand, window after window, as among three thousand."""

    async def calls(count: int) -> float:
        gate = make(places=100)
        server = Quota(500)
        begin = asyncio.Event()
        tally = 0

        def tick(_frame: Any, event: str, _arg: Any) -> None:
            nonlocal tally
            tally += event in {"call", "c_call"}

        async def call() -> None:
            await begin.wait()
            ticket = await enter(gate, GET, patience)
            answer, status = server.spend()
            gate.answered(GET, ticket, answer, status)

        tasks = [asyncio.create_task(call()) for _ in range(count)]
        await turns()
        sys.setprofile(tick)
        try:
            begin.set()
            await asyncio.gather(*tasks)
        finally:
            sys.setprofile(None)
        return tally / count

    few, many = await calls(3_000), await calls(12_000)
    assert many < 1.2 * few


@virtual
async def test_a_hundred_thousand_waiters() -> None:
    """A hundred thousand calls that wait at once all pass, in order, and the ledger is asked a few times for each."""
    gate = make(places=50)
    await opened(gate)
    asked: Counter[str] = Counter()

    class Counting:
        """The ledger, with a tally."""

        def __getattr__(self, name: str) -> Any:
            asked[name] += 1
            return getattr(ledger, name)

    ledger = window_of(gate, GET)
    replace_window(gate, GET, Counting())
    order: list[int] = []

    async def call(number: int) -> None:
        ticket = await enter(gate)
        order.append(number)
        gate.answered(GET, ticket, None, 200)

    blockers = [await enter(gate) for _ in range(50)]
    tasks = [asyncio.create_task(call(number)) for number in range(100_000)]
    await turns()
    assert waiting_at(gate) == 100_000
    asked.clear()
    for ticket in blockers:
        gate.answered(GET, ticket, None, 200)
    await asyncio.gather(*tasks)
    assert order == list(range(100_000))
    assert asked.total() < 12 * 100_000


# A whole run against a server


@attrs.define
class Quota:
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


async def run(gate: Gate, server: Quota, count: int, latency: float = 0.05) -> None:
    """Make so many requests as a client would."""
    todo = deque(range(count))

    async def worker() -> None:
        while todo:
            todo.popleft()
            status = 429
            while status == 429:
                ticket = await enter(gate)
                await asyncio.sleep(latency / 2)
                answer, status = server.spend()
                await asyncio.sleep(latency / 2)
                gate.answered(GET, ticket, answer, status)

    await asyncio.gather(*(worker() for _ in range(50)))


@pytest.mark.parametrize("start", [0.0, 0.02, 3.7, 9.99])
@pytest.mark.parametrize(
    ("rounding", "offset", "rejected"),
    [(math.ceil, 0.0, 0), (round, 0.0, 1), (math.floor, 0.0, 1), (math.ceil, 3.37, 1), (math.ceil, -0.4, 1)],
    ids=["rounds up", "rounds", "rounds down", "clock ahead", "clock behind"],
)
@virtual
async def test_a_client_alone_spends_each_window_and_meets_no_429(
    rounding: Callable[[float], float], offset: float, rejected: int, start: float
) -> None:
    """A client alone meets no 429, or one with a server that rounds or dates otherwise, and spends whole windows."""
    await asyncio.sleep(start)
    server = Quota(100, 10.0, rounding, offset)
    await run(make(), server, 450)
    assert server.rejected <= rejected
    full = list(server.spent.values())[bool((start + offset) % 10) : -1]  # a window that has begun is not whole
    assert sum(server.spent.values()) == 450
    assert all(spent >= 99 for spent in full)
    end = (list(server.spent)[-1]) * 10.0
    assert wall() + offset - end < 0.5 + 1.0 * (rejected > 0)


@virtual
async def test_a_reserve_is_left_to_the_others() -> None:
    """With a reserve of a quarter, a quarter of each window stays unspent."""
    server = Quota(100)
    await run(make(reserve=0.25), server, 200)
    assert server.rejected == 0
    assert list(server.spent.values()) == [75, 75, 50]


@pytest.mark.parametrize("clients", [2, 3, 4])
@virtual
async def test_clients_that_share_a_quota_seldom_collide(clients: int) -> None:
    """Two to four clients that do not know of each other meet 429s in under 3% of their requests."""
    server = Quota(100)
    await asyncio.gather(*(run(make(), server, 500) for _ in range(clients)))
    total = sum(server.spent.values()) + server.rejected
    assert server.rejected < 0.03 * total


# Anything at all


@attrs.define(eq=False)
class Sent:
    """A request that passed, as the server knows it."""

    operation: str
    ticket: Ticket
    at: float
    answer: tuple[RateLimit, int] | None = None


class GateMachine(RuleBasedStateMachine):
    """Calls come, are answered in any order, lost, cancelled, or wait: the server never has to refuse one."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()

    @initialize(places=st.integers(1, 6), limit=st.integers(1, 8), reserve=st.sampled_from([0.0, 0.3]))
    def begin(self, places: int, limit: int, reserve: float) -> None:
        self.places = places
        self.servers = {GET: Quota(limit, 5.0), LIST: Quota(limit + 3, 10.0)}
        self.gate = Gate(places, reserve=reserve, clock=self.loop.time, wall=lambda: EPOCH - 1000 + self.loop.time())
        self.calls: dict[int, asyncio.Task[Any]] = {}
        self.operations: dict[int, str] = {}
        self.numbers = itertools.count()
        self.sent: list[Sent] = []
        self.admitted: dict[str, list[int]] = {GET: [], LIST: []}
        for operation in self.servers:  # what comes before the limits are known is tested above
            self.come(operation)
            self.do(functools.partial(self._finish, self.sent.pop()))

    def do(self, action: Callable[[], Any] | None = None, seconds: float = 0.0) -> None:
        async def step() -> None:
            if action is not None:
                result = action()
                if isinstance(result, Awaitable):
                    await result
            await asyncio.sleep(seconds)
            await turns(3)

        self.loop.run_until_complete(step())

    @rule(operation=st.sampled_from([GET, GET, LIST]))
    def come(self, operation: str) -> None:
        number = next(self.numbers)

        async def call() -> None:
            ticket = await enter(self.gate, operation)
            assert isinstance(ticket, Ticket)
            del self.calls[number]
            self.admitted[operation].append(number)
            self.sent.append(Sent(operation, ticket, self.loop.time()))

        def create() -> None:
            self.calls[number] = self.loop.create_task(call())

        self.do(create)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def reach_the_server(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.sent))
        if request.answer is None:
            self.do(lambda: self._count(request))

    def _count(self, request: Sent) -> None:
        request.answer = self.servers[request.operation].spend()

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.sent))
        self.sent.remove(request)

        def act() -> None:
            if request.answer is None:
                self._count(request)
            assert request.answer is not None
            self.gate.answered(request.operation, request.ticket, *request.answer)

        self.do(act)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.sent))
        # A request of an earlier window is no longer taken for spent when it is lost.
        windows = {(EPOCH - 1000 + at) // 5 for at in (request.at, self.loop.time())}
        if request.answer is None or len(windows) == 1:
            self.sent.remove(request)
            leave = self.gate.forget if request.answer is None else self.gate.lost
            self.do(lambda: leave(request.operation, request.ticket))

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.calls)))
        task = self.calls.pop(number)
        self.do(lambda: (task.cancel(), asyncio.wait([task]))[1])
        assert task.cancelled()

    @rule(seconds=st.sampled_from([0.001, 0.1, 0.7, 1.0, 2.5, 5.0, 11.0]))
    def wait(self, seconds: float) -> None:
        # An answer that takes as long as a window says too little about where the window ends: none takes 4 s.
        while seconds > 0:
            self.do(seconds=min(seconds, 1.0))
            seconds -= 1.0
            for request in [request for request in self.sent if self.loop.time() - request.at > 2.5]:
                self.sent.remove(request)
                self.do(functools.partial(self._finish, request))

    @invariant()
    def all_is_well(self) -> None:
        if not hasattr(self, "gate"):
            return
        assert self.gate.in_flight == len(self.sent) <= self.places
        assert waiting_at(self.gate) == len(self.calls)
        for operation, numbers in self.admitted.items():
            assert numbers == sorted(numbers), operation
        assert self.loop.timers <= 1
        assert [server.rejected for server in self.servers.values()] == [0, 0]

    def teardown(self) -> None:
        if hasattr(self, "gate"):
            for _ in range(1000):
                if not self.calls and not self.sent:
                    break
                for request in list(self.sent):
                    self.sent.remove(request)
                    self.do(functools.partial(self._finish, request))
                self.do(seconds=1.0)
            assert not self.calls, "somebody waits for ever"
            self.all_is_well()
        self.loop.close()

    def _finish(self, request: Sent) -> None:
        if request.answer is None:
            self._count(request)
        assert request.answer is not None
        self.gate.answered(request.operation, request.ticket, *request.answer)


TestGateMachine = GateMachine.TestCase
TestGateMachine.settings = settings(max_examples=30, stateful_step_count=30, deadline=None, derandomize=True)


# Operations with the same limit


def named(name: str | None, remaining: int, limit: int = 1000) -> RateLimit:
    return RateLimit(limit, 10.0, remaining, 9, name)


@virtual
async def test_operations_of_the_same_limit_share_a_ledger() -> None:
    """Once both have given the limit's name, what one has spent the other one cannot."""
    gate = make()
    await opened(gate, GET, named("tokens", 1))
    assert gate.try_enter(LIST) is not None  # its limit is not known yet
    gate = make()
    await opened(gate, GET, named("tokens", 2))
    await opened(gate, LIST, named("tokens", 1))
    ticket = gate.try_enter(LIST)
    assert ticket is not None
    assert gate.try_enter(GET) is None
    assert gate.try_enter(LIST) is None
    gate.forget(LIST, ticket)
    assert gate.try_enter(GET) is not None


@virtual
async def test_operations_of_different_limits_do_not_share() -> None:
    """Another name, or none, is another account."""
    gate = make()
    await opened(gate, GET, named("tokens", 0))
    await opened(gate, LIST, named("lists", 500))
    await opened(gate, "other", named(None, 500))
    assert gate.try_enter(GET) is None
    assert gate.try_enter(LIST) is not None
    assert gate.try_enter("other") is not None


@virtual
async def test_those_who_wait_move_to_the_shared_ledger_in_order() -> None:
    """Requests that wait when their operation joins another's ledger are served with the others, oldest first."""
    gate = make(places=10)
    await opened(gate, GET, named("tokens", 0))
    order: list[str] = []

    async def call(operation: str) -> None:
        ticket = await enter(gate, operation)
        order.append(operation)
        gate.answered(operation, ticket, named("tokens", 500), 200)

    first = gate.try_enter(LIST)  # alone, so that the others of its kind wait
    assert first is not None
    tasks = [asyncio.create_task(call(operation)) for operation in (LIST, GET, LIST, GET)]
    await turns()
    gate.answered(LIST, first, named("tokens", 0), 200)
    await turns()
    assert order == []
    tasks[2].cancel()
    await asyncio.sleep(11)
    assert order == [LIST, GET, GET]
    assert waiting_at(gate) == 0
    assert gate.in_flight == 0


@virtual
async def test_what_is_in_flight_counts_on_the_shared_ledger() -> None:
    """When an operation joins another's ledger, the other's requests without an answer yet are not forgotten."""
    gate = make()
    await opened(gate, GET, named("tokens", 10))
    assert all(gate.try_enter(GET) for _ in range(2))
    await opened(gate, LIST, named("tokens", 3))
    assert gate.try_enter(LIST) is not None
    assert gate.try_enter(GET) is None
    assert gate.try_enter(LIST) is None


@pytest.mark.parametrize("patience", [(12.0, None), (None, 12.0), (12.0, 12.0), (None, None)], ids=str)
@virtual
async def test_those_who_moved_to_the_shared_ledger_keep_their_patience(
    patience: tuple[float | None, float | None],
) -> None:
    """When the shared quota is put off, the impatient of both operations are told, and nobody else."""
    gate = make()
    await opened(gate, GET, named("tokens", 0))
    first = gate.try_enter(LIST)
    assert first is not None
    calls = [
        asyncio.create_task(enter(gate, operation, seconds))
        for operation, seconds in zip((GET, LIST), patience, strict=True)
    ]
    await turns()
    gate.answered(LIST, first, named("tokens", 0), 200)
    gate.close(LIST, 60.0)
    await turns()
    assert [task.done() for task in calls] == [seconds is not None for seconds in patience]
    for task in calls:
        task.cancel()
    await asyncio.wait(calls)
    assert waiting_at(gate) == 0


@pytest.mark.parametrize(("between", "remaining"), [(None, 400), ("other", 7)])
@virtual
async def test_the_rate_limit_is_that_of_the_operation_used_last(between: str | None, remaining: int) -> None:
    """An operation that joins another's ledger is shown with that, unless one with another limit was used meanwhile."""
    gate = make()
    await opened(gate, GET, named("tokens", 500))
    ticket = gate.try_enter(LIST)
    assert ticket is not None
    if between is not None:
        await opened(gate, between, named("others", 7))
    gate.answered(LIST, ticket, named("tokens", 400), 200)
    assert gate.rate_limit is not None
    assert gate.rate_limit.remaining == remaining

"""One client and what it makes of a store's leases: when it waits, and what it tells the store. In virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis
from support.internals import by_headers, unspent
from support.leasing import AnsweringStore, Fleet, granting, named, sharing, virtual_store
from support.virtual_time import GET, LIST, CountingServer, enter, now, rate, virtual

from benchmarks.virtual_store import VirtualStore
from dd_sa_tokens import RateLimitError
from dd_sa_tokens.fleet import Lease, LeaseRequest


async def entered_after(limiter: Any, reserve: float = 0.0) -> float:
    """Return for how many seconds a call waits."""
    begun = now()
    assert await enter(limiter, reserve=reserve)
    return now() - begun


# What a lease does not say


@virtual
async def test_a_lease_that_says_no_more_than_the_window_is_plain() -> None:
    """Such permits are used at once, are no probe, are not asked for ahead, and are given back after 0.1 s."""
    store = granting()
    limiter = sharing(store)
    for _ in range(8):
        assert await entered_after(limiter) < 0.01
        limiter.record_response(await enter(limiter), rate(100, 90, 7), 200)
    assert len(store.requests) == 2
    await asyncio.sleep(0.15)
    assert unspent(limiter) == 0
    assert sum(request.returned for request in store.requests) == 4
    assert {request.probe_answered for request in store.requests} == {None}


@virtual
async def test_a_lease_of_nothing_leaves_each_client_to_its_headers() -> None:
    """A store that names the limit and says nothing else knows no limit, and holds no call."""
    store = AnsweringStore(lambda request: Lease(record=request.record))
    limiter = sharing(store)
    assert await entered_after(limiter) < 0.01
    assert by_headers(limiter)
    assert len(store.requests) == 1


@virtual
async def test_a_client_that_is_alone_stays_so_when_the_store_fails() -> None:
    """A lease that does not count the clients is of one: without the store, it spends all of the window."""
    fleet = Fleet(CountingServer(100))
    store = granting(1)
    limiter = sharing(store)
    await fleet.send(limiter)
    await asyncio.sleep(0.2)
    store.answer = lambda _request: None
    begun = now()
    await fleet.fetch(limiter, 99)
    assert now() - begun < 1.0  # all of the window


@virtual
async def test_a_report_that_says_nothing_asks_for_nothing(connection: redis.Redis) -> None:
    """A request with the limit alone leases nothing, gives nothing back and pauses no client."""
    script = virtual_store(connection).script
    about: dict[str, Any] = {"scope": "s", "record": "r", "operation": "r"}
    script.lease(LeaseRequest(**about, needed=1, wanted=1))
    lease = script.lease(LeaseRequest(**about))
    assert (lease.granted, lease.paused_for) == (0, 0.0)


# When a call waits


@virtual
async def test_an_exhausted_limit_rejects_at_once_without_the_store(connection: redis.Redis) -> None:
    """While the store is away, the headers tell a call with a longest wait that it would wait longer."""
    fleet = Fleet(CountingServer(20))
    store = virtual_store(connection)
    store.away = True
    limiter = sharing(store)
    await fleet.fetch(limiter, 20)
    begun = now()
    outcome = await enter(limiter, GET, 2.0)
    assert isinstance(outcome, RateLimitError)
    assert now() - begun < 0.1


@pytest.mark.parametrize(("ahead", "windows"), [(0, 0), (19, 0), (20, 1), (39, 1), (40, 2)])
@virtual
async def test_a_refusal_counts_the_calls_before_it(ahead: int, windows: int) -> None:
    """A call with a longest wait that others wait before is told of the window that has room for it."""
    limiter = sharing(granting(0, limit=20, left=0, ends_in=5.0), 100)
    others = [asyncio.ensure_future(enter(limiter)) for _ in range(ahead)]
    await asyncio.sleep(0.001)
    outcome = await enter(limiter, GET, 0.5)
    assert isinstance(outcome, RateLimitError)
    assert outcome.retry_after == pytest.approx(5.0 + 10.0 * windows, abs=0.01)
    assert outcome.rate_limit is not None
    assert (outcome.rate_limit.remaining, outcome.rate_limit.reset) == (0, pytest.approx(5.0, abs=0.01))
    limiter.close()
    await asyncio.gather(*others)


@virtual
async def test_a_refusal_in_a_long_pause_names_the_pause() -> None:
    """Where the store's pause is longer than the window, a call with a longest wait is told of the pause."""
    limiter = sharing(granting(0, left=0, ends_in=3.0, paused_for=8.0))
    outcome = await enter(limiter, GET, 4.0)
    assert isinstance(outcome, RateLimitError)
    assert outcome.retry_after == pytest.approx(8.0, abs=0.01)


@virtual
async def test_permits_of_a_window_that_has_ended_are_not_used() -> None:
    """What is unspent at a window's end is neither sent nor given back: it is asked for anew."""
    store = granting(ends_in=0.05)
    limiter = sharing(store)
    await enter(limiter)
    await asyncio.sleep(0.06)
    assert await entered_after(limiter) < 0.01
    assert len(store.requests) == 2
    last = store.requests[-1]
    assert (last.window, last.returned, last.finished, last.needed) == (0, 0, 0, 1)


@virtual
async def test_a_request_of_a_window_that_has_ended_is_not_reported() -> None:
    """A request that ends after the store has begun another window is no part of that."""
    store = granting(1)
    limiter = sharing(store)
    permit = await enter(limiter)
    store.answer = granting(1, window=2).answer
    other = await enter(limiter)
    limiter.record_response(permit, None, 200)
    await asyncio.sleep(1.5)
    assert sum(request.finished for request in store.requests) == 0
    limiter.record_response(other, None, 200)
    await asyncio.sleep(1.5)
    assert sum(request.finished for request in store.requests) == 1


@virtual
async def test_leased_permits_are_kept_for_calls_without_a_reserve() -> None:
    """Of permits that are leased already, calls with a reserve use what is above it."""
    store = granting(11, limit=20, left=1, is_far=True)
    limiter = sharing(store)
    await enter(limiter)
    left = unspent(limiter) + 1
    store.answer = granting(0, limit=20, left=1, is_far=True).answer
    for _ in range(left - 10):
        assert limiter.try_acquire(GET, 0.5)
    assert not limiter.try_acquire(GET, 0.5)
    assert limiter.try_acquire(GET)


@virtual
async def test_a_large_reserve_leaves_one_request() -> None:
    """Calls with a reserve of 0.9 use one request of a window of ten."""
    limiter = sharing(granting(1, limit=10, left=9))
    assert await entered_after(limiter, 0.9) < 0.01


@virtual
async def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    """Of two 429s that pause a limit, the later end holds."""
    limiter = sharing(granting())
    first, second = await enter(limiter), await enter(limiter)
    limiter.record_response(first, None, 429, pause=3.0)
    limiter.record_response(second, None, 429, pause=1.0)
    assert 2.9 < await entered_after(limiter) < 3.1


@virtual
async def test_a_pause_holds_without_the_store() -> None:
    """While the store is away, a 429 that does not say when the window ends stops this client."""
    limiter = sharing(AnsweringStore(lambda _request: None))
    limiter.record_response(await enter(limiter), None, 429, pause=1.5)
    assert 1.4 < await entered_after(limiter) < 1.6


@virtual
async def test_a_client_asks_again_at_the_windows_end() -> None:
    """A call that waits for an exhausted limit passes at the end of the window, not at the next poll."""
    store = granting(0, left=0, ends_in=0.5)
    limiter = sharing(store)
    waiting = asyncio.ensure_future(entered_after(limiter))
    await asyncio.sleep(0.1)
    store.answer = granting(window=2).answer
    assert await waiting == pytest.approx(0.5, abs=0.01)


# How often the store is asked


@pytest.mark.parametrize(
    ("period", "clients", "every"), [(10.0, 1, 1.0), (60.0, 1, 1.0), (5.0, 1, 0.5), (1.0, 1, 0.2), (10.0, 1000, 2.0)]
)
@virtual
async def test_an_exhausted_limit_is_polled(period: float, clients: int, every: float) -> None:
    """While the limit is exhausted, each client asks ten times in a window, or less in a large fleet."""
    store = AnsweringStore(lambda request: lease(request, end - now()))

    def lease(request: LeaseRequest, ends_in: float) -> Lease:
        return Lease(record=request.record, window=1, limit=20, left=0, period=period, ends_in=ends_in, clients=clients)

    end = now() + 100.0
    limiter = sharing(store)
    waiting = asyncio.ensure_future(enter(limiter))
    await asyncio.sleep(10.0)
    assert len(store.requests) == pytest.approx(10.0 / every, abs=1.5)
    limiter.close()
    await waiting


@pytest.mark.parametrize(("clients", "every"), [(1, 0.1), (500, 1.0)])
@virtual
async def test_another_clients_probe_is_polled(clients: int, every: float) -> None:
    """While another client's probe is in flight, a call asks ten times a second, or less in a large fleet."""
    store = AnsweringStore(lambda request: Lease(record=request.record, window=1, is_probing=True, clients=clients))
    limiter = sharing(store)
    waiting = asyncio.ensure_future(enter(limiter))
    await asyncio.sleep(0.05)
    assert len(store.requests) == (2 if clients == 1 else 1)
    await asyncio.sleep(5.0)
    assert len(store.requests) == pytest.approx(5.0 / every, abs=3)
    limiter.close()
    await waiting


@virtual
async def test_a_store_that_is_away_is_asked_ten_times_a_second() -> None:
    """Calls that go by the headers ask the store again, but not each of them."""
    store = AnsweringStore(lambda _request: None)
    limiter = sharing(store)
    for _ in range(100):
        limiter.abandon(await enter(limiter))
        await asyncio.sleep(0.01)
    assert 8 <= len(store.requests) <= 12


@virtual
async def test_a_store_is_checked_once() -> None:
    """A second limit does not check the store again."""
    store = granting()
    limiter = sharing(store)
    await enter(limiter)
    await enter(limiter, LIST)
    assert store.checks == 1


@virtual
async def test_a_limit_that_shows_itself_is_told_at_once() -> None:
    """Where no limit was known, the first answer with one lets the next call tell the store."""
    store = AnsweringStore(lambda request: Lease(record=request.record))
    limiter = sharing(store)
    limiter.record_response(await enter(limiter), None, 200)
    await asyncio.sleep(0.1)
    limiter.record_response(await enter(limiter), rate(100, 90, 7), 200)
    asked = len(store.requests)
    await enter(limiter)
    await asyncio.sleep(0.01)
    assert len(store.requests) == asked + 1
    view = store.requests[-1].view
    assert view is not None
    assert (view.limit, view.remaining) == (100, 90)


@pytest.mark.parametrize("is_tight", [True, False])
@virtual
async def test_each_request_is_reported_while_little_is_left(is_tight: bool) -> None:
    """Where others leave little, the store hears of each finished request at once; else with the next lease."""
    store = granting(is_tight=is_tight)
    limiter = sharing(store)
    for _ in range(5):
        limiter.record_response(await enter(limiter), None, 200)
        await asyncio.sleep(0.01)
    assert len(store.requests) == (6 if is_tight else 1)


@virtual
async def test_what_ends_while_the_store_is_asked_is_reported_next() -> None:
    """A request that is to be reported at once, and ends while a report is under way, is reported after it."""
    store = granting(is_tight=True)
    limiter = sharing(store)
    first, second = await enter(limiter), await enter(limiter)
    store.latency = 0.05
    limiter.abandon(first)
    await asyncio.sleep(0.02)
    limiter.abandon(second)
    await asyncio.sleep(0.04)
    assert [request.finished for request in store.requests] == [0, 1, 1]


# What the store is told


@virtual
async def test_a_429_returns_the_permits_at_once() -> None:
    """A 429 spends nothing; the store hears of its permit, and of those unspent, before the client is idle."""
    store = granting()
    limiter = sharing(store)
    limiter.record_response(await enter(limiter), rate(100, 1, 7), 200)
    permit = await enter(limiter)
    left = unspent(limiter)
    assert left > 1
    limiter.record_response(permit, rate(100, 0, 7), 429)
    await asyncio.sleep(0.01)
    assert (store.requests[-1].returned, store.requests[-1].finished) == (left + 1, 1)


@pytest.mark.parametrize("status", [200, 429])
@virtual
async def test_leased_permits_are_kept_while_the_limit_is_not_exhausted(status: int) -> None:
    """Neither the last request of a window nor a 429 with room left makes the client give its permits back."""
    store = granting()
    limiter = sharing(store)
    limiter.record_response(await enter(limiter), rate(100, 1, 7), 200)
    permit = await enter(limiter)
    left = unspent(limiter)
    limiter.record_response(permit, rate(100, 0, 7) if status == 200 else None, status)
    await asyncio.sleep(0.01)
    assert unspent(limiter) == left


@pytest.mark.parametrize("how", ["cancelled", "idle", "abandoned"])
@virtual
async def test_a_probe_that_fails_holds_no_other_client_for_a_second(connection: redis.Redis, how: str) -> None:
    """A probe that is cancelled is the next call's; one without a caller or an answer is another client's soon."""
    store = virtual_store(connection)
    first, second = sharing(store), sharing(VirtualStore(store.script))
    permit = await enter(first)
    if how == "abandoned":
        first.abandon(permit)
    else:
        first.cancel(permit)
    if how == "cancelled":
        await Fleet(CountingServer(100)).send(first)
        await asyncio.sleep(0.01)
        assert [request.probe_answered for request in store.requests] == [None, True]
    assert await entered_after(second) < 0.3


@virtual
async def test_a_pause_is_told_with_its_length() -> None:
    """The store is told once, and at once, for how long all clients wait."""
    store = granting()
    limiter = sharing(store)
    limiter.record_response(await enter(limiter), None, 429, pause=1.5)
    await asyncio.sleep(3.0)
    assert [request.pause for request in store.requests if request.pause] == [pytest.approx(1.5)]


@virtual
async def test_a_closed_client_asks_for_nothing() -> None:
    """The last report gives back what is unspent, and leases no more even if calls wait."""
    store = granting(5)
    limiter = sharing(store)
    await enter(limiter)
    left = unspent(limiter)
    limiter.close()
    await limiter.return_leases()
    last = store.requests[-1]
    assert (last.returned, last.needed, last.wanted) == (left, 0, 0)
    await limiter.return_leases()
    assert store.requests[-1] is last


@virtual
async def test_permits_are_given_back_although_requests_end() -> None:
    """A request that ends does not put off the return of permits that no call takes."""
    store = granting(5, is_tight=True)
    limiter = sharing(store)
    permit = await enter(limiter)
    store.answer = granting(0, is_tight=True).answer
    await asyncio.sleep(0.06)
    limiter.abandon(permit)
    await asyncio.sleep(0.05)
    assert unspent(limiter) == 0
    assert sum(request.returned for request in store.requests) == 4


@virtual
async def test_the_store_is_asked_with_the_least_reserve_that_can_be_met() -> None:
    """Calls with different reserves ask together, with the least one; those that nothing is left for do not count."""
    store = granting(0, limit=20, left=20)
    limiter = sharing(store)
    waiting = [asyncio.ensure_future(enter(limiter, reserve=reserve)) for reserve in (0.5, 0.25, 0.5)]
    await asyncio.sleep(0.01)
    assert (store.requests[0].needed, store.requests[0].reserve) == (3, 0.25)
    store.answer = granting(0, limit=20, left=10).answer
    await asyncio.sleep(2.5)
    assert (store.requests[-1].needed, store.requests[-1].reserve) == (1, 0.25)
    store.answer = granting(0, limit=20, left=5).answer
    await asyncio.sleep(2.5)
    assert (store.requests[-1].needed, store.requests[-1].reserve) == (0, 0.25)
    limiter.close()
    await asyncio.gather(*waiting)


@virtual
async def test_permits_are_asked_for_and_kept_ahead_of_calls_while_the_limit_is_far() -> None:
    """While plenty is left, the client asks before it has no permit, and keeps what it has for a second."""
    store = granting(8, is_far=True)
    limiter = sharing(store)
    await enter(limiter)
    for taken in range(1, 7):
        assert (unspent(limiter), len(store.requests)) == (8 - taken, 1)
        assert limiter.try_acquire(GET)
        await asyncio.sleep(0.001)
    assert len(store.requests) == 2
    assert (store.requests[-1].needed, store.requests[-1].returned) == (0, 0)
    await asyncio.sleep(0.9)
    assert unspent(limiter) > 8
    await asyncio.sleep(0.2)
    assert unspent(limiter) == 0


@virtual
async def test_a_client_leases_more_as_it_needs_more_and_less_when_idle() -> None:
    """A busy client asks for four times its concurrency ahead at most; one that is idle for long, for ten."""
    store = granting(1000, limit=100_000, left=90_000)
    limiter = sharing(store)
    for _ in range(1000):
        limiter.abandon(await enter(limiter))
    assert max(request.wanted for request in store.requests) == 4 * 50 + 1
    wanted = []
    for _ in range(6):
        await asyncio.sleep(0.2)
        limiter.abandon(await enter(limiter))
        wanted.append(store.requests[-1].wanted)
    assert wanted == sorted(wanted, reverse=True)
    assert wanted[0] > wanted[1]
    assert wanted[-1] == 11


@pytest.mark.parametrize("limit", [100, None])
@virtual
async def test_a_pause_of_the_store_ends_when_it_says(limit: int | None) -> None:
    """A call waits as long as the store's pause, to the moment, whether a limit is known or not."""
    store = granting(10 if limit else 0, limit=limit, left=90 if limit else None, paused_for=1.7)
    limiter = sharing(store)
    asyncio.get_running_loop().call_later(0.01, setattr, store, "answer", granting().answer)
    assert await entered_after(limiter) == pytest.approx(1.7, abs=0.05)


@virtual
async def test_the_limit_of_a_window_that_has_ended_is_not_shown() -> None:
    """`rate_limit` is the store's window until that ends."""
    limiter = sharing(granting(1, ends_in=0.5))
    await enter(limiter)
    assert limiter.rate_limit is not None
    assert (limiter.rate_limit.limit, limiter.rate_limit.remaining) == (100, 90)
    assert limiter.rate_limit.reset == pytest.approx(0.5, abs=0.01)
    await asyncio.sleep(0.6)
    assert limiter.rate_limit is None


@virtual
async def test_a_lease_in_flight_is_returned_by_a_closed_client(connection: redis.Redis) -> None:
    """A client that is closed while it asks the store waits for the reply, and returns what it was granted."""
    fleet = Fleet(CountingServer(1000, 100.0))
    store = virtual_store(connection)
    first, second = sharing(store), sharing(VirtualStore(store.script))
    await fleet.send(first)
    await asyncio.sleep(2.0)
    waiting = asyncio.ensure_future(enter(first))
    await asyncio.sleep(store.latency / 4)
    first.close()
    await waiting
    await first.return_leases()
    assert store.requests[-1].returned > 0
    await fleet.send(second)
    assert second.rate_limit is not None
    assert second.rate_limit.remaining == 1000 - 2


@virtual
async def test_a_client_that_is_closed_at_once_asks_nothing() -> None:
    """A client that is closed before the loop goes on does not ask the store any more."""
    store = granting()
    limiter = sharing(store)
    assert limiter.try_acquire(GET) is None
    limiter.close()
    await asyncio.sleep(0.1)
    assert limiter.try_acquire(GET) is None
    await asyncio.sleep(0.1)
    assert store.requests == []


@virtual
async def test_a_loop_that_ends_cancels_the_question_to_the_store(caplog: pytest.LogCaptureFixture) -> None:
    """When all tasks are cancelled, the one that asks the store ends, too, and blames no store."""

    class SilentStore:
        def check(self) -> None:
            """Be usable always."""

        async def lease(self, _request: LeaseRequest) -> None:
            await asyncio.sleep(1000.0)

    assert sharing(SilentStore()).try_acquire(GET) is None
    await asyncio.sleep(0.01)
    (task,) = asyncio.all_tasks() - {asyncio.current_task()}
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert caplog.text == ""


@virtual
async def test_requests_in_flight_move_with_their_operation() -> None:
    """When an answer shows that two operations share a limit, those in flight count there, also without the store."""
    limiter = sharing(AnsweringStore(lambda _request: None))
    limiter.record_response(await enter(limiter), named(rate(100, 90, 7), "tokens"), 200)
    first = await enter(limiter, LIST)
    limiter.record_response(first, rate(100, 90, 7), 200)
    second, third = await enter(limiter, LIST), await enter(limiter, LIST)
    limiter.record_response(second, named(rate(100, 89, 7), "tokens"), 200)
    assert limiter.rate_limit is not None
    assert limiter.rate_limit.remaining == 89 - 1
    limiter.record_response(third, named(rate(100, 88, 7), "tokens"), 200)
    assert limiter.rate_limit.remaining == 88


@virtual
async def test_a_call_with_less_reserve_asks_at_once() -> None:
    """Where nothing is left for calls with a reserve, these poll, and a call without one does not wait for that."""
    store = granting(0, limit=20, left=8)
    limiter = sharing(store)
    waiting = [asyncio.ensure_future(enter(limiter, reserve=0.5)) for _ in range(3)]
    await asyncio.sleep(0.5)
    assert len(store.requests) == 1
    store.answer = granting(1, limit=20, left=7).answer
    assert await entered_after(limiter) < 0.01
    limiter.close()
    await asyncio.gather(*waiting)


@virtual
async def test_the_store_is_not_asked_during_a_pause() -> None:
    """A call that comes during a pause waits for its end without a question to the store."""
    store = granting(0, paused_for=1.7)
    limiter = sharing(store)
    waiting = [asyncio.ensure_future(enter(limiter))]
    await asyncio.sleep(1.2)
    waiting.append(asyncio.ensure_future(enter(limiter, reserve=0.1)))
    await asyncio.sleep(0.1)
    assert len(store.requests) == 1
    limiter.close()
    await asyncio.gather(*waiting)

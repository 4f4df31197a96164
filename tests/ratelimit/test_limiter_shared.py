"""Operations that have the same limit share one window."""

from __future__ import annotations

import asyncio

import pytest
from support.internals import waiting_at
from support.virtual_time import GET, LIST, enter, make, opened, virtual
from support.waiting import turns

from dd_sa_tokens import RateLimit

# Operations with the same limit


def named(name: str | None, remaining: int, limit: int = 1000) -> RateLimit:
    return RateLimit(limit, 10.0, remaining, 9, name)


@virtual
async def test_operations_of_the_same_limit_share_a_window() -> None:
    """Once both have given the limit's name, what one has spent the other one cannot."""
    limiter = make()
    await opened(limiter, GET, named("tokens", 1))
    assert limiter.try_acquire(LIST) is not None  # its limit is not known yet
    limiter = make()
    await opened(limiter, GET, named("tokens", 2))
    await opened(limiter, LIST, named("tokens", 1))
    permit = limiter.try_acquire(LIST)
    assert permit is not None
    assert limiter.try_acquire(GET) is None
    assert limiter.try_acquire(LIST) is None
    limiter.cancel(permit)
    assert limiter.try_acquire(GET) is not None


@virtual
async def test_operations_of_different_limits_do_not_share() -> None:
    """Another name, or none, is another account."""
    limiter = make()
    await opened(limiter, GET, named("tokens", 0))
    await opened(limiter, LIST, named("lists", 500))
    await opened(limiter, "other", named(None, 500))
    assert limiter.try_acquire(GET) is None
    assert limiter.try_acquire(LIST) is not None
    assert limiter.try_acquire("other") is not None


@virtual
async def test_waiting_calls_move_to_the_shared_window_in_order() -> None:
    """Requests that wait when their operation joins another's window are served with the others, oldest first."""
    limiter = make(concurrency=10)
    await opened(limiter, GET, named("tokens", 0))
    order: list[str] = []

    async def call(operation: str) -> None:
        permit = await enter(limiter, operation)
        order.append(operation)
        limiter.record_response(permit, named("tokens", 500), 200)

    first = limiter.try_acquire(LIST)  # alone, so that the others of its kind wait
    assert first is not None
    tasks = [asyncio.create_task(call(operation)) for operation in (LIST, GET, LIST, GET)]
    await turns()
    limiter.record_response(first, named("tokens", 0), 200)
    await turns()
    assert order == []
    tasks[2].cancel()
    await asyncio.sleep(11)
    assert order == [LIST, GET, GET]
    assert waiting_at(limiter) == 0
    assert limiter.in_flight == 0


@virtual
async def test_waiting_calls_that_leave_a_shared_window_hold_nobody_back_there() -> None:
    """When answers name another limit than before, waiting calls go there, and calls of the old limit pass again."""
    limiter = make()
    await opened(limiter, GET, named("tokens", 1))
    await opened(limiter, LIST, named("tokens", 1))
    permit = limiter.try_acquire(LIST)
    assert permit is not None
    waiting = asyncio.create_task(enter(limiter, LIST))
    await turns()
    limiter.record_response(permit, named("lists", 500), 200)
    assert limiter.try_acquire(GET) is not None  # the one that was left
    limiter.record_response(await waiting, named("lists", 499), 200)


@virtual
async def test_what_is_in_flight_counts_in_the_shared_window() -> None:
    """When an operation joins another's window, the other's requests without an answer yet are not forgotten."""
    limiter = make()
    await opened(limiter, GET, named("tokens", 10))
    await asyncio.sleep(1)  # the first second of a new client is slow where others were before
    assert all(limiter.try_acquire(GET) for _ in range(2))
    await opened(limiter, LIST, named("tokens", 3))
    assert limiter.try_acquire(LIST) is not None
    assert limiter.try_acquire(GET) is None
    assert limiter.try_acquire(LIST) is None


@pytest.mark.parametrize("max_wait", [(12.0, None), (None, 12.0), (12.0, 12.0), (None, None)], ids=str)
@virtual
async def test_calls_that_moved_to_the_shared_window_keep_their_deadline(
    max_wait: tuple[float | None, float | None],
) -> None:
    """When the shared window ends later, calls of both operations past their deadline are rejected, and no other."""
    limiter = make()
    await opened(limiter, GET, named("tokens", 0))
    first = limiter.try_acquire(LIST)
    assert first is not None
    calls = [
        asyncio.create_task(enter(limiter, operation, seconds))
        for operation, seconds in zip((GET, LIST), max_wait, strict=True)
    ]
    await turns()
    limiter.record_response(first, named("tokens", 0), 200)
    limiter.pause(LIST, 60.0)
    await turns()
    assert [task.done() for task in calls] == [seconds is not None for seconds in max_wait]
    for task in calls:
        task.cancel()
    await asyncio.wait(calls)
    assert waiting_at(limiter) == 0


@pytest.mark.parametrize(("between", "remaining"), [(None, 400), ("other", 7)])
@virtual
async def test_the_rate_limit_is_that_of_the_operation_used_last(between: str | None, remaining: int) -> None:
    """An operation that joins another's window is shown with that, unless one with another limit was used meanwhile."""
    limiter = make()
    await opened(limiter, GET, named("tokens", 500))
    permit = limiter.try_acquire(LIST)
    assert permit is not None
    if between is not None:
        await opened(limiter, between, named("others", 7))
    limiter.record_response(permit, named("tokens", 400), 200)
    assert limiter.rate_limit is not None
    assert limiter.rate_limit.remaining == remaining


@virtual
async def test_the_wait_of_a_call_that_moved_to_the_shared_window_is_its_own() -> None:
    """A call that joins a limit, exhausted for 4 s when it came, waits 6 s of the 10 s; the other call waits all."""
    limiter = make()
    await opened(limiter, GET, RateLimit(1000, 10.0, 0, 10, "tokens"))
    early = asyncio.create_task(enter(limiter, GET))
    await asyncio.sleep(4)
    first = limiter.try_acquire(LIST)
    assert first is not None
    late = asyncio.create_task(enter(limiter, LIST))
    await turns()
    limiter.record_response(first, RateLimit(1000, 10.0, 0, 6, "tokens"), 200)
    permit = await early
    limiter.record_response(permit, RateLimit(1000, 10.0, 999, 10, "tokens"), 200)
    assert permit.waited == pytest.approx(10.0, abs=0.05)
    assert (await late).waited == pytest.approx(6.0, abs=0.05)
    assert limiter.waited == pytest.approx(16.0, abs=0.1)


@virtual
async def test_a_call_that_waited_before_it_moved_keeps_that_wait() -> None:
    """A call waits 3 s for a limit without a name, joins another limit, and waits 5 s for that one: 8 s in all."""
    limiter = make()
    await opened(limiter, LIST)
    first, probe = limiter.try_acquire(LIST), limiter.try_acquire(LIST)
    assert first is not None
    assert probe is not None
    limiter.record_response(first, RateLimit(1000, 10.0, 0, 10, None), 200)
    moved = asyncio.create_task(enter(limiter, LIST))
    await asyncio.sleep(3)
    await opened(limiter, GET, RateLimit(1000, 10.0, 0, 5, "tokens"))
    other = asyncio.create_task(enter(limiter, GET))
    await turns()
    limiter.record_response(probe, RateLimit(1000, 10.0, 0, 5, "tokens"), 200)
    permit = await moved
    limiter.record_response(permit, RateLimit(1000, 10.0, 999, 10, "tokens"), 200)
    assert permit.waited == pytest.approx(8.0, abs=0.1)
    assert (await other).waited == pytest.approx(5.0, abs=0.1)


@virtual
async def test_a_limit_that_was_left_and_comes_back_lets_calls_pass() -> None:
    """Lists join the limit of gets and leave it for the name that they had before: a list that waits passes."""
    limiter = make()
    await opened(limiter, GET, named("tokens", 500))
    await opened(limiter, LIST, named("lists", 500))
    await opened(limiter, LIST, named("tokens", 400))
    await opened(limiter, LIST, named("lists", 0))
    assert limiter.try_acquire(GET) is not None
    assert limiter.try_acquire(LIST) is None
    async with asyncio.timeout(11):
        await enter(limiter, LIST)


@virtual
async def test_the_old_name_of_a_limit_is_free_for_another_one() -> None:
    """The limit of gets is renamed; lists with the old name then have a limit of their own."""
    limiter = make()
    await opened(limiter, GET, named("old", 500))
    await opened(limiter, GET, named("new", 499))
    await opened(limiter, LIST, named("old", 0))
    assert limiter.try_acquire(LIST) is None
    assert limiter.try_acquire(GET) is not None
    assert not limiter.share_a_limit(GET, LIST)


@virtual
async def test_operations_are_known_to_share_a_limit_once_both_have_named_it() -> None:
    """An operation that was never used, or whose answers name no limit, is not known to share one."""
    limiter = make()
    await opened(limiter, GET, named("tokens", 500))
    assert limiter.share_a_limit(GET, GET)
    assert not limiter.share_a_limit(GET, LIST)
    await opened(limiter, LIST, named(None, 499))
    assert not limiter.share_a_limit(GET, LIST)
    await opened(limiter, LIST, named("tokens", 498))
    assert limiter.share_a_limit(GET, LIST)
    assert not limiter.share_a_limit(GET, LIST, "other")


@pytest.mark.parametrize("before", [None, "old"])
@virtual
async def test_a_limit_that_gets_another_name_stays_paused(before: str | None) -> None:
    """A pause holds until its end, although the limit has another name, or a name at last, by then."""
    limiter = make()
    await opened(limiter, GET, named(before, 500))
    permit = limiter.try_acquire(GET)
    assert permit is not None
    limiter.pause(GET, 5.0)
    limiter.record_response(permit, named("new", 499), 200)
    assert limiter.try_acquire(GET) is None

"""Bulk fetches stop when no other ID can succeed: keys refused, or the client closed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from support.bulk import CONCURRENCY, FOREVER, Service, breaking, breaking_slowly, drain, fail, gather, plain, slowly
from support.payloads import names
from support.waiting import HANG, others, turns

from dd_sa_tokens import (
    AccessToken,
    ClientClosedError,
    DatadogError,
    ForbiddenError,
    NotFoundError,
    SourceError,
    UnauthorizedError,
)
from dd_sa_tokens._bulk import stream

# When no other ID can succeed


@pytest.mark.parametrize("concurrency", [1, 4, 50])
async def test_a_confirmed_401_stops_collect(source: Any, concurrency: int) -> None:
    """Refused keys cost at most concurrency + 1 requests; each remaining position gets the 401, and no attempt."""
    service = Service(lambda token_id: UnauthorizedError(token_id=token_id, attempts=1))

    result = await gather(source(names(500)), service, concurrency)

    assert len(service.asked) <= concurrency + 1
    assert [item.token_id for item in result] == names(500)
    errors = [item.error for item in result]
    assert all(isinstance(error, UnauthorizedError) for error in errors)
    assert len({id(error) for error in errors}) == 500
    assert [error.token_id for error in errors if error] == names(500)
    not_sent = [error for error in errors if error and error.token_id not in service.asked]
    assert not_sent
    assert {error.attempts for error in not_sent} == {0}
    assert {error.attempts for error in errors if error} == {0, 1}


async def test_after_a_stop_the_rest_of_a_long_source_lets_others_run() -> None:
    """The positions that are answered without a request do not hold up the event loop all at once."""
    turns_of_others = 0

    async def other() -> None:
        nonlocal turns_of_others
        while True:
            await asyncio.sleep(0)
            turns_of_others += 1

    others_task = asyncio.ensure_future(other())
    results = await gather(names(2_000), Service(fail(UnauthorizedError)))
    others_task.cancel()

    assert len(results.errors) == 2_000
    assert turns_of_others > 2_000 / CONCURRENCY


@pytest.mark.parametrize("concurrency", [1, 4, 50])
async def test_a_confirmed_401_stops_a_stream(source: Any, concurrency: int) -> None:
    """A stream gives the 401 to the positions that it has taken, and then raises it, an instance of its own."""
    service = Service(fail(UnauthorizedError))
    taken: list[str] = []

    def watched() -> Iterator[str]:
        for token_id in names(500):
            taken.append(token_id)
            yield token_id

    token_ids = slowly(watched()) if source is slowly else watched()
    results, raised = await drain(token_ids, service, concurrency)

    assert isinstance(raised, UnauthorizedError)
    assert raised.token_id is None
    assert len(service.asked) <= concurrency + 1
    assert all(isinstance(item.error, UnauthorizedError) for item in results)
    assert raised not in [item.error for item in results]
    # What an async source was about to give has not been taken yet.
    assert len(taken) - (source is slowly) <= len(results) <= len(taken)
    assert sorted(item.token_id for item in results) == sorted(taken[: len(results)])


@pytest.mark.parametrize("broken", [breaking, breaking_slowly])
@pytest.mark.parametrize("error", [RuntimeError(), asyncio.CancelledError()], ids=repr)
@pytest.mark.parametrize("count", [CONCURRENCY, CONCURRENCY + 1, CONCURRENCY + 2, CONCURRENCY + 3])
async def test_a_source_that_breaks_after_a_stop_is_no_shorter_source(
    broken: Any, error: BaseException, count: int
) -> None:
    """Whichever worker meets the source's error, one whose request the stop took back included, it is reported."""
    service = Service(fail(UnauthorizedError), delay=lambda token_id: 1 if token_id == "t0" else FOREVER)

    with pytest.raises(SourceError) as caught:
        await gather(broken(names(count), error), service)

    assert caught.value.__cause__ is error
    assert [type(item.error) for item in caught.value.partial] == [UnauthorizedError] * count


async def test_a_401_that_is_not_confirmed_goes_on(source: Any) -> None:
    """A single 401 (a key that is still being rolled out) is tried again and disturbs nothing."""
    once = iter([True])
    service = Service(lambda token_id: UnauthorizedError() if next(once, False) else None)

    result = await gather(source(names(40)), service)

    assert result.errors == {}
    assert len(service.asked) == 41


async def test_a_401_whose_second_try_meets_another_error_gives_that_error() -> None:
    """Only a second 401 confirms; what else the second try meets is the position's error, and the rest goes on."""
    answers = iter([UnauthorizedError(), NotFoundError()])
    service = Service(lambda _: next(answers, None))

    result = await gather(names(20), service, 1)

    assert [type(item.error) for item in result if item.error] == [NotFoundError]
    assert len(result.tokens) == 19


async def test_results_before_a_401_are_kept() -> None:
    """What succeeded before the keys were revoked stays in the result."""
    count = itertools.count()
    service = Service(lambda _: UnauthorizedError() if next(count) >= 30 else None)

    result = await gather(names(100), service)

    assert len(result.tokens) == 30
    assert len(result) == 100
    assert set(map(type, result.errors.values())) == {UnauthorizedError}
    assert len(service.asked) <= 30 + CONCURRENCY + 1


@pytest.mark.parametrize("concurrency", [1, 4, 50])
async def test_a_run_of_403s_stops(source: Any, concurrency: int) -> None:
    """Ten 403s and nothing else mean that no ID can succeed: the rest is not asked for and gets the error."""
    service = Service(fail(ForbiddenError))

    result = await gather(source(names(500)), service, concurrency)

    assert 10 <= len(service.asked) <= 10 + concurrency
    assert len(result) == 500
    assert all(isinstance(item.error, ForbiddenError) and item.error.token_id == item.token_id for item in result)
    assert len({id(item.error) for item in result}) == 500


async def test_a_run_of_403s_ends_a_stream(source: Any) -> None:
    """A stream gives each 403 at its position and raises it once it is clear that nothing else will come."""
    service = Service(fail(ForbiddenError))

    results, raised = await drain(source(names(500)), service)

    assert isinstance(raised, ForbiddenError)
    assert 10 <= len(service.asked) <= 10 + CONCURRENCY
    assert len(results) >= len(service.asked)
    assert all(isinstance(item.error, ForbiddenError) for item in results)


async def test_fewer_403s_do_not_stop(source: Any) -> None:
    """Nine 403s are nine positions' errors and nothing more."""
    service = Service(fail(ForbiddenError))

    results, raised = await drain(source(names(9)), service)

    assert raised is None
    assert len(results) == 9


async def test_403s_among_others_do_not_stop(source: Any) -> None:
    """Once something else has come back, any number of 403s stays at their positions."""
    service = Service(lambda token_id: None if token_id in {"t0", "t400"} else ForbiddenError())

    result = await gather(source(names(500)), service)
    streamed, raised = await drain(source(names(500)), service)

    assert sorted(result.tokens) == ["t0", "t400"]
    assert raised is None
    assert len(streamed) == 500


@pytest.mark.parametrize("source", [list, lambda token_ids: slowly(token_ids, delay=0)], ids=["sync", "async"])
async def test_leading_403s_resume_when_a_success_was_in_flight(source: Any) -> None:
    """Twelve 403s hold the rest back only until what is under way has answered: a success lets all go on."""
    service = Service(
        lambda token_id: ForbiddenError() if int(token_id[1:]) < 12 else None,
        delay=lambda token_id: 1 if int(token_id[1:]) < 12 else 60,
    )

    streamed, raised = await drain(source(names(60)), service, 16)
    result = await gather(source(names(60)), service, 16)

    assert raised is None
    assert len(streamed) == 60
    assert len(result.tokens) == 48
    assert len(result.errors) == 12


async def test_a_success_after_leading_403s_lets_all_workers_go_on() -> None:
    """Workers that paused while every answer was a 403 all continue after the first success."""
    service = Service(
        lambda token_id: ForbiddenError() if int(token_id[1:]) < 12 else None,
        delay=lambda token_id: 1 if int(token_id[1:]) < 12 else 30,
    )
    in_flight: dict[str, int] = {}

    async def fetch(token_id: str) -> AccessToken:
        in_flight[token_id] = service.in_flight
        return await service(token_id)

    await gather(names(60), fetch, 13)
    assert max(in_flight[token_id] for token_id in names(60)[30:]) == 12


async def test_while_403s_look_like_the_end_nothing_new_is_sent() -> None:
    """After ten 403s the engine waits for what is under way before it asks for anything else."""
    service = Service(
        fail(**{f"t{number}": ForbiddenError for number in range(500)}), delay=lambda i: 50 if i == "t0" else 1
    )

    async with asyncio.timeout(HANG), aclosing(stream(iter(names(500)), plain(service), CONCURRENCY)) as items:
        for _ in range(10):
            await anext(items)
        await turns(20)
        assert len(service.asked) <= 10 + CONCURRENCY
        with pytest.raises(ForbiddenError):
            async for _ in items:
                pass
    assert len(service.asked) <= 10 + CONCURRENCY


async def test_a_bug_met_while_403s_hold_the_rest_back_does_not_hang(source: Any) -> None:
    """A fetch that breaks while ten 403s hold the others back ends the call: none waits for what never comes."""

    async def fetch(token_id: str) -> AccessToken:
        await turns(60 if token_id == "t0" else 1)
        raise ZeroDivisionError if token_id == "t0" else ForbiddenError

    with pytest.raises(ZeroDivisionError):
        await gather(source(names(60)), fetch)
    _, raised = await drain(source(names(60)), fetch)
    assert isinstance(raised, ZeroDivisionError)


async def test_bad_ids_say_nothing_about_the_others() -> None:
    """Positions refused here, without a request, neither prove nor disprove that everything is forbidden."""
    service = Service(fail(ForbiddenError))
    token_ids = [token_id for name in names(100) for token_id in (name, "", None)]

    result = await gather(token_ids, service)

    assert len(service.asked) <= 10 + CONCURRENCY
    assert len(result) == 300


async def test_duplicates_of_one_403_count_once() -> None:
    """Positions that share one request's 403 are one 403: after four of those the other IDs are still asked for."""
    service = Service(fail(**dict.fromkeys(["a", "b", "c", "t0"], ForbiddenError)), delay=5)

    results, raised = await drain([*"aaaabbbbcccc", *names(20)], service)

    assert raised is None
    assert sum(item.ok for item in results) == 19
    assert len(results) == 32


async def test_a_closed_client_stops(source: Any) -> None:
    """`close()` while a bulk fetch is under way ends it: each remaining position has `ClientClosedError`."""
    count = itertools.count()
    service = Service(lambda _: ClientClosedError() if next(count) >= 20 else None)

    result = await gather(source(names(500)), service)

    assert len(result) == 500
    assert len(result.tokens) == 20
    assert set(map(type, result.errors.values())) == {ClientClosedError}
    assert len(service.asked) <= 20 + CONCURRENCY


async def test_a_closed_client_ends_a_stream(source: Any) -> None:
    """A stream whose client is closed meanwhile raises `ClientClosedError` after what was under way."""
    count = itertools.count()
    service = Service(lambda _: ClientClosedError() if next(count) >= 20 else None)

    results, raised = await drain(source(names(500)), service)

    assert isinstance(raised, ClientClosedError)
    assert sum(item.ok for item in results) == 20
    assert len(results) <= 20 + CONCURRENCY


@pytest.mark.parametrize("kind", [UnauthorizedError, ForbiddenError, ClientClosedError])
async def test_a_slow_source_does_not_hang_a_stream_that_has_stopped(kind: type[DatadogError]) -> None:
    """Once nothing more is to be sent, the stream ends without waiting for the source's next ID."""
    closed = asyncio.Event()

    async def stuck() -> AsyncIterator[str]:
        try:
            for token_id in names(10):
                yield token_id
            await asyncio.get_running_loop().create_future()
        finally:
            closed.set()

    results, raised = await drain(stuck(), Service(fail(kind), delay=30), 20)

    assert isinstance(raised, kind)
    assert len(results) == 10
    assert closed.is_set()
    assert others() == set()


async def test_a_stop_takes_back_what_is_under_way() -> None:
    """When the keys turn out to be refused, requests still in flight are cancelled and not waited for."""
    service = Service(fail(UnauthorizedError), delay=lambda token_id: 1 if token_id == "t0" else FOREVER)

    result = await gather(names(8), service)

    assert all(isinstance(item.error, UnauthorizedError) for item in result)
    assert service.in_flight == 0

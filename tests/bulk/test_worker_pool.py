"""How much is in flight at a time, what is kept in memory, and what is left when a stream is left early."""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from support.bulk import CONCURRENCY, FOREVER, Direct, Service, drain, fail, gather, plain, slowly
from support.internals import pool_sizes
from support.payloads import names
from support.waiting import HANG, others, turns

from dd_sa_tokens import (
    AccessToken,
    ClientClosedError,
    ForbiddenError,
    NotFoundError,
    UnauthorizedError,
)
from dd_sa_tokens._bulk import collect, stream
from dd_sa_tokens._bulk.worker_pool import WorkerPool

# How much at a time


async def test_at_most_concurrency_are_in_flight(source: Any) -> None:
    """No more than `concurrency` fetches run at the same time, and that many do."""
    service = Service(delay=lambda token_id: 1 + hash(token_id) % 5)

    await gather(source(names(50)), service)
    await drain(source(names(50)), service)

    assert service.most_in_flight <= CONCURRENCY
    if source is list:
        assert service.most_in_flight == CONCURRENCY


@pytest.mark.parametrize("consumed", [0, 1, 3, 10])
async def test_fetching_stays_within_concurrency_of_what_was_consumed(source: Any, consumed: int) -> None:
    """When a consumer stops after k items, at most k + concurrency IDs were fetched and taken from the source."""
    service = Service()
    taken: list[str] = []

    def watched() -> Iterator[str]:
        for token_id in names(1000):
            taken.append(token_id)
            yield token_id

    async with asyncio.timeout(HANG), aclosing(stream(source(watched()), plain(service), CONCURRENCY)) as items:
        for _ in range(consumed):
            await anext(items)
        await turns(100)
        assert len(service.asked) <= consumed + CONCURRENCY
        # A list is read by the test itself; what counts is the engine's own hunger for an async source.
        if source is slowly:
            assert len(taken) <= consumed + CONCURRENCY
    assert others() == set()


async def test_a_slow_consumer_does_not_stop_the_others() -> None:
    """While the consumer holds an item, further fetches run, at most `concurrency` of them."""
    service = Service()
    async with asyncio.timeout(HANG), aclosing(stream(iter(names(100)), plain(service), CONCURRENCY)) as items:
        await anext(items)
        await turns(50)
        assert len(service.asked) == 1 + CONCURRENCY


async def test_what_the_engine_remembers_is_bounded() -> None:
    """Workers, requests in flight and ready results never outgrow the concurrency, however many IDs pass."""
    pool = WorkerPool(
        slowly(itertools.islice(itertools.cycle(names(50)), 500), delay=0),
        Direct(Service(delay=3)),
        CONCURRENCY,
        collect_all=False,
    )
    seen = 0
    async with aclosing(pool.results()) as items:
        async for _ in items:
            seen += 1
            assert max(pool_sizes(pool).values()) <= CONCURRENCY
    assert seen == 500


@pytest.fixture
def _traced() -> Iterator[None]:
    """Stop tracing memory, which slows everything down, when the test ends."""
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("_traced")
async def test_a_stream_runs_in_constant_memory() -> None:
    """A stream over 60,000 IDs from an async generator holds no more memory at its end than early on."""

    async def endless() -> AsyncIterator[str]:
        for number in range(60_000):
            yield f"token-{number}"

    async def fetch(token_id: str) -> AccessToken:
        return AccessToken(id=token_id)

    seen = early = late = peak = blocks = 0
    async with aclosing(stream(endless(), plain(fetch), 50)) as items:
        async for _ in items:
            seen += 1
            if seen == 1_000:
                gc.collect()
                tracemalloc.start()
            elif seen == 3_000:
                early, _ = tracemalloc.get_traced_memory()
                tracemalloc.reset_peak()
            elif seen == 15_000:
                late, peak = tracemalloc.get_traced_memory()
                tracemalloc.stop()  # which makes everything several times slower; a count of objects will do from here
                blocks = sys.getallocatedblocks()

    assert seen == 60_000
    assert late - early < 64 * 1024
    assert peak - early < 256 * 1024
    assert sys.getallocatedblocks() - blocks < 2_000


@pytest.mark.usefixtures("_traced")
async def test_failures_in_a_stream_run_in_constant_memory() -> None:
    """Failures that were consumed leave nothing behind either, their frames included."""

    async def fetch(token_id: str) -> AccessToken:
        raise NotFoundError(token_id=token_id)

    seen = early = 0
    async with aclosing(stream(iter(names(6_000)), plain(fetch), 50)) as items:
        async for item in items:
            assert item.error is not None
            assert item.error.__traceback__ is None
            seen += 1
            if seen == 500:
                gc.collect()
                tracemalloc.start()
            elif seen == 1_000:
                early, _ = tracemalloc.get_traced_memory()
    gc.collect()
    late, _ = tracemalloc.get_traced_memory()

    assert late - early < 64 * 1024


# Leaving early


@pytest.mark.parametrize("to_the_end", [True, False], ids=["collect", "stream"])
async def test_cancelling_while_a_source_is_waited_for_is_no_complaint(
    loop_errors: list[dict[str, Any]], to_the_end: bool
) -> None:
    """Workers that wait for a slow source end cancelled, without an exception that no code retrieves."""

    async def stuck() -> AsyncIterator[str]:
        yield "t0"
        await asyncio.get_running_loop().create_future()

    task = asyncio.create_task((gather if to_the_end else drain)(stuck(), Service()))
    await turns(20)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("to_the_end", [True, False], ids=["collect", "stream"])
async def test_a_source_that_fails_when_it_is_cancelled_is_no_complaint(
    loop_errors: list[dict[str, Any]], to_the_end: bool
) -> None:
    """What a source makes of being cancelled (an error of its own, say) does not take the cancellation's place."""

    async def fragile() -> AsyncIterator[str]:
        yield "t0"
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            raise ConnectionError

    task = asyncio.create_task((gather if to_the_end else drain)(fragile(), Service()))
    await turns(20)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("kind", [None, UnauthorizedError, ForbiddenError, ClientClosedError])
@pytest.mark.parametrize("to_the_end", [True, False], ids=["collect", "stream"])
async def test_cancelling_at_any_moment_leaves_nothing(source: Any, kind: Any, to_the_end: bool) -> None:
    """Cancelled after any number of turns, also amid a stop, a bulk fetch ends at once and leaves no task."""
    for after in itertools.count():
        service = Service((lambda _: None) if kind is None else fail(kind), delay=2)

        async def run(service: Service = service) -> None:
            if to_the_end:
                await collect(source(names(15)), plain(service), CONCURRENCY)
            else:
                async with aclosing(stream(source(names(15)), plain(service), CONCURRENCY)) as items:
                    async for _ in items:
                        await turns(1)

        task = asyncio.create_task(run())
        await turns(after)
        finished = task.done()
        task.cancel()
        async with asyncio.timeout(HANG):
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        await turns(3)  # an async source that was dropped is closed by the loop
        assert service.in_flight == 0
        assert others() == set(), f"cancelled after {after} turns"
        if finished:
            break
        # A stop that ends the call in the very turn of the cancellation may win.
        assert isinstance(outcome, asyncio.CancelledError) or kind is not None
    assert after > 5


@pytest.mark.parametrize("consumed", [0, 1, 5])
async def test_a_stream_that_is_closed_early_cancels_its_requests(source: Any, consumed: int) -> None:
    """Breaking out of a stream cancels the requests in flight before `aclose()` returns."""
    service = Service(delay=lambda token_id: 1 if int(token_id[1:]) < 5 else FOREVER)

    async with asyncio.timeout(HANG):
        items = stream(source(names(100)), plain(service), CONCURRENCY)
        for _ in range(consumed):
            await anext(items)
        await items.aclose()

    assert service.in_flight == 0
    await turns(2)
    assert others() == set()


async def test_a_stream_that_is_dropped_cancels_its_requests(source: Any) -> None:
    """A stream that was left with a plain `break` and dropped is cleaned up by the loop within a turn or two."""
    service = Service(delay=lambda token_id: 1 if token_id == "t0" else FOREVER)

    async for _ in stream(source(names(100)), plain(service), CONCURRENCY):
        break
    gc.collect()
    await turns(5)

    assert service.in_flight == 0
    assert others() == set()


async def test_an_exception_of_the_consumer_comes_through() -> None:
    """What the consumer raises amid a stream is what it gets, not a group of other things."""
    service = Service(delay=3)

    async def consume() -> None:
        async with aclosing(stream(names(20), plain(service), CONCURRENCY)) as items:
            async for _ in items:
                raise LookupError

    with pytest.raises(LookupError):
        await consume()
    assert service.in_flight == 0


async def test_a_task_of_the_fetch_that_others_cancel_ends_it(source: Any) -> None:
    """A program that cancels all tasks it does not know gets a cancellation, not a result that lacks an ID."""
    service = Service(delay=lambda token_id: FOREVER if token_id == "t2" else 1)
    for fetch in (gather, drain):
        call = asyncio.create_task(fetch(source(names(10)), service))
        await turns(200)
        workers = others() - {call}
        assert workers
        for worker in workers:
            worker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not call.cancelling()
        assert others() == set()

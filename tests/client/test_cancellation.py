"""Cancelling and leaving early at any moment, over real sockets: nothing is left and the client still works."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver
from support.cancelling import cancelled_when_suspended, check_nothing_left, check_still_works, waiting
from support.internals import in_flight
from support.waiting import HANG, turns, until

from dd_sa_tokens import ClientClosedError, RequestTimeoutError, RetryPolicy, TokensClient
from dd_sa_tokens.testing import FakeDatadog

PLENTY = (1_000_000, 10.0)
QUICK = RetryPolicy(initial_backoff=0.004, max_backoff=0.004)

pytestmark = pytest.mark.usefixtures("loop_errors")


@pytest.fixture
async def datadog() -> AsyncIterator[FakeDatadog]:
    """A fake server with 40 tokens and a high rate limit."""
    async with FakeDatadog(tokens=40, rate_limit=PLENTY) as datadog:
        yield datadog


def connect(datadog: FakeDatadog, **options: Any) -> TokensClient:
    """Make a client of the fake."""
    keys = {"base_url": datadog.url, "api_key": datadog.api_key, "app_key": datadog.app_key}
    return TokensClient(**({"retry": QUICK} | keys | options))


Call = Callable[[TokensClient, FakeDatadog], Awaitable[Any]]


async def fetch_one(client: TokensClient, datadog: FakeDatadog) -> None:
    await client.get_token(datadog.service_account_id, datadog.token_ids[0])


async def fetch_many(client: TokensClient, datadog: FakeDatadog) -> None:
    await client.get_tokens(datadog.service_account_id, datadog.token_ids[:12])


async def fetch_listed(client: TokensClient, datadog: FakeDatadog) -> None:
    await client.get_tokens(datadog.service_account_id, [*datadog.token_ids[:12], "absent"], strategy="list")


async def list_all(client: TokensClient, datadog: FakeDatadog) -> None:
    async with aclosing(client.list_tokens(datadog.service_account_id, page_size=5)) as tokens:
        async for _ in tokens:
            await asyncio.sleep(0)


async def stream_many(client: TokensClient, datadog: FakeDatadog) -> None:
    async with aclosing(client.stream_tokens(datadog.service_account_id, datadog.token_ids[:12])) as items:
        async for _ in items:
            await asyncio.sleep(0)


# One call


async def test_a_call_can_be_cancelled_wherever_it_is_suspended(datadog: FakeDatadog) -> None:
    """`get_token`, cancelled at each suspension point in turn, leaves nothing, and the client works on."""
    for at in itertools.count(1):
        client = connect(datadog)
        cancelled = await cancelled_when_suspended(fetch_one(client, datadog), at)
        check_nothing_left(client)
        await check_still_works(client, datadog)
        if not cancelled:
            break
    assert at > 2


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429}, {"drop": True}, {"truncate": True}], ids=str)
async def test_a_retry_can_be_cancelled_wherever_it_is_suspended(datadog: FakeDatadog, fault: dict[str, Any]) -> None:
    """A call that failed and sleeps before it tries again is cancelled as cleanly as any."""
    for at in itertools.count(1):
        client = connect(datadog)
        datadog.fail_next(2 if "drop" in fault else 1, **fault)  # aiohttp itself sends again after the first drop
        cancelled = await cancelled_when_suspended(fetch_one(client, datadog), at)
        check_nothing_left(client)
        await check_still_works(client, datadog)
        if not cancelled:
            assert client.stats.retries >= 1
            break
    assert at > 3


async def create_one(client: TokensClient, datadog: FakeDatadog) -> None:
    await client.create_token(datadog.service_account_id, name="n", scopes=["a"])


async def update_one(client: TokensClient, datadog: FakeDatadog) -> None:
    await client.update_token(datadog.service_account_id, datadog.token_ids[-1], name="n")


async def revoke_one(client: TokensClient, datadog: FakeDatadog) -> None:
    await client.revoke_token(datadog.service_account_id, datadog.token_ids[-1])


@pytest.mark.parametrize("fault", [{}, {"status": 429, "headers": {"Retry-After": "0.002"}}], ids=["", "429"])
@pytest.mark.parametrize("call", [create_one, update_one, revoke_one])
async def test_a_change_can_be_cancelled_wherever_it_is_suspended(
    datadog: FakeDatadog, call: Call, fault: dict[str, Any]
) -> None:
    """Create, update and revoke, cancelled at each suspension point, also of a retry, happen once at most."""
    for at in itertools.count(1):
        client, before = connect(datadog), len(datadog.tokens)
        if fault:
            datadog.fail_next(1, **fault)
        cancelled = await cancelled_when_suspended(call(client, datadog), at)
        check_nothing_left(client)
        await check_still_works(client, datadog)
        made = len(datadog.tokens) - before
        assert made in {create_one: (0, 1), update_one: (0,), revoke_one: (0, -1)}[call]
        if not cancelled:
            assert made == {create_one: 1, update_one: 0, revoke_one: -1}[call]
            break
    assert at > 2 + bool(fault)


@pytest.mark.parametrize("concurrency", [1, 50])
async def test_a_call_that_waits_for_the_limiter_can_be_cancelled(datadog: FakeDatadog, concurrency: int) -> None:
    """A call that waits for concurrency or for the probe's answer can be cancelled without harm to the others."""
    for at in itertools.count(1):
        client = connect(datadog, concurrency=concurrency)
        first = asyncio.create_task(fetch_one(client, datadog))
        await turns(1)
        second = asyncio.create_task(cancelled_when_suspended(fetch_one(client, datadog), at))
        third = asyncio.create_task(fetch_one(client, datadog))
        async with asyncio.timeout(HANG):
            await first
            await third
            cancelled = await second
        check_nothing_left(client)
        await check_still_works(client, datadog)
        if not cancelled:
            break
    assert at > 2


async def test_a_cancelled_call_that_waits_for_a_window_uses_up_nothing() -> None:
    """Cancelled calls that waited for the next window use up nothing; the others are sent in their order."""
    async with FakeDatadog(tokens=10, rate_limit=(2, 1.0)) as datadog, connect(datadog) as client:
        account, token_ids = datadog.service_account_id, list(datadog.token_ids)
        while client.rate_limit is None or client.rate_limit.remaining:
            await client.get_token(account, token_ids[0])
        done: list[str] = []

        async def fetch(token_id: str) -> None:
            done.append((await client.get_token(account, token_id)).id)

        before = datadog.requests
        tasks = [asyncio.create_task(fetch(token_id)) for token_id in token_ids[:6]]
        await turns(3)
        assert waiting(client) == 6
        for number in (0, 2, 3, 5):
            tasks[number].cancel()
        async with asyncio.timeout(HANG):
            await asyncio.gather(*tasks, return_exceptions=True)

        assert done == [token_ids[1], token_ids[4]]
        assert datadog.requests - before == 2
        assert datadog.rejected == 0
        check_nothing_left(client)


async def test_all_calls_that_wait_for_the_limiter_can_be_cancelled() -> None:
    """When all who wait are cancelled, nothing waits any more, and the next call gets the next window."""
    async with FakeDatadog(tokens=10, rate_limit=(2, 1.0)) as datadog, connect(datadog) as client:
        account, token_ids = datadog.service_account_id, list(datadog.token_ids)
        while client.rate_limit is None or client.rate_limit.remaining:
            await client.get_token(account, token_ids[0])
        task = asyncio.create_task(client.get_tokens(account, token_ids, strategy="get"))
        await turns(30)
        assert waiting(client) > 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        check_nothing_left(client)

        async with asyncio.timeout(HANG):
            assert (await client.get_token(account, token_ids[3])).id == token_ids[3]
        assert datadog.rejected == 0


# Many


@pytest.mark.parametrize("call", [fetch_many, fetch_listed, stream_many, list_all])
async def test_a_bulk_fetch_can_be_cancelled_at_any_moment(datadog: FakeDatadog, call: Call) -> None:
    """Cancelled after each number of turns of the loop until it is done, a bulk fetch or a list leaves nothing.

    Its first two requests fail and are sent again.
    """
    after = 0
    while True:
        client = connect(datadog, concurrency=4)
        datadog.fail_next(2, status=503)
        task = asyncio.ensure_future(call(client, datadog))
        await turns(after)
        finished = task.done()
        task.cancel()
        async with asyncio.timeout(HANG):
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert finished or isinstance(outcome, asyncio.CancelledError)
        await turns(1)
        check_nothing_left(client)
        await check_still_works(client, datadog)
        if finished:
            break
        after += 1 if after < 40 else 1 + after // 10
    assert after > 15


@pytest.mark.parametrize("call", [fetch_many, fetch_listed, stream_many, list_all])
async def test_a_bulk_fetch_can_be_cancelled_wherever_it_is_suspended(datadog: FakeDatadog, call: Call) -> None:
    """Cancelled at each suspension point of the call or of a task of its own, a bulk fetch or a list leaves nothing."""
    for at in itertools.count(1):
        client = connect(datadog, concurrency=4)
        cancelled = await cancelled_when_suspended(call(client, datadog), at)
        await turns(1)
        check_nothing_left(client)
        await check_still_works(client, datadog)
        if not cancelled:
            break
    assert at > 2


async def test_a_failing_sibling_cancels_a_bulk_fetch(datadog: FakeDatadog) -> None:
    """In a task group, another task's failure ends a bulk fetch, and only that failure comes out."""
    async with connect(datadog) as client:

        async def fail() -> None:
            await until(lambda: in_flight(client))
            raise LookupError

        async def run() -> None:
            async with asyncio.timeout(HANG), asyncio.TaskGroup() as group:
                group.create_task(fetch_many(client, datadog))
                group.create_task(fail())

        with pytest.raises(ExceptionGroup) as caught:
            await run()
        assert [type(error) for error in caught.value.exceptions] == [LookupError]
        check_nothing_left(client)
        await check_still_works(client, datadog)


# Leaving a stream


async def test_breaking_out_of_a_closing_stream(datadog: FakeDatadog) -> None:
    """With `aclosing`, everything is gone as soon as the block is left."""
    async with connect(datadog, concurrency=4) as client:
        async with aclosing(
            client.stream_tokens(datadog.service_account_id, datadog.token_ids, strategy="get")
        ) as items:
            async for item in items:
                assert item.ok
                break
        check_nothing_left(client)
        assert datadog.requests <= 1 + 4
        await check_still_works(client, datadog)


async def test_breaking_out_of_a_stream_and_dropping_it(datadog: FakeDatadog) -> None:
    """With a plain `break`, the loop cleans up behind the dropped stream within a few turns."""
    async with connect(datadog, concurrency=4) as client:
        async for item in client.stream_tokens(datadog.service_account_id, datadog.token_ids, strategy="get"):
            assert item.ok
            break
        gc.collect()
        await turns(10)
        check_nothing_left(client)
        assert datadog.requests <= 1 + 4
        await check_still_works(client, datadog)


async def test_leaving_a_stream_while_its_requests_are_stuck(datadog: FakeDatadog) -> None:
    """Requests that the server does not answer are cut when the stream is left, and not waited for."""
    async with connect(datadog, concurrency=4) as client:
        await fetch_one(client, datadog)
        datadog.fail_next(4, stall=60.0)
        stuck = client.stream_tokens(datadog.service_account_id, datadog.token_ids, strategy="get")
        waiter = asyncio.ensure_future(anext(stuck))
        await until(lambda: in_flight(client) == 4)
        await asyncio.sleep(0.02)
        waiter.cancel()
        async with asyncio.timeout(HANG):
            await asyncio.gather(waiter, return_exceptions=True)
            await stuck.aclose()
        check_nothing_left(client)
        await check_still_works(client, datadog)


async def test_closing_a_stream_before_its_first_item(datadog: FakeDatadog) -> None:
    """A stream that is closed, or dropped, before it was ever asked for an item has sent nothing."""
    async with connect(datadog) as client:
        items = client.stream_tokens(datadog.service_account_id, datadog.token_ids)
        await items.aclose()
        client.stream_tokens(datadog.service_account_id, datadog.token_ids)
        gc.collect()
        await turns(2)
        check_nothing_left(client)
        assert datadog.requests == 0
        await check_still_works(client, datadog)


async def test_a_stream_that_outlives_its_client(datadog: FakeDatadog) -> None:
    """A stream left open when the client is closed can still be closed, and leaves nothing."""
    async with connect(datadog, concurrency=4) as client:
        items = client.stream_tokens(datadog.service_account_id, datadog.token_ids)
        await anext(items)
    async with asyncio.timeout(HANG):
        await items.aclose()
    check_nothing_left(client)


# Timeouts


@pytest.mark.parametrize("call", [fetch_one, fetch_many, stream_many])
async def test_a_timeout_around_a_call(datadog: FakeDatadog, call: Call) -> None:
    """`asyncio.timeout` ends a call that is stuck, as a plain `TimeoutError`, and nothing stays behind."""
    async with connect(datadog) as client:
        datadog.fail_next(50, stall=60.0)
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.05):
                await call(client, datadog)
        assert not isinstance(caught.value, RequestTimeoutError)
        assert asyncio.current_task().cancelling() == 0
        check_nothing_left(client)


async def test_a_timeout_around_a_wait_for_the_rate_limit() -> None:
    """`asyncio.timeout` ends a wait for the rate limit at its own time, not at the window's."""
    async with FakeDatadog(tokens=3, rate_limit=(3, 60.0), rate_limit_used=2) as datadog, connect(datadog) as client:
        await fetch_one(client, datadog)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await fetch_one(client, datadog)
        assert loop.time() - begun < 1.0
        check_nothing_left(client)
        assert datadog.rejected == 0


async def test_the_clients_timeout_and_an_outer_one_together(datadog: FakeDatadog) -> None:
    """Where both run out at about the same time, a `TimeoutError` comes out, and no cancellation is left pending."""
    for milliseconds in range(18, 23):
        async with connect(datadog, timeout=0.02, retry=RetryPolicy(max_attempts=1)) as client:
            datadog.fail_next(1, stall=60.0)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(milliseconds / 1000):
                    await fetch_one(client, datadog)
            assert asyncio.current_task().cancelling() == 0
            await turns(2)
            check_nothing_left(client)


# Cancelled by aiohttp


class StuckResolver(AbstractResolver):
    """Never finds out where a host is."""

    async def resolve(self, *_: Any, **__: Any) -> NoReturn:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("call", ["get_token", "get_tokens", "stream_tokens"])
async def test_a_borrowed_session_that_is_closed_while_it_looks_up_the_host(call: str) -> None:
    """aiohttp then cancels what it was doing itself; to the caller that is a `ClientClosedError` like any other."""
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=StuckResolver()))
    client = TokensClient(session=session, access_token="ddpat_0123456789")

    async def run() -> list[Any]:
        if call == "get_token":
            return [await client.get_token("account", "a")]
        if call == "get_tokens":
            return [item.error for item in await client.get_tokens("account", ["a", "b", "c"])]
        return [item.error async for item in client.stream_tokens("account", ["a", "b", "c"])]

    task = asyncio.create_task(run())
    await until(lambda: in_flight(client))
    await asyncio.sleep(0.01)
    await session.close()
    async with asyncio.timeout(HANG):
        (outcome,) = await asyncio.gather(task, return_exceptions=True)

    if call == "get_tokens":
        assert [type(error) for error in outcome] == [ClientClosedError] * 3
    else:
        assert isinstance(outcome, ClientClosedError)
    check_nothing_left(client)

"""One client for a whole program: a job and web handlers, and 1,000 calls that end at any moment."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import aclosing
from itertools import count
from typing import Any

import pytest
from support.cancelling import check_nothing_left
from support.in_memory import ROUND_TRIP, MemoryTransport, client_of
from support.internals import bound_of, counted_in_windows, in_flight, waiting
from support.keys import ACCOUNT
from support.virtual_time import CountingServer, now, virtual
from support.waiting import until

from dd_sa_tokens import DeadlineExceededError, SourceError, TokensClient
from dd_sa_tokens.testing import FakeDatadog


async def call_until_done(
    job: asyncio.Task[Any], seconds: float, client: TokensClient, account: str, token_ids: list[str]
) -> list[float]:
    """Fetch a token every so many seconds until a job ends; return how long each call took."""
    loop = asyncio.get_running_loop()
    took: list[float] = []
    for number in count():
        if job.done():
            return took
        begun = loop.time()
        await client.get_token(account, token_ids[number % len(token_ids)])
        took.append(loop.time() - begun)
        await asyncio.sleep(begun + seconds - loop.time())
    raise AssertionError


@virtual
async def test_a_job_and_web_calls_live_on_one_client() -> None:
    """20 requests in 5 s, a job of 100 IDs that leaves half of them: web calls take two round trips, no ID is lost."""
    transport = MemoryTransport(CountingServer(20, 5.0))
    client = client_of(transport)
    job = asyncio.create_task(
        client.with_options(rate_limit_reserve=0.5).get_tokens(ACCOUNT, [f"j{n}" for n in range(100)], strategy="get")
    )
    took = await call_until_done(job, 0.6, client, ACCOUNT, ["web"])
    assert len(job.result().tokens) == 100
    assert len(took) >= 80
    assert max(took) <= 2.1 * ROUND_TRIP
    assert transport.server.rejected == 0
    assert now() - 1000.0 <= 56.0  # nine or ten IDs in each window
    assert transport.sent.count("web") == len(took)


@pytest.mark.usefixtures("nothing_left")
async def test_a_job_and_web_calls_live_on_one_client_over_sockets() -> None:
    """The same with 20 requests in 2 s, a job of 20 IDs and a web call each 0.24 s."""
    async with FakeDatadog(tokens=20, rate_limit=(20, 2.0), latency=0.01) as datadog, datadog.client() as client:
        account, token_ids = datadog.service_account_id, [token.id for token in datadog.tokens]
        view = client.with_options(rate_limit_reserve=0.5)
        job = asyncio.create_task(view.get_tokens(account, token_ids, strategy="get"))
        took = await call_until_done(job, 0.24, client, account, token_ids)
        assert len(job.result().tokens) == 20
        assert client.stats.rate_limited == 0
        assert max(took) < 1  # a window's wait would be longer for some; a round trip takes 10 ms
        check_nothing_left(client)
        assert client.stats.requests == 20 + len(took)


async def end_at_random(view: TokensClient, chance: random.Random, number: int) -> str:
    """Make a call that ends by its deadline, a cancellation, a break, or in peace."""
    seconds, token_ids = chance.uniform(0.001, 0.5), [f"t{number}-{n}" for n in range(chance.randrange(1, 6))]

    async def slowly() -> Any:
        for token_id in token_ids:
            await asyncio.sleep(0.01)
            yield token_id

    way = chance.choice(["deadline", "stream", "async", "timeout", "break", "one"])
    try:
        async with asyncio.timeout(seconds if way in {"timeout", "one"} else None):
            if way in {"deadline", "timeout"}:
                deadline = seconds if way == "deadline" else None
                result = await view.get_tokens(ACCOUNT, token_ids, strategy="get", deadline=deadline)
                assert [item.token_id for item in result] == token_ids
                kinds = {type(error) for error in result.errors.values()}
                assert kinds <= {DeadlineExceededError}
                return f"{way} {len(kinds)}"
            if way == "async":
                assert len(await view.get_tokens(ACCOUNT, slowly(), deadline=seconds)) == len(token_ids)
            elif way == "one":
                await view.get_token(ACCOUNT, token_ids[0])
            else:
                async with aclosing(view.stream_tokens(ACCOUNT, slowly(), deadline=seconds)) as items:
                    async for item in items:
                        if way == "break" and chance.random() < 0.5:
                            break
                        assert item.ok or isinstance(item.error, DeadlineExceededError)
    except (SourceError, DeadlineExceededError) as error:
        return f"{way} {type(error).__name__}"
    except TimeoutError:
        return f"{way} cancelled"
    return f"{way} done"


@virtual
async def test_a_thousand_calls_that_end_at_any_moment_leave_nothing_behind() -> None:
    """Cancellations and deadlines on a client and its views: no place, permit, waiter or task is lost."""
    chance = random.Random(5)
    transport = MemoryTransport(CountingServer(200, 5.0), lambda: chance.uniform(0.01, 0.2))
    client = client_of(transport, concurrency=10)
    narrow = client.with_options(concurrency=3)
    views = [client, narrow, client.with_options(rate_limit_reserve=0.5), narrow.with_options(rate_limit_reserve=0.25)]
    ends: Counter[str] = Counter()

    async def call(number: int) -> None:
        await asyncio.sleep(number * 0.02)
        task = asyncio.create_task(end_at_random(views[number % 4], chance, number))
        if number % 5 == 0:
            await asyncio.sleep(chance.uniform(0, 0.3))
            task.cancel()
        await asyncio.wait([task])
        ends["cancelled" if task.cancelled() else task.result()] += 1

    await asyncio.gather(*map(call, range(1_000)))
    assert ends.total() == 1_000
    assert len([kind for kind in ends if ends[kind] >= 5]) >= 8, ends
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert (in_flight(client), waiting(client), counted_in_windows(client), bound_of(narrow)) == (0, 0, 0, 0)
    assert (transport.in_flight, transport.most_in_flight) == (0, 10)
    assert transport.server.rejected <= 2  # the server may have counted a cancelled request, unseen
    assert client.stats.requests == len(transport.sent)
    assert len((await narrow.get_tokens(ACCOUNT, ["a", "b", "c"])).tokens) == 3


@pytest.mark.usefixtures("nothing_left")
async def test_deadlines_at_any_moment_leave_no_connection_behind() -> None:
    """The same over sockets: after deadlines and cancellations no connection is in use, and the client works."""
    async with FakeDatadog(tokens=10, latency=0.002) as datadog, datadog.client(concurrency=4) as client:
        account, token_ids = datadog.service_account_id, [token.id for token in datadog.tokens]
        for number in range(40):
            view = client.with_options(concurrency=1 + number % 4)
            call = asyncio.create_task(
                view.get_tokens(account, token_ids, strategy="get", deadline=number / 2_000 + 1e-6)
            )
            if number % 3 == 0:
                await asyncio.sleep(number / 3_000)
                call.cancel()
            await asyncio.wait([call])
            assert call.cancelled() or len(call.result()) == 10
        await until(lambda: in_flight(client) == 0)
        check_nothing_left(client)
        assert len((await client.get_tokens(account, token_ids)).tokens) == 10

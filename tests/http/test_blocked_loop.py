"""The caller blocks the event loop beyond the timeout: an answer that is there by then is taken, not thrown away.

The fake server has a thread of its own, so it goes on while the test's loop is blocked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from support.cancelling import check_nothing_left
from support.internals import forget_faults, set_latency
from support.waiting import HANG

from dd_sa_tokens import RequestTimeoutError, RetryPolicy, TokensClient
from dd_sa_tokens.testing import FakeDatadog

TIMEOUT = 0.25
LATENCY = 0.05
ONCE = RetryPolicy(max_attempts=1)

pytestmark = pytest.mark.usefixtures("loop_errors")


@pytest.fixture(params=["own session", "borrowed session"])
async def client(fake_datadog: FakeDatadog, request: pytest.FixtureRequest) -> AsyncIterator[TokensClient]:
    """A client that would notice a second attempt: it makes none."""
    async with aiohttp.ClientSession() as session:
        borrowed = session if request.param == "borrowed session" else None
        async with fake_datadog.client(timeout=TIMEOUT, retry=ONCE, session=borrowed) as client:
            yield client
            check_nothing_left(client)


def block(seconds: float) -> None:
    """Block the event loop, as a call that is not async does."""
    time.sleep(seconds)


def block_until(moment: float) -> None:
    """Block the event loop up to a moment, as exactly as can be."""
    while time.monotonic() < moment:
        pass


Blocking = Callable[[float], AsyncIterator[None]]


async def beyond(_deadline: float) -> None:
    """Block from well before the deadline until well after it."""
    block(2 * TIMEOUT)


async def for_long(_deadline: float) -> None:
    """Block for longer than the most that is given in addition."""
    block(1.2)


async def at_the_deadline(deadline: float) -> None:
    """Begin to block shortly before the deadline, when the answer has been there for a while but was not read."""
    block_until(deadline - 0.02)
    block(TIMEOUT)


async def twice(_deadline: float) -> None:
    """Block twice, with one pass of the loop in between."""
    block(2 * TIMEOUT)
    await asyncio.sleep(0)
    block(2 * TIMEOUT)


async def again_and_again(_deadline: float) -> None:
    """Block many times, with a pass of the loop in between."""
    for _ in range(4):
        block(TIMEOUT)
        await asyncio.sleep(0)


BLOCKS = [beyond, for_long, at_the_deadline, twice, again_and_again]


async def sent(task: asyncio.Future[object], fake_datadog: FakeDatadog, before: int) -> None:
    """Wait until the server has more than so many requests."""
    async with asyncio.timeout(HANG):
        while fake_datadog.requests <= before and not task.done():  # noqa: ASYNC110 - the server is in another thread
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("way", "warm"),
    [*((way, True) for way in BLOCKS), (beyond, False)],
    ids=lambda value: "kept connection" if value is True else "new connection" if value is False else value.__name__,
)
async def test_an_answer_that_is_there_is_taken(
    fake_datadog: FakeDatadog, client: TokensClient, way: Callable[[float], object], warm: bool
) -> None:
    """A get is sent once, and gives its token, although the loop is blocked beyond its timeout."""
    account, token_id = fake_datadog.service_account_id, fake_datadog.token_ids[0]
    if warm:
        await client.get_token(account, token_id)
    set_latency(fake_datadog, LATENCY)
    before, begun = fake_datadog.requests, time.monotonic()
    task = asyncio.ensure_future(client.get_token(account, token_id))
    await sent(task, fake_datadog, before)
    await way(begun + TIMEOUT)  # type: ignore[misc] # each is async
    assert (await task).id == token_id
    assert fake_datadog.requests == before + 1


@pytest.mark.parametrize("way", [beyond, at_the_deadline, twice], ids=lambda way: way.__name__)
async def test_a_created_key_that_is_there_is_taken(
    fake_datadog: FakeDatadog, client: TokensClient, way: Callable[[float], object]
) -> None:
    """A create gives its key, which cannot be read again, although the loop is blocked beyond its timeout."""
    set_latency(fake_datadog, LATENCY)
    before, begun = fake_datadog.requests, time.monotonic()
    task = asyncio.ensure_future(client.create_token(fake_datadog.service_account_id, name="n", scopes=["a"]))
    await sent(task, fake_datadog, before)
    await way(begun + TIMEOUT)  # type: ignore[misc] # each is async
    created = await task
    assert created.key.reveal()
    assert fake_datadog.requests == before + 1
    assert created.token.id in fake_datadog.token_ids


@pytest.mark.parametrize("way", [beyond, twice, at_the_deadline], ids=lambda way: way.__name__)
async def test_many_answers_that_are_there_are_taken(
    fake_datadog: FakeDatadog, client: TokensClient, way: Callable[[float], object]
) -> None:
    """Twenty gets at a time are each sent once."""
    ids = fake_datadog.token_ids[:20]
    for _ in range(2):  # until there are as many connections
        await client.get_tokens(fake_datadog.service_account_id, ids, strategy="get")
    set_latency(fake_datadog, LATENCY)
    before, begun = fake_datadog.requests, time.monotonic()
    task = asyncio.ensure_future(client.get_tokens(fake_datadog.service_account_id, ids, strategy="get"))
    await sent(task, fake_datadog, before + len(ids) - 1)
    await way(begun + TIMEOUT)  # type: ignore[misc] # each is async
    assert [item.unwrap().id for item in await task] == ids
    assert fake_datadog.requests == before + len(ids)


@pytest.mark.parametrize("borrowed", [False, True])
async def test_a_block_that_ends_with_the_timeout(fake_datadog: FakeDatadog, borrowed: bool) -> None:
    """The timer fires in time, when the answer has been in the socket for a while and its task has not run.

    When exactly a request's time is up is not known to a fraction of a millisecond, so several moments are tried. Each
    has a client of its own, whose timer was not set for an earlier request.
    """
    account, token_id = fake_datadog.service_account_id, fake_datadog.token_ids[0]
    set_latency(fake_datadog, LATENCY)
    async with aiohttp.ClientSession() as session:
        for step in range(10):
            options: dict[str, Any] = {"session": session} if borrowed else {}
            async with fake_datadog.client(timeout=TIMEOUT, retry=ONCE, **options) as client:
                before, begun = fake_datadog.requests, time.monotonic()
                task = asyncio.ensure_future(client.get_token(account, token_id))
                await sent(task, fake_datadog, before)
                block_until(begun + TIMEOUT + step * 0.0002)
                assert (await task).id == token_id
                assert fake_datadog.requests == before + 1


async def test_a_request_that_is_still_being_made_gets_time(fake_datadog: FakeDatadog, client: TokensClient) -> None:
    """A request whose connection was not yet made when the loop was blocked is sent afterwards, once."""
    task = asyncio.ensure_future(client.get_token(fake_datadog.service_account_id, fake_datadog.token_ids[0]))
    await asyncio.sleep(0)
    block(2 * TIMEOUT)
    assert (await task).id == fake_datadog.token_ids[0]
    assert fake_datadog.requests == 1


async def test_an_answer_that_is_not_there_is_not_waited_for(fake_datadog: FakeDatadog, client: TokensClient) -> None:
    """A request that has no answer ends soon after the loop was blocked: it gets as long as the timer was late."""
    fake_datadog.fail_next(stall=10.0)
    task = asyncio.ensure_future(client.get_token(fake_datadog.service_account_id, fake_datadog.token_ids[0]))
    await asyncio.sleep(0.1)
    block(2 * TIMEOUT)
    async with asyncio.timeout(4):
        with pytest.raises(RequestTimeoutError):
            await task
    forget_faults(fake_datadog)


async def test_a_loop_that_is_always_busy_does_not_put_the_timeout_off_for_ever(
    fake_datadog: FakeDatadog, client: TokensClient
) -> None:
    """If the loop is blocked for 50 ms again and again, a request without an answer ends nevertheless."""
    fake_datadog.fail_next(stall=10.0)
    task = asyncio.ensure_future(client.get_token(fake_datadog.service_account_id, fake_datadog.token_ids[0]))
    async with asyncio.timeout(5):
        while not task.done():
            await asyncio.sleep(0)
            block(0.05)
        with pytest.raises(RequestTimeoutError):
            await task
    forget_faults(fake_datadog)

"""The look at the list that "auto" takes saves requests, and costs no time: where it gives no page, the gets go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.calls import FAST, Connect
from support.keys import ACCOUNT
from support.lists import Served
from support.payloads import names, rate_limit_headers
from support.replies import ReceivedRequest, Responder, hang_up, later, reply, reset, stall
from support.servers import RawServer

from dd_sa_tokens import RetryPolicy

COUNT = 40
PATIENT = RetryPolicy(initial_backoff=5.0, max_backoff=30.0)  # a retry would take seconds, and the test would hang


def is_list(request: ReceivedRequest) -> bool:
    return urlsplit(request.target).path.endswith("/access_tokens")


def count(server: RawServer) -> tuple[int, int]:
    """Return how many lists and how many single tokens were asked for."""
    lists = sum(map(is_list, server.requests))
    return lists, len(server.requests) - lists


def splitting(on_list: Responder, on_get: Responder) -> Responder:
    """Answer a list in one way, and a single token in another."""

    async def act(request: ReceivedRequest) -> None:
        await (on_list if is_list(request) else on_get)(request)

    return act


async def fetched(connect: Connect, streamed: bool, **options: Any) -> list[str]:
    """Fetch 40 tokens; return their IDs."""
    client = connect(**options)
    async with asyncio.timeout(3):
        if streamed:
            return [item.unwrap().id async for item in client.stream_tokens(ACCOUNT, names(COUNT))]
        return [item.unwrap().id for item in await client.get_tokens(ACCOUNT, names(COUNT))]


NO_PAGE: dict[str, Responder] = {
    "503": reply(503),
    "503, Retry-After": reply(503, headers={"Retry-After": "20"}),
    "429, for an hour": reply(429, headers=rate_limit_headers(100, 0, 2600, 3600)),
    "429, Retry-After": reply(429, headers={"Retry-After": "2600"}),
    "429, without headers": reply(429),
    "403": reply(403),
    "401": reply(401),
    "404": reply(404),
    "a page that is no JSON": reply(200, b"<html>"),
    "a document that is no list": reply(200, {"data": 7}),
    "no answer": hang_up(),
    "a reset": reset(),
    "a redirect": reply(302, b"", {"Location": "/elsewhere"}),
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("act", NO_PAGE.values(), ids=list(NO_PAGE))
async def test_a_list_that_gives_no_page_is_tried_once(
    server: RawServer, connect: Connect, act: Responder, streamed: bool
) -> None:
    """Anything but a page costs one request and no wait: then each ID is got by itself."""
    server.script(otherwise=splitting(act, reply()))
    assert sorted(await fetched(connect, streamed, retry=PATIENT)) == sorted(names(COUNT))
    assert count(server) == (1, COUNT)


HANGS: dict[str, Responder] = {
    "no answer": stall(),
    "half a head": stall(b"HTTP/1.1 200 OK\r\n"),
    "half a body": stall(b'HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{"data": ['),
}


@pytest.mark.parametrize("act", HANGS.values(), ids=list(HANGS))
async def test_a_list_that_hangs_is_given_up_soon(server: RawServer, connect: Connect, act: Responder) -> None:
    """A list that hangs is given up after a second, not after the 30 s of the timeout, and after a shorter timeout."""
    server.script(otherwise=splitting(act, reply()))
    async with asyncio.timeout(10):
        assert len(await fetched(connect, False, retry=PATIENT)) == COUNT
        assert len(await fetched(connect, False, retry=PATIENT, timeout=0.4)) == COUNT
    assert count(server) == (2, 2 * COUNT)


async def test_fetches_at_the_same_time_give_a_list_that_hangs_up_together(server: RawServer, connect: Connect) -> None:
    """Ten fetches that look at a list which hangs do not wait for one another's look."""
    server.script(otherwise=splitting(stall(), reply()))
    client = connect(retry=PATIENT, timeout=0.2)
    async with asyncio.timeout(8):
        results = await asyncio.gather(*(client.get_tokens(ACCOUNT, names(COUNT)) for _ in range(10)))
    assert {len(result.tokens) for result in results} == {COUNT}


def spent(seconds: int, name: str | None = None) -> Responder:
    """Answer a list of one token: it was the last request of its limit, for so many seconds."""
    headers = rate_limit_headers(100, 0, seconds, 3600, **({"X-RateLimit-Name": name} if name else {}))
    return reply(200, {"data": [], "meta": {"page": {"total_filtered_count": 0}}}, headers)


def free(name: str | None = None) -> Responder:
    headers = rate_limit_headers(1000, 900, 10, 10, **({"X-RateLimit-Name": name} if name else {}))
    return reply(headers=headers)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("names_", [(None, None), ("list", "get"), ("tokens", "tokens"), ("list", None)], ids=str)
async def test_a_list_whose_own_limit_is_spent_is_not_waited_for(
    server: RawServer, connect: Connect, names_: tuple[str | None, str | None], streamed: bool
) -> None:
    """If the list's limit is spent for the hour and the get's is not, no list is asked for, and nothing waits."""
    server.script(otherwise=splitting(spent(2600, names_[0]), free(names_[1])))
    client = connect()
    assert [token async for token in client.list_tokens(ACCOUNT)] == []
    await client.get_token(ACCOUNT, "t0")
    before = count(server)
    async with asyncio.timeout(3):
        if streamed:
            ids = [item.unwrap().id async for item in client.stream_tokens(ACCOUNT, names(COUNT))]
        else:
            ids = [item.unwrap().id for item in await client.get_tokens(ACCOUNT, names(COUNT))]
    assert sorted(ids) == sorted(names(COUNT))
    after = count(server)
    assert (after[0] - before[0], after[1] - before[1]) == (0, COUNT)


async def test_a_limit_that_both_share_is_waited_for(server: RawServer, connect: Connect) -> None:
    """Where gets and lists are known to share a limit, the list saves requests: it is waited for."""
    shared = {"X-RateLimit-Name": "tokens"}
    account = Served(names(COUNT))
    account.before = lambda _number: (
        reply(
            200,
            {"data": [], "meta": {"page": {"total_filtered_count": 0}}},
            rate_limit_headers(100, 0, 1, 1, **shared),
        )
        if len(account.pages) == 1
        else None
    )
    server.script(otherwise=splitting(account, reply(headers=rate_limit_headers(100, 1, 1, 1, **shared))))
    client = connect()
    await client.get_token(ACCOUNT, "t0")
    assert [token async for token in client.list_tokens(ACCOUNT)] == []
    async with asyncio.timeout(5):
        result = await client.get_tokens(ACCOUNT, names(COUNT))
    assert len(result.tokens) == COUNT
    assert count(server) == (2, 1)


@pytest.mark.parametrize("act", [reply(503), hang_up()], ids=["503", "no answer"])
async def test_later_pages_are_tried_again(server: RawServer, connect: Connect, act: Responder) -> None:
    """Once the first page has shown that the list saves requests, a page that fails is asked for again."""
    fails = {1: act, 2: act}
    account = Served(names(300), lambda number: fails.pop(number, None))
    server.script(otherwise=account)
    result = await connect(retry=FAST).get_tokens(ACCOUNT, names(300))
    assert len(result.tokens) == 300
    assert sorted(account.pages) == [0, 1, 1, 2, 2]
    assert account.gets == []


@pytest.mark.parametrize("strategy", ["list", "auto"])
async def test_a_look_that_is_cancelled_is_a_cancellation(server: RawServer, connect: Connect, strategy: Any) -> None:
    """Cancelling a fetch while it looks at the list ends it; nothing is got instead."""
    server.script(otherwise=splitting(stall(), reply()))
    task = asyncio.ensure_future(connect().get_tokens(ACCOUNT, names(COUNT), strategy=strategy))
    await server.arrival()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert count(server) == (1, 0)


async def test_a_slow_list_within_a_second_is_used(server: RawServer, connect: Connect) -> None:
    """A list that is answered in time is used, with any larger timeout."""
    event = asyncio.Event()
    account: Callable[[ReceivedRequest], Any] = Served(names(COUNT))
    server.script(otherwise=splitting(later(event, account), reply()))
    task = asyncio.ensure_future(connect().get_tokens(ACCOUNT, names(COUNT)))
    await server.arrival()
    await asyncio.sleep(0.05)
    event.set()
    assert len((await task).tokens) == COUNT
    assert count(server) == (1, 0)

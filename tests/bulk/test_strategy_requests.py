"""Bulk fetches that read the list, over real sockets: what they cost, and that the results are those of "get"."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest
from support.calls import ONCE, Connect
from support.internals import in_flight, on_the_wire
from support.keys import ACCOUNT
from support.lists import Served, connected
from support.payloads import names
from support.replies import Responder, hang_up, reply, stall
from support.servers import RawServer

from dd_sa_tokens import (
    InvalidArgumentError,
    NotFoundError,
    UnauthorizedError,
)
from dd_sa_tokens.testing import FakeDatadog

STRATEGIES = ("get", "list", "auto")
ABSENT = [f"00000000-0000-4000-8000-{number:012d}" for number in range(19)]


def summary(result: Iterable[Any]) -> list[tuple[str, Any]]:
    """Return what can be compared of results: IDs, tokens, and the kinds of errors."""
    return [(item.token_id, item.token if item.ok else type(item.error)) for item in result]


# What a fetch costs


@pytest.mark.parametrize("streamed", [False, True])
async def test_most_of_a_large_account_costs_its_pages(streamed: bool) -> None:
    """1,901 IDs of an account with 2,000 tokens, 19 of them absent: 20 pages, and a real 404 for each absent one."""
    async with FakeDatadog(tokens=2000) as datadog, connected(datadog) as client:
        ids = datadog.token_ids[:1000] + ABSENT + datadog.token_ids[1118:]
        assert len(ids) == 1901
        if streamed:
            items = [item async for item in client.stream_tokens(datadog.service_account_id, ids)]
            assert sorted(item.token_id for item in items) == sorted(ids)
        else:
            items = list(await client.get_tokens(datadog.service_account_id, ids))
            assert [item.token_id for item in items] == ids
        tokens = {token.id: token for token in datadog.tokens}
        assert all(item.token == tokens.get(item.token_id) for item in items)
        assert {type(item.error) for item in items if not item.ok} == {NotFoundError}
        assert {item.error.operation for item in items if item.error} == {"get_token"}
        assert datadog.requests == 39


@pytest.mark.parametrize(("count", "requests"), [(1, 1), (5, 5), (19, 19)])
async def test_a_few_ids_cost_a_request_each(count: int, requests: int) -> None:
    """Below 20 IDs no list is read, and one that were would not help."""
    async with FakeDatadog(tokens=2000) as datadog, connected(datadog) as client:
        result = await client.get_tokens(datadog.service_account_id, datadog.token_ids[500 : 500 + count])
        assert len(result.tokens) == count
        assert datadog.requests == requests


@pytest.mark.parametrize(("start", "requests"), [(0, 1), (90, 11), (500, 20)])
async def test_twenty_ids_of_a_large_account(start: int, requests: int) -> None:
    """20 IDs of 2,000 tokens: what the first page did not hold is got, or listed where that takes fewer requests."""
    async with FakeDatadog(tokens=2000) as datadog, connected(datadog) as client:
        result = await client.get_tokens(datadog.service_account_id, datadog.token_ids[start : start + 20])
        assert len(result.tokens) == 20
        assert datadog.requests == requests


async def test_a_generator_costs_a_request_for_each_id_unless_it_is_to_be_listed() -> None:
    """An async generator's IDs are not known beforehand: one by one by default, and listed when asked for."""
    async with FakeDatadog(tokens=300) as datadog, connected(datadog) as client:

        async def ids() -> AsyncIterator[str]:
            for token_id in [*datadog.token_ids, ABSENT[0]]:
                yield token_id

        account = datadog.service_account_id
        items = [item async for item in client.stream_tokens(account, ids())]
        assert datadog.requests == 301
        listed = [item async for item in client.stream_tokens(account, ids(), strategy="list")]
        assert datadog.requests == 301 + 3 + 1
        assert sorted(summary(items), key=repr) == sorted(summary(listed), key=repr)


# The same answers


async def test_all_strategies_give_the_same() -> None:
    """Present, absent, repeated and impossible IDs have the same results by each strategy, in bulk and streamed."""
    async with FakeDatadog(tokens=250) as datadog, connected(datadog) as client:
        account = datadog.service_account_id
        odd: list[Any] = ["", "..", "a\nb", "x" * 257, None, 5, "a/../b", "?", datadog.token_ids[3].upper()]
        ids = [*datadog.token_ids[:200], *ABSENT, *odd, *datadog.token_ids[150:], *ABSENT[:3], *odd]
        bulk = {strategy: await client.get_tokens(account, ids, strategy=strategy) for strategy in STRATEGIES}
        expected = summary(bulk["get"])
        assert summary(bulk["list"]) == summary(bulk["auto"]) == expected
        assert {kind for _, kind in expected if isinstance(kind, type)} == {NotFoundError, InvalidArgumentError}
        assert [str(item.error) for item in bulk["list"]] == [str(item.error) for item in bulk["get"]]
        for strategy in STRATEGIES:
            items = [item async for item in client.stream_tokens(account, ids, strategy=strategy)]
            assert sorted(summary(items), key=repr) == sorted(expected, key=repr)
        for result in bulk.values():
            errors = [id(item.error) for item in result if item.error]
            assert len(errors) == len(set(errors))


REFUSED = [{"status": 400}, {"status": 403}, {"status": 404}, {"status": 500}, {"status": 501}, {"truncate": True}]


@pytest.mark.parametrize("strategy", ["list", "auto"])
@pytest.mark.parametrize("fault", REFUSED, ids=str)
async def test_a_list_that_is_refused_costs_one_request(strategy: Any, fault: dict[str, Any]) -> None:
    """Where the list cannot be read each ID is got by itself, with the results that "get" has."""
    async with FakeDatadog(tokens=60) as datadog, connected(datadog, retry=ONCE) as client:
        ids = [*datadog.token_ids, *ABSENT]
        expected = await client.get_tokens(datadog.service_account_id, ids, strategy="get")
        before = datadog.requests
        datadog.fail_next(**fault)
        result = await client.get_tokens(datadog.service_account_id, ids, strategy=strategy)
        assert summary(result) == summary(expected)
        assert datadog.requests - before == 1 + len(ids)


async def test_a_list_of_an_account_that_there_is_not() -> None:
    """An unknown service account is each ID's own 404."""
    async with FakeDatadog(tokens=60) as datadog, connected(datadog) as client:
        results = [await client.get_tokens(ABSENT[0], datadog.token_ids, strategy=s) for s in ("get", "list", "auto")]
        assert summary(results[0]) == summary(results[1]) == summary(results[2])
        assert {type(error) for error in results[0].errors.values()} == {NotFoundError}


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_wrong_keys_stop_each_strategy(strategy: Any) -> None:
    """A 401 for the list is no answer for the IDs: it is met again, confirmed, and then nothing more is sent."""
    async with FakeDatadog(tokens=500) as datadog:
        client = connected(datadog, access_token="ddpat_wrong", api_key=None, app_key=None)
        async with client:
            result = await client.get_tokens(datadog.service_account_id, datadog.token_ids, strategy=strategy)
        assert {type(error) for error in result.errors.values()} == {UnauthorizedError}
        assert len(result.errors) == 500
        assert datadog.requests <= 3 + 50


@pytest.mark.parametrize("failing", [0, 1, 2])
@pytest.mark.parametrize("act", [reply(400), reply(404), reply(503), hang_up(), reply(200, b"<html>")])
async def test_pages_before_one_that_fails_keep_their_value(
    server: RawServer, connect: Connect, act: Responder, failing: int
) -> None:
    """What the pages before held need not be asked for again."""
    account = Served(names(220), lambda number: act if number == failing else None)
    server.script(otherwise=account)
    result = await connect(retry=ONCE).get_tokens(ACCOUNT, names(220), strategy="list")
    assert len(result.tokens) == 220
    assert 20 <= len(account.gets) <= 220 - 100 * failing  # pages after it may have come before it
    assert [item.token_id for item in result] == names(220)


def shift_left(ids: list[str]) -> None:
    ids.remove("t2")


def shift_right(ids: list[str]) -> None:
    ids[0:0] = ["new0", "new1", "new2"]


@pytest.mark.parametrize("strategy", ["list", "auto"])
@pytest.mark.parametrize("shift", [shift_left, shift_right])
async def test_pages_that_shift_meanwhile_are_harmless(
    server: RawServer, connect: Connect, strategy: Any, shift: Callable[[list[str]], None]
) -> None:
    """Tokens made or revoked while pages are read cost a GET for each that slipped through, and change no result."""
    account = Served(names(500), lambda number: shift(account.ids) if number == 1 else None)
    server.script(otherwise=account)
    client = connect(concurrency=1)
    result = await client.get_tokens(ACCOUNT, names(500), strategy=strategy)
    assert [item.token_id for item in result] == names(500)
    assert len(result.tokens) == 500
    assert account.gets == (["t100"] if shift is shift_left else [])
    assert account.pages == [0, 1, 2, 3, 4] if shift is shift_left else [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("shift", [shift_left, shift_right])
async def test_a_list_whose_pages_shift_is_read_once_more(
    server: RawServer, connect: Connect, shift: Callable[[list[str]], None]
) -> None:
    """A list gives each token once, those that had slipped through at the end."""
    shifts = iter([shift])
    account = Served(names(50))
    account.before = lambda number: next(shifts, lambda _ids: None)(account.ids) if number == 1 else None
    server.script(otherwise=account)
    found = [token.id async for token in connect().list_tokens(ACCOUNT, page_size=10)]
    assert len(found) == len(set(found))
    assert set(found) >= set(account.ids)
    assert found[-1] == ("t10" if shift is shift_left else "new2")


async def test_listing_and_getting_share_the_rate_limit() -> None:
    """A fetch that lists first and then gets what is absent meets no 429 either."""
    async with FakeDatadog(tokens=600, rate_limit=(15, 2.0)) as datadog, connected(datadog) as client:
        result = await client.get_tokens(datadog.service_account_id, [*datadog.token_ids, *ABSENT])
        assert (len(result.tokens), len(result.errors)) == (600, 19)
        assert (datadog.requests, datadog.rejected) == (6 + 19, 0)


@pytest.mark.parametrize("after", [1, 2, 3])
async def test_cancelling_a_fetch_while_it_lists_leaves_nothing(
    server: RawServer, connect: Connect, after: int
) -> None:
    """A fetch that is cancelled, or left, amid its pages gives them up at once."""
    account = Served(names(1000), lambda number: stall() if number >= after - 1 else None)
    server.script(otherwise=account)
    client = connect()
    task = asyncio.create_task(client.get_tokens(ACCOUNT, names(1000), strategy="list"))
    await server.arrival(after)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert in_flight(client) == 0
    assert on_the_wire(client) == 0
    assert account.gets == []
    tasks = {t for t in asyncio.all_tasks() if "dd_sa_tokens" in str(t.get_coro())}
    assert tasks == set()

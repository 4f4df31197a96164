"""Lists over real sockets: what they cost, and what leaving one early leaves behind."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import aiohttp
import pytest
from support.calls import Connect
from support.internals import in_flight, on_the_wire
from support.keys import ACCOUNT
from support.lists import Served, connected
from support.payloads import names, resource
from support.replies import hang_up, reply, stall
from support.servers import RawServer

from dd_sa_tokens import (
    ClientClosedError,
    DatadogError,
    ForbiddenError,
    TokensClient,
)
from dd_sa_tokens.testing import FakeDatadog

# Lists


@pytest.mark.parametrize("size", [1, 7, 100])
async def test_a_list_is_the_whole_account(size: int) -> None:
    """All tokens come in the API's order for any page size, with a request for each page, one more if all are full."""
    async with FakeDatadog(tokens=70) as datadog, connected(datadog) as client:
        tokens = [token async for token in client.list_tokens(datadog.service_account_id, page_size=size)]
        assert tuple(tokens) == datadog.tokens
        assert datadog.requests == client.stats.requests == 70 // size + 1


async def test_a_list_can_be_sorted_and_filtered() -> None:
    """The API sorts and filters; text that means something in a URL does not get out of the filter."""
    async with FakeDatadog(tokens=130) as datadog, connected(datadog) as client:
        account = datadog.service_account_id
        newest = [token.created_at async for token in client.list_tokens(account, sort="-created_at", page_size=30)]
        assert newest == sorted((token.created_at for token in datadog.tokens), reverse=True)
        created = await client.create_token(account, name="a&sort=name #1/ü", scopes=["a"])
        found = [token.id async for token in client.list_tokens(account, filter="&SORT=name #1/ü")]
        assert found == [created.token.id]
        assert [token async for token in client.list_tokens(account, filter="no such name")] == []


async def test_leaving_a_list_early_costs_one_page() -> None:
    """A consumer that takes the first token and leaves has sent one request, and nothing is left behind."""
    async with FakeDatadog(tokens=500) as datadog, connected(datadog) as client:
        async with aclosing(client.list_tokens(datadog.service_account_id, page_size=10)) as tokens:
            async for token in tokens:
                assert token == datadog.tokens[0]
                break
        assert datadog.requests == 1
        assert in_flight(client) == 0


async def test_leaving_a_list_amid_pages_read_ahead(server: RawServer, connect: Connect) -> None:
    """Pages that are under way when a list is left are given up, with their connections."""
    account = Served(names(1000), lambda number: stall() if number > 1 else None)
    server.script(otherwise=account)
    client = connect()
    async with aclosing(client.list_tokens(ACCOUNT, page_size=10)) as tokens:
        async for token in tokens:
            if token.id == "t15":
                await server.arrival(3)
                break
    assert in_flight(client) == 0
    assert on_the_wire(client) == 0
    assert len(account.pages) == 3
    account.before = lambda _number: None
    assert len([token async for token in client.list_tokens(ACCOUNT)]) == 1000


async def test_no_more_pages_are_read_ahead_than_concurrency_allows(server: RawServer, connect: Connect) -> None:
    """A slow consumer has at most `concurrency` pages waiting."""
    account = Served(names(1000))
    server.script(otherwise=account)
    client = connect(concurrency=3)
    async with aclosing(client.list_tokens(ACCOUNT, page_size=10)) as tokens:
        async for token in tokens:
            if token.id == "t99":
                await server.arrival(10 + 2)
                await asyncio.sleep(0.03)
                break
    assert 10 < len(account.pages) <= 10 + 3


async def test_tokens_that_are_revoked_while_a_list_is_read_are_no_loss() -> None:
    """Revoking each token as it comes moves all the others, and still each one comes once."""
    async with FakeDatadog(tokens=60) as datadog, connected(datadog) as client:
        account, ids = datadog.service_account_id, datadog.token_ids
        found = []
        async for token in client.list_tokens(account, page_size=30):
            found.append(token.id)
            if len(found) <= 20:
                await client.revoke_token(account, token.id)
        assert sorted(found) == sorted(ids)
        assert datadog.token_ids == ids[20:]


async def test_a_page_that_fails_is_tried_again_and_then_ends_the_list(server: RawServer, connect: Connect) -> None:
    """A page is retried like any GET; one that stays away ends the list with its error, after what came before."""
    failures = iter([reply(503), hang_up()])
    account = Served(names(50), lambda number: next(failures, None) if number == 1 else None)
    server.script(otherwise=account)
    client = connect()
    assert [token.id async for token in client.list_tokens(ACCOUNT, page_size=10)] == names(50)
    account.before = lambda number: reply(403) if number == 2 else None
    found: list[str] = []

    async def consume() -> None:
        async for token in client.list_tokens(ACCOUNT, page_size=10):
            found.append(token.id)  # noqa: PERF401 - those before the error are wanted

    with pytest.raises(ForbiddenError) as caught:
        await consume()
    assert (caught.value.operation, caught.value.token_id) == ("list_tokens", None)
    assert caught.value.service_account_id == ACCOUNT
    assert found == names(20)
    assert in_flight(client) == 0


async def test_closing_the_client_ends_a_list(server: RawServer, connect: Connect) -> None:
    """A list that is under way ends with `ClientClosedError`, and so do the pages read ahead."""
    server.script(otherwise=Served(names(100), lambda number: stall() if number else None))
    client = connect()
    found: list[str] = []

    async def consume() -> None:
        async for token in client.list_tokens(ACCOUNT, page_size=10):
            found.append(token.id)  # noqa: PERF401 - those before the error are wanted

    task = asyncio.create_task(consume())
    await server.arrival(3)
    await client.close()
    with pytest.raises(ClientClosedError):
        await task
    assert found == names(10)


# Quota, and leaving early


async def test_reading_a_list_keeps_to_the_rate_limit() -> None:
    """41 pages through 10 requests a second: no 429, and all tokens, with the pages in their order."""
    async with FakeDatadog(tokens=1000, rate_limit=(10, 1.0)) as datadog, connected(datadog) as client:
        tokens = [token async for token in client.list_tokens(datadog.service_account_id, page_size=25)]
        assert tuple(tokens) == datadog.tokens
        assert (datadog.requests, datadog.rejected) == (41, 0)
        assert client.stats.rate_limit_wait_seconds > 0


async def test_a_list_over_a_borrowed_session(server: RawServer) -> None:
    """The keys and what the session's owner hung on it go with each page."""
    server.script(otherwise=Served(names(300)))
    async with aiohttp.ClientSession(headers={"X-Tenant": "blue"}) as session:
        client = TokensClient(base_url=server.url, access_token="ddpat_0123456789", session=session)
        result = await client.get_tokens(ACCOUNT, names(300))
    assert len(result.tokens) == 300
    assert len(server.requests) == 3
    for request in server.requests:
        assert request.headers["authorization"] == "Bearer ddpat_0123456789"
        assert request.headers["x-tenant"] == "blue"
        assert "content-type" not in request.headers
        assert request.body == b""


async def test_an_error_of_a_list_has_its_own_context(server: RawServer, connect: Connect) -> None:
    """A page's error is about the list, not about a token."""
    server.script(otherwise=reply(200, {"data": [resource("t0"), resource("t1", scopes="all")]}))
    with pytest.raises(DatadogError) as caught:
        await anext(connect().list_tokens(ACCOUNT))
    assert "$.data[1].attributes.scopes" in str(caught.value)
    assert (caught.value.operation, caught.value.outcome_unknown) == ("list_tokens", False)

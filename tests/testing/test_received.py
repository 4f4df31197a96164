"""What the fake remembers of requests, which requests meet a fault, and clients of the fake, over real sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import attrs
import pytest
from support.plain_client import address, ask, change, get, keys, raw, wanted
from support.waiting import until
from yarl import URL

from dd_sa_tokens import ConfigurationError, RetryPolicy, ServerError, TokensClient, UnauthorizedError
from dd_sa_tokens.testing import FakeDatadog, Received
from dd_sa_tokens.testing._received import MAX_RECEIVED, RequestLog
from dd_sa_tokens.testing._routes import find_route

# ---- What it has received


async def test_each_operation_by_its_name(session: aiohttp.ClientSession) -> None:
    """Each request is recorded with its operation, the IDs of its path, decoded, and the status of its answer."""
    async with FakeDatadog(tokens=1) as datadog:
        account, (token_id,) = datadog.service_account_id, datadog.token_ids
        root = URL(f"{datadog.url}/api/v2")
        requests: list[tuple[str, URL, Any, Received]] = [
            ("GET", address(datadog, token_id), None, Received("get_token", account, token_id, 200)),
            ("GET", address(datadog, "a/b é"), None, Received("get_token", account, "a/b é", 404)),
            ("GET", address(datadog), None, Received("list_tokens", account, None, 200)),
            ("POST", address(datadog), wanted(), Received("create_token", account, None, 201)),
            ("PATCH", address(datadog, token_id), change(token_id), Received("update_token", account, token_id, 400)),
            ("DELETE", address(datadog, token_id), None, Received("revoke_token", account, token_id, 204)),
            ("GET", root / "personal_access_tokens", None, Received("list_organization_tokens", None, None, 200)),
            ("GET", root / "users", None, Received("list_service_accounts", None, None, 200)),
            ("GET", root / "users" / account, None, Received("get_service_account", account, None, 200)),
            ("PUT", address(datadog), None, Received("unknown", None, None, 404)),
            ("GET", URL(datadog.url) / "service_accounts", None, Received("unknown", None, None, 404)),
        ]
        for method, url, body, _ in requests:
            await ask(session, datadog, method, url, body)

    assert datadog.received == tuple(expected for *_, expected in requests)


async def test_answers_that_did_not_come(session: aiohttp.ClientSession) -> None:
    """A request has no status until its answer goes out, and none if the connection was closed instead."""
    async with FakeDatadog(tokens=1, rate_limit=(3, 3600.0)) as datadog:
        path = address(datadog, datadog.token_ids[0]).raw_path
        datadog.fail_next(stall=0.2)
        datadog.fail_next(drop=True)
        datadog.fail_next(truncate=True)
        stalled = asyncio.create_task(get(session, datadog))
        await until(lambda: datadog.received)
        assert [item.status for item in datadog.received] == [None]
        await raw(datadog, path)
        await raw(datadog, path)
        await get(session, datadog)
        await get(session, datadog, headers={})
        await stalled

    assert [item.status for item in datadog.received] == [200, None, 200, 429, 401]


async def test_no_key_is_recorded(session: aiohttp.ClientSession) -> None:
    """Neither the keys of a request nor its query are in what is recorded."""
    async with FakeDatadog(tokens=1) as datadog:
        await get(session, datadog, address(datadog), filter=datadog.app_key)
        text = repr(datadog.received)

    assert [key for key in (*keys(datadog).values(), datadog.access_token) if key in text] == []


async def test_only_the_last_hundred_thousand() -> None:
    """What is recorded is bounded, so that a server that runs for days does not grow."""
    log = RequestLog()
    for number in range(7):
        log.add(find_route("GET", f"/api/v2/users/{number}"))
    last = find_route("GET", "/api/v2/users/last")
    for _ in range(MAX_RECEIVED - 2):
        log.add(last)

    assert len(log.received()) == MAX_RECEIVED == 100_000
    assert [received.service_account_id for received in log.received()[:3]] == ["5", "6", "last"]


# ---- Which requests meet a fault


async def test_a_fault_for_an_operation(session: aiohttp.ClientSession) -> None:
    """A fault for an operation waits for it, and lets the others pass."""
    async with FakeDatadog(tokens=1) as datadog:
        datadog.fail_next(2, status=503, operation="list_tokens")
        statuses = [
            (await get(session, datadog, url)).status
            for url in (None, address(datadog), None, address(datadog), address(datadog))
        ]

        assert statuses == [200, 503, 200, 503, 200]
        assert datadog.pending_faults == 0


async def test_a_fault_for_a_token(session: aiohttp.ClientSession) -> None:
    """A fault for a token meets any operation on it; together with an operation, only that one."""
    async with FakeDatadog(tokens=2) as datadog:
        first, second = (address(datadog, token_id) for token_id in datadog.token_ids)
        datadog.fail_next(status=500, token_id=datadog.token_ids[1])
        datadog.fail_next(status=502, token_id=datadog.token_ids[1], operation="revoke_token")
        assert (await get(session, datadog, first)).status == 200
        assert (await get(session, datadog, second)).status == 500
        assert (await get(session, datadog, second)).status == 200
        assert datadog.pending_faults == 1
        assert (await ask(session, datadog, "DELETE", first)).status == 204
        assert (await ask(session, datadog, "DELETE", second)).status == 502
        assert datadog.pending_faults == 0


async def test_the_first_fault_that_fits(session: aiohttp.ClientSession) -> None:
    """A request meets the first fault that is meant for it; faults for other requests stay where they are."""
    async with FakeDatadog(tokens=1, rate_limit=(9, 3600.0)) as datadog:
        datadog.fail_next(drop=True, operation="create_token")
        datadog.fail_next(status=500)
        datadog.fail_next(truncate=True, operation="get_token")
        datadog.fail_next(status=501)
        assert (await get(session, datadog)).status == 500
        with pytest.raises(aiohttp.ClientPayloadError):
            await get(session, datadog)
        assert (await get(session, datadog, address(datadog))).status == 501
        assert datadog.pending_faults == 1
        datadog.clear_faults()
        assert datadog.pending_faults == 0
        assert (await ask(session, datadog, "POST", address(datadog), wanted())).status == 201


# ---- Clients of the fake


async def test_a_client() -> None:
    """`client()` is a client with the server's URL and keys."""
    async with FakeDatadog(tokens=20) as datadog, datadog.client() as client:
        datadog.fail_next(2, status=503, operation="get_token")
        result = await client.get_tokens(datadog.service_account_id, datadog.token_ids, strategy="get")

        assert [attrs.evolve(token, leak=None) for token in result.tokens.values()] == [
            attrs.evolve(token, leak=None) for token in datadog.tokens
        ]
        assert datadog.pending_faults == 0


async def test_options_of_a_client() -> None:
    """`client()` passes options on; a token replaces the pair of keys, and own keys replace the server's."""
    async with FakeDatadog(tokens=1) as datadog:
        account, (token_id,) = datadog.service_account_id, datadog.token_ids
        datadog.fail_next(status=503)
        async with datadog.client(retry=RetryPolicy(max_attempts=1)) as client:
            with pytest.raises(ServerError):
                await client.get_token(account, token_id)
        async with datadog.client(access_token=datadog.access_token) as client:
            assert (await client.get_token(account, token_id)).id == token_id
        for wrong in ({"access_token": "ddsat_wrong"}, {"app_key": "0" * 40}):
            async with datadog.client(**wrong) as client:
                with pytest.raises(UnauthorizedError):
                    await client.get_token(account, token_id)
        with pytest.raises(ConfigurationError):
            datadog.client(timeout=-1.0)


def test_no_client_without_a_server() -> None:
    """A fake that does not run has no URL, so it has no clients."""
    with pytest.raises(RuntimeError, match="only while it runs"):
        FakeDatadog(tokens=1).client()


def test_what_client_returns() -> None:
    """The type that `client()` promises is the public client."""
    assert FakeDatadog.client.__annotations__["return"] == TokensClient.__name__

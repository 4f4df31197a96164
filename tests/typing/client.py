"""What type checkers say of the client. Never run: mypy and pyright read it (see pyproject.toml)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import assert_type

import aiohttp

from dd_sa_tokens import (
    AccessToken,
    BulkResult,
    ClientStats,
    DatadogError,
    RateLimit,
    RetryPolicy,
    Site,
    TokenResult,
    TokensClient,
)


def made_of_what_it_takes(session: aiohttp.ClientSession) -> None:
    assert_type(TokensClient(), TokensClient)
    TokensClient(api_key="api", app_key="app", site=Site.EU1, concurrency=10, timeout=5)
    TokensClient(access_token="token", site="ap3.datadoghq.com", retry=RetryPolicy(max_attempts=2))
    TokensClient(base_url="http://127.0.0.1:8080", session=session, quota_reserve=0.1)
    TokensClient("key")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    TokensClient(concurrency="10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def one_token() -> None:
    async with TokensClient() as client:
        assert_type(client, TokensClient)
        token = await client.get_token("account", "token")
        assert_type(token, AccessToken)
        await client.get_token("account", 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await client.close(), None)


async def many_tokens(client: TokensClient, asynchronous: AsyncIterator[str]) -> None:
    assert_type(await client.get_tokens("account", ["a", "b"]), BulkResult)
    assert_type(await client.get_tokens("account", (name for name in "ab"), strategy="get"), BulkResult)
    assert_type(await client.get_tokens("account", {"a": 1}, strategy="auto"), BulkResult)
    assert_type(await client.get_tokens("account", asynchronous), BulkResult)
    await client.get_tokens("account", [1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    await client.get_tokens("account", [], strategy="?")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def streamed(client: TokensClient, ids: Iterator[str]) -> None:
    items = client.stream_tokens("account", ids)
    assert_type(items, AsyncGenerator[TokenResult, None])
    async for item in items:
        assert_type(item, TokenResult)
        assert_type(item.token_id, str)
        assert_type(item.token, AccessToken | None)
        assert_type(item.error, DatadogError | None)
        assert_type(item.ok, bool)
        assert_type(item.unwrap(), AccessToken)
    assert_type(await items.aclose(), None)


def observed(client: TokensClient) -> None:
    assert_type(client.stats, ClientStats)
    assert_type(client.stats.requests, int)
    assert_type(client.stats.quota_wait_seconds, float)
    assert_type(client.rate_limit, RateLimit | None)
    if client.rate_limit is not None:
        assert_type(client.rate_limit.remaining, int | None)
        assert_type(client.rate_limit.reset, float | None)
        assert_type(client.rate_limit.name, str | None)

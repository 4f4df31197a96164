"""What type checkers say of the client. Never run: mypy and pyright read it (see pyproject.toml)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from datetime import datetime
from typing import assert_type
from uuid import UUID

import aiohttp

from dd_sa_tokens import (
    AccessToken,
    BulkResult,
    ClientStats,
    CreatedToken,
    DatadogError,
    Leak,
    RateLimit,
    RetryPolicy,
    Secret,
    ServiceAccount,
    Site,
    Sort,
    Strategy,
    TokenResult,
    TokensClient,
)


def made_of_what_it_takes(session: aiohttp.ClientSession) -> None:
    assert_type(TokensClient(), TokensClient)
    TokensClient(api_key="api", app_key="app", site=Site.EU1, concurrency=10, timeout=5)
    TokensClient(access_token="token", site="ap3.datadoghq.com", retry=RetryPolicy(max_attempts=2))
    TokensClient(base_url="http://127.0.0.1:8080", session=session, rate_limit_reserve=0.1)
    TokensClient("key")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    TokensClient(concurrency="10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def views(client: TokensClient) -> None:
    view = client.with_options(timeout=5, retry=RetryPolicy(max_attempts=1), rate_limit_reserve=0.5, concurrency=3)
    assert_type(view, TokensClient)
    assert_type(view.with_options(), TokensClient)
    assert_type(client.closed, bool)
    client.with_options(site="us3")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    client.with_options(retry=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


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
    assert_type(await client.get_tokens("account", asynchronous, deadline=5), BulkResult)
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


async def listed(client: TokensClient) -> None:
    tokens = client.list_tokens("account")
    assert_type(tokens, AsyncGenerator[AccessToken, None])
    async for token in tokens:
        assert_type(token, AccessToken)
    assert_type(await tokens.aclose(), None)
    client.list_tokens("account", filter="deploy", sort="-created_at", page_size=10)
    client.list_tokens("account", sort="id")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.list_tokens("account", filter=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.list_tokens("account", page_size="9")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.list_tokens("account", "deploy")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.list_tokens("account")  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]


async def organization_wide(client: TokensClient, account_id: UUID, sort: Sort) -> None:
    tokens = client.list_organization_tokens()
    assert_type(tokens, AsyncGenerator[AccessToken, None])
    async for token in tokens:
        assert_type(token.leak, Leak | None)
    client.list_organization_tokens(service_account_ids=["account", account_id], filter="deploy", sort=sort)
    client.list_organization_tokens(service_account_ids={account_id}, leaked_only=True, include_leak=True, page_size=10)
    client.list_organization_tokens(service_account_ids=[5])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    client.list_organization_tokens(service_account_ids=iter(["account"]))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.list_organization_tokens(sort="id")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.list_organization_tokens("account")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    accounts = client.list_service_accounts(filter="deploy")
    assert_type(accounts, AsyncGenerator[ServiceAccount, None])
    async for account in accounts:
        assert_type(account, ServiceAccount)
    assert_type(await client.get_service_account(account_id), ServiceAccount)
    await client.get_service_account(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def found(client: TokensClient, ids: Iterator[str], asynchronous: AsyncIterator[UUID]) -> None:
    assert_type(await client.find_tokens(["a", "b"]), BulkResult)
    assert_type(await client.find_tokens(ids, include_leak=True), BulkResult)
    assert_type(await client.find_tokens(asynchronous), BulkResult)
    await client.find_tokens([5])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    await client.find_tokens(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.find_tokens(["a"], include_leak="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def leaks(client: TokensClient, strategy: Strategy, sort: Sort) -> None:
    assert_type((await client.get_token("account", "token", include_leak=True)).leak, Leak | None)
    assert_type(await client.get_tokens("account", ["a"], strategy=strategy, include_leak=True), BulkResult)
    client.stream_tokens("account", ["a"], strategy=strategy, include_leak=True)
    client.list_tokens("account", sort=sort, leaked_only=True, include_leak=True)
    client.list_tokens("account", sort="-leaked")
    client.list_tokens("account", leaked_only=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def created(client: TokensClient, at: datetime) -> None:
    made = await client.create_token("account", name="deploy", scopes=["dashboards_read"])
    assert_type(made, CreatedToken)
    assert_type(made.token, AccessToken)
    assert_type(made.key, Secret)
    assert_type(made.key.reveal(), str)
    await client.create_token("account", name="deploy", scopes={"a"}, expires_at=at)
    await client.create_token("account", name="deploy", scopes=("a",), expires_at=None)
    await client.create_token("account", name="deploy")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.create_token("account", "deploy", ["a"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.create_token("account", name=None, scopes=["a"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.create_token("account", name="n", scopes=[5])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    await client.create_token("account", name="n", scopes=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.create_token("account", name="n", scopes=["a"], expires_at="2027")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def updated_and_revoked(client: TokensClient) -> None:
    assert_type(await client.update_token("account", "token", name="new"), AccessToken)
    assert_type(await client.update_token("account", "token", scopes=("a", "b")), AccessToken)
    await client.update_token("account", "token", "new")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.update_token("account", "token", name=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.update_token("account", name="new")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(await client.revoke_token("account", "token"), None)
    await client.revoke_token("account")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.revoke_token("account", 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def rotated(client: TokensClient, at: datetime) -> None:
    async def store(made: CreatedToken) -> None:
        assert_type(made.key, Secret)

    async def store_and_tell(made: CreatedToken) -> str:
        return made.token.id

    async def store_text(key: str) -> None:
        del key

    def store_at_once(made: CreatedToken) -> None:
        del made

    assert_type(await client.rotate_token("account", "token", store=store), AccessToken)
    assert_type(await client.rotate_token("account", "token", store=store_and_tell, expires_at=at), AccessToken)
    await client.rotate_token("account", "token")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.rotate_token("account", "token", store)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.rotate_token("account", "token", store=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.rotate_token("account", "token", store=store_text)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.rotate_token("account", "token", store=store_at_once)
    await client.rotate_token("account", "token", store=store, expires_at=30)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def observed(client: TokensClient) -> None:
    assert_type(client.stats, ClientStats)
    assert_type(client.stats.requests, int)
    assert_type(client.stats.rate_limit_wait_seconds, float)
    assert_type(client.rate_limit, RateLimit | None)
    if client.rate_limit is not None:
        assert_type(client.rate_limit.remaining, int | None)
        assert_type(client.rate_limit.reset, float | None)
        assert_type(client.rate_limit.name, str | None)

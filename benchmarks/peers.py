"""Clients that fetch the same tokens: ours, bare aiohttp, Datadog's own, httpx. Each opens once and fetches often.

Each gives every answer to the same check: that it is the token that was asked for.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp
import attrs

from dd_sa_tokens import TokensClient

from .answers import KEYS, PATH, SERVICE_ACCOUNT_ID, SIGNED
from .tuned import tuned

Check = Callable[[str, str], None]
Fetch = Callable[[Sequence[str], Check], Awaitable[None]]


class Tally:
    """Counts the answers that are the ones asked for, and refuses others."""

    def __init__(self) -> None:
        self.count = 0

    def check(self, asked: str, answered: str) -> None:
        """Take an answer in."""
        assert asked == answered
        self.count += 1


@asynccontextmanager
async def ours_streaming(url: str, width: int) -> AsyncIterator[Fetch]:
    """`stream_tokens`, one request for each ID."""
    async with TokensClient(base_url=url, concurrency=width, **KEYS) as client:

        async def fetch(token_ids: Sequence[str], check: Check) -> None:
            async for item in client.stream_tokens(SERVICE_ACCOUNT_ID, token_ids, strategy="get"):
                check(item.token_id, item.unwrap().id)

        yield fetch


@asynccontextmanager
async def ours_gathered(url: str, width: int) -> AsyncIterator[Fetch]:
    """`get_token` for each ID, all gathered; the client itself sees to the width."""
    async with TokensClient(base_url=url, concurrency=width, **KEYS) as client:

        async def fetch(token_ids: Sequence[str], check: Check) -> None:
            async def one(token_id: str) -> None:
                check(token_id, (await client.get_token(SERVICE_ACCOUNT_ID, token_id)).id)

            await asyncio.gather(*map(one, token_ids))

        yield fetch


@asynccontextmanager
async def textbook(url: str, width: int) -> AsyncIterator[Fetch]:
    """Bare aiohttp as a textbook shows it: gather, a semaphore, `json()`."""
    async with aiohttp.ClientSession(headers=SIGNED, connector=aiohttp.TCPConnector(limit=width)) as session:

        async def fetch(token_ids: Sequence[str], check: Check) -> None:
            semaphore = asyncio.Semaphore(width)

            async def one(token_id: str) -> None:
                async with semaphore, session.get(url + PATH + token_id) as response:
                    response.raise_for_status()
                    check(token_id, (await response.json(content_type=None))["data"]["id"])

            await asyncio.gather(*map(one, token_ids))

        yield fetch


@asynccontextmanager
async def official_sync(url: str, width: int) -> AsyncIterator[Fetch]:  # noqa: ARG001 - one at a time, always
    """Datadog's client, one request at a time."""
    with official_client(url) as get:

        async def fetch(token_ids: Sequence[str], check: Check) -> None:
            for token_id in token_ids:
                check(token_id, get(token_id).data.id)

        yield fetch


@asynccontextmanager
async def official_threaded(url: str, width: int) -> AsyncIterator[Fetch]:
    """Datadog's client in a pool of threads; each has one of its own, since one alone keeps four connections."""
    own = threading.local()

    def one(token_id: str) -> str:
        if not hasattr(own, "get"):
            own.get = official_client(url).__enter__()  # it lives as long as its thread
        return str(own.get(token_id).data.id)

    with ThreadPoolExecutor(width) as pool:

        async def fetch(token_ids: Sequence[str], check: Check) -> None:
            for asked, answered in zip(token_ids, pool.map(one, token_ids), strict=True):
                check(asked, answered)

        yield fetch


@asynccontextmanager
async def official_async(url: str, width: int) -> AsyncIterator[Fetch]:
    """Datadog's asynchronous client under gather and a semaphore; it opens 25 connections at the most."""
    from datadog_api_client import AsyncApiClient
    from datadog_api_client.v2.api.service_accounts_api import ServiceAccountsApi

    async with AsyncApiClient(official_settings(url)) as client:
        get = ServiceAccountsApi(client).get_service_account_access_token

        async def fetch(token_ids: Sequence[str], check: Check) -> None:
            semaphore = asyncio.Semaphore(width)

            async def one(token_id: str) -> None:
                async with semaphore:
                    check(token_id, (await get(SERVICE_ACCOUNT_ID, token_id)).data.id)

            await asyncio.gather(*map(one, token_ids))

        yield fetch


@asynccontextmanager
async def with_httpx(url: str, width: int) -> AsyncIterator[Fetch]:
    """The asynchronous httpx under gather and a semaphore."""
    import httpx

    limits = httpx.Limits(max_connections=width, max_keepalive_connections=width)
    async with httpx.AsyncClient(headers=SIGNED, limits=limits) as client:

        async def fetch(token_ids: Sequence[str], check: Check) -> None:
            semaphore = asyncio.Semaphore(width)

            async def one(token_id: str) -> None:
                async with semaphore:
                    response = await client.get(url + PATH + token_id)
                    check(token_id, response.raise_for_status().json()["data"]["id"])

            await asyncio.gather(*map(one, token_ids))

        yield fetch


def official_settings(url: str, keys: dict[str, str] = KEYS, **options: Any) -> Any:
    """Return the official client's configuration."""
    from datadog_api_client import Configuration

    signed = {"apiKeyAuth": keys["api_key"], "appKeyAuth": keys["app_key"]}
    return Configuration(host=url, api_key=signed, **options)


class official_client:  # noqa: N801 - it is used like a function
    """Datadog's synchronous client, as a context that gives what fetches a token by its ID."""

    def __init__(self, url: str) -> None:
        from datadog_api_client import ApiClient
        from datadog_api_client.v2.api.service_accounts_api import ServiceAccountsApi

        self._client = ApiClient(official_settings(url))
        self._get = ServiceAccountsApi(self._client).get_service_account_access_token

    def __enter__(self) -> Callable[[str], Any]:
        return lambda token_id: self._get(SERVICE_ACCOUNT_ID, token_id)

    def __exit__(self, *_exc: object) -> None:
        self._client.close()


@attrs.frozen
class Peer:
    """One of those who are compared.

    Attributes:
        name: As the tables have it.
        open: Gives what fetches.
        needs: Modules that have to be installed.
        part: Of how many IDs it fetches a round one: slow ones fetch fewer, or would take all day.
    """

    name: str
    open: Callable[[str, int], AbstractAsyncContextManager[Fetch]]
    needs: tuple[str, ...] = ()
    part: int = 1


OURS = Peer("dd_sa_tokens, stream_tokens", ours_streaming)
PEERS = [
    OURS,
    Peer("dd_sa_tokens, get_token gathered", ours_gathered),
    Peer("aiohttp, tuned by hand", tuned),
    Peer("aiohttp, textbook", textbook),
    Peer("official client, async", official_async, ("datadog_api_client", "aiosonic"), part=4),
    Peer("official client, threads", official_threaded, ("datadog_api_client",), part=4),
    Peer("official client, one at a time", official_sync, ("datadog_api_client",), part=4),
    Peer("httpx", with_httpx, ("httpx",), part=10),
]

"""The clients that are compared: dd_sa_tokens, bare aiohttp, Datadog's official client, httpx.

Each opens its connections once and fetches as often as it is asked to. It delivers, for each ID that was asked for, the
ID in the response, or the exception that came instead.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import Any

import aiohttp
import attrs

from dd_sa_tokens import AccessToken, RetryPolicy, TokensClient

from .payloads import PAGE_SIZE, Target
from .tuned import loads, tuned, tuned_session

INITIAL_BACKOFF = 0.05  # seconds; of dd_sa_tokens


@attrs.define
class Job:
    """What a client is to fetch, and how much of it came."""

    target: Target
    concurrency: int
    token_ids: Any  # those that read the list get all of the account's, in order
    may_lose: bool = False  # whether an exception counts as a lost ID; otherwise it is raised
    fetched: int = 0

    def deliver(self, asked: str, received: object) -> None:
        """Take a response, which must be about the ID that was asked for, or an exception."""
        if not isinstance(received, Exception):
            assert asked == received
            self.fetched += 1
        elif not self.may_lose:
            raise received

    async def gather(self, get: Callable[[str], Awaitable[object]]) -> None:
        """Get each ID, with gather and a semaphore."""
        semaphore = asyncio.Semaphore(self.concurrency)

        async def one(token_id: str) -> None:
            async with semaphore:
                try:
                    received = await get(token_id)
                except Exception as error:  # noqa: BLE001 - delivered instead of the token
                    received = error
            self.deliver(token_id, received)

        await asyncio.gather(*map(one, self.token_ids))


def ours(target: Target, concurrency: int, **options: Any) -> TokensClient:
    """Return a client of this package."""
    options = {"retry": RetryPolicy(initial_backoff=INITIAL_BACKOFF)} | target.keys | options
    return TokensClient(base_url=target.url, concurrency=concurrency, **options)


async def ours_stream(client: TokensClient, job: Job) -> None:
    """`stream_tokens`, one request for each ID; the IDs may come from an async iterable."""
    async for item in client.stream_tokens(job.target.service_account_id, job.token_ids, strategy="get"):
        job.deliver(item.token_id, item.error or item.unwrap().id)


async def ours_bulk(client: TokensClient, job: Job, *, strategy: Any) -> Any:
    """`get_tokens` with a strategy; the result is kept."""
    result = await client.get_tokens(job.target.service_account_id, job.token_ids, strategy=strategy)
    for position, item in enumerate(result):
        job.deliver(item.token_id, item.error or item.unwrap().id)
        if position % 1_000 == 0:  # so that the check itself does not hold the loop
            await asyncio.sleep(0)
    return result


async def ours_gathered(client: TokensClient, job: Job) -> None:
    """`get_token` for each ID, all gathered; the client itself limits the concurrency."""

    async def one(token_id: str) -> None:
        job.deliver(token_id, (await client.get_token(job.target.service_account_id, token_id)).id)

    await asyncio.gather(*map(one, job.token_ids))


async def ours_listed(client: TokensClient, job: Job) -> Any:
    """`list_tokens`; the tokens are kept."""
    tokens: list[AccessToken] = []
    async for token in client.list_tokens(job.target.service_account_id):
        job.deliver(job.token_ids[len(tokens)], token.id)
        tokens.append(token)
    return tokens


def session(target: Target, concurrency: int) -> aiohttp.ClientSession:
    """Return a session of aiohttp as a textbook shows it."""
    return aiohttp.ClientSession(headers=target.headers, connector=aiohttp.TCPConnector(limit=concurrency))


async def textbook(session: aiohttp.ClientSession, job: Job) -> None:
    """Bare aiohttp as a textbook shows it: gather, a semaphore, `json()`."""
    semaphore = asyncio.Semaphore(job.concurrency)
    base = f"{job.target.url}{job.target.path}/"

    async def one(token_id: str) -> None:
        async with semaphore, session.get(base + token_id) as response:
            response.raise_for_status()
            job.deliver(token_id, (await response.json(content_type=None))["data"]["id"])

    await asyncio.gather(*map(one, job.token_ids))


async def listed_as_dicts(session: aiohttp.ClientSession, job: Job) -> Any:
    """Bare aiohttp that reads the list's pages one by one, with orjson if it is there, and keeps the dictionaries."""
    tokens: list[dict[str, Any]] = []
    total = 1
    while len(tokens) < total:
        page = {"page[size]": PAGE_SIZE, "page[number]": len(tokens) // PAGE_SIZE}
        async with session.get(job.target.url + job.target.path, params=page) as response:
            response.raise_for_status()
            document = loads(await response.read())
        for token in document["data"]:
            job.deliver(job.token_ids[len(tokens)], token["id"])
            tokens.append(token)
        total = document["meta"]["page"]["total_filtered_count"]
    return tokens


def official_api(target: Target, kind: str = "ApiClient") -> Any:
    """Return the official client's API over a client of a kind, synchronous or not, with its retries on."""
    import datadog_api_client
    from datadog_api_client.v2.api.service_accounts_api import ServiceAccountsApi

    keys = {"apiKeyAuth": target.keys["api_key"], "appKeyAuth": target.keys["app_key"]}
    configuration = datadog_api_client.Configuration(host=target.url, api_key=keys, enable_retry=True)
    return ServiceAccountsApi(getattr(datadog_api_client, kind)(configuration))


@asynccontextmanager
async def official_async_api(target: Target, _concurrency: int) -> AsyncIterator[Any]:
    """Yield the official client's asynchronous API; it opens at most 25 connections."""
    api = official_api(target, "AsyncApiClient")
    async with api.api_client:
        yield api


@asynccontextmanager
async def official_pool(target: Target, concurrency: int) -> AsyncIterator[Callable[..., Any]]:
    """Yield the `map` of a pool of threads; each has an official client, since one client keeps four connections."""
    own = threading.local()

    def one(token_id: str) -> object:
        if not hasattr(own, "api"):
            own.api = official_api(target)
        try:
            return own.api.get_service_account_access_token(target.service_account_id, token_id).data.id
        except Exception as error:  # noqa: BLE001 - delivered instead of the token
            return error

    with ThreadPoolExecutor(concurrency) as pool:
        yield partial(pool.map, one)


async def official_sync(api: Any, job: Job) -> None:
    """Datadog's client, one request at a time."""
    for token_id in job.token_ids:
        token = api.get_service_account_access_token(job.target.service_account_id, token_id).data
        job.deliver(token_id, token.id)


async def official_threads(get_all: Callable[..., Any], job: Job) -> None:
    """Datadog's client in a pool of threads."""
    for asked, received in zip(job.token_ids, get_all(job.token_ids), strict=True):
        job.deliver(asked, received)


async def official_async(api: Any, job: Job) -> None:
    """Datadog's asynchronous client under gather and a semaphore."""

    async def get(token_id: str) -> object:
        return (await api.get_service_account_access_token(job.target.service_account_id, token_id)).data.id

    await job.gather(get)


async def official_listed(api: Any, job: Job) -> Any:
    """Datadog's asynchronous client reading the list's pages one by one; the tokens are kept."""
    tokens: list[Any] = []
    read = partial(api.list_service_account_access_tokens, job.target.service_account_id, page_size=PAGE_SIZE)
    total = 1
    while len(tokens) < total:
        page = await read(page_number=len(tokens) // PAGE_SIZE)
        for token in page.data:
            job.deliver(job.token_ids[len(tokens)], token.id)
            tokens.append(token)
        total = page.meta.page.total_filtered_count
    return tokens


def httpx_client(target: Target, concurrency: int) -> Any:
    """Return the asynchronous client of httpx."""
    import httpx

    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    return httpx.AsyncClient(headers=target.headers, limits=limits)


async def with_httpx(client: Any, job: Job) -> None:
    """The asynchronous httpx under gather and a semaphore."""

    async def get(token_id: str) -> object:
        response = await client.get(f"{job.target.url}{job.target.path}/{token_id}")
        return response.raise_for_status().json()["data"]["id"]

    await job.gather(get)


@attrs.frozen
class Implementation:
    """A client and the way in which it is used."""

    name: str  # in tables; the part before the comma is the client
    open: Callable[..., AbstractAsyncContextManager[Any]]
    """Opens a client, for a target and a concurrency; ours takes the arguments of `TokensClient`, too."""
    fetch: Callable[[Any, Job], Awaitable[Any]]  # returns what the client keeps
    needs: tuple[str, ...] = ()  # modules that must be installed
    divisor: int = 1  # it fetches this fraction of the IDs, so that slow clients do not take all day
    reads_list: bool = False  # the account's, instead of single tokens


_OFFICIAL = ("datadog_api_client",)
_OFFICIAL_ASYNC = ("datadog_api_client", "aiosonic")

STREAM = Implementation("dd_sa_tokens, stream_tokens", ours, ours_stream)
GATHERED = Implementation("dd_sa_tokens, get_token gathered", ours, ours_gathered)
BY_GET = Implementation("dd_sa_tokens, get_tokens by get", ours, partial(ours_bulk, strategy="get"))
BY_LIST = Implementation("dd_sa_tokens, get_tokens by list", ours, partial(ours_bulk, strategy="list"), reads_list=True)
AUTO = Implementation("dd_sa_tokens, get_tokens", ours, partial(ours_bulk, strategy="auto"))
LISTED = Implementation("dd_sa_tokens, list_tokens", ours, ours_listed, reads_list=True)
TUNED = Implementation("aiohttp, tuned by hand", tuned_session, tuned)
TEXTBOOK = Implementation("aiohttp, textbook", session, textbook)
DICTS = Implementation("aiohttp, list as dicts", session, listed_as_dicts, reads_list=True)
ASYNC = Implementation("official client, async", official_async_api, official_async, _OFFICIAL_ASYNC, 4)
THREADS = Implementation("official client, threads", official_pool, official_threads, _OFFICIAL, 4)
SYNC = Implementation(
    "official client, one at a time", lambda target, _: nullcontext(official_api(target)), official_sync, _OFFICIAL, 4
)
OFFICIAL_LIST = Implementation(
    "official client, async list", official_async_api, official_listed, _OFFICIAL_ASYNC, reads_list=True
)
HTTPX = Implementation("httpx", httpx_client, with_httpx, ("httpx",), divisor=10)

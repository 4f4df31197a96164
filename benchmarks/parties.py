"""Who fetches in the benchmarks of the quota: each party is a process of its own, and starts when it is told to."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import attrs

from dd_sa_tokens import RetryPolicy, TokensClient
from dd_sa_tokens._arguments import Strategy

from .peers import official_settings


@attrs.frozen
class Where:
    """A server, and what to ask it for."""

    url: str
    keys: dict[str, str]
    account: str
    ids: list[str]


def _ours(where: Where, places: int, strategy: Strategy) -> int:
    async def run() -> int:
        policy = RetryPolicy(initial_backoff=0.05)
        async with TokensClient(base_url=where.url, concurrency=places, retry=policy, **where.keys) as client:
            result = await client.get_tokens(where.account, where.ids, strategy=strategy)
        assert len(result) == len(where.ids)
        return sum(item.ok and item.unwrap().id == item.token_id for item in result)

    return asyncio.run(run())


def _official_threads(where: Where, places: int) -> int:
    """As in the benchmark of the throughput: a pool of threads, each with a client of its own."""
    from datadog_api_client import ApiClient
    from datadog_api_client.v2.api.service_accounts_api import ServiceAccountsApi

    own = threading.local()

    def one(token_id: str) -> bool:
        if not hasattr(own, "api"):
            own.api = ServiceAccountsApi(ApiClient(official_settings(where.url, where.keys, enable_retry=True)))
        try:
            return bool(own.api.get_service_account_access_token(where.account, token_id).data.id == token_id)
        except Exception:  # noqa: BLE001 - whatever it raises, this ID is lost
            return False

    with ThreadPoolExecutor(places) as pool:
        return sum(pool.map(one, where.ids))


def _official_async(where: Where, places: int) -> int:
    from datadog_api_client import AsyncApiClient
    from datadog_api_client.v2.api.service_accounts_api import ServiceAccountsApi

    async def run() -> int:
        semaphore = asyncio.Semaphore(places)
        async with AsyncApiClient(official_settings(where.url, where.keys, enable_retry=True)) as client:
            api = ServiceAccountsApi(client)

            async def one(token_id: str) -> bool:
                async with semaphore:
                    answer = await api.get_service_account_access_token(where.account, token_id)
                    return bool(answer.data.id == token_id)

            outcomes = await asyncio.gather(*map(one, where.ids), return_exceptions=True)
        return sum(outcome is True for outcome in outcomes)

    return asyncio.run(run())


CLIENTS: dict[str, Callable[[Where, int], int]] = {
    "dd_sa_tokens, get": lambda where, places: _ours(where, places, "get"),
    "dd_sa_tokens, auto": lambda where, places: _ours(where, places, "auto"),
    "official, threads": _official_threads,
    "official, async": _official_async,
}


def fetch(pipe: Connection, client: str, places: int, where: Where) -> None:
    """Be ready, wait for the word, fetch; say how many tokens came, and when the last one did."""
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it warns of each of its retries
    logging.getLogger("dd_sa_tokens").setLevel(logging.ERROR)
    if client.startswith("official"):
        import datadog_api_client.v2.api.service_accounts_api  # noqa: F401 - seconds that are not the quota's
    pipe.send(None)
    time.sleep(max(pipe.recv() - time.time(), 0.0))
    got = CLIENTS[client](where, places)
    pipe.send((got, time.time()))

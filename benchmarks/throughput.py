"""Tokens per second against bare aiohttp, side by side: the same server, IDs, concurrency and checks."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from dd_sa_tokens import TokensClient

from .server import SERVICE_ACCOUNT_ID, fast_server

try:
    from orjson import loads
except ImportError:
    loads = json.loads

CONCURRENCY = 50
_KEYS = {"api_key": "0" * 32, "app_key": "1" * 40}
_HEADERS = {"DD-API-KEY": _KEYS["api_key"], "DD-APPLICATION-KEY": _KEYS["app_key"], "Accept": "application/json"}


async def ours(url: str, ids: list[str]) -> None:
    """`stream_tokens`, with types, quota, retry and timeouts."""
    async with TokensClient(base_url=url, concurrency=CONCURRENCY, **_KEYS) as client:
        async for item in client.stream_tokens(SERVICE_ACCOUNT_ID, ids, strategy="get"):
            assert item.unwrap().id == item.token_id


async def textbook(url: str, ids: list[str]) -> None:
    """Aiohttp as a tutorial shows it: gather, a semaphore, `json()`."""
    semaphore = asyncio.Semaphore(CONCURRENCY)
    async with aiohttp.ClientSession(headers=_HEADERS) as session:

        async def fetch(token_id: str) -> dict[str, Any]:
            path = f"{url}/api/v2/service_accounts/{SERVICE_ACCOUNT_ID}/access_tokens/{token_id}"
            async with semaphore, session.get(path) as response:
                response.raise_for_status()
                answer: dict[str, Any] = await response.json(content_type=None)
                assert answer["data"]["id"] == token_id
                return answer

        await asyncio.gather(*map(fetch, ids))


async def tuned(url: str, ids: list[str]) -> None:
    """Aiohttp as fast as it goes by hand: workers on one iterator, no timers, orjson if it is there."""
    todo = iter(ids)
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    timeout = aiohttp.ClientTimeout(total=None)
    base = f"{url}/api/v2/service_accounts/{SERVICE_ACCOUNT_ID}/access_tokens/"
    async with aiohttp.ClientSession(headers=_HEADERS, connector=connector, timeout=timeout) as session:

        async def work() -> None:
            for token_id in todo:
                async with session.get(base + token_id, allow_redirects=False) as response:
                    answer = loads(await response.read())
                    assert response.status == 200 and answer["data"]["id"] == token_id  # noqa: PT018

        await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


PEERS: dict[str, Callable[[str, list[str]], Awaitable[None]]] = {
    "bare aiohttp, tuned by hand": tuned,
    "bare aiohttp, textbook": textbook,
    "dd_sa_tokens": ours,
}


def measure(count: int, rounds: int) -> dict[str, float]:
    """Return the median tokens per second of each, from interleaved rounds in random order."""
    ids = [f"{number:08d}-0000-4000-8000-000000000000" for number in range(count)]
    speeds: dict[str, list[float]] = {name: [] for name in PEERS}
    with fast_server() as url:
        for _ in range(rounds):
            for name in random.sample(list(PEERS), len(PEERS)):
                begun = time.perf_counter()
                asyncio.run(PEERS[name](url, ids))  # type: ignore[arg-type]
                speeds[name].append(count / (time.perf_counter() - begun))
    return {name: statistics.median(values) for name, values in speeds.items()}


def main(*, quick: bool) -> None:
    """Print a table."""
    speeds = measure(*((500, 1) if quick else (8_000, 7)))
    best = speeds["bare aiohttp, tuned by hand"]
    print(f"\nThroughput, {CONCURRENCY} in flight, loopback")
    for name, speed in speeds.items():
        print(f"  {name:30} {speed:8.0f} tokens/s   {speed / best:5.2f}")

"""How the cost of an ID grows with the number of IDs, and that of a call with the number of calls that wait.

There are no sockets here: work that grows with what is remembered or waits would drown in the noise of a server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from dd_sa_tokens import RateLimit, TokensClient

from .clients import ours
from .fetching import CONCURRENCY
from .internals import Response, make_limiter, make_response, replace_transport
from .payloads import RATE_LIMIT_HEADERS, SERVICE_ACCOUNT_ID, Target, reset, token_body, token_id
from .report import Column, Report, Row, pivot
from .timing import Sample, Stopwatch, interleave, median

IDS = (100, 1_000, 10_000, 100_000, 1_000_000)
WAITERS = (1, 10, 100, 1_000, 10_000, 100_000)
_LEAST_ITEMS = 2_000  # in one sample: a small number is repeated


class _Transport:
    """Takes the place of the transport, and responds to every request after one pass of the loop."""

    concurrency = CONCURRENCY

    def open(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, request: Any, _timeout: float) -> Response:
        """Return the token that was asked for."""
        await asyncio.sleep(0)
        now = time.time()
        headers = RATE_LIMIT_HEADERS | {"X-RateLimit-Reset": str(reset(now))}
        return make_response(200, headers, token_body(request.token_id or ""), now)


def _client() -> TokensClient:
    client = ours(Target("http://127.0.0.1:9"), CONCURRENCY)
    replace_transport(client, _Transport())
    return client


async def stream(count: int, watch: Stopwatch) -> None:
    """Stream tokens."""
    async with _client() as client:
        seen = 0
        with watch:
            async for item in client.stream_tokens(SERVICE_ACCOUNT_ID, map(token_id, range(count))):
                seen += item.unwrap().id == item.token_id
    assert seen == count


async def collect(count: int, watch: Stopwatch) -> None:
    """Fetch tokens with `get_tokens`, which keeps them."""
    async with _client() as client:
        with watch:
            result = await client.get_tokens(SERVICE_ACCOUNT_ID, map(token_id, range(count)))
    assert len(result.tokens) == count


async def queue(count: int, watch: Stopwatch, max_wait: float | None = None) -> None:
    """Let calls pass a rate limiter at which all of them wait at first."""
    limiter = make_limiter(CONCURRENCY)
    rate_limit = RateLimit(100_000_000, 60.0, 99_000_000, 30.0, "name")
    passed = 0

    async def one() -> None:
        nonlocal passed
        permit = await limiter.acquire("get_token", max_wait)
        passed += 1
        limiter.record_response(permit, rate_limit, 200)

    first = await limiter.acquire("get_token")
    tasks = [asyncio.ensure_future(one()) for _ in range(count)]
    await asyncio.sleep(0)  # all of them wait now
    with watch:
        limiter.record_response(first, rate_limit, 200)
        await asyncio.gather(*tasks)
    assert passed == count


CASES = {
    "stream_tokens": (IDS, stream),
    "get_tokens": (IDS[:-1], collect),
    "waiting for the rate limiter": (WAITERS, queue),
    "waiting for it, with max_rate_limit_wait": (WAITERS, partial(queue, max_wait=1e6)),
}


def _sample(run: Callable[[int, Stopwatch], Coroutine[Any, Any, None]], count: int) -> Sample:
    """Run often enough to measure, and return the mean."""
    samples: list[Sample] = []
    for _ in range(min(max(_LEAST_ITEMS // count, 1), 50)):
        watch = Stopwatch()
        asyncio.run(run(count, watch))
        samples.append(watch.sample(count))
    return Sample(median(samples, "wall"), median(samples, "cpu"))


def run(*, quick: bool) -> Report:
    """Measure all numbers."""
    rounds = 1 if quick else 5
    for _, run in CASES.values():  # once to warm up
        _sample(run, 1_000)
    cases = {
        (name, count): partial(_sample, run, count)
        for name, (counts, run) in CASES.items()
        for count in counts[: len(counts) - 2 if quick else None]
    }
    rows: list[Row] = [
        {"case": name, "count": count, "us_each": median(samples, "wall") * 1e6}
        for (name, count), samples in interleave(cases, rounds).items()
    ]
    table = pivot(rows, Column("case", "µs for each of so many"), "count", [Column("us_each", "", ",.1f")])
    conditions = [f"Medians of {rounds} rounds. No sockets; concurrency {CONCURRENCY}, asyncio."]
    return Report("growth", conditions, [table], rows)

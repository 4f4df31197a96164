"""How the cost grows: for each ID with the number of IDs, and for each call at the gate with the length of the queue.

No sockets here: what is looked for is work that grows with what is remembered or waits, and a server's noise hides it.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from dd_sa_tokens import RateLimit, TokensClient
from dd_sa_tokens._gate import Gate
from dd_sa_tokens._ledger import Ticket
from dd_sa_tokens._wire import Reply, Request

from .answers import BODY, KEYS, LIMITS, SERVICE_ACCOUNT_ID, reset, token_id
from .report import Column, Options, Report, Row, Table

WIDTH = 50
IDS = (100, 1_000, 10_000, 100_000, 1_000_000)
WAITERS = (1, 10, 100, 1_000, 10_000, 100_000)


class _Transport:
    """Stands where the transport does, and answers every request after one turn of the loop."""

    connections = WIDTH

    def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    async def send(self, request: Request[Any]) -> Reply:
        """Answer with the token that was asked for."""
        await asyncio.sleep(0)
        now = time.time()
        headers = LIMITS | {"X-RateLimit-Reset": str(reset(now))}
        return Reply(200, headers, BODY.replace("<id>", request.token_id or "").encode(), now)


def _client() -> TokensClient:
    client = TokensClient(base_url="http://127.0.0.1:9", concurrency=WIDTH, **KEYS)
    client._pipeline._transport = _Transport()
    return client


async def stream(count: int) -> float:
    """Return the seconds in which so many tokens are streamed."""
    async with _client() as client:
        begun = time.perf_counter()
        seen = 0
        async for item in client.stream_tokens(SERVICE_ACCOUNT_ID, map(token_id, range(count))):
            seen += item.unwrap().id == item.token_id
        seconds = time.perf_counter() - begun
    assert seen == count
    return seconds


async def collect(count: int) -> float:
    """Return the seconds in which `get_tokens` fetches so many, and keeps them."""
    async with _client() as client:
        begun = time.perf_counter()
        result = await client.get_tokens(SERVICE_ACCOUNT_ID, map(token_id, range(count)))
        seconds = time.perf_counter() - begun
    assert len(result.tokens) == count
    return seconds


async def queue(count: int, patience: float | None = None) -> float:
    """Return the seconds in which so many pass a gate at which all of them wait at first."""
    gate = Gate(WIDTH)
    rate = RateLimit(100_000_000, 60.0, 99_000_000, 30.0, "name")
    passed = 0

    async def one() -> None:
        nonlocal passed
        ticket = await gate.enter("get_token", patience)
        assert isinstance(ticket, Ticket)
        passed += 1
        gate.answered("get_token", ticket, rate, 200)

    first = gate.try_enter("get_token")
    assert first is not None
    tasks = [asyncio.ensure_future(one()) for _ in range(count)]
    await asyncio.sleep(0)  # all of them wait now
    begun = time.perf_counter()
    gate.answered("get_token", first, rate, 200)
    await asyncio.gather(*tasks)
    assert passed == count
    return time.perf_counter() - begun


WAYS: dict[str, tuple[tuple[int, ...], Callable[[int], Awaitable[float]]]] = {
    "stream_tokens": (IDS, stream),
    "get_tokens": (IDS[:-1], collect),
    "waiting at the gate": (WAITERS, queue),
    "waiting at the gate, with max_rate_limit_wait": (WAITERS, lambda count: queue(count, 1e6)),
}


def _measure(way: Callable[[int], Awaitable[float]], counts: tuple[int, ...], work: int, runs: int) -> Iterator[Row]:
    """Repeat each number until that is `work` in all, and so many runs at least; in random order. Give the medians."""
    todo = [count for count in counts for _ in range(min(max(work // count, runs), 50))]
    random.Random(8).shuffle(todo)
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    for count in todo:
        if count >= 1_000:  # it costs more than a small run
            gc.collect()
        seconds[count].append(asyncio.run(way(count)))
    for count, found in seconds.items():
        median = statistics.median(found)
        yield {"count": count, "runs": len(found), "seconds": median, "us_each": median / count * 1e6}


def run(options: Options) -> Report:
    """Measure all numbers, as far as the largest that is wanted."""
    rows: list[Row] = []
    for name, (counts, way) in WAYS.items():
        asyncio.run(way(1_000))
        chosen = options.up_to_largest(counts, quick=len(counts) - 2)
        rows += [
            {"what": name} | row for row in _measure(way, chosen, *((1_000, 1) if options.quick else (200_000, 3)))
        ]
    columns = [
        Column("what", "what"),
        Column("count", "how many", ",d"),
        Column("runs", "runs", ",d"),
        Column("seconds", "seconds", ",.4f"),
        Column("us_each", "µs each", ",.1f"),
    ]
    conditions = [
        (
            f"No sockets: where the transport is, a stub answers after one turn of the loop. {WIDTH} in flight, "
            "asyncio. Everything else is the package's own: bulk workers, gate, pipeline, headers, decoding."
        ),
        "At the gate so many calls wait for the first answer, which lets them pass; each gives its place back at once.",
        "Medians of the runs, in random order. A line that stays level means a cost that grows with the number alone.",
    ]
    return Report("growth", conditions, [Table("Growth", columns, rows)])

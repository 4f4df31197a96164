"""Memory by number of IDs: streamed, gathered and kept. Each figure comes from a process of its own."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from typing import Any

from .clients import BY_GET, GATHERED, STREAM, TEXTBOOK, Implementation, Job
from .fast_server import fast_server
from .fetching import CLIENT, CONCURRENCY
from .payloads import Target, token_id, token_ids
from .processes import MIB, memory, reset_peak, start
from .report import Column, Report, Row, Table

_WARM_UP_RUNS, _WARM_UP_IDS = 20, 100  # enough to fill all caches, with little at a time
COUNTS = {
    STREAM: (1_000, 10_000, 100_000, 1_000_000),
    **dict.fromkeys((GATHERED, TEXTBOOK, BY_GET), (1_000, 10_000, 100_000)),
}


async def _generated(count: int) -> AsyncIterator[str]:
    for number in range(count):
        yield token_id(number)


async def _fetch(client: Implementation, target: Target, count: int) -> Any:
    """Fetch, and return the result where the client keeps one."""
    job = Job(target, CONCURRENCY, _generated(count) if client in {STREAM, BY_GET} else token_ids(count))
    async with client.open(target, CONCURRENCY) as opened:
        result = await client.fetch(opened, job)
    assert job.fetched == count
    return result


def _measure(pipe: Connection, client: Implementation, target: Target, count: int) -> None:
    """Warm up, then fetch, and send by how much the process grew: at its peak, and with the result in hand."""
    for _ in range(_WARM_UP_RUNS):
        asyncio.run(_fetch(client, target, _WARM_UP_IDS))
    gc.collect()
    reset_peak()
    before = memory()
    result = asyncio.run(_fetch(client, target, count))
    most = memory(peak=True)
    gc.collect()
    kept = None if result is None else (memory() - before) / count
    pipe.send({"client": client.name, "ids": count, "peak_mib": (most - before) / MIB, "kept": kept})


def run(*, quick: bool) -> Report:
    """Measure each client with each number of IDs."""
    rows: list[Row] = []
    with fast_server() as server:
        for client, counts in COUNTS.items():
            chosen = counts[: 1 if quick else None]
            rows += [start(_measure, client, server.target, count).first for count in chosen]
    columns = [
        CLIENT,
        Column("ids", "IDs", ",d"),
        Column("peak_mib", "growth at the peak", ",.2f", " MiB"),
        Column("kept", "a token kept", ",.0f", " bytes"),
    ]
    conditions = [f"Concurrency {CONCURRENCY}, asyncio. Server: {server.description}."]
    return Report("memory", conditions, [Table(columns, rows)])

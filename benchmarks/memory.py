"""Memory against the number of IDs: streamed, gathered and kept. Each figure comes from a process of its own."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import attrs

from dd_sa_tokens import TokensClient

from .answers import KEYS, SERVICE_ACCOUNT_ID, token_id, token_ids
from .peers import Fetch, Tally, ours_gathered, textbook
from .report import Column, Options, Report, Row, Table
from .server import fast_server

WIDTH = 50
_WARM_UP = (20, 100)  # so often, so many: enough to fill all caches, and little at a time
_MIB = 1024 * 1024


@attrs.frozen
class Way:
    """A way to fetch many, and how many to fetch."""

    name: str
    fetch: Callable[[str, int], Awaitable[Any]]
    counts: tuple[int, ...]


async def _made_up(count: int) -> AsyncIterator[str]:
    for number in range(count):
        yield token_id(number)


async def streamed(url: str, count: int) -> None:
    """Stream tokens over IDs that an async generator makes up, and keep none."""
    async with TokensClient(base_url=url, concurrency=WIDTH, **KEYS) as client:
        seen = 0
        async for item in client.stream_tokens(SERVICE_ACCOUNT_ID, _made_up(count)):
            assert item.unwrap().id == item.token_id
            seen += 1
    assert seen == count


async def kept(url: str, count: int) -> Any:
    """Fetch with `get_tokens`, one request for each ID, and keep the result."""
    async with TokensClient(base_url=url, concurrency=WIDTH, **KEYS) as client:
        result = await client.get_tokens(SERVICE_ACCOUNT_ID, _made_up(count), strategy="get")
    assert len(result.tokens) == count
    return result


async def gathered(url: str, count: int) -> None:
    """Call `get_token` for each ID at once, under gather."""
    async with ours_gathered(url, WIDTH) as fetch:
        await _checked(fetch, count)


async def bare_gathered(url: str, count: int) -> None:
    """Do it with bare aiohttp as a textbook does: gather and a semaphore."""
    async with textbook(url, WIDTH) as fetch:
        await _checked(fetch, count)


async def _checked(fetch: Fetch, count: int) -> None:
    tally = Tally()
    await fetch(token_ids(count), tally.check)
    assert tally.count == count


STREAMED = "dd_sa_tokens, stream_tokens"
KEPT = "dd_sa_tokens, get_tokens, result kept"
WAYS = [
    Way(STREAMED, streamed, (1_000, 10_000, 100_000, 1_000_000)),
    Way("dd_sa_tokens, get_token gathered", gathered, (1_000, 10_000, 100_000)),
    Way("aiohttp, textbook, gathered", bare_gathered, (1_000, 10_000, 100_000)),
    Way(KEPT, kept, (1_000, 10_000, 100_000)),
]


def resident() -> int:
    """Return the bytes that this process occupies now, or its peak where that is all the system tells."""
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    return _peak()


def _forget_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _measure(pipe: Connection, place: int, url: str, count: int) -> None:
    """Warm up, then fetch, and report by how much the process grew: at its peak, and with the result in hand."""
    fetch = WAYS[place].fetch
    for _ in range(_WARM_UP[0]):
        asyncio.run(fetch(url, _WARM_UP[1]))
    gc.collect()
    _forget_peak()
    before, begun = resident(), time.perf_counter()
    result = asyncio.run(fetch(url, count))
    seconds, peak = time.perf_counter() - begun, _peak()
    gc.collect()
    after = resident()
    del result
    pipe.send((peak - before, after - before, seconds))


def _in_a_process(place: int, url: str, count: int) -> Row:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_measure, args=(theirs, place, url, count))
    process.start()
    theirs.close()
    peak, after, seconds = ours.recv()
    process.join()
    name = WAYS[place].name
    return {
        "way": name,
        "ids": count,
        "peak_mib": peak / _MIB,
        "peak_bytes_an_id": peak / count,
        "kept_bytes_an_id": after / count if name == KEPT else None,
        "seconds": seconds,
    }


def run(options: Options) -> Report:
    """Measure every way with every number of IDs, as far as the largest that is wanted."""
    rows: list[Row] = []
    with fast_server() as server:
        for place, way in enumerate(WAYS):
            rows += [_in_a_process(place, server.url, count) for count in options.up_to_largest(way.counts, quick=1)]
    columns = [
        Column("way", "how"),
        Column("ids", "IDs", ",d"),
        Column("peak_mib", "growth at the peak, MiB", ".2f"),
        Column("peak_bytes_an_id", "bytes an ID", ",.0f"),
        Column("kept_bytes_an_id", "bytes a token kept", ",.0f"),
        Column("seconds", "seconds", ".1f"),
    ]
    conditions = [
        f"Server: {server.name}. {WIDTH} in flight, asyncio.",
        (
            f"Growth of the resident memory over that of the same process after a warm-up of {_WARM_UP[0]} times "
            f"{_WARM_UP[1]} IDs."
        ),
        "Streamed IDs come from an async generator, those that are gathered from a list, which counts.",
    ]
    return Report("memory", conditions, [Table("Memory", columns, rows)])

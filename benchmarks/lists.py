"""An account's list: tokens per second, and for how long reading it holds the event loop."""

from __future__ import annotations

import statistics
from functools import partial

from .clients import BY_LIST, DICTS, LISTED, OFFICIAL_LIST
from .fast_server import fast_server
from .fetching import CLIENT, PER_SECOND, choose, speed_rows, timed_fetch, watched_fetch
from .report import Column, Report, Table
from .timing import interleave, median, ratios


def run(*, quick: bool) -> Report:
    """Time each way to read the list, then watch the event loop meanwhile."""
    rounds, count = (1, 1_000) if quick else (5, 20_000)
    clients = choose(LISTED, BY_LIST, DICTS, OFFICIAL_LIST)
    with fast_server(count) as server:
        samples = interleave({one.name: partial(timed_fetch, one, server, count) for one in clients}, rounds)
        lags = interleave({one.name: partial(watched_fetch, one, server, count) for one in clients}, rounds)
    rows = [
        row
        | {
            "of_aiohttp": statistics.median(ratios(samples[row["client"]], samples[DICTS.name], "cpu")),
            "hold_ms": median(lags[row["client"]], "longest_hold") * 1e3,
            "worst_ms": median(lags[row["client"]], "worst") * 1e3,
        }
        for row in speed_rows(samples)
    ]
    columns = [
        CLIENT,
        PER_SECOND,
        Column("cpu_us", "CPU per token", ",.1f", " µs"),
        Column("of_aiohttp", "speed / bare aiohttp's, by CPU time", ".2f"),
        Column("hold_ms", "longest hold of the loop", ",.1f", " ms"),
        Column("worst_ms", "worst delay of another task", ",.1f", " ms"),
    ]
    conditions = [f"{count:,} tokens, {rounds} rounds, medians; asyncio. Server: {server.description}."]
    return Report("lists", conditions, [Table(columns, rows)])

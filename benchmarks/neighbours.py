"""What another task on the event loop feels while 20,000 tokens are fetched."""

from __future__ import annotations

from functools import partial

from .clients import ASYNC, BY_GET, BY_LIST, TEXTBOOK
from .fast_server import fast_server
from .fetching import CLIENT, CONCURRENCY, choose, watched_fetch
from .report import Column, Report, Table
from .timing import interleave, median

_FIGURES = {"p50": "p50", "p99": "p99", "worst": "worst", "longest_hold": "longest hold of the loop"}


def run(*, quick: bool) -> Report:
    """Watch the event loop under each client."""
    rounds, count = (1, 2_000) if quick else (5, 20_000)
    with fast_server(count) as server:
        cases = {"idle loop": partial(watched_fetch, None, server, 0)}
        cases |= {
            one.name: partial(watched_fetch, one, server, count) for one in choose(BY_GET, BY_LIST, TEXTBOOK, ASYNC)
        }
        lags = interleave(cases, rounds)
    rows = [{"client": name} | {key: median(found, key) * 1e3 for key in _FIGURES} for name, found in lags.items()]
    columns = [CLIENT, *(Column(key, heading, ",.1f", " ms") for key, heading in _FIGURES.items())]
    conditions = [
        f"{count:,} tokens, concurrency {CONCURRENCY}, {rounds} rounds, medians; asyncio.",
        f"Server: {server.description}.",
    ]
    return Report("neighbours", conditions, [Table(columns, rows)])

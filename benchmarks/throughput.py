"""Tokens per second by single gets, beside other clients: same server, IDs, concurrency and checks."""

from __future__ import annotations

from functools import partial

from .clients import ASYNC, GATHERED, HTTPX, STREAM, SYNC, TEXTBOOK, THREADS, TUNED
from .fast_server import fast_server
from .fetching import CLIENT, PER_SECOND, choose, speed_rows, timed_fetch
from .machine import event_loops
from .report import Column, Report, Row, pivot
from .timing import interleave

SHOWN = 50  # the concurrency of the first table
_BUSY = 0.9  # share of its core from which on the server is what is measured
_RATIOS = [Column("speed_ratio", "our speed / its,", ".2f"), Column("cpu_ratio", "by CPU time,", ".2f")]


def run(*, quick: bool) -> Report:
    """Measure each client at each concurrency, under each event loop."""
    concurrencies, count, rounds = ((10, SHOWN), 100, 1) if quick else ((1, 10, SHOWN, 200), 4_000, 9)
    rows: list[Row] = []
    clients = choose(STREAM, GATHERED, TUNED, TEXTBOOK, ASYNC, THREADS, SYNC, HTTPX)
    with fast_server() as server:
        for name, loop in event_loops().items():
            for concurrency in concurrencies:
                fetch = partial(timed_fetch, server=server, concurrency=concurrency, loop=loop)
                cases = {one.name: partial(fetch, one, count=max(count // one.divisor, 1)) for one in clients}
                labels = {"loop": name, "concurrency": concurrency, "setting": f"{concurrency}, {name}"}
                rows += [labels | row for row in speed_rows(interleave(cases, rounds))]
    conditions = [
        f"Concurrency {SHOWN} above, each concurrency below. Server: {server.description}.",
        f"{count:,} tokens in each of {rounds} rounds (Datadog's clients a fourth, httpx a tenth); medians.",
    ]
    busy = [row for row in rows if row["server_busy"] > _BUSY]
    conditions += [f"In doubt: {row['client']} at {row['setting']} kept the server busy." for row in busy]
    shown = [row for row in rows if row["concurrency"] == SHOWN]
    tables = [
        pivot(shown, CLIENT, "loop", [Column("per_second", "tokens/s,", ",.0f"), *_RATIOS]),
        pivot(rows, CLIENT, "setting", [Column("per_second", "", PER_SECOND.format)]),
    ]
    return Report("throughput", conditions, tables, rows)

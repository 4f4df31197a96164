"""What clients make of a rate limit: lost IDs, time above the theoretical minimum, and 429 responses."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from itertools import product
from typing import Any

import attrs

from .cases import LATENCY, Case, Client, run_case
from .clients import ASYNC, AUTO, BY_GET, THREADS
from .fetching import CLIENT, choose
from .report import Column, Report, Row, Table

LIMIT, PERIOD = 100, 5.0
_RESETS: dict[str, dict[str, Any]] = {
    "reset rounded up": {"reset_rounding": "up"},
    "reset rounded down": {"reset_rounding": "down"},
    "no reset": {"has_reset": False},
}


def cases() -> Iterator[Case]:
    """Yield every combination; all clients of a case are alike."""
    settings = product(((450, 50), (600, 300)), _RESETS.items(), (1, 2), choose(BY_GET, AUTO, THREADS, ASYNC))
    for (count, concurrency), (reset, fake), processes, client in settings:
        name = f"{count} IDs, concurrency {concurrency}, {reset}, {processes} process{'es' * (processes > 1)}"
        shared = [Client(count // processes, concurrency, implementation=client)] * processes
        yield Case(name, shared, LIMIT, PERIOD, fake)


def _by_client(rows: list[Row]) -> Iterator[Row]:
    """Yield what the cases of each client give together."""
    for client in dict.fromkeys(row["client"] for row in rows):
        mine = [row for row in rows if row["client"] == client]
        above = [row["above"] for row in mine if not row["lost"]]
        yield {
            "client": client,
            "lost": sum(row["lost"] for row in mine),
            "complete": f"{len(above)} of {len(mine)}",
            "median": statistics.median(above) if above else None,
            "most": max(above, default=None),
            "rejected": sum(row["rejected"] for row in mine),
        }


def run(*, quick: bool) -> Report:
    """Run all cases."""
    chosen = [case.smaller(3) for case in list(cases())[::13]] if quick else list(cases())  # every client is in both
    rows: list[Row] = []
    for number, case in enumerate(chosen, 1):
        client = case.clients[0].implementation.name
        outcome = run_case(case)
        rows.append({"case": case.name, "client": client, "ids": case.count} | attrs.asdict(outcome))
        print(f"rate_limit {number}/{len(chosen)}: {case.name}; {client}: {outcome}")
    columns = [
        CLIENT,
        Column("lost", "IDs lost", ",d"),
        Column("complete", "cases without a loss"),
        Column("median", "time above the minimum in those, median", ".2f", " s"),
        Column("most", "most", ".2f", " s"),
        Column("rejected", "429 responses", ",d"),
    ]
    limit = f"{LIMIT} requests per {chosen[0].period:g} s, latency {LATENCY * 1000:.0f} ms"
    conditions = [f"FakeDatadog, {limit}; {chosen[0].count} to {chosen[-1].count} IDs."]
    return Report("rate_limit", conditions, [Table(columns, list(_by_client(rows)))], rows)

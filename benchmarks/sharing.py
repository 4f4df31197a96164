"""The harder cases of a rate limit: clocks that are off, and clients that share; on real sockets, and simulated."""

from __future__ import annotations

import random
from collections.abc import Iterator

import attrs

from . import fleet, simulation
from .cases import LATENCY, Case, Client, run_case
from .internals import FixedWindow
from .report import Column, Report, Row, Table, pivot

_ALONE = [Client(450)]
CASES = [
    Case("alone, 450 IDs", _ALONE),
    Case("alone, reset rounded down", _ALONE, fake={"reset_rounding": "down"}),
    Case("alone, reset rounded to nearest", _ALONE, fake={"reset_rounding": "nearest"}),
    Case("alone, server clock 0.43 s ahead", _ALONE, fake={"clock_offset": 0.43}),
    Case("alone, server clock 0.43 s behind", _ALONE, fake={"clock_offset": -0.43}),
    Case("alone, 390 IDs, concurrency 300", [Client(390, 300)]),
    Case("alone, 3 of 50 left at the start", [Client(120)], limit=50, fake={"used": 47}),
    Case("2 that share, 448 IDs", [Client(224)] * 2),
    Case("4 that share, 448 IDs", [Client(112)] * 4),
    Case("2 that share, one a second late with half the work", [Client(300), Client(150, start=1.0)]),
    Case("alone, 1,000 IDs, each request gets a 503", [Client(1000)], fake={"failures": 2_500}),
]


def _on_sockets(*, quick: bool) -> Iterator[Row]:
    for case in [case.smaller(4) for case in CASES[2::5]] if quick else CASES:
        print(f"sharing: {case.name}")
        outcome = run_case(case)
        fewest = None if outcome.fewest is None else f"{outcome.fewest}/{case.limit}"
        yield {"case": case.name} | attrs.asdict(outcome) | {"fewest": fewest}


def _simulated(*, quick: bool) -> Iterator[Row]:
    for limiter in simulation.LIMITERS:
        for count in (1, 2, 4):
            server = simulation.Server(FixedWindow(100, 10.0), random=random.Random(1))
            clients = [simulation.Client(server, 100 if quick else 500, limiter=limiter) for _ in range(count)]
            simulation.run_all(clients, start=3.0)
            yield {
                "limiter": limiter,
                "clients": f"{count} client{'s' * (count > 1)}",
                "rejected": server.rejected,
                "requests": server.requests.total(),
                "fewest": min(server.full_windows, default=None),
                "last_done": max(client.done for client in clients),
            }


def run(*, quick: bool) -> Report:
    """Run all cases, then the simulation."""
    columns = [
        Column("case", "case"),
        Column("requests", "requests", ",d"),
        Column("rejected", "429 responses", ",d"),
        Column("fewest", "emptiest full window"),
        Column("above", "time above the minimum", ".2f", " s"),
        Column("lost", "IDs lost", ",d"),
    ]
    simulated = list(_simulated(quick=quick))
    shown = [Column("rejected", "429 responses,", ",d"), Column("last_done", "last done,", ".1f", " s")]
    with_store = [
        Column("case", "8 processes"),
        Column("by", "by"),
        Column("share", "429 responses", ".1f", " %"),
        Column("fewest", "emptiest full window", ".0f", " %"),
        Column("above", "time above the minimum", ".2f", " s"),
        Column("lost", "IDs lost", ",d"),
    ]
    tables = [
        Table(columns, list(_on_sockets(quick=quick))),
        Table(with_store, list(fleet.run(quick=quick))),
        pivot(simulated, Column("limiter", "rate limiter, simulated"), "clients", shown),
    ]
    conditions = [
        f"FakeDatadog, 100 requests per {1 if quick else 3} s (50 in one case), latency {LATENCY * 1000:.0f} ms.",
        f"Simulated: 100 requests per 10 s; each client needs {100 if quick else 500} responses, concurrency 50.",
    ]
    return Report("sharing", conditions, tables, simulated)

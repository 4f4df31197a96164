"""The harder cases of a rate limit: clocks that are off, and clients that share; on real sockets, and simulated."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator
from contextlib import ExitStack

import attrs

from . import simulation
from .cases import LATENCY, Case, Client, run_case
from .internals import FixedWindow
from .redis_server import RedisServer, find_redis_server
from .report import Column, Report, Row, Table, pivot
from .virtual_loop import wall_clock

_ALONE = [Client(450)]
CASES = [
    Case("alone, 450 IDs", _ALONE),
    Case("alone, reset rounded down", _ALONE, fake={"reset_rounding": "down"}),
    Case("alone, reset rounded to nearest", _ALONE, fake={"reset_rounding": "nearest"}),
    Case("alone, server clock 0.43 s ahead", _ALONE, fake={"clock_offset": 0.43}),
    Case("alone, server clock 0.43 s behind", _ALONE, fake={"clock_offset": -0.43}),
    Case("alone, 390 IDs, concurrency 300", [Client(390, 300)]),
    Case("alone, limit 50, 3 left at the start", [Client(120)], limit=50, fake={"used": 47}),
    Case("2 that share, one a second late with half the work", [Client(300), Client(150, start=1.0)]),
    Case("alone, 1,000 IDs, each request gets a 503", [Client(1000)], fake={"failures": 2_500}),
    *(
        Case(f"{clients} that share {by}, {each} IDs each, 4 s", [Client(each, store=store)] * clients, period=4.0)
        for clients, each in ((2, 225), (4, 112), (8, 56), (16, 28), (32, 14), (64, 7))
        for by, store in (("headers", False), ("a store", True))
    ),
    Case("24 that share a store, 6 IDs each, 20 per 4 s", [Client(6, store=True)] * 24, limit=20, period=4.0),
    Case(
        "8 that share a store, 1 without it, 4 s", [*[Client(50, store=True)] * 8, Client(50)], period=4.0, processes=9
    ),
    Case(
        "8 that share a store, one killed, Redis restarted, 4 s",
        [Client(100, store=True)] * 8,
        period=4.0,
        disturbed=True,
    ),
]


def _on_sockets(*, quick: bool) -> Iterator[Row]:
    for case in [case.smaller(4) for case in CASES[2::6]] if quick else CASES:
        if case.needs_store and find_redis_server() is None:
            print(f"without {case.name}: there is no redis-server")
            continue
        print(f"sharing: {case.name}")
        outcome = run_case(case)
        fewest = None if outcome.fewest is None else f"{outcome.fewest}/{case.limit}"
        share = 100 * outcome.rejected / outcome.requests
        yield {"case": case.name, "share": share} | attrs.asdict(outcome) | {"fewest": fewest}


def _simulated(ids: int) -> Iterator[Row]:
    """Simulate 1 to 64 clients that fetch so many IDs in all."""
    with ExitStack() as stack:
        limiters = list(simulation.LIMITERS)
        binary = find_redis_server()
        if binary is not None:
            from .virtual_store import Script, VirtualStore

            connection = stack.enter_context(stack.enter_context(RedisServer(binary)).connect())
            limiters.append(simulation.WITH_STORE)
        for limiter in limiters:
            for count in (1, 2, 4, 8, 16, 32, 64):
                random.seed(1)  # for the clients' own draws
                server = simulation.Server(FixedWindow(100, 10.0), random=random.Random(1))
                store = VirtualStore(Script(connection, wall_clock)) if limiter == simulation.WITH_STORE else None
                clients = [simulation.Client(server, ids // count, limiter=limiter, store=store) for _ in range(count)]
                simulation.run_all(clients, start=3.0)
                full = server.full_windows[: ids // 100 - 2]  # between the first window and the last that is needed
                yield {
                    "client": limiter,
                    "clients": count,
                    "rejected_share": 100 * server.rejected / server.requests.total(),
                    "fill": statistics.mean(full) if full else None,
                    "last_done": max(client.done for client in clients),
                }


def run(*, quick: bool) -> Report:
    """Run all cases, then the simulation."""
    columns = [
        Column("case", "case"),
        Column("requests", "requests", ",d"),
        Column("rejected", "429 responses", ",d"),
        Column("share", "in 100 requests", ".1f"),
        Column("fewest", "emptiest full window"),
        Column("above", "time above the minimum", ".2f", " s"),
        Column("lost", "IDs lost", ",d"),
    ]
    ids = 240 if quick else 1_200
    simulated = list(_simulated(ids))
    number = Column("clients", "clients, simulated", ",d")
    tables = [
        Table(columns, list(_on_sockets(quick=quick))),
        pivot(simulated, number, "client", [Column("rejected_share", "429s, %:", ".1f")]),
        pivot(simulated, number, "client", [Column("fill", "spent, %:", ".0f")]),
    ]
    conditions = [
        f"FakeDatadog, latency {LATENCY * 1000:.0f} ms; 100 requests per 3 s where nothing else is said.",
        f"Simulated: 100 requests per 10 s; {ids:,} IDs in all, concurrency 50.",
        "429s in 100 requests, then the share of a full window that is spent.",
    ]
    return Report("sharing", conditions, tables, simulated)

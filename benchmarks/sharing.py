"""The quota's harder cases: clocks that are off, and clients that share; on real sockets, and simulated."""

from __future__ import annotations

import random
from collections.abc import Iterator

import attrs

from dd_sa_tokens.testing import FixedWindow

from . import simulation
from .contest import LATENCY, Case, Party, play
from .report import Column, Options, Report, Row, Table, say

_ALONE = [Party(450)]
_ALONE_AIM = "0 429s, full windows >= 99, +0.5 s"
_NEARLY = "<= 1 429, +0.6 s"
_SHARED = "<= 3% 429s, +1 window"
CASES = [
    Case("alone, 450 IDs", _ALONE, aim=_ALONE_AIM),
    Case("alone, reset rounded down", _ALONE, fake={"reset_rounding": "down"}, aim=_NEARLY),
    Case("alone, reset to nearest", _ALONE, fake={"reset_rounding": "nearest"}, aim=_NEARLY),
    Case("alone, server clock 0.43 s ahead", _ALONE, fake={"clock_offset": 0.43}, aim=_NEARLY),
    Case("alone, server clock 0.43 s behind", _ALONE, fake={"clock_offset": -0.43}, aim=_NEARLY),
    Case("alone, 390 IDs, 300 in flight", [Party(390, 300)], aim="0 429s"),
    Case("alone, 3 of 50 left when it comes", [Party(120)], limit=50, fake={"rate_limit_used": 47}, aim="0 429s"),
    Case("2 that share, 448 IDs", [Party(224)] * 2, aim=_SHARED),
    Case("4 that share, 448 IDs", [Party(112)] * 4, aim=_SHARED),
    Case("2, one a second late with half the work", [Party(300), Party(150, start=1.0)], aim=_SHARED),
    Case("alone, 1,000 IDs, all answered 503", [Party(1000)], failures=2_500, aim="<= 2,000 requests"),
]


def _smaller(case: Case) -> Case:
    parties = [attrs.evolve(party, count=max(party.count // 4, 1)) for party in case.parties]
    return attrs.evolve(case, parties=parties, period=1.0)


def _on_sockets(*, quick: bool) -> Iterator[Row]:
    for case in map(_smaller, CASES[2::5]) if quick else CASES:
        say(f"sharing: {case.name}")
        outcome = play(case)
        yield {
            "case": case.name,
            "requests": outcome.requests,
            "rejected": outcome.rejected,
            "rejected_share": outcome.rejected / outcome.requests,
            "worst": outcome.worst,
            "limit": case.limit,
            "over": None if outcome.took is None else outcome.took - outcome.least,
            "lost": outcome.lost,
            "aim": case.aim,
        }


def _simulated(*, quick: bool) -> Iterator[Row]:
    for gate in simulation.GATES:
        for clients in (1, 2, 4):
            server = simulation.Server(FixedWindow(100, 10.0), random=random.Random(1))
            shared = [simulation.Client(server, 100 if quick else 500, gate=gate) for _ in range(clients)]
            simulation.run_all(shared, start=3.0)
            sent = sum(server.requests.values())
            full = [used for _, used in sorted(server.accepted.items())][1:-1]
            done = [party.done for party in shared]
            yield {
                "gate": gate,
                "clients": clients,
                "rejected": server.rejected,
                "rejected_share": server.rejected / sent,
                "worst": min(full, default=None),
                "first_done": min(done),
                "last_done": max(done),
            }


def run(options: Options) -> Report:
    """Play all cases, then simulate."""
    real = Table(
        "Quota, harder cases",
        [
            Column("case", "case"),
            Column("requests", "requests", ",d"),
            Column("rejected", "429s", ",d"),
            Column("rejected_share", "share", ".1%"),
            Column("worst", "worst window", "d"),
            Column("limit", "of", "d"),
            Column("over", "seconds over the least", "+.2f"),
            Column("lost", "IDs lost", ",d"),
            Column("aim", "aim"),
        ],
        list(_on_sockets(quick=options.quick)),
    )
    simulated = Table(
        "Simulated: 100 per 10 s, 500 requests for each client at 50 in flight",
        [
            Column("gate", "gate"),
            Column("clients", "clients", "d"),
            Column("rejected", "429s", ",d"),
            Column("rejected_share", "share", ".1%"),
            Column("worst", "worst window", "d"),
            Column("first_done", "first done, s", ".1f"),
            Column("last_done", "last done, s", ".1f"),
        ],
        list(_simulated(quick=options.quick)),
    )
    conditions = [
        (
            f"FakeDatadog, 100 requests per {1 if options.quick else 3} s (50 in one case), latency "
            f"{LATENCY * 1000:.0f} ms, it and each client in processes of their own; begun after 0.3 of a window."
        ),
        "The simulation runs the real gate in virtual time; the other two gates are what clients commonly do.",
        *(["Quick: a fourth of the IDs, and a fifth of the simulated requests."] if options.quick else []),
    ]
    return Report("sharing", conditions, [real, simulated])

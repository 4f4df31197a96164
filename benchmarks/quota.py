"""How long a limited quota keeps clients busy, how many 429s they provoke, and what they lose: ours and Datadog's."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from . import machine
from .contest import LATENCY, Case, Outcome, Party, play
from .machine import Skipped
from .parties import CLIENTS
from .report import Column, Options, Report, Row, Table, say

_LIMIT, _PERIOD = 100, 5.0
_RESETS = {"up": "rounded up", "down": "rounded down", "absent": "absent"}


def _clients() -> list[str]:
    try:
        machine.require("datadog_api_client", "aiosonic")
    except Skipped as reason:
        say(f"without the official client: {reason}")
        return [client for client in CLIENTS if not client.startswith("official")]
    return list(CLIENTS)


def cases() -> Iterator[tuple[Row, Case]]:
    """Give every combination, one after the other, with what the table says of it."""
    for count, places in ((450, 50), (600, 300)):
        for reset, words in _RESETS.items():
            for processes in (1, 2):
                for client in _clients():
                    shared = [Party(count // processes, places, client=client)] * processes
                    fake = {"reset_rounding": reset} if reset != "absent" else {}
                    case = Case("", shared, _LIMIT, _PERIOD, fake, resets=reset != "absent")
                    yield (
                        {
                            "case": f"{count} IDs, {places} in flight, {processes} process{'es' * (processes > 1)}",
                            "reset": words,
                            "client": client,
                        },
                        case,
                    )


def _row(told: Row, outcome: Outcome) -> Row:
    over = None if outcome.took is None or outcome.lost else outcome.took - outcome.least  # it did not do the same
    share = outcome.rejected / outcome.requests
    return told | attrs.asdict(outcome) | {"over": over, "rejected_share": share}


def _smaller(told: Row, case: Case) -> tuple[Row, Case]:
    parties = [attrs.evolve(party, count=party.count // 3) for party in case.parties]
    return told, attrs.evolve(case, parties=parties, period=1.0)


def run(options: Options) -> Report:
    """Play all cases."""
    chosen = list(cases())
    if options.quick:  # a few, with every client among them
        chosen = [_smaller(*one) for one in chosen[::13]]
    rows: list[Row] = []
    for number, (told, case) in enumerate(chosen, 1):
        say(f"quota {number}/{len(chosen)}: {', '.join(told.values())}")
        rows.append(_row(told, play(case)))
    columns = [
        Column("case", "case"),
        Column("reset", "reset"),
        Column("client", "client"),
        Column("took", "seconds", ".1f"),
        Column("least", "least possible", ".1f"),
        Column("over", "over it", "+.2f"),
        Column("requests", "requests", ",d"),
        Column("rejected", "429s", ",d"),
        Column("lost", "IDs lost", ",d"),
    ]
    conditions = [
        (
            f"FakeDatadog, {_LIMIT} requests per {1 if options.quick else _PERIOD:g} s, latency "
            f"{LATENCY * 1000:.0f} ms, it and each client in processes of their own; begun after 0.3 of a window."
        ),
        (
            "The least possible is when the quota lets the last request go: one for each ID; one for each 100 tokens "
            "and process where the list is read (auto), which Datadog's client has no way to do for given IDs."
        ),
        (
            "Datadog's client with enable_retry, everything else by default (3 retries). In threads, each thread has a "
            "client of its own. An ID is lost if the call for it raised."
        ),
        *(["Quick: a third of the IDs."] if options.quick else []),
    ]
    return Report("quota", conditions, [Table("Quota", columns, rows)])

"""One case of the benchmarks of the quota: a FakeDatadog and those who share it, all in processes of their own."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import time
from collections import Counter
from multiprocessing.connection import Connection
from typing import Any

import attrs

from dd_sa_tokens.testing import FakeDatadog, FixedWindow

from . import parties
from .parties import Where

_SPAWN = multiprocessing.get_context("spawn")
_PAGE = 100
LATENCY = 0.02


@attrs.frozen
class Party:
    """One client: who, how many IDs, how many in flight, and how many seconds after the first it begins."""

    count: int
    places: int = 50
    start: float = 0.0
    client: str = "dd_sa_tokens, get"


@attrs.frozen
class Case:
    """What is tried.

    Attributes:
        name: What it is.
        parties: Those who share the quota.
        limit: Requests allowed in a period.
        period: Its seconds.
        fake: Other arguments of `FakeDatadog`.
        resets: Whether the answers say when the window ends.
        failures: Requests answered 503.
        aim: What is hoped for, in words.
    """

    name: str
    parties: list[Party]
    limit: int = 100
    period: float = 3.0
    fake: dict[str, Any] = attrs.Factory(dict)
    resets: bool = True
    failures: int = 0
    aim: str = ""


@attrs.frozen
class Outcome:
    """What came of it.

    Attributes:
        took: Seconds from the start to the last token; `None` if there was none.
        least: Seconds in which it could have been done: the quota lets the last request go no sooner.
        requests: Received by the server.
        rejected: 429s that it gave.
        lost: IDs without a token at the end.
        worst: Requests that were admitted in the worst window between the first and the last.
    """

    took: float | None
    least: float
    requests: int
    rejected: int
    lost: int
    worst: int | None


class _Counting(FixedWindow):
    """Counts what it admits by window, and can leave the reset out."""

    def __init__(self, case: Case) -> None:
        super().__init__(
            case.limit, case.period, case.fake.get("reset_rounding", "up"), case.fake.get("rate_limit_used", 0)
        )
        self.windows: Counter[float] = Counter()
        self._resets = case.resets

    def spend(self, now: float) -> tuple[bool, dict[str, str]]:
        allowed, headers = super().spend(now)
        self.windows[now // self.period] += allowed
        if not self._resets:
            del headers["X-RateLimit-Reset"]
        return allowed, headers


def _serve(pipe: Connection, case: Case, count: int) -> None:
    """Run a FakeDatadog until told to stop, and report what it saw."""

    async def run() -> None:
        rate_limit = (case.limit, case.period)
        async with FakeDatadog(tokens=count, latency=LATENCY, rate_limit=rate_limit, **case.fake) as datadog:
            datadog._service.windows["service_account_access_tokens"] = quota = _Counting(case)
            if case.failures:
                datadog.fail_next(case.failures, status=503)
            keys = {"api_key": datadog.api_key, "app_key": datadog.app_key}
            pipe.send(Where(datadog.url, keys, datadog.service_account_id, datadog.token_ids))
            await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
            pipe.send((datadog.requests, datadog.rejected, sorted(quota.windows.items())))

    asyncio.run(run())


def play(case: Case) -> Outcome:
    """Start the server, then all parties at the same place in a window, and see what comes of it."""
    total = sum(party.count for party in case.parties)
    server, where = start(_serve, case, total)
    running = [start(parties.fetch, party.client, party.places, share) for party, share in _share(case, where)]
    offset = case.fake.get("clock_offset", 0.0)
    # The same place in a window each time, and not at its very end: which would be another story.
    begun = time.time() + 0.1
    begun += (0.3 * case.period - (begun + offset)) % case.period
    for party, (pipe, _) in zip(case.parties, running, strict=True):
        pipe.send(begun + party.start)
    outcomes = [pipe.recv() for pipe, _ in running]
    server.send(None)
    requests, rejected, windows = server.recv()
    got = sum(count for count, _ in outcomes)
    full = [used for _, used in windows[1:-1]]
    return Outcome(
        took=max(end for _, end in outcomes) - begun if got else None,
        least=_least(case, begun + offset),
        requests=requests,
        rejected=rejected,
        lost=total - got,
        worst=min(full) if full else None,
    )


def start(target: Any, *args: Any) -> tuple[Connection, Any]:
    """Start a process, and return the pipe to it and the first thing that it says."""
    ours, theirs = _SPAWN.Pipe()
    _SPAWN.Process(target=target, args=(theirs, *args), daemon=True).start()
    theirs.close()
    return ours, ours.recv()


def _share(case: Case, where: Where) -> list[tuple[Party, Where]]:
    """Deal the IDs out."""
    ids = iter(where.ids)
    return [(party, attrs.evolve(where, ids=[next(ids) for _ in range(party.count)])) for party in case.parties]


def _least(case: Case, begun: float) -> float:
    """Return the seconds after which the quota lets the last request go: one for each ID, or for each page."""
    total = sum(party.count for party in case.parties)
    pages = math.ceil(total / _PAGE)
    least = sum(pages if party.client.endswith("auto") else party.count for party in case.parties)
    more = max(math.ceil((least - (case.limit - case.fake.get("rate_limit_used", 0))) / case.limit), 0)
    return (begun // case.period + more) * case.period - begun if more else 0.0

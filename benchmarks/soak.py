"""A long fetch from a server that injects every kind of fault: each ID, each request and the memory are checked."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import attrs

from dd_sa_tokens import RetryPolicy

from .clients import STREAM, ours
from .fake_server import Account, ServerLog, fingerprint, start_fake, stop_fake
from .fetching import CONCURRENCY
from .processes import MIB, memory, reserved_core, start
from .report import Column, Report, Row, Table

LIMIT = 1_000  # requests per second
TIMEOUT = 3.0  # seconds
_STEPS = 10
_MOST_BLOCKS = 10_000  # what is in flight takes some and gives them back; one kept for each ID would be 90,000
_FAULTS: dict[int, tuple[str, dict[str, Any]]] = {
    0: ("drops", {"drop": True}),
    20: ("503s", {"status": 503}),
    40: ("truncations", {"truncate": True}),
    60: ("short stalls", {"stall": 0.1}),
}
"""The faults of each 100 requests."""
_CORRECT = "IDs with one result that has the values that the server holds"
_REPEATED = "results beyond the one for an ID"
_WRONG = "results with other values"


@attrs.frozen
class Fetched:
    """What the client saw: results by what they are, errors by class, its own counters, and its memory as it went."""

    results: Counter[str]
    errors: Counter[str]
    seconds: float
    stats: dict[str, Any]
    memory: list[Row]

    @property
    def block_growth(self) -> int:
        """The most blocks of memory by which the client grew after the first measurement."""
        first, *later = (row["blocks"] for row in self.memory)
        return max(max(later) - first, 0)


def fault(number: int) -> tuple[str, dict[str, Any]] | None:
    """Return the fault for a request by its number: 1% of each kind, and 0.1% of stalls beyond the timeout."""
    if number % 1_000 == 80:
        return "stalls beyond the timeout", {"stall": TIMEOUT + 0.5}
    return _FAULTS.get(number % 100)


def _fetch(pipe: Connection, account: Account) -> None:
    """Stream all tokens, check each, and send what came."""
    logging.getLogger("dd_sa_tokens").setLevel(logging.ERROR)  # it warns of each retry
    pipe.send(asyncio.run(_stream(account)))


async def _stream(account: Account) -> Fetched:
    remaining = dict(account.fingerprints)
    ids = list(remaining)
    random.Random(5).shuffle(ids)
    results, errors, done = Counter[str](), Counter[str](), 0
    growth: list[Row] = []
    begin = time.monotonic()
    retry = RetryPolicy(initial_backoff=0.05, max_backoff=1.0)
    target = account.target
    async with ours(target, CONCURRENCY, timeout=TIMEOUT, retry=retry) as client:
        async for item in client.stream_tokens(target.service_account_id, iter(ids)):
            expected = remaining.pop(item.token_id, None)
            results[_REPEATED] += expected is None
            if item.token is None:
                errors[type(item.error).__name__] += 1
            else:
                results[_CORRECT if fingerprint(item.token) == expected else _WRONG] += 1
            done += 1
            if done % (len(ids) // _STEPS) == 0:
                gc.collect()
                blocks = sys.getallocatedblocks()
                growth.append({"client": STREAM.name, "ids": done, "mib": memory() / MIB, "blocks": blocks})
        stats = attrs.asdict(client.stats)
    return Fetched(results, errors, time.monotonic() - begin, stats, growth)


def _account_for(count: int, log: ServerLog, fetched: Fetched) -> Iterator[tuple[str, float]]:
    yield "IDs asked for", count
    for kind in (_CORRECT, _REPEATED, _WRONG):
        yield kind, fetched.results[kind]
    yield "results that are errors", fetched.errors.total()
    yield "requests that the client sent", fetched.stats["requests"]
    yield "requests that the server received", log.requests
    yield "retries among them", fetched.stats["retries"]
    yield "429 responses that the server sent", log.rejected
    yield "429 responses that the client received", fetched.stats["rate_limited"]
    yield from sorted(log.faults.items())
    yield "seconds", round(fetched.seconds, 1)
    yield "seconds in which the rate limit admits so many requests", (log.requests - 1) // LIMIT
    yield "MiB resident after a tenth of the IDs", round(fetched.memory[0]["mib"], 1)
    yield "MiB resident after all of them", round(fetched.memory[-1]["mib"], 1)
    yield "most blocks of memory that Python held beyond those after a tenth", fetched.block_growth


def _check(count: int, log: ServerLog, fetched: Fetched) -> None:
    """Check that all figures agree."""
    assert fetched.results == Counter({_CORRECT: count}), (fetched.results, fetched.errors)
    assert log.requests == fetched.stats["requests"] == count + fetched.stats["retries"]
    assert log.rejected == fetched.stats["rate_limited"]
    assert fetched.block_growth < _MOST_BLOCKS
    failed = log.faults.total() - log.faults["short stalls"]
    assert fetched.stats["retries"] == failed + log.rejected


def run(*, quick: bool) -> Report:
    """Fetch, and check that all figures agree.

    Raises:
        AssertionError: They do not; the report is printed before.
    """
    count = 2_000 if quick else 100_000
    with reserved_core() as core:
        server = start_fake({"tokens": count, "rate_limit": (LIMIT, 1.0), "fault": fault}, core)
        fetched: Fetched = start(_fetch, server.first).first
        log = stop_fake(server)
    figures: list[Row] = [{"what": what, "figure": figure} for what, figure in _account_for(count, log, fetched)]
    conditions = [
        f"FakeDatadog, {LIMIT:,d} requests per second; stream_tokens, concurrency {CONCURRENCY}, timeout {TIMEOUT:g} s."
    ]
    table = Table([Column("what", "what"), Column("figure", "figure", ",.6g")], figures)
    report = Report("soak", conditions, [table], fetched.memory)
    try:
        _check(count, log, fetched)
    except AssertionError:
        print(report.markdown())
        raise
    return report

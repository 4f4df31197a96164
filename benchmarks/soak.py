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
from .processes import MIB, reserved_core, resident, start
from .report import Column, Report, Row, Table

LIMIT = 1_000  # requests per second
TIMEOUT = 3.0  # seconds
_COMMON = 100
_RARE = 1_000
_STEPS = 10
_MOST_BLOCKS = 10_000  # what is in flight takes some and gives them back; one kept for each ID would be 90,000


@attrs.frozen
class Fetched:
    """What the client saw.

    Attributes:
        correct: IDs whose token came once, with the values that the server holds.
        repeated: Results beyond the one for an ID.
        wrong: Results with other values.
        errors: Results that are errors, by class.
        seconds: From the first ID to the last result.
        stats: The client's own counters.
        memory: Results so far, MiB resident then, and blocks of memory that Python held.
    """

    correct: int
    repeated: int
    wrong: int
    errors: Counter[str]
    seconds: float
    stats: dict[str, Any]
    memory: list[tuple[int, float, int]]

    @property
    def block_growth(self) -> int:
        """The most blocks of memory by which the client grew after the first measurement."""
        first, *later = (blocks for _, _, blocks in self.memory)
        return max(max(later) - first, 0)


def fault(number: int) -> tuple[str, dict[str, Any]] | None:
    """Return the fault for a request by its number: 1% of each kind, and 0.1% of stalls beyond the timeout."""
    if number % _RARE == 80:
        return "stalls beyond the timeout", {"stall": TIMEOUT + 0.5}
    kinds: dict[int, tuple[str, dict[str, Any]]] = {
        0: ("drops", {"drop": True}),
        20: ("503s", {"status": 503}),
        40: ("truncations", {"truncate": True}),
        60: ("short stalls", {"stall": 0.1}),
    }
    return kinds.get(number % _COMMON)


def _fetch(pipe: Connection, account: Account) -> None:
    """Stream all tokens, check each, and send what came."""
    logging.getLogger("dd_sa_tokens").setLevel(logging.ERROR)  # it warns of each retry
    pipe.send(asyncio.run(_stream(account)))


async def _stream(account: Account) -> Fetched:
    remaining = dict(account.fingerprints)
    ids = list(remaining)
    random.Random(5).shuffle(ids)
    repeated = wrong = correct = done = 0
    errors: Counter[str] = Counter()
    memory: list[tuple[int, float, int]] = []
    begin = time.monotonic()
    retry = RetryPolicy(initial_backoff=0.05, max_backoff=1.0)
    target = account.target
    async with ours(target, CONCURRENCY, timeout=TIMEOUT, retry=retry) as client:
        async for item in client.stream_tokens(target.service_account_id, iter(ids)):
            expected = remaining.pop(item.token_id, None)
            repeated += expected is None
            if item.token is None:
                errors[type(item.error).__name__] += 1
            elif fingerprint(item.token) == expected:
                correct += 1
            else:
                wrong += 1
            done += 1
            if done % (len(ids) // _STEPS) == 0:
                gc.collect()
                memory.append((done, resident() / MIB, sys.getallocatedblocks()))
        stats = attrs.asdict(client.stats)
    return Fetched(correct, repeated, wrong, errors, time.monotonic() - begin, stats, memory)


def _account_for(count: int, log: ServerLog, fetched: Fetched) -> Iterator[tuple[str, float]]:
    yield "IDs asked for", count
    yield "IDs with one result that has the values that the server holds", fetched.correct
    yield "results beyond the one for an ID", fetched.repeated
    yield "results with other values", fetched.wrong
    yield "results that are errors", fetched.errors.total()
    yield "requests that the client sent", fetched.stats["requests"]
    yield "requests that the server received", log.requests
    yield "retries among them", fetched.stats["retries"]
    yield "429 responses that the server sent", log.rejected
    yield "429 responses that the client received", fetched.stats["rate_limited"]
    yield from sorted(log.faults.items())
    yield "seconds", round(fetched.seconds, 1)
    yield "seconds in which the rate limit admits so many requests", (log.requests - 1) // LIMIT
    yield "MiB resident after a tenth of the IDs", round(fetched.memory[0][1], 1)
    yield "MiB resident after all of them", round(fetched.memory[-1][1], 1)
    yield "most blocks of memory that Python held beyond those after a tenth", fetched.block_growth


def _check(count: int, log: ServerLog, fetched: Fetched) -> None:
    """Check that all figures agree."""
    assert (fetched.correct, fetched.repeated, fetched.wrong) == (count, 0, 0), fetched.errors
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
    memory: list[Row] = [
        {"client": STREAM.name, "ids": ids, "mib": mib, "blocks": blocks} for ids, mib, blocks in fetched.memory
    ]
    conditions = [
        f"FakeDatadog, {LIMIT:,d} requests per second; stream_tokens, concurrency {CONCURRENCY}, timeout {TIMEOUT:g} s."
    ]
    table = Table([Column("what", "what"), Column("figure", "figure", ",.6g")], figures)
    report = Report("soak", conditions, [table], memory)
    try:
        _check(count, log, fetched)
    except AssertionError:
        print(report.markdown())
        raise
    return report

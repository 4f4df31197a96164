"""A long fetch through a server that fails in every way: each ID accounted for, each request, and the memory."""

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
from zlib import crc32

import attrs
from aiohttp import web

from dd_sa_tokens import AccessToken, RetryPolicy, TokensClient
from dd_sa_tokens.testing import FakeDatadog

from . import machine
from .contest import start
from .memory import resident
from .report import Column, Options, Report, Row, Table

WIDTH = 50
TIMEOUT = 3.0
_COMMON = 100
_RARE = 1_000
_STEPS = 10
_MOST_BLOCKS = 10_000  # that come and go with what is in flight; a single one kept for each ID would be 90,000
_MIB = 1024 * 1024


@attrs.frozen
class Plan:
    """How much to do.

    Attributes:
        count: IDs.
        limit: Requests allowed in a period.
        period: Its seconds.
    """

    count: int
    limit: int
    period: float


@attrs.frozen
class Where:
    """A server, and a fingerprint of each token that it holds, by ID."""

    url: str
    keys: dict[str, str]
    account: str
    prints: dict[str, int]


@attrs.frozen
class Served:
    """What the server saw: requests, 429s, and faults by name."""

    requests: int
    rejected: int
    faults: Counter[str]


@attrs.frozen
class Fetched:
    """What the client saw.

    Attributes:
        right: IDs whose token came once, with the values that the server holds.
        twice: Results beyond one for an ID.
        wrong: Results with other values.
        errors: Results that are errors, by class.
        seconds: From the first ID to the last result.
        stats: The client's own counters.
        memory: Results so far, MiB that were resident then, and blocks of memory that Python held.
    """

    right: int
    twice: int
    wrong: int
    errors: Counter[str]
    seconds: float
    stats: dict[str, Any]
    memory: list[tuple[int, float, int]]


def fault(number: int) -> tuple[str, dict[str, Any]] | None:
    """Return the fault that a request meets, by its number: 1% of each kind, and 0.1% of stalls beyond the timeout."""
    if number % _RARE == 80:
        return "stalls beyond the timeout", {"stall": TIMEOUT + 0.5}
    kinds: dict[int, tuple[str, dict[str, Any]]] = {
        0: ("drops", {"drop": True}),
        20: ("503s", {"status": 503}),
        40: ("truncations", {"truncate": True}),
        60: ("short stalls", {"stall": 0.1}),
    }
    return kinds.get(number % _COMMON)


class _Failing(FakeDatadog):
    """Fails evenly."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.given: Counter[str] = Counter()

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        chosen = fault(self.requests)
        if chosen is not None:
            name, how = chosen
            self.fail_next(**how)
            self.given[name] += 1
        return await super()._serve(request)


def fingerprint(token: AccessToken) -> int:
    """Return a number that is another one if any value of a token is."""
    return crc32(repr(token).encode())


def _serve(pipe: Connection, plan: Plan, core: int | None) -> None:
    """Run the server until told to stop, and report what it saw."""
    machine.stay_on(core)

    async def run() -> None:
        async with _Failing(tokens=plan.count, rate_limit=(plan.limit, plan.period)) as datadog:
            keys = {"api_key": datadog.api_key, "app_key": datadog.app_key}
            prints = {token.id: fingerprint(token) for token in datadog.tokens}
            pipe.send(Where(datadog.url, keys, datadog.service_account_id, prints))
            await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
            pipe.send(Served(datadog.requests, datadog.rejected, datadog.given))

    asyncio.run(run())


def _fetch(pipe: Connection, plan: Plan, where: Where) -> None:
    """Stream all tokens, account for each, and say what came."""
    logging.getLogger("dd_sa_tokens").setLevel(logging.ERROR)  # it warns of each retry
    pipe.send(None)
    pipe.recv()
    pipe.send(asyncio.run(_stream(plan, where)))


async def _stream(plan: Plan, where: Where) -> Fetched:
    left = dict(where.prints)
    ids = list(left)
    random.Random(5).shuffle(ids)
    twice = wrong = right = done = 0
    errors: Counter[str] = Counter()
    memory: list[tuple[int, float, int]] = []
    begun = time.monotonic()
    retry = RetryPolicy(initial_backoff=0.05, max_backoff=1.0)
    client = TokensClient(base_url=where.url, concurrency=WIDTH, timeout=TIMEOUT, retry=retry, **where.keys)
    async with client:
        async for item in client.stream_tokens(where.account, iter(ids)):
            expected = left.pop(item.token_id, None)
            twice += expected is None
            errors[type(item.error).__name__] += item.error is not None
            good = item.token is not None and fingerprint(item.token) == expected
            right, wrong, done = right + good, wrong + (item.token is not None and not good), done + 1
            if done % (plan.count // _STEPS) == 0:
                gc.collect()
                memory.append((done, resident() / _MIB, sys.getallocatedblocks()))
        stats = attrs.asdict(client.stats)
    seconds = time.monotonic() - begun
    del errors["NoneType"]
    return Fetched(right, twice, wrong, errors, seconds, stats, memory)


def _account(plan: Plan, served: Served, fetched: Fetched) -> Iterator[tuple[str, float]]:
    yield "IDs asked for", plan.count
    yield "answered once, with the values that the server holds", fetched.right
    yield "answered twice", fetched.twice
    yield "answered with other values", fetched.wrong
    yield "answered with an error", fetched.errors.total()
    yield "requests that the client sent", fetched.stats["requests"]
    yield "requests that the server saw", served.requests
    yield "of which retries", fetched.stats["retries"]
    yield "429s that the server gave", served.rejected
    yield "429s that the client met", fetched.stats["rate_limited"]
    yield from sorted(served.faults.items())
    yield "seconds", round(fetched.seconds, 1)
    yield "seconds in which the quota lets so many requests go", (served.requests - 1) // plan.limit * plan.period
    yield "MiB that were resident after a tenth of the IDs", round(fetched.memory[0][1], 1)
    yield "MiB after all of them", round(fetched.memory[-1][1], 1)
    yield "blocks of memory by which Python held more meanwhile, at most", _more(fetched)


def _more(fetched: Fetched) -> int:
    """Return by how many blocks of memory the client grew after a tenth of the IDs, at most."""
    first, *later = (blocks for _, _, blocks in fetched.memory)
    return max(max(later) - first, 0)


def _check(plan: Plan, served: Served, fetched: Fetched) -> None:
    """See that the account is right: what cannot be explained is a fault of the client."""
    assert (fetched.right, fetched.twice, fetched.wrong) == (plan.count, 0, 0), fetched.errors
    assert served.requests == fetched.stats["requests"] == plan.count + fetched.stats["retries"]
    assert served.rejected == fetched.stats["rate_limited"]
    assert _more(fetched) < _MOST_BLOCKS
    spoilt = served.faults.total() - served.faults["short stalls"]
    assert fetched.stats["retries"] == spoilt + served.rejected


def run(options: Options) -> Report:
    """Run it, see that the account is right, and print it."""
    plan = Plan(2_000, 500, 0.5) if options.quick else Plan(100_000, 1_000, 1.0)
    with machine.one_core_apart() as core:
        server, where = start(_serve, plan, core)
        client, _ = start(_fetch, plan, where)
        client.send(None)
        fetched: Fetched = client.recv()
        server.send(None)
        served: Served = server.recv()
    account: list[Row] = [{"what": what, "figure": figure} for what, figure in _account(plan, served, fetched)]
    memory: list[Row] = [
        {"way": "dd_sa_tokens", "ids": ids, "mib": mib, "blocks": blocks} for ids, mib, blocks in fetched.memory
    ]
    columns = [Column("ids", "IDs", ",d"), Column("mib", "MiB", ",.1f"), Column("blocks", "blocks", ",d")]
    tables = [
        Table("Soak", [Column("what", "what"), Column("figure", "figure", ",.6g")], account),
        Table("Memory of the client", columns, memory),
    ]
    conditions = [
        (
            f"FakeDatadog in a process of its own, {plan.limit:,d} requests per {plan.period:g} s. Of 1,000 requests "
            f"10 are dropped, 10 answered 503, 10 cut short, 10 stalled for 0.1 s, and 1 beyond the timeout of "
            f"{TIMEOUT:g} s."
        ),
        f"stream_tokens, {WIDTH} in flight, asyncio, the IDs in random order; every value of each token is compared.",
        (
            "Blocks are what Python has allocated and not freed. The resident memory also holds the gaps between them, "
            "which bare aiohttp widens as much, by about 20 bytes a request."
        ),
    ]
    report = Report("soak", conditions, tables)
    try:
        _check(plan, served, fetched)
    except AssertionError:
        report.print()
        raise
    return report

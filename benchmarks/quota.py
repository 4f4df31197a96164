"""How well a shared quota is used: on real sockets against FakeDatadog, and simulated beside simpler gates."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import random
import time
from collections import Counter
from multiprocessing.connection import Connection
from typing import Any

import attrs

from dd_sa_tokens import RetryPolicy, TokensClient
from dd_sa_tokens.testing import FakeDatadog, Quota

from . import simulation

_SPAWN = multiprocessing.get_context("spawn")


@attrs.define
class Party:
    """One client of a case: how many IDs, how many in flight, and how many seconds after the first it begins."""

    count: int
    places: int = 50
    start: float = 0.0


@attrs.define
class Case:
    """A line of the table.

    Attributes:
        name: What it is.
        parties: The clients, in this process unless `apart`.
        fake: Arguments of `FakeDatadog`.
        aim: What is hoped for, in words.
        apart: Whether each client is a process of its own.
        failures: Requests answered 503.
    """

    name: str
    parties: list[Party]
    aim: str
    fake: dict[str, Any] = attrs.Factory(dict)
    apart: bool = False
    failures: int = 0


_ALONE = [Party(450)]
CASES = [
    Case("alone, 450 IDs, 100 per 3 s", _ALONE, "0 429s, full windows >= 99, +0.5 s"),
    Case("  reset rounded down", _ALONE, "<= 1 429, +0.6 s", {"reset_rounding": "down"}),
    Case("  reset to nearest", _ALONE, "<= 1 429, +0.6 s", {"reset_rounding": "nearest"}),
    Case("  server clock 0.43 s ahead", _ALONE, "<= 1 429, +0.6 s", {"clock_offset": 0.43}),
    Case("  server clock 0.43 s behind", _ALONE, "<= 1 429, +0.6 s", {"clock_offset": -0.43}),
    Case("alone, 390 IDs, 300 in flight", [Party(390, 300)], "0 429s"),
    Case("3 of 50 left when we come", [Party(120)], "0 429s", {"rate_limit": (50, 3.0), "quota_used": 47}),
    Case("2 clients, 448 IDs", [Party(224)] * 2, "<= 3%, +1 window"),
    Case("4 clients, 448 IDs", [Party(112)] * 4, "<= 3%, +1 window"),
    Case(
        "2 processes, one late, half the work",
        [Party(300), Party(150, start=1.0)],
        "<= 3%, +1 window",
        apart=True,
    ),
    Case("1,000 IDs all answered 503", [Party(1000)], "<= 2,000 requests", failures=2_500),
]


def _serve(pipe: Connection, count: int, fake: dict[str, Any], failures: int) -> None:
    """Run a FakeDatadog until told to stop, and report what it saw."""

    windows: Counter[float] = Counter()

    class Counting(Quota):
        def spend(self, now: float) -> tuple[bool, dict[str, str]]:
            allowed, headers = super().spend(now)
            windows[now // self.period] += allowed
            return allowed, headers

    async def run() -> None:
        async with FakeDatadog(tokens=count, latency=0.02, **fake) as datadog:
            limit, period = fake["rate_limit"]
            datadog._quota = Counting(limit, period, fake.get("reset_rounding", "up"), fake.get("quota_used", 0))
            if failures:
                datadog.fail_next(failures, status=503)
            pipe.send((datadog.url, datadog.api_key, datadog.app_key, datadog.service_account_id, datadog.token_ids))
            await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
            pipe.send((datadog.requests, datadog.rejected, sorted(windows.items())))

    asyncio.run(run())


async def _fetch(party: Party, where: tuple[Any, ...], ids: list[str]) -> tuple[int, float]:
    """Fetch the party's IDs; return how many it got, and when it had them."""
    url, api_key, app_key, account, _ = where
    await asyncio.sleep(party.start)
    policy = RetryPolicy(initial_backoff=0.05)
    async with TokensClient(
        base_url=url, api_key=api_key, app_key=app_key, concurrency=party.places, retry=policy
    ) as client:
        result = await client.get_tokens(account, ids, strategy="get")
    assert len(result) == len(ids)
    return len(result.tokens), time.time()


def _in_process(pipe: Connection, party: Party, where: tuple[Any, ...], ids: list[str]) -> None:
    pipe.send(asyncio.run(_fetch(party, where, ids)))


def _run_parties(case: Case, where: tuple[Any, ...]) -> list[tuple[int, float]]:
    ids = iter(where[4])
    shares = [[next(ids) for _ in range(party.count)] for party in case.parties]
    if not case.apart:

        async def together() -> list[tuple[int, float]]:
            return await asyncio.gather(
                *(_fetch(party, where, share) for party, share in zip(case.parties, shares, strict=True))
            )

        return asyncio.run(together())
    pipes = []
    for party, share in zip(case.parties, shares, strict=True):
        ours, theirs = _SPAWN.Pipe()
        _SPAWN.Process(target=_in_process, args=(theirs, party, where, share), daemon=True).start()
        pipes.append(ours)
    return [pipe.recv() for pipe in pipes]


def run_case(case: Case, *, quick: bool) -> str:
    """Run one case and describe what came of it."""
    limit, period = case.fake.get("rate_limit", (100, 3.0))
    if quick:
        period = 1.0
    fake = case.fake | {"rate_limit": (limit, period)}
    parties = [attrs.evolve(party, count=max(party.count // 4, 1)) for party in case.parties] if quick else case.parties
    case = attrs.evolve(case, parties=parties)
    total = sum(party.count for party in parties)
    ours, theirs = _SPAWN.Pipe()
    server = _SPAWN.Process(target=_serve, args=(theirs, total, fake, case.failures), daemon=True)
    server.start()
    where = ours.recv()
    offset = fake.get("clock_offset", 0.0)
    # The same place in a window each time, and not at its very end: which would be another story.
    time.sleep((0.3 * period - (time.time() + offset)) % period)
    begun = time.time()
    outcomes = _run_parties(case, where)
    ours.send(None)
    requests, rejected, windows = ours.recv()
    server.join()
    return _describe(case, total, limit, period, begun + offset, outcomes, requests, rejected, windows, fake)


def _describe(  # noqa: PLR0917 - one line of a table
    case: Case,
    total: int,
    limit: int,
    period: float,
    begun: float,
    outcomes: list[tuple[int, float]],
    requests: int,
    rejected: int,
    windows: list[tuple[float, int]],
    fake: dict[str, Any],
) -> str:
    got = sum(count for count, _ in outcomes)
    first = limit - fake.get("quota_used", 0)
    more = max(math.ceil((total - first) / limit), 0)
    least = (begun // period + more) * period if more else begun
    over = f"{max(end for _, end in outcomes) + fake.get('clock_offset', 0.0) - least:+7.2f} s" if got else "-"
    full = [used for _, used in windows[1:-1]]
    worst = f"{min(full)}/{limit}" if full else "-"
    return (
        f"  {case.name:38} {requests:5} {rejected:4} {rejected / requests:6.1%} {worst:>8} "
        f"{over:>9} {total - got:5}   {case.aim}"
    )


def real(*, quick: bool) -> None:
    """Print the table of the cases on real sockets."""
    print("\nQuota, 50 in flight, latency 20 ms, FakeDatadog in a process of its own")
    print(
        f"  {'case':38} {'sent':>5} {'429s':>4} {'':6} {'worst':>8} {'over the':>9} {'IDs':>5}\n"
        f"  {'':38} {'':5} {'':4} {'share':>6} {'window':>8} {'least':>9} {'lost':>5}   aim"
    )
    for case in CASES[::3] if quick else CASES:
        print(run_case(case, quick=quick), flush=True)


def simulated(*, quick: bool) -> None:
    """Print the table of the simulation: the gate beside simpler ones."""
    print("\nQuota simulated: 100 per 10 s, 20 ms, 500 requests for each client at 50 in flight")
    print(f"  {'gate':34} {'clients':>7} {'429s':>6} {'share':>6} {'worst window':>12} {'first/last done':>16}")
    for gate in simulation.GATES:
        for clients in (1, 2, 4):
            server = simulation.Server(Quota(100, 10.0), random=random.Random(1))
            parties = [simulation.Client(server, 100 if quick else 500, gate=gate) for _ in range(clients)]
            simulation.run_all(parties, start=3.0)
            sent = sum(server.requests.values())
            full = [used for _, used in sorted(server.accepted.items())][1:-1]
            done = [party.done for party in parties]
            print(
                f"  {gate:34} {clients:7} {server.rejected:6} {server.rejected / sent:6.1%} "
                f"{min(full, default=0):8}/100 {min(done):7.1f}/{max(done):.1f} s"
            )


def main(*, quick: bool) -> None:
    """Print both tables."""
    real(quick=quick)
    simulated(quick=quick)

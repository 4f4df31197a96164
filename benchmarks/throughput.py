"""Tokens per second beside other clients: same server, IDs, requests in flight and check; rounds interleaved."""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from . import machine
from .answers import token_ids
from .machine import Skipped, cpu_seconds
from .peers import OURS, PEERS, Peer, Tally
from .report import Column, Options, Report, Row, Table, say
from .server import Server, capacity, fast_server

WIDTHS = (1, 10, 50, 200)
_BUSY = 0.9  # share of its core's time from which on it is the server that is measured

Loop = Callable[[], asyncio.AbstractEventLoop]


@attrs.frozen
class Sample:
    """One peer's part of a round: seconds for each token, of the clock and of this process's and the server's CPU."""

    wall: float
    cpu: float
    server: float | None


def loops() -> dict[str, Loop]:
    """Return the event loops that are there."""
    found: dict[str, Loop] = {"asyncio": asyncio.new_event_loop}
    try:
        machine.require("uvloop")
    except Skipped as reason:
        say(f"without uvloop: {reason}")
    else:
        import uvloop

        found["uvloop"] = uvloop.new_event_loop
    return found


def present() -> list[Peer]:
    """Return the peers that are installed, and say which are not."""
    found: list[Peer] = []
    for peer in PEERS:
        try:
            machine.require(*peer.needs)
        except Skipped as reason:
            say(f"without {peer.name}: {reason}")
        else:
            found.append(peer)
    return found


async def fetch(peer: Peer, server: Server, width: int, count: int) -> Sample:
    """Fetch some tokens over connections that are open already, and see that each is the one asked for."""
    ids = token_ids(count)
    async with peer.open(server.url, width) as run:
        await run(token_ids(2 * width), Tally().check)
        gc.collect()
        tally = Tally()
        served, worked, begun = cpu_seconds(server.pid), time.process_time(), time.perf_counter()
        await run(ids, tally.check)
        wall, cpu, after = time.perf_counter() - begun, time.process_time() - worked, cpu_seconds(server.pid)
    assert tally.count == count
    served = None if served is None or after is None else after - served
    return Sample(wall / count, cpu / count, None if served is None else served / count)


def measure(
    peers: list[Peer], server: Server, loop: Loop, *, width: int, count: int, rounds: int, seed: int
) -> dict[str, list[Sample]]:
    """Let all of them fetch, round after round, each time in another order."""
    order = random.Random(seed)
    samples: dict[str, list[Sample]] = {peer.name: [] for peer in peers}
    for _ in range(rounds):
        for peer in order.sample(peers, len(peers)):
            with asyncio.Runner(loop_factory=loop) as runner:
                samples[peer.name].append(runner.run(fetch(peer, server, width, max(count // peer.part, 1))))
    return samples


def summarize(samples: dict[str, list[Sample]]) -> Iterator[Row]:
    """Give a line for each peer: medians, and our speed as a multiple of its speed within the same round."""
    ours = samples[OURS.name]
    for name, theirs in samples.items():
        ratios = [their.wall / our.wall for our, their in zip(ours, theirs, strict=True)]
        cpu_ratios = [their.cpu / our.cpu for our, their in zip(ours, theirs, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        busy = [sample.server / sample.wall for sample in theirs if sample.server is not None]
        yield {
            "peer": name,
            "per_second": 1 / statistics.median(sample.wall for sample in theirs),
            "ours_against_it": statistics.median(ratios),
            "quartiles": [low, high],
            "spread": f"{low:.2f} to {high:.2f}",
            "wall_us": statistics.median(sample.wall for sample in theirs) * 1e6,
            "cpu_ours_against_it": statistics.median(cpu_ratios),
            "cpu_us": statistics.median(sample.cpu for sample in theirs) * 1e6,
            "server_busy": statistics.median(busy) if busy else None,
        }


_COLUMNS = [
    Column("peer", "client"),
    Column("per_second", "tokens/s", ",.0f"),
    Column("ours_against_it", "speed, ours / its", ".2f"),
    Column("spread", "half of the rounds"),
    Column("wall_us", "µs a token", ",.0f"),
    Column("cpu_us", "CPU µs a token", ",.0f"),
    Column("cpu_ours_against_it", "CPU, its / ours", ".2f"),
    Column("server_busy", "server busy", ".0%"),
]


def run(options: Options, seed: int = 8) -> Report:
    """Measure all peers at all widths, under all loops."""
    widths, count, rounds = ((10,), 200, 1) if options.quick else (WIDTHS, 4_000, 9)
    tables: list[Table] = []
    data: list[dict[str, Any]] = []
    peers = present()
    with fast_server() as server:
        limit = capacity(server, 50, 0.3 if options.quick else 2.0)
        for loop_name, loop in loops().items():
            for width in widths:
                samples = measure(peers, server, loop, width=width, count=count, rounds=rounds, seed=seed)
                rows = [{"loop": loop_name, "width": width} | row for row in summarize(samples)]
                tables.append(Table(f"Throughput, {width} in flight, {loop_name}", _COLUMNS, rows))
                data += [
                    {"loop": loop_name, "width": width, "peer": name, "samples": [attrs.astuple(one) for one in found]}
                    for name, found in samples.items()
                ]
    conditions = [
        f"Server: {server.name}; it can answer {limit:,.0f} requests/s.",
        (
            f"{rounds} rounds, in each of which every client fetched {count:,} tokens (those of Datadog a fourth of "
            f"that, httpx a tenth) over connections that were open already, in random order (seed {seed}). Medians; "
            "ratios within the round."
        ),
        (
            "Every answer was decoded and checked to be the token asked for. Ours made typed tokens, kept to the "
            "quota, and had retries and timeouts on; aiohttp had none of that, but for its timeout in the textbook."
        ),
        (
            "Datadog's asynchronous client opens 25 connections at the most; the one that goes one at a time does "
            "so at every width."
        ),
        *_doubts(tables),
    ]
    return Report("throughput", conditions, tables, data)


def _doubts(tables: list[Table]) -> Iterator[str]:
    for table in tables:
        for row in table.rows:
            if (row["server_busy"] or 0) > _BUSY:
                yield f"In doubt: {row['peer']} kept the server busy ({table.title}): the server is measured, too."

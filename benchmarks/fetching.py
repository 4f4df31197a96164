"""One fetch from the fast server, timed, or watched for what it does to the event loop."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator

from .clients import Implementation, Job
from .fast_server import Server
from .loop_lag import LoopLag, WatchedLoop, measured_lag
from .machine import Loop, installed
from .payloads import token_ids
from .report import Column, Row
from .timing import Sample, Stopwatch, median, ratios

CONCURRENCY = 50
CLIENT = Column("client", "client")
PER_SECOND = Column("per_second", "tokens/s", ",.0f")


def choose(*clients: Implementation) -> list[Implementation]:
    """Return the clients that are installed."""
    return [one for one in clients if installed(one.name, one.needs)]


def timed_fetch(
    client: Implementation, server: Server, count: int, *, concurrency: int = CONCURRENCY, loop: Loop | None = None
) -> Sample:
    """Fetch tokens over connections that are open already, and check that each is the one that was asked for."""

    async def run() -> Sample:
        watch, job = Stopwatch(server.pid), Job(server.target, concurrency, token_ids(count))
        async with client.open(server.target, concurrency) as opened:
            await _warm_up(client, opened, job)
            with watch:
                kept = await client.fetch(opened, job)
        del kept  # only now, since to free it takes time, too
        assert job.fetched == count
        return watch.sample(count)

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(run())


def watched_fetch(client: Implementation | None, server: Server, count: int) -> LoopLag:
    """Fetch tokens, and return what another task on the loop feels; without a client, on a loop with nothing to do."""

    async def run() -> LoopLag:
        if client is None:
            async with measured_lag() as lag:
                await asyncio.sleep(1)
            return lag
        job = Job(server.target, CONCURRENCY, token_ids(count))
        async with client.open(server.target, CONCURRENCY) as opened:
            await _warm_up(client, opened, job)
            async with measured_lag() as lag:
                kept = await client.fetch(opened, job)
        del kept
        assert job.fetched == count
        return lag

    with asyncio.Runner(loop_factory=WatchedLoop) as runner:
        return runner.run(run())


async def _warm_up(client: Implementation, opened: object, job: Job) -> None:
    """Open the connections; the few of a client that reads the list do not matter."""
    if not client.reads_list:
        await client.fetch(opened, Job(job.target, job.concurrency, token_ids(2 * job.concurrency)))


def speed_rows(samples: dict[str, list[Sample]]) -> Iterator[Row]:
    """Return a row for each client: medians, and the speed of ours, the first, over its speed within a round."""
    ours = next(iter(samples.values()))
    for name, theirs in samples.items():
        speed = ratios(ours, theirs, "wall")
        low, _, high = statistics.quantiles(speed, n=4) if len(speed) > 1 else speed * 3
        yield {
            "client": name,
            "per_second": 1 / median(theirs, "wall"),
            "speed_ratio": statistics.median(speed),
            "quartiles": f"{low:.2f} to {high:.2f}",
            "cpu_us": median(theirs, "cpu") * 1e6,
            "cpu_ratio": statistics.median(ratios(ours, theirs, "cpu")),
            "server_busy": statistics.median(sample.server / sample.wall for sample in theirs),
        }

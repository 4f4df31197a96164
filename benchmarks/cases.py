"""One case under a rate limit: a fake Datadog server, the processes of the clients that share it, and their store."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import time
from contextlib import AsyncExitStack, ExitStack
from multiprocessing.connection import Connection
from typing import Any

import attrs

from .clients import AUTO, BY_GET, Implementation, Job
from .fake_server import Account, ServerLog, start_fake, stop_fake
from .payloads import PAGE_SIZE, Target
from .processes import Child, start
from .redis_server import RedisServer, find_redis_server

LATENCY = 0.02  # seconds


@attrs.frozen
class Client:
    """A client that takes part in a case."""

    count: int  # IDs that it fetches
    concurrency: int = 50
    start: float = 0.0  # seconds after the first client when it begins
    implementation: Implementation = BY_GET
    store: bool = False  # whether it shares one count of the rate limit, in Redis


@attrs.frozen
class Case:
    """A server and the clients that share its rate limit."""

    name: str
    clients: list[Client]
    limit: int = 100  # requests in a period
    period: float = 3.0  # seconds
    fake: dict[str, Any] = attrs.Factory(dict[str, Any])  # other arguments of `ObservedDatadog`
    processes: int = 8  # over which the clients are spread; at most one for each client
    disturbed: bool = False  # whether `_disturb` kills the last process and Redis

    @property
    def count(self) -> int:
        """The number of IDs in all."""
        return sum(client.count for client in self.clients)

    @property
    def needs_store(self) -> bool:
        """Whether a client shares one count in Redis."""
        return any(client.store for client in self.clients)

    def smaller(self, divisor: int) -> Case:
        """Return the case with a fraction of the IDs and windows of a second."""
        clients = [attrs.evolve(client, count=max(client.count // divisor, 1)) for client in self.clients]
        return attrs.evolve(self, clients=clients, period=1.0)


@attrs.frozen
class Outcome:
    """What a case gave."""

    took: float | None  # seconds from the start to the last token; `None` if none came
    minimum: float  # the theoretical minimum of `took`: the rate limit does not admit the last request sooner
    requests: int  # that the server received
    rejected: int  # 429 responses that it sent
    lost: int  # IDs without a token at the end
    fewest: int | None  # requests admitted in the emptiest window between the first and the last, if there was one
    above: float | None  # seconds above the minimum; below 0 only if IDs were lost, or a process was killed


def run_case(case: Case) -> Outcome:
    """Start the server, then all clients at the same place in a window."""
    options = case.fake | {
        "tokens": case.count,
        "latency": LATENCY,
        "rate_limit": (case.limit, case.period),
    }
    server = start_fake(options)
    account: Account = server.first
    ids = iter(account.fingerprints)
    shares = [(client, [next(ids) for _ in range(client.count)]) for client in case.clients]
    by_process = [shares[number :: case.processes] for number in range(min(case.processes, len(shares)))]
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(find_redis_server() or "redis-server")) if case.needs_store else None
        url = None if redis is None else redis.url
        children = [start(_fetch, account.target, share, url) for share in by_process]
        offset = case.fake.get("clock_offset", 0.0)
        # Always the same place in a window, and not its end, which would be a case of its own.
        begin = time.time() + 0.1
        begin += (0.3 * case.period - (begin + offset)) % case.period
        for child in children:
            child.pipe.send(begin)
        expected = case.count
        if redis is not None and case.disturbed:
            expected -= sum(client.count for client, _ in by_process[-1])
            _disturb(children.pop(), redis, begin, case.period)
        outcomes = [child.pipe.recv() for child in children]
    log: ServerLog = stop_fake(server)
    fetched = sum(count for count, _ in outcomes)
    took = max(end for _, end in outcomes) - begin if fetched else None
    minimum = _minimum(case, begin + offset)
    return Outcome(
        took=took,
        minimum=minimum,
        requests=log.requests,
        rejected=log.rejected,
        lost=expected - fetched,
        fewest=min(log.admitted[1:-1], default=None),
        above=None if took is None else took - minimum,
    )


def _disturb(victim: Child, redis: RedisServer, begin: float, period: float) -> None:
    """Kill a process after a window, and Redis a window later, which comes back with nothing."""
    time.sleep(max(begin + period - time.time(), 0.0))
    os.kill(victim.pid, signal.SIGKILL)
    time.sleep(period)
    redis.kill()
    time.sleep(0.3)
    redis.start()


def _minimum(case: Case, begin: float) -> float:
    """Return the seconds until the rate limit admits the last request: one for each ID, or for each page."""
    pages = math.ceil(case.count / PAGE_SIZE)
    requests = sum(pages if client.implementation is AUTO else client.count for client in case.clients)
    beyond = requests - (case.limit - case.fake.get("used", 0))
    windows = max(math.ceil(beyond / case.limit), 0)
    return (begin // case.period + windows) * case.period - begin if windows else 0.0


def _fetch(pipe: Connection, target: Target, shares: list[tuple[Client, list[str]]], url: str | None) -> None:
    """Get ready, wait for the time to begin, fetch; send how many tokens came, and when the last one did."""
    for name in ("urllib3", "dd_sa_tokens"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they warn of each retry
    if any("datadog_api_client" in client.implementation.needs for client, _ in shares):
        # Its import takes seconds, which are not the rate limit's.
        import datadog_api_client.v2.api.service_accounts_api  # noqa: F401 - imported for later
    pipe.send(None)
    begin = pipe.recv()

    async def run() -> None:
        async with AsyncExitStack() as stack:
            shared: dict[str, Any] = {}
            if any(client.store for client, _ in shares):
                from dd_sa_tokens.fleet import RedisStore

                shared = {"rate_limit_store": await stack.enter_async_context(RedisStore(url, organization="fleet"))}

            async def fetch(client: Client, token_ids: list[str]) -> int:
                opening = client.implementation.open(target, client.concurrency, **(shared if client.store else {}))
                opened = await stack.enter_async_context(opening)
                job = Job(target, client.concurrency, token_ids, may_lose=True)
                await asyncio.sleep(max(begin + client.start - time.time(), 0.0))
                await client.implementation.fetch(opened, job)
                return job.fetched

            fetched = await asyncio.gather(*(fetch(client, token_ids) for client, token_ids in shares))
            pipe.send((sum(fetched), time.time()))

    asyncio.run(run())

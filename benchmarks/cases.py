"""One case under a rate limit: a fake Datadog server and the clients that share it, each in a process of its own."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from multiprocessing.connection import Connection
from typing import Any

import attrs

from .clients import AUTO, BY_GET, Implementation, Job, Tally
from .fake_server import Account, ServerLog, start_fake, stop_fake
from .payloads import PAGE_SIZE, Target
from .processes import start

LATENCY = 0.02  # seconds


@attrs.frozen
class Client:
    """A client that takes part in a case.

    Attributes:
        count: IDs that it fetches.
        concurrency: Most requests in flight.
        start: Seconds after the first client when it begins.
        implementation: What it fetches with.
    """

    count: int
    concurrency: int = 50
    start: float = 0.0
    implementation: Implementation = BY_GET


@attrs.frozen
class Case:
    """A server and the clients that share its rate limit.

    Attributes:
        name: What is tried.
        clients: The clients.
        limit: Requests allowed in a period.
        period: The length of a period in seconds.
        fake: Other arguments of `ObservedDatadog`.
    """

    name: str
    clients: list[Client]
    limit: int = 100
    period: float = 3.0
    fake: dict[str, Any] = attrs.Factory(dict[str, Any])

    @property
    def count(self) -> int:
        """The number of IDs in all."""
        return sum(client.count for client in self.clients)

    def smaller(self, divisor: int) -> Case:
        """Return the case with a fraction of the IDs and windows of a second."""
        clients = [attrs.evolve(client, count=max(client.count // divisor, 1)) for client in self.clients]
        return attrs.evolve(self, clients=clients, period=1.0)


@attrs.frozen
class Outcome:
    """What a case gave.

    Attributes:
        took: Seconds from the start to the last token; `None` if none came.
        minimum: The theoretical minimum of `took`: the rate limit does not admit the last request sooner.
        requests: Requests that the server received.
        rejected: 429 responses that it sent.
        lost: IDs without a token at the end.
        fewest: Requests admitted in the emptiest window between the first and the last; `None` if there was none.
        above: Seconds above the minimum; below 0 only if IDs were lost.
    """

    took: float | None
    minimum: float
    requests: int
    rejected: int
    lost: int
    fewest: int | None
    above: float | None = attrs.field(init=False)

    @above.default
    def _subtract(self) -> float | None:
        return None if self.took is None else self.took - self.minimum


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
    children = [start(_fetch, client, account.target, share) for client, share in shares]
    offset = case.fake.get("clock_offset", 0.0)
    # Always the same place in a window, and not its end, which would be a case of its own.
    begin = time.time() + 0.1
    begin += (0.3 * case.period - (begin + offset)) % case.period
    for client, child in zip(case.clients, children, strict=True):
        child.pipe.send(begin + client.start)
    outcomes = [child.pipe.recv() for child in children]
    log: ServerLog = stop_fake(server)
    fetched = sum(count for count, _ in outcomes)
    return Outcome(
        took=max(end for _, end in outcomes) - begin if fetched else None,
        minimum=_minimum(case, begin + offset),
        requests=log.requests,
        rejected=log.rejected,
        lost=case.count - fetched,
        fewest=min(log.admitted[1:-1], default=None),
    )


def _minimum(case: Case, begin: float) -> float:
    """Return the seconds until the rate limit admits the last request: one for each ID, or for each page."""
    pages = math.ceil(case.count / PAGE_SIZE)
    requests = sum(pages if client.implementation is AUTO else client.count for client in case.clients)
    beyond = requests - (case.limit - case.fake.get("used", 0))
    windows = max(math.ceil(beyond / case.limit), 0)
    return (begin // case.period + windows) * case.period - begin if windows else 0.0


def _fetch(pipe: Connection, client: Client, target: Target, token_ids: list[str]) -> None:
    """Get ready, wait for the time to begin, fetch; send how many tokens came, and when the last one did."""
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it warns of each retry
    logging.getLogger("dd_sa_tokens").setLevel(logging.ERROR)
    if "datadog_api_client" in client.implementation.needs:  # its import takes seconds, which are not the rate limit's
        import datadog_api_client.v2.api.service_accounts_api  # noqa: F401 - imported for later
    pipe.send(None)
    time.sleep(max(pipe.recv() - time.time(), 0.0))
    tally = Tally(may_lose=True)

    async def run() -> None:
        async with client.implementation.open(target, client.concurrency) as opened:
            await client.implementation.fetch(opened, Job(target, client.concurrency, token_ids, tally.deliver))

    asyncio.run(run())
    pipe.send((tally.fetched, time.time()))

"""Many clients on one limit, in 8 processes on real sockets, with a store in Redis and by the headers alone."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import attrs

from dd_sa_tokens import TokensClient

from .fake_server import ServerLog, start_fake, stop_fake
from .payloads import Target
from .processes import Child, start
from .report import Row

LATENCY = 0.02  # seconds
_PROCESSES = 8


@attrs.frozen
class Case:
    """Clients that begin together in the middle of a window.

    Attributes:
        clients: How many, spread over the processes.
        each: IDs that each one fetches.
        limit: Requests allowed in a period.
        period: Its length in seconds.
        outsiders: Further clients, in a process of their own, that never use the store.
        disturbed: Whether one process is killed, and Redis is restarted, while they are at work.
    """

    clients: int
    each: int
    limit: int = 100
    period: float = 4.0
    outsiders: int = 0
    disturbed: bool = False

    @property
    def name(self) -> str:
        """What is tried."""
        more = f", and {self.outsiders} without the store" if self.outsiders else ""
        trouble = ", a process killed and Redis restarted" if self.disturbed else ""
        return f"{self.clients} clients, {self.each} IDs each, {self.limit} per {self.period:g} s{more}{trouble}"


CASES = [
    Case(2, 225),
    Case(8, 56),
    Case(16, 28),
    Case(32, 14),
    Case(64, 7),
    Case(24, 6, limit=20),
    Case(8, 50, outsiders=1),
    Case(8, 100, disturbed=True),
]


class Redis:
    """A Redis server on a Unix socket, which keeps nothing on disk."""

    def __init__(self, directory: str) -> None:
        self._socket = Path(directory, "redis.sock")
        self.url = f"unix://{self._socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        options = ["--port", "0", "--unixsocket", str(self._socket), "--save", "", "--dir", str(self._socket.parent)]
        self._process = subprocess.Popen([find_redis() or "redis-server", *options], stdout=subprocess.DEVNULL)
        while not self._socket.exists():
            time.sleep(0.005)

    def kill(self) -> None:
        """Kill it; what it knew is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._socket.unlink(missing_ok=True)


def find_redis() -> str | None:
    """Return the path of a redis-server; `None` if this machine has none."""
    return os.environ.get("REDIS_SERVER") or shutil.which("redis-server")


@contextmanager
def _redis() -> Iterator[Redis]:
    with tempfile.TemporaryDirectory(prefix="redis") as directory:
        redis = Redis(directory)
        redis.start()
        try:
            yield redis
        finally:
            redis.kill()


def run(*, quick: bool) -> Iterator[Row]:
    """Run the cases with and without a store; none where there is no redis-server."""
    if find_redis() is None:
        print("fleet: there is no redis-server")
        return
    for case in [Case(8, 10, limit=20, period=1.0)] if quick else CASES:
        for shared in (True, False):
            if shared or not (case.disturbed or case.outsiders):
                print(f"fleet: {case.name}, {'store' if shared else 'headers alone'}")
                with _redis() as redis:
                    yield {"case": case.name, "by": "store" if shared else "headers"} | _run(case, redis, shared=shared)


def _run(case: Case, redis: Redis, *, shared: bool) -> Row:
    count = (case.clients + case.outsiders) * case.each
    server = start_fake({"tokens": count, "latency": LATENCY, "rate_limit": (case.limit, case.period)})
    ids = iter(server.first.fingerprints)
    shares = [[next(ids) for _ in range(case.each)] for _ in range(case.clients + case.outsiders)]
    url = redis.url if shared else None
    children = [
        start(_fetch, server.first.target, own, url)
        for number in range(_PROCESSES)
        if (own := shares[number : case.clients : _PROCESSES])
    ]
    if case.outsiders:
        children.append(start(_fetch, server.first.target, shares[case.clients :], None))
    begin = time.time() + 0.3
    begin += (0.3 * case.period - begin) % case.period
    for child in children:
        child.pipe.send(begin)
    if case.disturbed:
        _disturb(children, redis, begin, case.period)
    ends = [child.pipe.recv() for child in children]
    log: ServerLog = stop_fake(server)
    fetched = sum(tokens for tokens, _ in ends)
    windows = max(math.ceil(fetched / case.limit) - 1, 0)
    least = (begin // case.period + windows) * case.period - begin if windows else 0.0
    return {
        "share": 100 * log.rejected / max(log.requests, 1),
        "fewest": 100 * min(log.admitted[1:-1], default=case.limit) / case.limit,
        "above": max(end for _, end in ends) - begin - least,
        "lost": sum(len(share) for share in shares) - fetched,
    }


def _disturb(children: list[Child], redis: Redis, begin: float, period: float) -> None:
    """Kill a process, and restart Redis a window later."""
    time.sleep(max(begin + period - time.time(), 0.0))
    victim = children.pop()
    os.kill(victim.pid, signal.SIGKILL)
    time.sleep(period)
    redis.kill()
    time.sleep(0.3)
    redis.start()


def _fetch(pipe: Connection, target: Target, shares: list[list[str]], url: str | None) -> None:
    """Get ready, wait for the time to begin, fetch with a client for each share; send what came, and when."""
    logging.getLogger("dd_sa_tokens").setLevel(logging.ERROR)
    pipe.send(None)
    begin = pipe.recv()

    async def run() -> int:
        async with AsyncExitStack() as stack:
            options: dict[str, Any] = {}
            if url is not None:
                from dd_sa_tokens.fleet import RedisStore

                options["rate_limit_store"] = await stack.enter_async_context(RedisStore(url, organization="fleet"))
            clients = [
                await stack.enter_async_context(TokensClient(base_url=target.url, **target.keys, **options))
                for _ in shares
            ]
            await asyncio.sleep(max(begin - time.time(), 0.0))
            results = await asyncio.gather(
                *(
                    client.get_tokens(target.service_account_id, share, strategy="get")
                    for client, share in zip(clients, shares, strict=True)
                )
            )
            ended = time.time()
            with suppress(BrokenPipeError):
                pipe.send((sum(len(result.tokens) for result in results), ended))
        return 0

    asyncio.run(run())

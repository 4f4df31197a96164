"""The real gate under a virtual clock: clients that share a quota they only see in headers, in no real time.

The server's windows are the fake server's own arithmetic; nothing of the ledger or the gate is copied here.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import attrs

from dd_sa_tokens._gate import Gate
from dd_sa_tokens._ledger import Ticket
from dd_sa_tokens._wire import Reply, parse_rate_limit
from dd_sa_tokens.testing import FixedWindow

_EPOCH = 1_800_000_000.0  # when the simulated wall clock begins


class _Skipper(selectors.DefaultSelector):
    """Waits by moving the clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is None:
            msg = "the simulation waits for something that never happens"
            raise RuntimeError(msg)
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while nothing can be done."""

    def __init__(self) -> None:
        self._skipper = _Skipper()
        super().__init__(self._skipper)

    def time(self) -> float:
        return self._skipper.now


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    """Run a coroutine function to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


@attrs.define
class Server:
    """A quota seen from afar.

    Attributes:
        quota: Counts.
        offset: Seconds by which its clock is ahead of the clients'.
        latency: Mean seconds for a round trip; each half of it varies by half.
        requests: Received, by window.
        accepted: Those that were not rejected, by window.
        first: When the first of a window came, in seconds since the epoch on the server's clock.
        rejected: 429s given.
    """

    quota: FixedWindow
    offset: float = 0.0
    latency: float = 0.02
    random: random.Random = attrs.Factory(lambda: random.Random(0))
    requests: Counter[int] = attrs.Factory(Counter)
    accepted: Counter[int] = attrs.Factory(Counter)
    first: dict[int, float] = attrs.Factory(dict)
    rejected: int = 0

    def wall(self) -> float:
        """Return the clients' wall clock."""
        return _EPOCH + asyncio.get_running_loop().time()

    async def answer(self) -> Reply:
        """Carry a request there and its answer back."""
        await asyncio.sleep(self.latency / 2 * self.random.uniform(0.5, 1.5))
        now = self.wall() + self.offset
        admitted, headers = self.quota.spend(now)
        window = int(now // self.quota.period)
        self.requests[window] += 1
        self.first.setdefault(window, now)
        self.accepted[window] += admitted
        self.rejected += not admitted
        await asyncio.sleep(self.latency / 2 * self.random.uniform(0.5, 1.5))
        return Reply(200 if admitted else 429, headers, b"", self.wall())


GATES = ("none: each request by itself", "one that closes on a 429", "dd_sa_tokens")


@attrs.define
class Client:
    """One client: so many requests, so many at a time, all through one gate.

    Attributes:
        server: Whom it asks.
        todo: Requests that must succeed.
        places: Most in flight.
        start: Seconds before it begins.
        reserve: Share of each window that it leaves to others.
        gate: Of `GATES`; the others are what clients commonly do.
        rejected: 429s met.
        done: When it had them all, on the loop's clock.
    """

    server: Server
    todo: int
    places: int = 50
    start: float = 0.0
    reserve: float = 0.0
    gate: str = GATES[-1]
    rejected: int = 0
    done: float = 0.0
    _closed_until: float = 0.0

    async def run(self) -> None:
        """Do all of it."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.start)
        gate = Gate(self.places, reserve=self.reserve, clock=loop.time, wall=self.server.wall)
        left = iter(range(self.todo))
        ask = self._through(gate) if self.gate == GATES[-1] else self._by_itself

        async def work() -> None:
            for _ in left:
                while not await ask():
                    pass

        await asyncio.gather(*(work() for _ in range(min(self.places, self.todo))))
        assert gate.in_flight == 0
        self.done = loop.time()

    def _through(self, gate: Gate) -> Callable[[], Awaitable[bool]]:
        async def ask() -> bool:
            ticket = await gate.enter("get")
            assert isinstance(ticket, Ticket)
            reply = await self.server.answer()
            gate.answered("get", ticket, parse_rate_limit(reply, str), reply.status)
            self.rejected += reply.status == 429
            return reply.status == 200

        return ask

    async def _by_itself(self) -> bool:
        """Wait for the reset after a 429: alone, or, with a gate that closes, together."""
        loop = asyncio.get_running_loop()
        if self.gate == GATES[1] and loop.time() < self._closed_until:
            await asyncio.sleep(self._closed_until - loop.time())
        reply = await self.server.answer()
        if reply.status == 429:
            self.rejected += 1
            reset = float(reply.headers["X-RateLimit-Reset"])
            self._closed_until = loop.time() + reset
            if self.gate == GATES[0]:
                await asyncio.sleep(reset)
        return reply.status == 200


def run_all(clients: list[Client], start: float = 0.0) -> None:
    """Run clients beside one another, beginning so many seconds after a window's begin."""

    async def main() -> None:
        await asyncio.sleep(start)
        await asyncio.gather(*(client.run() for client in clients))

    run(main)

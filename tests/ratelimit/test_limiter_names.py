"""Which limit is which: its name, limit and period together, in virtual time with the real limiter.

Datadog gives one name to limits of several sizes, and changes limits while clients run.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable

import attrs
import pytest
from support.internals import waiting_at, window_of
from support.virtual_time import GET, LIST, CountingServer, enter, make, now, virtual

from dd_sa_tokens import RateLimit
from dd_sa_tokens._ratelimit import Permit, RateLimiter

CREATE = "create_token"


@attrs.define
class Named:
    """A server's limit and the name that it gives.

    Attributes:
        server: Counts the requests.
        name: Makes the name, for each answer.
    """

    server: CountingServer
    name: Callable[[], str | None]

    def spend(self) -> tuple[RateLimit, int]:
        """Count one request, now."""
        said, status = self.server.spend()
        return attrs.evolve(said, name=self.name()), status


def named(limit: int, period: float, name: str | None = "tokens") -> Named:
    return Named(CountingServer(limit, period), lambda: name)


class Clients:
    """The calls of one client, and how they ended."""

    def __init__(self, limits: dict[str, Named], seed: int = 0, concurrency: int = 50) -> None:
        self.limits = limits
        self.limiter: RateLimiter = make(concurrency)
        self.statuses: Counter[int] = Counter()
        self._random = random.Random(seed)

    async def call(self, operation: str) -> None:
        """Make one call; repeat it after a 429."""
        while True:
            permit = await enter(self.limiter, operation)
            assert isinstance(permit, Permit)
            await asyncio.sleep(self._random.uniform(0.0, 0.05))
            said, status = self.limits[operation].spend()
            await asyncio.sleep(self._random.uniform(0.0, 0.1))
            self.limiter.record_response(permit, said, status)
            self.statuses[status] += 1
            if status != 429:
                return

    async def calls(self, operations: Iterable[str]) -> None:
        """Make calls at the same time."""
        await asyncio.gather(*(self.call(operation) for operation in operations))


@pytest.mark.parametrize("seed", range(6))
@virtual
async def test_one_name_for_two_limits(seed: int) -> None:
    """Gets (100 per 10 s) and lists (10 per 60 s) with one name: 408 calls meet no 429, and use both limits up."""
    limits = {GET: named(100, 10.0), LIST: named(10, 60.0)}
    client = Clients(limits, seed)
    operations = [GET] * 380 + [LIST] * 28
    random.Random(seed).shuffle(operations)
    begun = now()
    await client.calls(operations)
    assert client.statuses == {200: 408}
    assert now() - begun < 60.0 * 3
    assert sorted(limits[GET].server.spent.values())[-3:] == [100, 100, 100]


@pytest.mark.parametrize("seed", range(6))
@virtual
async def test_one_name_for_three_limits_of_the_same_period(seed: int) -> None:
    """Limits that differ in their size alone are different limits."""
    limits = {GET: named(100, 10.0), LIST: named(20, 10.0), CREATE: named(5, 10.0)}
    client = Clients(limits, seed)
    await client.calls([GET] * 250 + [LIST] * 50 + [CREATE] * 12)
    assert client.statuses == {200: 312}


@pytest.mark.parametrize("seed", range(6))
@virtual
async def test_operations_that_share_a_limit_count_together(seed: int) -> None:
    """Gets and lists that spend one limit of 100 meet one 429 at most: before it is known that they share it."""
    shared = named(100, 10.0)
    client = Clients({GET: shared, LIST: shared}, seed)
    await client.calls([GET, LIST])
    await client.calls([GET] * 300 + [LIST] * 150)
    assert client.statuses[429] <= 1
    assert client.statuses[200] == 452
    assert sorted(shared.server.spent.values())[-3:] == [100, 100, 100]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("new", [30, 300])
@virtual
async def test_a_limit_that_changes_in_the_middle_of_a_window(new: int, seed: int) -> None:
    """The limit of a window becomes another one while it is spent: the window goes on with the new limit."""
    limit = named(100, 10.0)
    client = Clients({GET: limit}, seed)
    task = asyncio.create_task(client.calls([GET] * 700))
    await asyncio.sleep(12.5)
    limit.server.limit = new
    await task
    assert client.statuses[200] == 700
    # A limit that shrinks below what is in flight cannot be known before.
    assert client.statuses[429] <= (50 if new < 100 else 0)
    assert len(window_names(client)) == 1


def window_names(client: Clients) -> set[str | None]:
    return {window_of(client.limiter, operation).name for operation in client.limits}


@pytest.mark.parametrize("seed", range(6))
@virtual
async def test_one_of_two_that_share_gets_a_limit_of_its_own(seed: int) -> None:
    """Lists leave the limit that they shared with gets for one of their own: both limits are kept."""
    shared = named(100, 10.0)
    limits = {GET: shared, LIST: shared}
    client = Clients(limits, seed)
    await client.calls([GET, LIST])
    operations = [GET] * 400 + [LIST] * 60
    random.Random(seed).shuffle(operations)
    task = asyncio.create_task(client.calls(operations))
    await asyncio.sleep(10.2)
    limits[LIST] = named(20, 10.0)
    await task
    assert client.statuses[200] == 462
    assert client.statuses[429] == 0
    assert window_of(client.limiter, LIST) is not window_of(client.limiter, GET)


@pytest.mark.parametrize("seed", range(6))
@virtual
async def test_two_that_share_change_together(seed: int) -> None:
    """The shared limit of two operations becomes smaller, for both, and they go on sharing it."""
    shared = named(100, 10.0)
    client = Clients({GET: shared, LIST: shared}, seed)
    await client.calls([GET, LIST])
    task = asyncio.create_task(client.calls([GET] * 300 + [LIST] * 100))
    await asyncio.sleep(10.0)
    shared.server.limit = 60
    await task
    assert client.statuses[200] == 402
    assert window_of(client.limiter, LIST) is window_of(client.limiter, GET)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.25, 0.75])
@virtual
async def test_a_name_that_comes_and_goes(share: float, seed: int) -> None:
    """A quarter of the recorded answers had a name: those without one are about the same limit."""
    dice = random.Random(seed)

    def name() -> str | None:
        return "tokens" if dice.random() < share else None

    limits = {GET: Named(CountingServer(100), name), LIST: Named(CountingServer(10, 60.0), name)}
    client = Clients(limits, seed)
    await client.calls([GET] * 350 + [LIST] * 15)
    assert client.statuses == {200: 365}
    assert waiting_at(client.limiter) == 0
    assert client.limiter.in_flight == 0


@pytest.mark.parametrize("seed", range(6))
@virtual
async def test_a_name_that_changes(seed: int) -> None:
    """A limit that is renamed in the middle of a window is still that limit."""
    names = iter(["a"] * 130 + ["b"] * 1000)
    client = Clients({GET: Named(CountingServer(100), lambda: next(names))}, seed)
    await client.calls([GET] * 400)
    assert client.statuses == {200: 400}


@pytest.mark.parametrize("seed", range(6))
@virtual
async def test_no_name_no_sharing(seed: int) -> None:
    """Limits without a name are separate ones, also if they are of one size."""
    client = Clients({GET: named(100, 10.0, None), LIST: named(100, 10.0, None)}, seed)
    await client.calls([GET] * 200 + [LIST] * 200)
    assert client.statuses == {200: 400}
    assert window_of(client.limiter, LIST) is not window_of(client.limiter, GET)

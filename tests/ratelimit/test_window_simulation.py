"""One window alone against a server that counts windows: what rounding and wrong clocks cost."""

from __future__ import annotations

import heapq
import math
import random

import attrs
import pytest

from dd_sa_tokens import RateLimit
from dd_sa_tokens._ratelimit import Permit
from dd_sa_tokens._ratelimit.window import RateLimitWindow

# A client alone against a server that counts windows


@attrs.frozen
class Run:
    """What came of a simulated bulk fetch.

    Attributes:
        rejected: 429s.
        late: Seconds from the beginning of the last window that had to be used to the last answer.
        full: The counts of all windows but the first and the last.
    """

    rejected: int
    late: float
    full: list[int]


def simulate(
    *,
    rounding: str = "up",
    server_ahead: float = 0.0,
    begin: float = 1234.5,
    limit: int = 40,
    period: float = 3.0,
    requests: int = 200,
    concurrency: int = 20,
    latency: tuple[float, float] = (0.01, 0.04),
    seed: int = 0,
) -> Run:
    """Send requests through a window to a server with a window of its own, in virtual time."""
    randomness = random.Random(seed)
    window = RateLimitWindow()
    counts: dict[int, int] = {}
    pending: list[tuple[float, int, Permit, RateLimit, int]] = []
    now, todo, rejected, number, skew = begin, requests, 0, 0, 1.79e9 + 0.123

    def serve(arrived: float) -> tuple[RateLimit, int]:
        clock = arrived + skew + server_ahead
        number = math.floor(clock / period)
        left_of_it = (number + 1) * period - clock
        reset = {"up": math.ceil(left_of_it), "down": math.floor(left_of_it), "nearest": round(left_of_it)}[rounding]
        used = counts[number] = counts.get(number, 0) + 1
        if used > limit:
            counts[number] = limit
            return RateLimit(limit, period, 0, float(reset)), 429
        return RateLimit(limit, period, limit - used, float(reset)), 200

    while todo or pending:
        assert now < begin + 100 * period, "it does not end"
        while todo and len(pending) < concurrency and window.delay_until_admitted(now) <= 0:
            there, back = randomness.uniform(*latency), randomness.uniform(*latency)
            said, status = serve(now + there)
            number += 1
            heapq.heappush(pending, (now + there + back, number, window.acquire(now), said, status))
            todo -= 1
        wait = window.delay_until_admitted(now)
        rings = now + wait if todo and len(pending) < concurrency and wait > 0 else math.inf
        if pending and pending[0][0] <= rings:
            now, _, permit, said, status = heapq.heappop(pending)
            window.record_response(permit, now, now + skew, said, status)
            if status == 429:
                rejected += 1
                todo += 1
        else:
            now = rings
    windows = sorted(counts)
    start = (begin + skew + server_ahead) // period
    last = start + (requests - 1) // limit  # alone, and without a request lost to rounding, it needs no more windows
    late = now - max(last * period - skew - server_ahead, begin)
    return Run(rejected, late, [counts[number] for number in windows[1:-1]])


BEGINS = [1234.5, 1236.9, 1239.25, 1241.877, 1057.294]
NEAR, FAR = (0.001, 0.004), (0.05, 0.06)  # seconds, one way


@pytest.mark.parametrize("begin", BEGINS)
@pytest.mark.parametrize(("concurrency", "latency"), [(1, NEAR), (20, (0.01, 0.04)), (50, FAR)])
def test_alone_and_in_time_it_meets_no_429_and_wastes_nothing(
    concurrency: int, latency: tuple[float, float], begin: float
) -> None:
    """Rounding up, as the real API does, with clocks right: no 429, full windows, done soon after the limit's time."""
    run = simulate(begin=begin, concurrency=concurrency, latency=latency)
    assert run.rejected == 0
    assert all(used >= 0.99 * 40 for used in run.full)
    assert run.late <= 0.5


@pytest.mark.parametrize("latency", [NEAR, FAR])
@pytest.mark.parametrize("begin", BEGINS)
@pytest.mark.parametrize("server_ahead", [-0.7, -0.43, -0.1, 0.1, 0.43, 0.7])
def test_a_server_whose_clock_is_off_costs_one_429(
    server_ahead: float, begin: float, latency: tuple[float, float]
) -> None:
    """The wall clock's guess is dropped after the first 429 that it caused, and never misleads again."""
    run = simulate(server_ahead=server_ahead, begin=begin, latency=latency, requests=400)
    assert run.rejected <= 1
    assert all(used >= 0.99 * 40 for used in run.full)


@pytest.mark.parametrize("latency", [NEAR, FAR])
@pytest.mark.parametrize("begin", BEGINS)
@pytest.mark.parametrize("rounding", ["nearest", "down"])
def test_a_server_that_rounds_differently_costs_one_429(
    rounding: str, begin: float, latency: tuple[float, float]
) -> None:
    """Rounding to nearest or down is found out by one early request, and then known for good."""
    run = simulate(rounding=rounding, begin=begin, latency=latency, requests=400)
    assert run.rejected <= 1
    assert all(used >= 0.99 * 40 for used in run.full)


@pytest.mark.parametrize("begin", BEGINS)
@pytest.mark.parametrize("server_ahead", [-0.43, 0.43])
@pytest.mark.parametrize("rounding", ["nearest", "down"])
def test_a_server_that_rounds_differently_by_a_wrong_clock_costs_two_429s(
    rounding: str, server_ahead: float, begin: float
) -> None:
    """Two unknowns, each found out by one early request at the most."""
    run = simulate(rounding=rounding, server_ahead=server_ahead, begin=begin, requests=400)
    assert run.rejected <= 2
    assert all(used >= 0.99 * 40 for used in run.full)


@pytest.mark.parametrize("period", [1.0, 10.0, 60.0, 3600.0])
@pytest.mark.parametrize("limit", [1, 7, 100])
def test_any_limit_and_period_are_kept(limit: int, period: float) -> None:
    """From one request a second to hourly windows: no 429, and every full window used up."""
    run = simulate(limit=limit, period=period, requests=limit * 5)
    assert run.rejected == 0
    assert all(used >= 0.99 * limit for used in run.full)

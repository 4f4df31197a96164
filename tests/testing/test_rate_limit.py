"""The fake server's rate limit, over real sockets and with virtual time."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plain_client import LIMIT_HEADERS, Got, address, get
from yarl import URL

from dd_sa_tokens.testing import FakeDatadog, FixedWindow

EPOCH = 1_800_000_000.0


async def test_the_rate_limit(session: aiohttp.ClientSession) -> None:
    """Requests within the limit are answered with what is left, the others with 429 and 0 left."""
    async with FakeDatadog(tokens=1, rate_limit=(3, 3600.0)) as datadog:
        answers = [await get(session, datadog) for _ in range(5)]

    assert [got.status for got in answers] == [200, 200, 200, 429, 429]
    assert [got.headers["X-RateLimit-Remaining"] for got in answers] == ["2", "1", "0", "0", "0"]
    assert answers[-1].json == {"errors": ["Too many requests"]}
    assert (datadog.requests, datadog.rejected) == (5, 2)
    for got in answers:
        assert got.headers["X-RateLimit-Limit"] == "3"
        assert got.headers["X-RateLimit-Period"] == "3600"
        assert got.headers["X-RateLimit-Name"] == "service_account_access_tokens"
        assert (date(got) + int(got.headers["X-RateLimit-Reset"])) % 3600 == 0


def date(got: Got) -> float:
    return parsedate_to_datetime(got.headers["Date"]).timestamp()


async def test_token_operations_share_the_rate_limit(session: aiohttp.ClientSession) -> None:
    """Gets, lists and requests that fail spend the same rate limit, under the same name."""
    async with FakeDatadog(tokens=1, rate_limit=(10, 3600.0)) as datadog:
        urls = [address(datadog), address(datadog, datadog.token_ids[0]), address(datadog, "x"), URL(datadog.url)]
        answers = [await get(session, datadog, url) for url in urls]
        answers.append(await get(session, datadog, address(datadog), **{"page[size]": "0"}))

    assert [got.headers["X-RateLimit-Remaining"] for got in answers] == list("98765")
    assert len({got.headers["X-RateLimit-Name"] for got in answers}) == 1


async def test_no_rate_limit(session: aiohttp.ClientSession) -> None:
    """Without a limit there are no rate-limit headers."""
    async with FakeDatadog(tokens=1, rate_limit=None) as datadog:
        got = await get(session, datadog)

    assert got.status == 200
    assert not LIMIT_HEADERS & set(got.headers)


async def test_rate_limit_used_by_others(session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others used counts in the window that is current at the start, and in no later one."""
    now = EPOCH + 9.5
    monkeypatch.setattr(time, "time", lambda: now)
    async with FakeDatadog(tokens=1, rate_limit=(5, 10.0), rate_limit_used=3) as datadog:
        assert (await get(session, datadog)).headers["X-RateLimit-Remaining"] == "1"
    async with FakeDatadog(tokens=1, rate_limit=(5, 10.0), rate_limit_used=7) as datadog:
        assert (await get(session, datadog)).status == 429
    async with FakeDatadog(tokens=1, rate_limit=(5, 10.0), rate_limit_used=7) as datadog:
        now += 1.0
        got = await get(session, datadog)
        assert (got.status, got.headers["X-RateLimit-Remaining"]) == (200, "4")


@pytest.mark.parametrize(("rounding", "reset"), [("up", "5"), ("nearest", "4"), ("down", "4")])
async def test_clock_offset_and_rounding(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, rounding: Any, reset: str
) -> None:
    """The offset moves the windows and the Date header together, and the rounding is the one asked for."""
    monkeypatch.setattr(time, "time", lambda: EPOCH + 4.7)
    async with FakeDatadog(
        tokens=1, rate_limit=(1, 10.0), clock_offset=-9.0, reset_rounding=rounding, rate_limit_used=0
    ) as datadog:
        got = await get(session, datadog)

    assert date(got) == EPOCH - 5
    assert got.headers["X-RateLimit-Reset"] == reset


async def test_a_window_that_passes(session: aiohttp.ClientSession) -> None:
    """With the real clock, a used-up window is followed by a fresh one."""
    async with FakeDatadog(tokens=1, rate_limit=(1, 0.25)) as datadog:
        statuses = [(await get(session, datadog)).status]
        while len(statuses) < 2 or statuses[-2:] != [429, 200]:
            await asyncio.sleep(0.01)
            statuses.append((await get(session, datadog)).status)

    assert statuses[0] == 200


times = st.floats(EPOCH, EPOCH + 100.0).map(lambda at: round(at, 6))


@given(st.integers(1, 5), st.integers(1, 30), st.integers(0, 7), st.lists(times, max_size=60))
def test_never_more_than_the_limit(limit: int, period: int, used: int, moments: list[float]) -> None:
    """Each window admits exactly as many requests as the limit allows, at any times."""
    window = FixedWindow(limit, period, "up", used)
    moments.sort()
    admitted: Counter[float] = Counter()
    for at in moments:
        allowed, headers = window.spend(at)
        number = at // period
        first = number == moments[0] // period
        room = limit - admitted[number] - (used if first else 0)
        assert allowed == (room > 0)
        admitted[number] += allowed
        assert headers["X-RateLimit-Remaining"] == str(max(0, room - 1))
        assert set(headers) == LIMIT_HEADERS


@given(st.sampled_from([1, 3, 10, 60, 3600]), times)
def test_a_reset_that_is_rounded_up(period: int, now: float) -> None:
    """Rounded up, the reset is 1 to the period, and Date and reset together hit the boundary, as recorded."""
    reset = int(FixedWindow(5, period).spend(now)[1]["X-RateLimit-Reset"])

    assert 1 <= reset <= period
    assert (math.floor(now) + reset) % period == 0


@given(st.sampled_from([1, 3, 10, 2.5, 0.1, 3600]), times, st.sampled_from(["up", "nearest", "down"]))
def test_a_reset_is_near_the_truth(period: float, now: float, rounding: Any) -> None:
    """However it is rounded, the reset is off by less than a second, to the side that the rounding says."""
    reset = int(FixedWindow(5, period, rounding).spend(now)[1]["X-RateLimit-Reset"])
    left = period - now % period
    low, high = {"up": (0.0, 1.0), "nearest": (-0.5, 0.5), "down": (-1.0, 0.0)}[rounding]

    assert 0 <= reset <= math.ceil(period)
    assert low - 1e-6 <= reset - left <= high + 1e-6


@pytest.mark.parametrize(("period", "header"), [(10, "10"), (10.0, "10"), (100.0, "100"), (2.5, "2.5"), (0.1, "0.1")])
def test_the_period_as_a_header(period: float, header: str) -> None:
    """A whole period has no decimals."""
    assert FixedWindow(1, period).spend(EPOCH)[1]["X-RateLimit-Period"] == header


def test_a_clock_that_goes_backwards() -> None:
    """A clock that is set back does not give a window's requests again."""
    window = FixedWindow(1, 10)

    assert [window.spend(at)[0] for at in (EPOCH + 10, EPOCH + 9, EPOCH + 11, EPOCH + 20)] == [True, False, False, True]


def test_used_belongs_to_the_first_window_heard_of() -> None:
    """What is used already counts from the first `advance` or `spend` on, and is forgotten with its window."""
    window = FixedWindow(5, 10, "up", 3)
    window.advance(EPOCH)
    assert window.spend(EPOCH + 9)[1]["X-RateLimit-Remaining"] == "1"
    assert window.spend(EPOCH + 10)[1]["X-RateLimit-Remaining"] == "4"

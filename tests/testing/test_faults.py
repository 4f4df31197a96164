"""Scripted faults, over real sockets."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest
from support.plain_client import LIMIT_HEADERS, address, get, raw
from support.waiting import until

from dd_sa_tokens.testing import FakeDatadog


async def test_a_status(session: aiohttp.ClientSession) -> None:
    """A scripted status is answered as often as asked, without rate-limit headers, and spends no rate limit."""
    async with FakeDatadog(tokens=1, rate_limit=(9, 3600.0)) as datadog:
        datadog.fail_next(2, status=503)
        answers = [await get(session, datadog) for _ in range(3)]

    assert [got.status for got in answers] == [503, 503, 200]
    assert answers[0].json == {"errors": ["Service Unavailable"]}
    assert answers[0].headers["Content-Type"] == "application/vnd.api+json"
    assert not LIMIT_HEADERS & set(answers[0].headers)
    assert answers[2].headers["X-RateLimit-Remaining"] == "8"
    assert (datadog.requests, datadog.rejected) == (3, 0)


async def test_a_status_with_headers_and_body(session: aiohttp.ClientSession) -> None:
    """A proxy's HTML page, its own headers and a status that HTTP has no name for can be scripted."""
    async with FakeDatadog(tokens=1) as datadog:
        datadog.fail_next(status=512, headers={"Retry-After": "7", "date": "no date"}, body=b"<h1>Sorry</h1>")
        datadog.fail_next(status=200, headers={"content-type": "text/plain"}, body=b"{")
        datadog.fail_next(status=512)
        page, plain, bare = [await get(session, datadog) for _ in range(3)]

    assert (page.status, page.body, page.headers["Content-Type"]) == (512, b"<h1>Sorry</h1>", "text/html")
    assert (page.headers["Retry-After"], page.headers["Date"]) == ("7", "no date")
    assert (plain.status, plain.body, plain.headers["Content-Type"]) == (200, b"{", "text/plain")
    assert bare.json == {"errors": ["Error 512"]}


async def test_a_scripted_429(session: aiohttp.ClientSession) -> None:
    """A scripted 429 counts as rejected; it has no rate-limit headers unless they are given."""
    async with FakeDatadog(tokens=1, rate_limit=(9, 3600.0)) as datadog:
        datadog.fail_next(status=429)
        datadog.fail_next(status=429, headers={"X-RateLimit-Reset": "7, 7"})
        bare, joined = await get(session, datadog), await get(session, datadog)

    assert bare.json == {"errors": ["Too many requests"]}
    assert not LIMIT_HEADERS & set(bare.headers)
    assert joined.headers["X-RateLimit-Reset"] == "7, 7"
    assert (datadog.requests, datadog.rejected) == (2, 2)


async def test_a_dropped_connection() -> None:
    """A drop closes the connection without a byte."""
    async with FakeDatadog(tokens=1) as datadog:
        datadog.fail_next(drop=True)
        path = address(datadog, datadog.token_ids[0]).raw_path

        assert await raw(datadog, path) == b""
        assert (await raw(datadog, path)).startswith(b"HTTP/1.1 200 ")
    assert datadog.requests == 2


async def test_a_truncated_answer(session: aiohttp.ClientSession) -> None:
    """A truncated answer announces its whole length, sends half, and the connection closes."""
    async with FakeDatadog(tokens=1, rate_limit=(9, 3600.0)) as datadog:
        whole = await get(session, datadog)
        datadog.fail_next(truncate=True)
        answer = await raw(datadog, address(datadog, datadog.token_ids[0]).raw_path)
        datadog.fail_next(truncate=True)
        with pytest.raises(aiohttp.ClientPayloadError):
            await get(session, datadog)
        assert (await get(session, datadog)).body == whole.body

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert f"Content-Length: {len(whole.body)}".encode() in head
    assert b"X-RateLimit-Remaining: 7" in head
    assert body == whole.body[: len(whole.body) // 2]


async def test_a_stall(session: aiohttp.ClientSession) -> None:
    """A stalled request is answered as usual, only later, and delays no other request."""
    async with FakeDatadog(tokens=1) as datadog:
        datadog.fail_next(stall=0.2)
        start = time.monotonic()
        stalled = asyncio.create_task(get(session, datadog))
        await until(lambda: datadog.requests == 1)
        assert (await get(session, datadog)).status == 200
        assert not stalled.done()
        assert (await stalled).status == 200
        assert time.monotonic() - start >= 0.2


async def test_faults_queue_up(session: aiohttp.ClientSession) -> None:
    """Faults come in the order in which they were scripted, also before the start."""
    datadog = FakeDatadog(tokens=1)
    datadog.fail_next(2, status=500)
    datadog.fail_next(status=502)
    async with datadog:
        datadog.fail_next(status=504)
        assert [(await get(session, datadog)).status for _ in range(5)] == [500, 500, 502, 504, 200]


async def test_a_fault_for_all_requests(session: aiohttp.ClientSession) -> None:
    """A fault for any number of requests takes no memory for each of them."""
    async with FakeDatadog() as datadog:
        datadog.fail_next(10**30, status=503)
        datadog.fail_next(2, drop=True)
        assert (await get(session, datadog)).status == 503
        assert datadog.pending_faults == 10**30 + 1
        datadog.clear_faults()
        assert (datadog.pending_faults, (await get(session, datadog)).status) == (0, 200)


async def test_faults_wait_for_good_requests(session: aiohttp.ClientSession) -> None:
    """Requests with wrong keys or beyond the limit get their 401 or 429, and leave the fault to later requests."""
    async with FakeDatadog(tokens=1, rate_limit=(1, 3600.0)) as datadog:
        assert (await get(session, datadog)).status == 200
        datadog.fail_next(drop=True)
        assert (await get(session, datadog, headers={})).status == 401
        assert (await get(session, datadog)).status == 429
        assert datadog.pending_faults == 1


async def test_latency(session: aiohttp.ClientSession) -> None:
    """Each answer takes the latency, refusals too, and requests do not wait for one another."""
    async with FakeDatadog(tokens=1, latency=0.05) as datadog:
        start = time.monotonic()
        assert (await get(session, datadog, headers={})).status == 401
        assert time.monotonic() - start >= 0.05
        start = time.monotonic()
        await asyncio.gather(*(get(session, datadog) for _ in range(20)))
        assert 0.05 <= time.monotonic() - start < 20 * 0.05

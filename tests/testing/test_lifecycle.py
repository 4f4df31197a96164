"""Starting and ending the fake server."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest
from support.plain_client import address, get, raw
from support.waiting import until

from dd_sa_tokens.testing import FakeDatadog


async def test_it_is_gone_after_its_end(session: aiohttp.ClientSession) -> None:
    """After the end the port is closed, and no task is left."""
    before = asyncio.all_tasks()
    async with FakeDatadog(tokens=1) as datadog:
        assert datadog.url.startswith("http://127.0.0.1:")
        url = address(datadog, datadog.token_ids[0])
        assert (await get(session, datadog)).status == 200

    assert asyncio.all_tasks() == before
    with pytest.raises(aiohttp.ClientConnectorError):
        await get(session, datadog, url)
    with pytest.raises(RuntimeError, match="async with"):
        _ = datadog.url


@pytest.mark.parametrize("options", [{"latency": 60.0}, {}], ids=["latency", "stall"])
@pytest.mark.parametrize("client_stays", [True, False])
async def test_its_end_waits_for_no_request(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture, options: dict[str, float], client_stays: bool
) -> None:
    """The end takes no time and logs nothing while requests stall, with and without clients that still wait."""
    before = asyncio.all_tasks()
    async with FakeDatadog(tokens=1, **options) as datadog:
        datadog.fail_next(5, stall=60.0)
        stalled = [asyncio.create_task(get(session, datadog)) for _ in range(5)]
        await until(lambda: datadog.requests == 5)
        if not client_stays:
            for task in stalled:
                task.cancel()
            await asyncio.wait(stalled)
        start = time.monotonic()
    assert time.monotonic() - start < 5
    if client_stays:
        await asyncio.wait(stalled)
        assert all(isinstance(task.exception(), aiohttp.ClientConnectionError) for task in stalled)
    assert asyncio.all_tasks() == before
    assert caplog.records == []


async def test_it_can_be_started_again(session: aiohttp.ClientSession) -> None:
    """It can be started again after its end, goes on counting, and cannot be started twice at a time."""
    datadog = FakeDatadog(tokens=1)
    for count in (1, 2):
        async with datadog:
            assert (await get(session, datadog)).status == 200
            assert datadog.requests == count
            with pytest.raises(RuntimeError, match="already"):
                await datadog.__aenter__()


async def test_faults_and_refusals_leave_no_complaint(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    """The server logs nothing when it fails on purpose."""
    async with FakeDatadog(tokens=1, rate_limit=(20, 3600.0)) as datadog:
        for fault in ({"drop": True}, {"truncate": True}, {"status": 500}, {"stall": 0.001}):
            datadog.fail_next(**fault)
            await raw(datadog, address(datadog).raw_path)
        assert (await get(session, datadog, headers={})).status == 401

    assert caplog.records == []

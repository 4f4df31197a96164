"""Bare aiohttp as fast as it gets by hand, with its public API alone: no types, rate limit, retry or timeout."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from .payloads import Target

if TYPE_CHECKING:
    from .clients import Job

try:
    from orjson import loads
except ImportError:
    from json import loads


def tuned_session(target: Target, concurrency: int) -> aiohttp.ClientSession:
    """Return a session without cookies and timers."""
    return aiohttp.ClientSession(
        headers=target.headers,
        connector=aiohttp.TCPConnector(limit=concurrency),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def tuned(session: aiohttp.ClientSession, job: Job) -> None:
    """Workers share one iterator; URLs are made from their base; a body that is complete is read without waiting."""
    base, path, deliver = URL(job.target.url), job.target.path + "/", job.deliver
    remaining = iter(job.token_ids)

    async def work() -> None:
        for token_id in remaining:
            response = await session.get(base.with_path(path + token_id, encoded=True), allow_redirects=False)
            complete = response.content.is_eof()
            body = response.content.read_nowait() if complete else await response.read()
            deliver(token_id, loads(body)["data"]["id"])

    await asyncio.gather(*(work() for _ in range(job.concurrency)))

"""Fixtures: a clean environment, servers and clients that end with the test, and what the loop reports."""

from __future__ import annotations

import asyncio
import gc
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from aioresponses import aioresponses
from support.calls import FAST
from support.cancelling import turns
from support.keys import KEYS
from support.mocked import fit_to_aiohttp
from support.servers import RawServer, StartServer

from dd_sa_tokens import TokensClient

fit_to_aiohttp()


@pytest.fixture(autouse=True)
def _no_datadog_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the keys and the site of whoever runs the tests out of them."""
    for name in [name for name in os.environ if name.startswith("DD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A plain session."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def mocked() -> Iterator[aioresponses]:
    """Answer in aiohttp's place; no socket is opened."""
    with aioresponses() as mock:
        yield mock


@pytest.fixture
async def complaints() -> AsyncIterator[list[dict[str, Any]]]:
    """Collect what the loop complains about (a task's exception that nobody looked at, say): there must be nothing."""
    complaints: list[dict[str, Any]] = []
    gc.freeze()  # what was there before is none of this test's garbage, and takes long to look through
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    yield complaints
    gc.collect()
    gc.unfreeze()
    for _ in range(2):
        await asyncio.sleep(0)
    assert complaints == []


@pytest.fixture
async def start_server() -> AsyncIterator[StartServer]:
    """Start servers; they end with the test."""
    async with AsyncExitStack() as stack:

        async def start(context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> RawServer:
            server = RawServer()
            await server.start(context, host)
            stack.push_async_callback(server.stop)
            return server

        yield start


@pytest.fixture
async def server(start_server: StartServer) -> RawServer:
    """A server that answers each request with its token, unless told otherwise."""
    return await start_server()


@pytest.fixture
async def connect(server: RawServer) -> AsyncIterator[Callable[..., TokensClient]]:
    """Make clients of the server; they are closed with the test."""
    async with AsyncExitStack() as stack:

        def make(**options: Any) -> TokensClient:
            client = TokensClient(**({"base_url": server.url, "retry": FAST} | KEYS | options))
            stack.push_async_callback(client.close)
            return client

        yield make


@pytest.fixture
async def nothing_left() -> AsyncIterator[None]:
    """See that no task is left, and that the loop has nothing to complain about, such as an exception nobody saw."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    yield
    gc.collect()
    await turns(3)
    assert asyncio.all_tasks() - {asyncio.current_task()} == set()
    assert complaints == []

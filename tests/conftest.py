"""Fixtures: a clean environment, servers and clients that end with the test, and what the loop reports."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from aioresponses import aioresponses
from support.calls import FAST
from support.keys import KEYS
from support.servers import RawServer, StartServer
from support.waiting import others, turns

from dd_sa_tokens import TokensClient

pytest_plugins = ["dd_sa_tokens.testing.plugin"]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests without the garbage collector, which finds little there and takes a third of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop() -> Generator[None, object, object]:
    """Keep the garbage collector away from the collected tests: looking at them takes a tenth of the run's CPU time."""
    gc.freeze()
    try:
        return (yield)
    finally:
        gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _signals_reach_children() -> None:
    """Let signals end the processes that tests start, also under nohup and in the background of a script.

    There SIGHUP or SIGINT is ignored. A child inherits that, and the command line respects it. A handler that does
    nothing ignores the signal here as well, and no child inherits it.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture(autouse=True)
def _no_datadog_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the user's own Datadog keys and site from the environment of the tests."""
    for name in [name for name in os.environ if name.startswith("DD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A plain session."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def mocked(aioresponses_for_aiohttp: None) -> Iterator[aioresponses]:
    """Answer requests without a server; no socket is opened."""
    with aioresponses() as mock:
        yield mock


@pytest.fixture
async def loop_errors() -> AsyncIterator[list[dict[str, Any]]]:
    """Collect the errors that the event loop reports (an exception that no code retrieved, for example): none may come.

    The garbage collector looks at nothing that was there before the test.
    """
    errors: list[dict[str, Any]] = []
    gc.freeze()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    yield errors
    gc.collect()
    await turns(3)
    assert errors == []


@pytest.fixture
async def nothing_left(loop_errors: list[dict[str, Any]]) -> AsyncIterator[None]:
    """See that no task is left at the end, and that the event loop reports no error."""
    yield
    gc.collect()
    await turns(3)
    assert others() == set()


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
    """A server that answers each request with its token, unless a script says otherwise."""
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

"""What keeps a request from leaving: it hangs before it is sent, and works once the obstacle is gone."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiohttp
import attrs

from .replies import stall
from .servers import RawServer


@attrs.define
class Obstacle:
    """Something in the way of a server.

    Attributes:
        put: Puts it there.
        remove: Takes it away.
    """

    put: Callable[[], object]
    remove: Callable[[], object]


@asynccontextmanager
async def dropped_syns(server: RawServer, _session: aiohttp.ClientSession | None) -> AsyncIterator[Obstacle]:
    """The server's queue of new connections is full, so the kernel drops their first packets."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    waiting: list[socket.socket] = []

    async def put() -> None:
        await server.stop()
        listener.bind(("127.0.0.1", server.port))
        listener.listen(0)
        for _ in range(4):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(("127.0.0.1", server.port))

    async def remove() -> None:
        for other in waiting:
            other.close()
        await server.start(sock=listener.dup())

    try:
        yield Obstacle(put, remove)
    finally:
        for other in (*waiting, listener):
            other.close()


@asynccontextmanager
async def stalled_handshake(
    server: RawServer, _session: aiohttp.ClientSession | None, context: ssl.SSLContext | None = None
) -> AsyncIterator[Obstacle]:
    """The server accepts connections and says nothing, so the TLS handshake does not end."""

    async def put() -> None:
        await server.stop()
        server.silent = True
        await server.start(port=server.port)

    async def remove() -> None:
        await server.stop()
        server.silent = False
        await server.start(context, port=server.port)

    yield Obstacle(put, remove)


@asynccontextmanager
async def taken_connection(server: RawServer, session: aiohttp.ClientSession | None) -> AsyncIterator[Obstacle]:
    """The only connection of a borrowed session is held by another request."""
    assert session is not None
    others: list[asyncio.Task[aiohttp.ClientResponse]] = []

    async def put() -> None:
        server.script(stall())
        others.append(asyncio.create_task(session._request("GET", server.url)))
        await server.arrival(len(server.requests) + 1)
        server.requests.pop()

    async def remove() -> None:
        for other in others:
            other.cancel()
        await asyncio.wait(others)

    yield Obstacle(put, remove)
    await remove()


@asynccontextmanager
async def full_executor(_server: RawServer, _session: aiohttp.ClientSession | None) -> AsyncIterator[Obstacle]:
    """All threads of the loop's executor are at work, so a host name is not looked up."""
    released = threading.Event()
    executor = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(executor)

    async def put() -> None:
        executor.submit(released.wait)

    async def remove() -> None:
        released.set()

    yield Obstacle(put, remove)
    released.set()


Obstruct = Callable[[RawServer, aiohttp.ClientSession | None], AbstractAsyncContextManager[Obstacle]]
